"""Learnable weight scaling: stage one's classifier under one learned scale per class."""

import keras
import numpy as np

from keras_lt.classifiers.dense import dense_shape, linear
from keras_lt.classifiers.norms import safe_norms

START_TAUS = (0.5, 1.0)


@keras.saving.register_keras_serializable("keras_lt")
class LearnableWeightScaling(keras.layers.Layer):
    """Logits scales * (features @ kernel + bias), [B, D] -> [B, C], of which only the scales [C] are trained.

    They start at 1. The paper scales w_i; the reference scales the whole logit, bias included, as done here.
    """

    def __init__(self, units: int, *, dtype="float32", **kwargs):
        super().__init__(dtype=dtype, **kwargs)
        self.units = units

    @classmethod
    def from_dense(cls, kernel: np.ndarray, bias: np.ndarray) -> "LearnableWeightScaling":
        """The built layer over stage one's kernel [D, C] and bias [C]."""
        width, units = dense_shape(kernel, bias)
        layer = cls(units)
        layer.build((None, width))
        layer.kernel.assign(kernel)
        layer.bias.assign(bias)
        return layer

    def build(self, input_shape):
        """Makes the scales, and room for the frozen kernel [D, C] and bias [C]; `from_dense` fills these."""
        # Frozen here, not by `variable.trainable = False` later: a saved model forgets that.
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units), initializer="zeros", trainable=False, name="kernel"
        )
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", trainable=False, name="bias")
        self.scales = self.add_weight(shape=(self.units,), initializer="ones", name="scales")

    def call(self, features):
        """Features [B, D] -> logits [B, C]."""
        return self.scales * (keras.ops.matmul(features, self.kernel) + self.bias)

    def fold(self) -> tuple[np.ndarray, np.ndarray]:
        """Kernel [D, C] and bias [C] of the dense layer with the same logits."""
        scales, kernel, bias = (keras.ops.convert_to_numpy(w) for w in (self.scales, self.kernel, self.bias))
        return scales * kernel, scales * bias

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "units": self.units}


def candidates(head: keras.layers.Layer, *, seed: int) -> list[tuple[list[dict], keras.layers.Layer]]:
    """The one layer to train."""
    return [([{}], LearnableWeightScaling.from_dense(*linear(head)))]


def from_tau_norm(head: keras.layers.Layer, *, seed: int) -> list[tuple[list[dict], keras.layers.Layer]]:
    """Layers to train whose scales start where tau-normalisation has them, 1 / ||w||^tau, for two taus."""
    kernel, bias = linear(head)
    norms = safe_norms(kernel, axis=0)[0]
    found = []
    for tau in START_TAUS:
        layer = LearnableWeightScaling.from_dense(kernel, bias)
        layer.scales.assign(norms**-tau)
        found.append(([{"start_tau": tau}], layer))
    return found
