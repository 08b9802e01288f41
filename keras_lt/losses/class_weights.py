"""Weights per class, [C], and what they are over the epochs, [E, C].

A class without images has weight 0: no example can carry it, and it must not take from the others. The weights of the
other classes have mean one.
"""

from collections.abc import Callable

import numpy as np


def inverse_frequency_weights(class_counts: np.ndarray) -> np.ndarray:
    """Class weights proportional to 1 / n, float64 [C]; of class_counts [C]."""
    return _with_mean_one(1.0 / np.maximum(class_counts, 1), class_counts)


def effective_number_weights(class_counts: np.ndarray, beta: float) -> np.ndarray:
    """Class weights inverse to the effective number of images, (1 - beta^n) / (1 - beta) (Cui et al., 2019).

    Args:
      class_counts: training images per class, [C].
      beta: in [0, 1); 0 weighs all classes alike, near 1 inversely to their images.
    Returns: float64 [C].
    """
    if not 0 <= beta < 1:
        raise ValueError(f"beta must lie in [0, 1). Received: beta={beta}")
    counts = np.maximum(class_counts, 1)
    return _with_mean_one(1 / -np.expm1(counts * np.log(beta)) if beta else np.ones(len(counts)), class_counts)


CLASS_WEIGHTS: dict[str, Callable[..., np.ndarray]] = {
    "inverse_frequency": lambda class_counts, beta: inverse_frequency_weights(class_counts),
    "effective_number": effective_number_weights,
}


def class_weight_table(
    name: str, class_counts: np.ndarray, *, epochs: int, first_epoch: int = 0, beta: float = 0.9999
) -> np.ndarray | None:
    """Class weights epoch by epoch; deferred, as Cao et al. (2019) do for the last 40 of 200 epochs, by `first_epoch`.

    Args:
      name: in `CLASS_WEIGHTS`, or "none".
      class_counts: training images per class, [C].
      epochs: E.
      first_epoch: epochs that go by with all weights one.
      beta: of "effective_number".
    Returns: float32 [E, C]; None of "none".
    """
    if name == "none":
        return None
    if name not in CLASS_WEIGHTS:
        raise ValueError(f"name must be none or one of {', '.join(CLASS_WEIGHTS)}. Received: name={name!r}")
    if first_epoch < 0:
        raise ValueError(f"first_epoch must be at least 0. Received: first_epoch={first_epoch}")
    table = np.ones((epochs, len(class_counts)), np.float32)
    table[first_epoch:] = CLASS_WEIGHTS[name](class_counts, beta)
    return table


def _with_mean_one(weights: np.ndarray, class_counts: np.ndarray) -> np.ndarray:
    present = np.asarray(class_counts) > 0
    weights = np.where(present, weights, 0.0)
    return weights * present.sum() / weights.sum()
