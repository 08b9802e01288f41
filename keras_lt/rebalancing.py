"""A training list with as many examples of every class before any are drawn: under-sampling, over-sampling, SMOTE."""

from collections.abc import Callable

import numpy as np

SMOTE = "smote"  # makes new features, so it is of stage two alone


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


def resampled_counts(class_counts: np.ndarray, how: str) -> np.ndarray:
    """Examples per class, [C], after a name in `RESAMPLING` or SMOTE, of class_counts [C] before it."""
    counts = np.asarray(class_counts)
    if how == "none":
        return counts
    present = counts[counts > 0]
    return np.where(counts > 0, present.min() if how == "undersampling" else present.max(), 0)


def _shuffled(labels: np.ndarray, seed: int) -> list[np.ndarray]:
    """The rows of every class that there is, each class's order a function of the seed and the class alone."""
    return [
        np.random.default_rng((seed, label)).permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)
    ]


# (labels [N], *, seed) -> rows [N']
RESAMPLING: dict[str, Callable[..., np.ndarray]] = {
    "none": lambda labels, *, seed: np.arange(len(labels)),
    "undersampling": undersampled,
    "oversampling": oversampled,
}


def smote(features: np.ndarray, labels: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels with as many examples of every class, the new ones between neighbours of a class.

    Chawla et al., 2002, as imbalanced-learn does it, among five neighbours or as many as the smallest class has.

    Raises:
      ImportError: imbalanced-learn is not installed.
      ValueError: a class has a single example, between which and another there is nothing.
    """
    try:
        from imblearn.over_sampling import SMOTE as Smote  # noqa: PLC0415, N811 - an extra
    except ImportError as error:
        raise ImportError("SMOTE needs imbalanced-learn: pip install 'keras_lt[imblearn]'") from error
    smallest = int(np.unique(labels, return_counts=True)[1].min())
    if smallest < 2:
        raise ValueError("SMOTE needs two examples of every class. Received: a class with 1")
    sampler = Smote(random_state=seed, k_neighbors=min(5, smallest - 1))
    features, labels = sampler.fit_resample(np.asarray(features, np.float32), labels)
    return features.astype(np.float32), labels.astype(np.int64)
