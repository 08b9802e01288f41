"""A training list with as many examples of every class before any are drawn: under-sampling, over-sampling, SMOTE."""

import dataclasses
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from keras_lt.extras import library
from keras_lt.registry import Entry, member


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resampling(Entry):
    """A way to balance a list: (labels [N], *, seed) -> rows [N'].

    One that makes features is (features [N, D], labels [N], *, seed) -> both with others among them.

    Attributes:
      size: images per class, of the classes that have some -> how many each of them gets; None keeps their own.
      makes_features: whether it makes new features, which images cannot be: it is of stage two alone.
      fewest: examples that every class must have.
    """

    size: Callable[[np.ndarray], int] | None = None
    makes_features: bool = False
    fewest: int = 1


def whole(labels: np.ndarray, *, seed: int) -> np.ndarray:
    """All rows, in their order, int64 [N]."""
    del seed
    return np.arange(len(labels))


def undersampled(labels: np.ndarray, *, seed: int) -> np.ndarray:
    """Rows that keep of every class as many as the smallest has, chosen at random, in their order, int64 [N']."""
    size = np.unique(labels, return_counts=True)[1].min()
    return np.sort(np.concatenate([rows[:size] for rows in _shuffled(labels, seed)]))


def oversampled(labels: np.ndarray, *, seed: int) -> np.ndarray:
    """All rows, then others repeated at random until every class has as many as the largest, int64 [N']."""
    size = np.unique(labels, return_counts=True)[1].max()
    rng = np.random.default_rng((seed, len(labels)))
    repeated = [rng.choice(rows, size - len(rows)) for rows in _shuffled(labels, seed)]
    return np.concatenate([np.arange(len(labels)), *repeated])


def _shuffled(labels: np.ndarray, seed: int) -> list[np.ndarray]:
    """The rows of every class that there is, each class's order a function of the seed and the class alone."""
    return [
        np.random.default_rng((seed, label)).permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)
    ]


def smote(features: np.ndarray, labels: np.ndarray, *, seed: int, neighbors: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels with as many examples of every class, the new ones between neighbours of a class.

    Chawla et al., 2002, as imbalanced-learn does it.

    Args:
      neighbors: among which the second of two examples is drawn; fewer where the smallest class has fewer.
    Raises:
      ImportError: imbalanced-learn is not installed.
      ValueError: a class has a single example, between which and another there is nothing.
    """
    counts = np.bincount(labels)
    check_resampling("smote", counts)
    over_sampling = library("imblearn.over_sampling", extra="imblearn", needed_by="SMOTE")
    sampler = over_sampling.SMOTE(random_state=seed, k_neighbors=min(neighbors, int(counts[counts > 0].min()) - 1))
    features, labels = sampler.fit_resample(np.asarray(features, np.float32), labels)
    return features.astype(np.float32), labels.astype(np.int64)


RESAMPLING: dict[str, Resampling] = {
    "none": Resampling(whole, label="None"),
    "undersampling": Resampling(undersampled, label="Under-sampling", size=np.min),
    "oversampling": Resampling(oversampled, label="Over-sampling", size=np.max),
    "smote": Resampling(smote, label="SMOTE", size=np.max, makes_features=True, fewest=2),
}


def resampled_counts(class_counts: npt.ArrayLike, how: str) -> np.ndarray:
    """Examples per class, [C], after a name in `RESAMPLING`, of class_counts [C] before it."""
    counts, size = np.asarray(class_counts), member(RESAMPLING, how, what="resampling").size
    return counts if size is None else np.where(counts > 0, size(counts[counts > 0]), 0)


def check_resampling(how: str, class_counts: npt.ArrayLike):
    """Raises ValueError, before any work, where a class has fewer examples than the name in `RESAMPLING` needs."""
    counts, fewest = np.asarray(class_counts), member(RESAMPLING, how, what="resampling").fewest
    small = np.flatnonzero((counts > 0) & (counts < fewest))
    if small.size:
        raise ValueError(
            f"resampling={how} needs at least {fewest} examples of every class. "
            f"Received: {counts[small[0]]} of class {small[0]}"
            + (f", and {small.size - 1} more classes" if small.size > 1 else "")
        )
