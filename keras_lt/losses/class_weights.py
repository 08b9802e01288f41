"""Weights per class, [C], and what they are over the epochs, [E, C].

A class without images has weight 0: no example can carry it, and it must not take from the others. The weights of the
other classes have mean one.
"""

import dataclasses

import numpy as np

from keras_lt.counts import check_counts, effective_numbers
from keras_lt.registry import Entry, check_numbers, member


def inverse_frequency_weights(class_counts: np.ndarray) -> np.ndarray:
    """Class weights proportional to 1 / n, float64 [C]; of class_counts [C]."""
    class_counts = check_counts(class_counts)
    return _with_mean_one(1.0 / np.maximum(class_counts, 1), class_counts)


def effective_number_weights(class_counts: np.ndarray, beta: float) -> np.ndarray:
    """Class weights inverse to the effective number of images, (1 - beta^n) / (1 - beta) (Cui et al., 2019).

    Args:
      class_counts: training images per class, [C].
      beta: in [0, 1); 0 weighs all classes alike, near 1 inversely to their images.
    Returns: float64 [C].
    """
    check_numbers(beta=beta, below=1)
    class_counts = check_counts(class_counts)
    return _with_mean_one(1 / effective_numbers(class_counts, beta), class_counts)


def power_weights(class_counts: np.ndarray, rho: float) -> np.ndarray:
    """Class weights proportional to 1 / n^rho, which sum to C (generalised re-weighting, Zhang et al., CVPR 2021).

    Args:
      class_counts: training images per class, [C]; a class without images has weight 0.
      rho: 0 weighs all classes alike, 1 inversely to their images; any number >= 0.
    Returns: float64 [C].
    """
    check_numbers(rho=rho)
    class_counts = check_counts(class_counts)
    counts = np.maximum(class_counts, 1)
    return _with_mean_one((counts.min() / counts) ** rho, class_counts)  # relative, or a large rho would underflow


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsEntry(Entry):
    """Class weights: class_counts [C] -> [C].

    Attributes:
      weighs: whether any class counts for more than another, whatever the counts.
    """

    weighs: bool = True


CLASS_WEIGHTS: dict[str, WeightsEntry] = {
    "none": WeightsEntry(lambda class_counts: np.ones(len(class_counts)), label="None", weighs=False),
    "inverse_frequency": WeightsEntry(inverse_frequency_weights, label="Inverse frequency"),
    "effective_number": WeightsEntry(
        lambda class_counts, beta=0.9999: effective_number_weights(class_counts, beta), label="Effective number"
    ),
    "power": WeightsEntry(lambda class_counts, rho=1.0: power_weights(class_counts, rho), label="Power of the counts"),
}


def class_weight_table(name: str, class_counts: np.ndarray, *, epochs: int, first_epoch: int = 0) -> np.ndarray | None:
    """Class weights epoch by epoch; deferred, as Cao et al. (2019) do for the last 40 of 200 epochs, by `first_epoch`.

    Args:
      name: in `CLASS_WEIGHTS`, with parameters such as "effective_number:beta=0.999".
      class_counts: training images per class, [C].
      epochs: E.
      first_epoch: epochs that go by with all weights one.
    Returns: float32 [E, C]; None where nothing is weighed.
    """
    entry = member(CLASS_WEIGHTS, name, what="class_weights")
    check_numbers(first_epoch=first_epoch)
    if not entry.weighs:
        return None
    table = np.ones((epochs, len(class_counts)), np.float32)
    table[first_epoch:] = entry(class_counts)
    return table


def _with_mean_one(weights: np.ndarray, class_counts: np.ndarray) -> np.ndarray:
    present = class_counts > 0
    weights = np.where(present, weights, 0.0)
    return weights * present.sum() / weights.sum()
