"""A known class distribution where a model is used, and the one that its training left in it.

With p(x|c) the same in training and use, the posterior moves by the ratio of the priors alone (Saerens et al., 2002;
post-hoc logit adjustment, Menon et al., 2021): logits + log target - log source.
"""

import json

import numpy as np
import numpy.typing as npt

from keras_lt.files import expanded, read_text
from keras_lt.recipe import Recipe
from keras_lt.samplers import probability_table

TOLERANCE = 1e-3  # of a prior's sum: 365 probabilities written with six digits


def read_prior(target: str, class_counts: npt.ArrayLike) -> np.ndarray | None:
    """The class distribution [C] that `--target_prior` names; None where it is empty.

    Args:
      target: "", "uniform", "train" (as the training images), or a file of C numbers: one per line, or a JSON list.
      class_counts: training images per class, [C].
    Raises:
      ValueError: there is no such file, or it holds no distribution over C classes.
    """
    counts = np.asarray(class_counts, np.float64)
    if not target:
        return None
    if target == "uniform":
        return np.full(counts.size, 1 / counts.size)
    if target == "train":
        return counts / counts.sum()
    try:
        text = read_text(expanded(target))
    except OSError as error:
        raise ValueError(f"target_prior must be uniform, train, or a file. Received: {target!r} ({error})") from error
    try:
        numbers = np.array(json.loads(text) if text.lstrip().startswith("[") else text.split(), np.float64)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{target} must hold a number per line, or a JSON list of numbers: {error}") from error
    return check_prior(target, numbers, counts.size)


def trained_prior(recipe: Recipe, class_counts: npt.ArrayLike) -> np.ndarray:
    """The class distribution [C] that a model trained by a recipe takes for granted.

    What the last epoch drew, times the class weights; a loss that adds the log of the class counts to the logits takes
    the counts out again.
    """
    counts = np.asarray(class_counts, np.float64)
    prior = probability_table(recipe.sampler, counts, recipe.epochs)[-1]
    weights = recipe.weight_table(counts)
    if weights is not None:
        prior = prior * weights[-1]
    prior = prior / recipe.loss_entry.prior_beside(counts)
    return prior / prior.sum()


def logit_offset(
    target_prior: npt.ArrayLike | None, source_prior: npt.ArrayLike | None = None, *, classes: int
) -> np.ndarray:
    """What to add to the logits for another class distribution, float32 [C]; zeros for no target.

    Args:
      target_prior: class probabilities where the model is used, [C].
      source_prior: those that its training left in it, [C]; None is uniform, as balanced training leaves them.
    Raises:
      ValueError: one of them is no distribution over C classes.
    """
    if target_prior is None:
        return np.zeros(classes, np.float32)
    target = check_prior("target_prior", target_prior, classes)
    source = np.full(classes, 1 / classes) if source_prior is None else source_prior
    source = check_prior("source_prior", source, classes)
    return (np.log(target) - np.log(source)).astype(np.float32)


def check_prior(name: str, prior: npt.ArrayLike, classes: int) -> np.ndarray:
    """Class probabilities [C], or a ValueError where they are none."""
    prior = np.asarray(prior, np.float64)
    if prior.shape != (classes,) or not (prior > 0).all() or abs(prior.sum() - 1) > TOLERANCE:
        raise ValueError(
            f"{name} must be {classes} probabilities above 0 that sum to 1. "
            f"Received: shape {prior.shape}, smallest {prior.min(initial=np.inf):g}, sum {prior.sum():g}"
        )
    return prior
