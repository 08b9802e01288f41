"""The class distribution where a model is used, known or estimated, and the one that its training left in it.

With p(x|c) the same in training and use, the posterior moves by the ratio of the priors alone (Saerens et al., 2002;
post-hoc logit adjustment, Menon et al., 2021): logits + log target - log source.
"""

import json
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from keras_lt.files import expanded, read_text
from keras_lt.labels import labels_of
from keras_lt.metrics import long_tailed_shares
from keras_lt.recipe import Recipe
from keras_lt.registry import Entry, check_numbers, member
from keras_lt.samplers import probability_table
from keras_lt.significance import interval

CALIBRATIONS = ("none", "temperature")
LOG_TEMPERATURES = (-12.0, 7.0)  # between which one is searched, in so many steps
SEARCH_STEPS = 32
FITTED_NUMBERS = 2**24  # logits that a temperature is fitted to; of more, every so many examples
TOLERANCE = 1e-3  # of a prior's sum: 365 probabilities written with six digits
# Of expectation-maximisation.
STEPS = 1000
SETTLED = 1e-7  # of every probability from one step to the next
BOOTSTRAP_STEPS = 30  # from the estimate on, which is near
LEAST = 1e-8  # of a class that is not found at all, whose logits stay finite


# Class distributions by name: training images per class [C] -> probabilities [C].
PRIORS: dict[str, Entry] = {
    "uniform": Entry(lambda class_counts: np.full(len(class_counts), 1 / len(class_counts))),
    "train": Entry(lambda class_counts: np.asarray(class_counts, np.float64) / np.sum(class_counts)),
    "forward": Entry(lambda class_counts, ratio=25.0: long_tailed_shares(class_counts, ratio=ratio)),
    "backward": Entry(lambda class_counts, ratio=25.0: long_tailed_shares(class_counts, ratio=ratio, reverse=True)),
}


def read_prior(target: str, class_counts: npt.ArrayLike, *, flag: str = "target_prior") -> np.ndarray | None:
    """The class distribution [C] that a flag such as `--target_prior` names; None where it is empty.

    Args:
      target: "", a name in `PRIORS` ("uniform", "train" as the training images, "forward:ratio=25" long-tailed as they
        are, "backward:ratio=25" the other way round), or a file of C numbers: one per line, or a JSON list.
      flag: what messages call it.
      class_counts: training images per class, [C].
    Raises:
      ValueError: there is no such file, or it holds no distribution over C classes.
    """
    counts = np.asarray(class_counts, np.float64)
    if not target:
        return None
    if target.partition(":")[0] in PRIORS:
        return member(PRIORS, target, what=flag)(counts)
    try:
        text = read_text(expanded(target))
    except OSError as error:
        raise ValueError(
            f"{flag} must be {', '.join(PRIORS)}, or a file. Received: {target!r} ({error.strerror})"
        ) from error
    try:
        numbers = np.array(json.loads(text) if text.lstrip().startswith("[") else text.split(), np.float64)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{target} must hold {counts.size} probabilities in the order of the classes, a number per line or a JSON "
            f"list of numbers, and nothing else. Received: {error}"
        ) from error
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
    source = check_prior("source_prior", source_prior, classes)
    return (np.log(target) - np.log(source)).astype(np.float32)


def fit_temperature(logits: npt.ArrayLike, labels: npt.ArrayLike, source_prior: npt.ArrayLike | None = None) -> float:
    """The temperature that makes scores log posteriors: of logits / T the labels are most likely (Guo et al., 2017).

    Distances and normalised weights order the classes, but say nothing of how sure they are, so that a prior added to
    them as they are would count too much or too little. Where all examples have their class's logit the largest, the
    likelihood grows without end as T falls; one example more, which may be of any class, counts there (Platt, 1999).

    Args:
      logits, labels: of examples that the classifier was not trained on, [N, C] and [N].
      source_prior: the class probabilities that the logits take for granted, [C]; None is uniform.
    Raises:
      ValueError: no examples, logits that are no finite numbers, or labels that do not fit them.
    """
    logits = np.asarray(logits, np.float32)
    labels = labels_of(labels, len(logits), classes=logits.shape[-1])
    kept = fitted_rows(*logits.shape)
    logits, labels = _finite("logits", logits[kept]), labels[kept]
    counts = np.maximum(np.bincount(labels, minlength=logits.shape[1]), 0.5)  # a class may be missing
    offset = logit_offset(counts / counts.sum(), source_prior, classes=counts.size)
    all_correct = (np.take_along_axis(logits, labels[:, np.newaxis], axis=1)[:, 0] == logits.max(axis=1)).all()
    unsure = all_correct / (len(labels) + 1)

    def loss(log_temperature):
        scores = logits * np.float32(np.exp(-log_temperature)) + offset
        scores -= scores.max(axis=1, keepdims=True)
        own = np.take_along_axis(scores, labels[:, np.newaxis], axis=1)[:, 0]
        expected = (1 - unsure) * own + unsure * scores.mean(axis=1)
        return np.mean(np.log(np.exp(scores).sum(axis=1)) - expected, dtype=np.float64)

    # Convex in 1 / T, so that it has one valley, which a golden-section search halves its way into.
    low, high = LOG_TEMPERATURES
    share = (5**0.5 - 1) / 2
    for _ in range(SEARCH_STEPS):
        left, right = high - share * (high - low), low + share * (high - low)
        low, high = (low, right) if loss(left) <= loss(right) else (left, high)
    return float(np.exp((low + high) / 2))


def fitted_rows(examples: int, classes: int) -> slice:
    """The rows of logits that a temperature is fitted on: all, or some of very many."""
    return slice(None, None, examples * classes // FITTED_NUMBERS + 1)


def check_prior(name: str, prior: npt.ArrayLike | None, classes: int) -> np.ndarray:
    """Class probabilities [C], uniform where None are given, or a ValueError where they are no such."""
    prior = np.full(classes, 1 / classes) if prior is None else np.asarray(prior, np.float64)
    if prior.shape != (classes,) or not (prior > 0).all() or abs(prior.sum() - 1) > TOLERANCE:
        raise ValueError(
            f"{name} must be {classes} probabilities above 0 that sum to 1. "
            f"Received: shape {prior.shape}, smallest {prior.min(initial=np.inf):g}, sum {prior.sum():g}"
        )
    return prior


class PriorEstimate(NamedTuple):
    """A class distribution [C], and those of samples that examples are drawn anew for, [rounds, C]."""

    prior: np.ndarray
    samples: np.ndarray

    def share(self, classes: np.ndarray, *, level: float = 0.95) -> tuple[float, float, float]:
        """The probability of some classes together, and the ends of its interval, NaN without samples.

        Args:
          classes: which, bool [C].
          level: of the interval.
        """
        drawn = self.samples[:, classes].sum(axis=1)
        ends = interval(drawn, level) if drawn.size else (np.nan, np.nan)
        return float(self.prior[classes].sum()), float(ends[0]), float(ends[1])


def estimate_prior(
    log_posteriors: npt.ArrayLike,
    source_prior: npt.ArrayLike | None = None,
    *,
    weights: npt.ArrayLike | None = None,
    rounds: int = 0,
    seed: int = 0,
) -> PriorEstimate:
    """The class distribution under which a sample is most likely, by expectation-maximisation (Saerens et al., 2002).

    Repeats q(c) <- mean over examples of p(c|x) q(c) / pi(c), normalised over classes, from q = pi on. It takes images
    of a class to be alike in training and here, and posteriors that are calibrated: `fit_temperature` first.

    Args:
      log_posteriors: log p(c|x) of each example up to a constant of its own, [N, C]: logits / temperature.
      source_prior: the class distribution pi that they take for granted, [C]; None is uniform.
      weights: how often each example counts, [N]; None is once.
      rounds: samples of the bootstrap over examples, for intervals.
      seed: of the bootstrap.
    Raises:
      ValueError: no examples, a source prior that is none, or weights that do not fit or are all 0.
    """
    scores = _finite("log_posteriors", np.asarray(log_posteriors, np.float64))
    examples, classes = scores.shape
    source = check_prior("source_prior", source_prior, classes)
    check_numbers(rounds=rounds)
    weights = np.ones(examples) if weights is None else np.asarray(weights, np.float64)
    if weights.shape != (examples,) or not (weights >= 0).all() or not 0 < weights.sum() < np.inf:
        raise ValueError(f"weights must be {examples} finite numbers >= 0, not all 0. Received: {weights[:5]}")
    shares = weights / weights.sum()
    scores = scores - np.log(source)
    ratios = np.exp(scores - scores.max(axis=1, keepdims=True))
    prior = _maximised(ratios, shares, source / source.sum(), steps=STEPS)
    generator = np.random.default_rng(seed)
    samples = np.zeros((rounds, classes))
    for sample in samples:
        sample[:] = _maximised(ratios, generator.multinomial(examples, shares) / examples, prior, steps=BOOTSTRAP_STEPS)
    return PriorEstimate(prior, samples)


def _finite(name: str, scores: np.ndarray) -> np.ndarray:
    """Scores as they are, or a ValueError where they are no finite numbers [N, C] of one example or more."""
    if scores.ndim != 2 or not len(scores) or not np.isfinite(scores).all():
        raise ValueError(f"{name} must be finite numbers [N, C]. Received: shape {scores.shape}")
    return scores


def _maximised(ratios: np.ndarray, shares: np.ndarray, prior: np.ndarray, *, steps: int) -> np.ndarray:
    """The distribution [C] that the steps end at; ratios [N, C] are p(c|x) / pi(c)."""
    for _ in range(steps):
        last = prior
        prior = prior * ((shares / (ratios @ prior)) @ ratios)
        if np.abs(prior - last).max() < SETTLED:
            break
    prior = np.maximum(prior, LEAST)
    return prior / prior.sum()
