"""How much of a score is chance: bootstrap intervals over test images, McNemar's test of two classifiers, and ranks."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

NORMAL_95 = 1.96  # standard deviations to either side have 95% of a normal distribution


def stratified_bootstrap(
    values: np.ndarray, labels: np.ndarray, *, classes: int, resamples: int = 2000, seed: int = 0
) -> Iterator[np.ndarray]:
    """Per-class sums over resampled examples: images are drawn anew, how many there are of each class is not.

    A test split holds a chosen number of images of every class, so the bootstrap keeps it. Columns see the same draws:
    intervals of their differences are paired.

    A class of n examples is drawn n - 1 times and its sum scaled to n. With n draws the variance of its mean would be
    (n - 1) / n of what it should be, which is a third too little where classes have three images (Rao and Wu, 1988).
    The one example of a class with no other is taken as it is: it adds nothing to an interval's width.

    Args:
      values: what is summed, such as whether K classifiers are correct, [N, K].
      labels: class ids, [N].
      classes: C.
    Yields: float64 [C, K], once per resample; zeros for a class without examples.
    Raises:
      ValueError: another number of labels than of rows, or no example.
    """
    values, labels = np.asarray(values, np.float64), np.asarray(labels)
    if values.ndim != 2 or labels.shape != values.shape[:1] or not len(labels):
        raise ValueError(
            "values must be [N, K] and labels [N], of at least one example. "
            f"Received: values.shape={values.shape}, labels.shape={labels.shape}"
        )
    values = values[np.argsort(labels, kind="stable")]
    sizes = np.bincount(labels, minlength=classes)
    draws = np.where(sizes > 1, sizes - 1, sizes)
    firsts = np.repeat(np.cumsum(sizes) - sizes, draws)  # the row that the drawn example's class begins at
    choices = np.repeat(sizes, draws)
    present = np.flatnonzero(sizes)
    starts = (np.cumsum(draws) - draws)[present]
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        sums = np.zeros((classes, values.shape[1]))
        drawn = np.add.reduceat(values[firsts + rng.integers(choices)], starts)
        sums[present] = drawn / draws[present, None] * sizes[present, None]
        yield sums


def interval(estimates: np.ndarray, confidence: float = 0.95) -> np.ndarray:
    """The percentile interval of bootstrapped estimates, [R, ...] -> lower and upper ends [2, ...]."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1. Received: confidence={confidence}")
    return np.quantile(estimates, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)


def proportion_interval(share: float, examples: int) -> tuple[float, float]:
    """The 95% interval of a share of independent examples (Wilson, 1927); not of width 0 where all are right.

    >>> low, high = proportion_interval(1.0, 80)
    >>> round(low, 3), round(high, 3)
    (0.954, 1.0)

    Args:
      share: such as an accuracy, in [0, 1].
      examples: N, of which it is the share.
    Raises:
      ValueError: another share, or no example.
    """
    if not 0 <= share <= 1 or examples < 1:
        raise ValueError(
            f"share must lie in [0, 1], of one example or more. Received: share={share}, examples={examples}"
        )

    def lower(p: float) -> float:
        more = NORMAL_95**2 / examples
        return max(0.0, p + more / 2 - NORMAL_95 * math.sqrt((p * (1 - p) + more / 4) / examples)) / (1 + more)

    return lower(share), 1 - lower(1 - share)  # so that an end at 0 or 1 is not off by rounding


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p-value of McNemar's exact test that two classifiers are equally often correct (McNemar, 1947).

    Args:
      only_first, only_second: test images that the first, or the second, alone predicts correctly.
    Raises:
      ValueError: a count below 0.
    """
    fewer, discordant = min(only_first, only_second), only_first + only_second
    if fewer < 0:
        raise ValueError(f"counts must be >= 0. Received: only_first={only_first}, only_second={only_second}")
    ways = term = 1  # of choosing up to `fewer` among the discordant, in whole numbers: nothing is rounded
    for chosen in range(int(fewer)):
        term = term * (int(discordant) - chosen) // (chosen + 1)
        ways += term
    return min(1.0, 2 * ways / 2 ** int(discordant))


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Of a sample, over n - 1; NaN where there are too few values."""
    mean = float(np.mean(values)) if len(values) else math.nan
    return mean, float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def average_ranks(scores: np.ndarray) -> np.ndarray:
    """Mean rank of K systems over N runs, [N, K] -> [K]; the highest score has rank 1, equal ones share their mean."""
    scores = np.asarray(scores, np.float64)
    higher, equal = (f(scores[:, np.newaxis], scores[:, :, np.newaxis]).sum(2) for f in (np.greater, np.equal))
    return (higher + (equal + 1) / 2).mean(0)


def critical_difference(systems: int, runs: int, *, confidence: float = 0.95) -> float:
    """How far average ranks must lie apart by Nemenyi's test, q sqrt(K (K + 1) / (6 N)) (Demsar, 2006, 3.2).

    Args:
      systems, runs: K, which are compared all with all, and N.
    Raises:
      ValueError: fewer than two systems, no run, or a confidence that is none.
    """
    if systems < 2 or runs < 1 or not 0 < confidence < 1:
        raise ValueError(
            "There must be two systems or more, a run or more and a confidence between 0 and 1. "
            f"Received: systems={systems}, runs={runs}, confidence={confidence}"
        )
    z, step = np.linspace(-9, 9, 1801, retstep=True)
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    below = np.vectorize(lambda x: (1 + math.erf(x / math.sqrt(2))) / 2)
    low, high = 0.0, 20.0
    for _ in range(40):  # bisects for the quantile of the range of K standard normal variables
        middle = (low + high) / 2
        within = systems * step * (density * (below(z) - below(z - middle)) ** (systems - 1)).sum()
        low, high = (middle, high) if within < confidence else (low, middle)
    return low / math.sqrt(2) * math.sqrt(systems * (systems + 1) / (6 * runs))
