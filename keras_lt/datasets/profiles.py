"""Long tails imposed on balanced data: how many images each class keeps, and which."""

from collections.abc import Callable

import numpy as np

from keras_lt.datasets.long_tailed import Split
from keras_lt.registry import check_choice


def exponential(classes: int, imbalance_ratio: float) -> np.ndarray:
    """Falls evenly on a log scale from 1 to 1 / imbalance_ratio, [C] (Cui et al., 2019)."""
    return imbalance_ratio ** (-np.arange(classes) / max(classes - 1, 1))


def step(classes: int, imbalance_ratio: float) -> np.ndarray:
    """1 for the first half of the classes, 1 / imbalance_ratio for the others, [C] (Buda et al., 2018)."""
    return np.where(np.arange(classes) < classes // 2, 1.0, 1 / imbalance_ratio)


PROFILES: dict[str, Callable[[int, float], np.ndarray]] = {"exponential": exponential, "step": step}


def class_sizes(profile: str, *, largest: int, classes: int, imbalance_ratio: float) -> np.ndarray:
    """Images per class under a profile, int64 [C]: the fractions of `largest`, rounded down.

    Args:
      profile: a name in `PROFILES`.
      largest: images of the first class.
      classes: number of classes C; the tail follows their order.
      imbalance_ratio: largest class over smallest.

    Raises:
      ValueError: there is no such profile, or the ratio is below 1 or leaves a class empty.
    """
    check_choice(PROFILES, profile=profile)
    if not 1 <= imbalance_ratio <= largest:
        raise ValueError(
            f"imbalance_ratio must lie in 1..{largest}, the images of the largest class. "
            f"Received: imbalance_ratio={imbalance_ratio}"
        )
    sizes = largest * PROFILES[profile](classes, imbalance_ratio)
    return np.floor(sizes * (1 + 1e-12)).astype(np.int64)  # 32 * 32 ** (-2 / 5) is 7.999... in floating point


def thin(split: Split, sizes: np.ndarray, *, seed: int) -> Split:
    """Keeps `sizes[c]` images of each class c, chosen by the seed, in their order.

    A class's choice depends on the seed and the class alone, and a smaller one is part of a larger one: the images at
    imbalance ratio 100 are among those at 50.

    Raises:
      ValueError: a class has fewer images, or a label has no size.
    """
    available = np.bincount(split.labels, minlength=len(sizes))
    if len(available) > len(sizes):
        raise ValueError(f"Labels must lie in 0..{len(sizes) - 1}, one size each. Received: {len(available) - 1}")
    short = np.flatnonzero(available < sizes)
    if short.size:
        listed = ", ".join(f"{available[c]} of {sizes[c]} in class {c}" for c in short[:5])
        raise ValueError(f"Every class needs as many images as it is to keep. Received: {listed}")
    kept = [
        np.random.default_rng((seed, label)).permutation(np.flatnonzero(split.labels == label))[:size]
        for label, size in enumerate(sizes)
    ]
    return split.subset(np.sort(np.concatenate(kept)))


def impose(split: Split, *, classes: int, imbalance_ratio: float, profile: str, seed: int) -> Split:
    """Thins a split to a profile that starts at the size of its largest class.

    A class with fewer images than its place in the profile keeps them all, so the ratio is exact for balanced data.
    """
    available = np.bincount(split.labels, minlength=classes)
    sizes = class_sizes(profile, largest=int(available.max()), classes=classes, imbalance_ratio=imbalance_ratio)
    return thin(split, np.minimum(sizes, available[:classes]), seed=seed)
