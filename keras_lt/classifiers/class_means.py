"""Cosines to class means: LIFT's head (Shi et al., ICML 2024), as it starts and as it is trained on from there."""

import keras
import numpy as np

from keras_lt.classifiers.cosine import CosineDense, fresh_cosine
from keras_lt.classifiers.dense import Candidates, safe_norms, to_adapt
from keras_lt.classifiers.ncm import NearestClassMean

SCALE = 25.0  # LIFT's


@keras.saving.register_keras_serializable("keras_lt")
class ClassMeanCosine(CosineDense):
    """`CosineDense` whose class weights begin as the directions of the mean training features; `adapt` sets them."""

    once_learned = CosineDense

    def adapt(self, features: np.ndarray, labels: np.ndarray):
        """Sets the kernel from training features [N, D] and their labels [N]; features are averaged as they are."""
        features, labels = to_adapt(self, features, labels)
        means = NearestClassMean(self.units, transform="un")
        means.adapt(features, labels)
        directions = keras.ops.convert_to_tensor(means.means)
        self.kernel.assign(keras.ops.transpose(directions / safe_norms(directions, axis=-1)))


def fresh(width: int, units: int, *, seed: int, scale: float = SCALE) -> CosineDense:
    """A layer on features [B, width], to be adapted and then trained."""
    return fresh_cosine(width, units, seed=seed, scale=scale, kind=ClassMeanCosine)


def trained(head: keras.layers.Layer, *, seed: int, scale: float = SCALE, tau: float = 1.0) -> Candidates:
    """One layer to be adapted and then trained; tau is of its loss."""
    return [([{"scale": scale}], fresh(head.kernel.shape[0], head.units, seed=seed, scale=scale))]


def untrained(head: keras.layers.Layer, *, seed: int, scale: float = SCALE) -> Candidates:
    """One layer to be adapted, and left so."""
    ((choices, layer),) = trained(head, seed=seed, scale=scale)
    layer.trainable = False
    return [(choices, layer)]
