"""Learnable weight scaling: stage one's classifier under one learned scale per class."""

import keras
import numpy as np

from keras_lt.classifiers.dense import Candidates, OnDense, linear, safe_norms

START_TAUS = (0.5, 1.0)


@keras.saving.register_keras_serializable("keras_lt")
class LearnableWeightScaling(OnDense):
    """Logits scales * (features @ kernel + bias), [B, D] -> [B, C], of which only the scales [C] are trained.

    They start at 1. The paper scales w_i; the reference scales the whole logit, bias included, as done here.
    `from_dense` makes the layer of a trained dense layer's kernel and bias; made by `units` alone it has zeros, which
    it keeps.

    Args:
      units: classes C.
    """

    def build(self, input_shape):
        """Makes the scales, and room for kernel [D, C] and bias [C]."""
        super().build(input_shape)
        self.scales = self.add_weight(shape=(self.units,), initializer="ones", name="scales")

    def call(self, features):
        """Features [B, D] -> logits [B, C]."""
        return self.scales * self.dense_logits(features)

    def fold(self) -> tuple[np.ndarray, np.ndarray]:
        """Kernel [D, C] and bias [C] of the dense layer with the same logits."""
        scales, kernel, bias = (keras.ops.convert_to_numpy(w) for w in (self.scales, self.kernel, self.bias))
        return scales * kernel, scales * bias


def candidates(head: keras.layers.Layer, *, seed: int) -> Candidates:
    """The one layer to train."""
    return [([{}], LearnableWeightScaling.from_dense(*linear(head)))]


def from_tau_norm(head: keras.layers.Layer, *, seed: int) -> Candidates:
    """Layers to train whose scales start where tau-normalisation has them, 1 / ||w||^tau, for two taus."""
    kernel, bias = linear(head)
    norms = safe_norms(kernel, axis=0)[0]
    found = []
    for tau in START_TAUS:
        layer = LearnableWeightScaling.from_dense(kernel, bias)
        layer.scales.assign(norms**-tau)
        found.append(([{"start_tau": tau}], layer))
    return found
