"""Small copies of a split's images, for people to look at."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_lt.datasets import Split
from keras_lt.preprocessing import decode

SIDE = 96  # pixels


def thumbnails(split: Split, rows: Sequence[int], *, side: int = SIDE) -> list[np.ndarray]:
    """The images at `rows`, whole, at most `side` pixels wide and high: uint8 [H, W, 3] each.

    Raises:
      OSError: a file cannot be read.
    """
    return [_shrink(decode(split.read(row)), side) for row in rows]


def _shrink(image: tf.Tensor, side: int) -> np.ndarray:
    """A smaller image of the same shape, each pixel the mean of those it stands for."""
    height, width = image.shape[:2]
    if max(height, width) > side:
        scale = side / max(height, width)
        size = [max(round(height * scale), 1), max(round(width * scale), 1)]
        image = tf.round(tf.image.resize(image, size, method="area"))
    return tf.cast(image, tf.uint8).numpy()
