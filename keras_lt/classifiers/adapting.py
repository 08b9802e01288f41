"""What all layers that `adapt` to training features have in common."""

import keras
import numpy as np

from keras_lt.arguments import in_place
from keras_lt.labels import labels_of


def to_adapt(layer: keras.layers.Layer, features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Training features [N, D], where they are, and labels int64 [N], once they fit the layer, which is built for them.

    Args:
      layer: with `units`, its classes C.
      labels: class ids in [0, C), [N] or [N, 1].
    Raises:
      ValueError: shapes or ids that do not fit, or features of another width than the layer was built for.
    """
    features = in_place("features", features)
    if len(features.shape) != 2:
        raise ValueError(f"features must be [N, D]. Received: features.shape={tuple(features.shape)}")
    labels = labels_of(labels, len(features), classes=layer.units)
    width = features.shape[1]
    if not layer.built:
        layer.build((None, width))
    built_for = layer.get_build_config()["input_shape"][-1]
    if built_for != width:
        raise ValueError(f"features must be of the width that the layer was built for, {built_for}. Received: {width}")
    return features, labels
