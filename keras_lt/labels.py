"""Labels of a batch in the forms that they come in: class ids, one-hot rows, and two classes of every mixed image."""

from typing import NamedTuple

import keras


class MixedLabels(NamedTuple):
    """Labels of images that are blended from two each.

    Attributes:
      larger, smaller: class ids of an image's larger and of its smaller part, int [B].
      weight: of the larger part, float32 [B] in [0.5, 1].
    """

    larger: object
    smaller: object
    weight: object


def class_ids(labels, classes: int):
    """Class ids, int32 [B], of labels that are ids, [B] or a column [B, 1], or one-hot rows, [B, C].

    Args:
      classes: C, two or more.
    Raises:
      ValueError: another shape, or a single class, of which one-hot rows and a column of ids are the same.
    """
    if classes == 1:
        raise ValueError("There must be two classes or more. Received: 1")
    labels = keras.ops.convert_to_tensor(labels)
    shape = tuple(labels.shape)
    if len(shape) == 1:
        return keras.ops.cast(labels, "int32")
    if len(shape) == 2 and shape[-1] == 1:
        return keras.ops.cast(keras.ops.reshape(labels, (-1,)), "int32")
    if len(shape) == 2 and shape[-1] == classes:
        return keras.ops.cast(keras.ops.argmax(keras.ops.cast(labels, "float32"), axis=-1), "int32")
    raise ValueError(
        f"Labels must be class ids, [B] or [B, 1], or one-hot rows, [B, {classes}]. Received: labels of shape {shape}"
    )
