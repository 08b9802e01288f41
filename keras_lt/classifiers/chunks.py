"""Features a chunk at a time, so that the logits of many classes fit in memory; and logits a part of it at a time.

A product takes as much time for few rows as for many where there are many classes, whose weights it has to read; all
that follows is fastest on what fits in a core's cache.
"""

import operator
from collections.abc import Iterator

import keras
import numpy as np
import numpy.typing as npt

MOST_ROWS = 1024  # of a product; of more it takes as long for each
LOGITS_BYTES = 2**28  # of a chunk's logits in float32, of which a few are alive at once
PART_BYTES = 2**20  # of logits that are looked at together


def in_chunks(classifier: keras.layers.Layer, features: np.ndarray) -> Iterator[np.ndarray]:
    """Features [N, D] as float32 [B, D], so many at a time that the classifier's logits [B, C] take `LOGITS_BYTES`."""
    classes = classifier(np.asarray(features[:1], np.float32)).shape[-1]
    return rows_at_once(features, min(MOST_ROWS, LOGITS_BYTES // (4 * classes) or 1))


def rows_at_once(features: np.ndarray, rows: int, dtype: npt.DTypeLike = np.float32) -> Iterator[np.ndarray]:
    """Features [N, D] so many at a time, [rows, D]; of no features there is one chunk of none."""
    for start in range(0, max(len(features), 1), rows):
        yield np.asarray(features[start : start + rows], dtype)


def parts_of(logits) -> Iterator:
    """Logits [B, C], alone or the first of what has as many rows, as NumPy's so that a part takes `PART_BYTES`."""
    arrays = keras.tree.map_structure(_in_place, logits)
    rows, classes = keras.tree.flatten(arrays)[0].shape
    at_once = PART_BYTES // (4 * classes) or 1
    for start in range(0, max(rows, 1), at_once):
        yield keras.tree.map_structure(operator.itemgetter(slice(start, start + at_once)), arrays)


def _in_place(tensor) -> np.ndarray:
    """In float32; of TensorFlow's `convert_to_numpy` makes a copy."""
    is_foreign = keras.ops.is_tensor(tensor) and keras.backend.backend() != "tensorflow"
    return np.asarray(keras.ops.convert_to_numpy(tensor) if is_foreign else tensor, np.float32)


def classify(classifier: keras.layers.Layer, features: np.ndarray) -> np.ndarray:
    """Class with the largest logit, in chunks: features [N, D] -> int64 [N]."""
    return np.concatenate([largest(classifier(chunk)) for chunk in in_chunks(classifier, features)])


def largest(logits) -> np.ndarray:
    """Class with the largest logit, [B, C] -> int64 [B]: NumPy is several times as fast as TensorFlow on a CPU."""
    return np.concatenate([part.argmax(-1) for part in parts_of(logits)])
