"""Images per class, [C], whoever gives them: what they may be stands here for all."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from keras_lt.arguments import as_array


def number_per_class(name: str, values: npt.ArrayLike) -> np.ndarray:
    """One number per class as an array, [C], in whatever precision it has.

    Args:
      name: what messages call it.
    Raises:
      ValueError: it is no vector of numbers, or one by something else than the class ids in their order.
    """
    if isinstance(values, Mapping):
        raise ValueError(
            f"{name} must be a vector, one number per class in the order of the class ids, and not a dict. "
            f"Received: {dict(values)}"
        )
    index = getattr(values, "index", None)  # a pandas Series, such as `value_counts`, which sorts by frequency
    if hasattr(index, "dtype") and list(index) != list(range(len(index))):
        raise ValueError(
            f"{name} must be in the order of the class ids, with every class: sort_index, and fill those that are "
            f"missing; of names, take to_numpy() in that order. Received: a Series by {list(index)[:5]}"
        )
    vector = np.array(as_array(name, values))
    if vector.ndim != 1 or vector.dtype.kind not in "biuf":
        raise ValueError(
            f"{name} must be one-dimensional, [C], and numbers. Received: dtype={vector.dtype}, shape={vector.shape}"
        )
    return vector


def check_vector(name: str, values: npt.ArrayLike, *, classes: int | None = None) -> np.ndarray:
    """One number per class as float64, [C], once all are known to be finite and not negative.

    Args:
      name: what messages call it.
      classes: C, where it is known.
    """
    vector = number_per_class(name, values).astype(np.float64)
    if not vector.size or classes not in (None, vector.size):
        there = "not empty" if classes is None else f"[{classes}], one per class"
        raise ValueError(f"{name} must be one-dimensional, {there}. Received: shape={vector.shape}")
    bad = np.flatnonzero(~(np.isfinite(vector) & (vector >= 0)))
    if bad.size:
        raise ValueError(f"{name} must be finite and >= 0. Received: {vector[bad[0]]} for class {bad[0]}")
    return vector


def refuse_shares(name: str, counts: np.ndarray):
    """Raises ValueError for shares in place of images, which would count as no image or as one."""
    if (shares := np.flatnonzero((counts > 0) & (counts < 1))).size:
        first = shares[0]
        raise ValueError(
            f"{name} must be numbers of images, and not shares of them. Received: {counts[first]} for class {first}"
        )


def check_counts(class_counts: npt.ArrayLike, *, classes: int | None = None) -> np.ndarray:
    """Images per class as float64, [C], once they are known to be finite, no shares, not negative and not all 0.

    Args:
      classes: C, where it is known.
    """
    counts = check_vector("class_counts", class_counts, classes=classes)
    refuse_shares("class_counts", counts)
    if not counts.any():
        raise ValueError(f"class_counts must be of at least one image. Received: class_counts={counts}")
    return counts


def effective_numbers(counts: np.ndarray, beta: float) -> np.ndarray:
    """Effective number of images per class, (1 - beta^n) / (1 - beta) (Cui et al., 2019), [C]; n itself is beta 1.

    Args:
      counts: images per class, [C]; a class without images counts as one of a single image.
      beta: in [0, 1).
    """
    counts = np.maximum(counts, 1)
    return np.expm1(counts * np.log(beta)) / (beta - 1) if beta else np.ones(counts.size)  # near 1 with all digits
