"""Batch norm's statistics of weights that no step was taken with, such as a moving average of them."""

from collections.abc import Callable, Iterable

import keras
import numpy as np

from keras_lt.compat import layers_within
from keras_lt.distribution import Strategy


def estimated_statistics(
    model: keras.Model, batches: Callable[[], Iterable[tuple]], strategy: Strategy
) -> Callable[[], None]:
    """Gives the batch norm of a model the mean statistics of some training batches (Izmailov et al., UAI 2018).

    Layers that are frozen keep theirs.

    Args:
      batches: gives (inputs, ...) each, inputs as the model takes them; not asked where no batch norm is trained.
    Returns: what puts the statistics back that were there.
    """
    layers = [
        layer
        for layer in layers_within(model)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]
    variables = [variable for layer in layers for variable in (layer.moving_mean, layer.moving_variance)]
    others = list(model.non_trainable_variables)  # random state among them
    before = [np.array(keras.ops.convert_to_numpy(variable)) for variable in others]

    def put_back():
        with strategy.scope():
            for variable, value in zip(others, before, strict=True):
                variable.assign(value)

    if not layers:
        return put_back
    settings, seen = [(layer.momentum, layer.synchronized) for layer in layers], []
    try:
        for layer in layers:
            layer.momentum, layer.synchronized = 0.0, False  # a batch's own, and one device has the whole batch
        with strategy.scope():
            for inputs, *_ in batches():
                model(inputs, training=True)
                seen.append([np.array(keras.ops.convert_to_numpy(variable)) for variable in variables])
    finally:
        for layer, (momentum, synchronized) in zip(layers, settings, strict=True):
            layer.momentum, layer.synchronized = momentum, synchronized
    put_back()
    with strategy.scope():
        for variable, values in zip(variables, zip(*seen, strict=True), strict=True):
            variable.assign(np.mean(values, axis=0, dtype=np.float64).astype(np.float32))
    return put_back
