"""Features a chunk at a time, so that the logits of many classes fit in memory."""

from collections.abc import Iterator

import keras
import numpy as np
import numpy.typing as npt

LOGITS_BYTES = 2**23  # of a chunk's logits in float32; larger ones leave the processor's cache, which slows a sweep
MOST_ROWS = 8192  # of few classes


def in_chunks(classifier: keras.layers.Layer, features: np.ndarray) -> Iterator[np.ndarray]:
    """Features [N, D] as float32 [B, D], so many at a time that the classifier's logits [B, C] take `LOGITS_BYTES`."""
    classes = classifier(np.asarray(features[:1], np.float32)).shape[-1]
    return rows_at_once(features, min(MOST_ROWS, LOGITS_BYTES // (4 * classes) or 1))


def rows_at_once(features: np.ndarray, rows: int, dtype: npt.DTypeLike = np.float32) -> Iterator[np.ndarray]:
    """Features [N, D] so many at a time, [rows, D]; of no features there is one chunk of none."""
    for start in range(0, max(len(features), 1), rows):
        yield np.asarray(features[start : start + rows], dtype)


def classify(classifier: keras.layers.Layer, features: np.ndarray) -> np.ndarray:
    """Class with the largest logit, in chunks: features [N, D] -> int64 [N]."""
    return np.concatenate([largest(classifier(chunk)) for chunk in in_chunks(classifier, features)])


def largest(logits) -> np.ndarray:
    """Class with the largest logit, [B, C] -> int64 [B]: NumPy is several times as fast as TensorFlow on a CPU."""
    return np.asarray(logits).argmax(-1)  # without the copy that Keras's own conversion makes
