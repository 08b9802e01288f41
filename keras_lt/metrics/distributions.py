"""Test sets in which classes are not equally frequent."""

import numpy as np
import numpy.typing as npt

from keras_lt.counts import check_counts, check_vector


def long_tailed_shares(class_counts: npt.ArrayLike, *, ratio: float = 25.0, reverse: bool = False) -> np.ndarray:
    """Class probabilities that fall by a factor `ratio` from the first class to the last, geometrically, [C].

    The test distributions of LADE (Hong et al., CVPR 2021) and SADE (Zhang et al., NeurIPS 2022): classes in the order
    of their training images, the most frequent first, or last where it is reversed.

    >>> keras_lt.metrics.long_tailed_shares([500, 50, 5], ratio=4).round(3)
    array([0.571, 0.286, 0.143])

    Args:
      class_counts: training images per class, [C].
      ratio: of the most frequent class's probability to the least frequent one's.
      reverse: whether the class with the fewest training images is the most frequent one.
    Raises:
      ValueError: a ratio below 1.
    """
    if not 1 <= ratio < np.inf:
        raise ValueError(f"ratio must be a number of at least 1. Received: ratio={ratio}")
    counts = check_counts(class_counts)
    places = np.empty(counts.size)
    places[np.argsort(-counts, kind="stable")] = np.linspace(0, 1, counts.size)
    shares = ratio ** (places - 1 if reverse else -places)
    return shares / shares.sum()


def accuracy_under(distribution: npt.ArrayLike, per_class: npt.ArrayLike) -> float:
    """Accuracy where classes are as frequent as that, of those whose accuracy is known; NaN where it is of none.

    Args:
      distribution: probability of each class, [C].
      per_class: accuracy of each class, [C]; NaN for one without examples.
    """
    per_class = np.asarray(per_class, np.float64)
    shares = check_vector("distribution", distribution, classes=per_class.size)
    known = ~np.isnan(per_class)
    return float(per_class[known] @ shares[known] / shares[known].sum()) if shares[known].any() else float("nan")
