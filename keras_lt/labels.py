"""Labels in the forms that they come in: class ids, one-hot rows, and two classes of every mixed image."""

from typing import NamedTuple

import keras
import numpy as np
import numpy.typing as npt

from keras_lt.arguments import as_array, as_operand, known_values

OPEN = -1  # the label of images of no class, as in the published lists
MOST_CLASSES = 10_000_000  # tables are made by the largest label


def labels_of(labels: npt.ArrayLike, examples: int, *, classes: int | None = None) -> np.ndarray:
    """Labels [N] or [N, 1] of N examples as int64 [N].

    Args:
      classes: C, where it is known; elsewhere `OPEN` may be among them.
    Raises:
      ValueError: another number of them, or others than class ids.
    """
    labels = as_array("labels", labels)
    if labels.shape not in ((examples,), (examples, 1)):
        raise ValueError(
            "There must be one label per example; of one-hot rows, labels.argmax(1) makes them. "
            f"Received: {examples} examples and labels of shape {labels.shape}"
        )
    low, below = (OPEN, MOST_CLASSES) if classes is None else (0, classes)
    whole = labels.dtype.kind in "iu" or not labels.size
    if not whole or labels.min(initial=0) < low or labels.max(initial=0) >= below:
        found = f"from {labels.min()} to {labels.max()}" if whole else labels.ravel()[:5]
        or_open = f" or {OPEN} for no class" if classes is None else ""
        raise ValueError(
            f"Labels must be class ids, whole numbers in [0, {below:,}){or_open}; of names, "
            f"np.unique(labels, return_inverse=True)[1] makes them. Received: {labels.dtype}, {found}"
        )
    return labels.reshape(-1).astype(np.int64)


def ids_and_logits(labels, logits, *, classes: int | None = None):
    """Class ids, int32 [B], and logits, float32 [B, C], of the same examples.

    Args:
      labels: as `class_ids` takes them.
      classes: C, where the logits must be of so many; their shape need not be known in a graph then.
    Raises:
      ValueError: another shape, or another number of labels than of rows of logits.
    """
    logits = as_operand("logits", logits)
    shape = logits.shape if getattr(logits.shape, "rank", 2) is not None else (None, classes)
    if len(shape) != 2 or classes not in (None, shape[1]):
        raise ValueError(f"Logits must be [B, {classes or 'C'}]. Received: shape {tuple(logits.shape)}")
    ids = class_ids(labels, classes or shape[1])
    check_rows(ids, shape[0], "row of logits")
    return ids, keras.ops.cast(logits, "float32")


def ids_and_features(labels, features, *, classes: int | None = None):
    """Class ids, int32 [B], and features, float32 [B, D], of the same examples.

    Args:
      labels, classes: as `class_ids` takes them.
    Raises:
      ValueError: another shape, or another number of labels than of rows of features.
    """
    features = as_operand("features", features)
    if len(features.shape) != 2:
        raise ValueError(f"Features must be [B, D]. Received: shape {tuple(features.shape)}")
    ids = class_ids(labels, classes)
    check_rows(ids, features.shape[0], "row of features")
    return ids, keras.ops.cast(features, "float32")


def check_rows(ids, rows: int | None, what: str):
    """Raises ValueError where there is another number of class ids [B] than of what they are of, as far as known."""
    if None not in (ids.shape[0], rows) and ids.shape[0] != rows:
        raise ValueError(f"There must be one label per {what}. Received: {ids.shape[0]} labels, {rows} of them")


class MixedLabels(NamedTuple):
    """Labels of images that are blended from two each.

    Attributes:
      larger, smaller: class ids of an image's larger and of its smaller part, int [B].
      weight: of the larger part, float32 [B] in [0.5, 1].
    """

    larger: object
    smaller: object
    weight: object


def class_ids(labels, classes: int | None):
    """Class ids, int32 [B], of labels that are ids, [B] or a column [B, 1], or one-hot rows, [B, C].

    Args:
      classes: C, two or more; None is any number.
    Raises:
      ValueError: another shape, or a single class, of which one-hot rows and a column of ids are the same; or, but
        within a graph, words, fractions, numbers that are no class and rows that are not one-hot.
    """
    if classes == 1:
        raise ValueError("There must be two classes or more. Received: 1")
    values = known_values("labels", labels)
    shape = tuple((labels if values is None else values).shape)
    if classes is None:
        classes = MOST_CLASSES if shape[1:] in ((), (1,)) else shape[-1]
    if values is not None:
        _check_values(values, classes)
    labels = keras.ops.convert_to_tensor(labels if values is None else values)
    if len(shape) == 1:
        return keras.ops.cast(labels, "int32")
    if len(shape) == 2 and shape[-1] == 1:
        return keras.ops.cast(keras.ops.reshape(labels, (-1,)), "int32")
    if len(shape) == 2 and shape[-1] == classes:
        return keras.ops.cast(keras.ops.argmax(keras.ops.cast(labels, "float32"), axis=-1), "int32")
    raise ValueError(
        f"Labels must be class ids, [B] or [B, 1], or one-hot rows, [B, {classes}]. Received: labels of shape {shape}"
    )


def _check_values(labels: np.ndarray, classes: int):
    if labels.dtype.kind not in "biuf":
        raise ValueError(f"Labels must be numbers. Received: {labels.dtype}, such as {labels.ravel()[:1]}")
    is_rows = labels.ndim == 2 and labels.shape[-1] == classes
    if is_rows and not (np.isin(labels, (0, 1)).all() and (labels.sum(-1) == 1).all()):
        raise ValueError(f"Rows of labels must be one-hot. Received: {labels[:1]}")
    ids = np.argmax(labels, -1) if is_rows else labels
    if labels.size and not (np.isfinite(labels).all() and (ids == ids.astype(np.int64)).all()):
        raise ValueError(f"Class ids must be whole numbers. Received: {labels.ravel()[:5]}")
    if ids.size and not 0 <= ids.min() <= ids.max() < classes:
        raise ValueError(f"Class ids must lie in 0..{classes - 1}. Received: {ids.min()}..{ids.max()}")
