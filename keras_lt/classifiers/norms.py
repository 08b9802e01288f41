"""Division by a Euclidean norm that may be zero."""

import keras


def safe_norms(vectors, axis: int):
    """Euclidean norms along an axis (kept as length one), with 1 in place of 0.

    A zero vector divided by its safe norm stays zero and passes a finite gradient; 0 / 0 would be NaN.
    """
    squares = keras.ops.sum(keras.ops.square(vectors), axis=axis, keepdims=True)
    return keras.ops.sqrt(keras.ops.where(squares > 0, squares, 1.0))
