"""How frequent each class is among images without labels, from what a classifier says of them."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from keras_lt.serving.priors import check_prior
from keras_lt.significance import interval

STEPS = 1000
TOLERANCE = 1e-7  # of every probability from one step to the next
BOOTSTRAP_STEPS = 30  # from the estimate on, which is near
LEAST = 1e-8  # of a class that is not found at all, whose logits stay finite


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
      ValueError: no examples, or a source prior that is none.
    """
    scores = np.asarray(log_posteriors, np.float64)
    if scores.ndim != 2 or not len(scores) or not np.isfinite(scores).all():
        raise ValueError(f"log_posteriors must be finite numbers [N, C]. Received: shape {scores.shape}")
    examples, classes = scores.shape
    source = check_prior("source_prior", source_prior, classes)
    shares = np.full(examples, 1 / examples) if weights is None else np.asarray(weights, np.float64) / np.sum(weights)
    scores = scores - np.log(source)
    ratios = np.exp(scores - scores.max(axis=1, keepdims=True))
    prior = _maximised(ratios, shares, source / source.sum(), steps=STEPS)
    generator = np.random.default_rng(seed)
    samples = np.zeros((rounds, classes))
    for sample in samples:
        sample[:] = _maximised(ratios, generator.multinomial(examples, shares) / examples, prior, steps=BOOTSTRAP_STEPS)
    return PriorEstimate(prior, samples)


def _maximised(ratios: np.ndarray, shares: np.ndarray, prior: np.ndarray, *, steps: int) -> np.ndarray:
    """The distribution [C] that the steps end at; ratios [N, C] are p(c|x) / pi(c)."""
    for _ in range(steps):
        last = prior
        prior = prior * ((shares / (ratios @ prior)) @ ratios)
        if np.abs(prior - last).max() < TOLERANCE:
            break
    prior = np.maximum(prior, LEAST)
    return prior / prior.sum()
