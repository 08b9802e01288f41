"""Cosine classifiers: the direction of features and weights alone, so that no class gains by a large norm.

One begins as the class means: LIFT's head (Shi et al., ICML 2024), as it starts and as it is trained on from there.
"""

import math

import keras
import numpy as np

from keras_lt.classifiers.dense import Candidates, Head, safe_norms, to_adapt
from keras_lt.classifiers.ncm import NearestClassMean
from keras_lt.registry import check_numbers

SCALE = 16.0  # OLTR's; a softmax over plain cosines could not get sharp
LIFT_SCALE = 25.0
RANGES = {"scale": (1e-6, math.inf)}  # of an entry; a smaller scale leaves no logits apart


@keras.saving.register_keras_serializable("keras_lt")
class CosineDense(Head):
    """Logits scale * cos(features, class weights), [B, D] -> [B, C]; the kernel [D, C] is trained.

    A scale of 1 gives the plain cosines that the LDAM loss takes. A zero vector has cosine 0 to everything.
    """

    def __init__(self, units: int, scale: float, *, kernel_initializer="glorot_uniform", **kwargs):
        check_numbers(scale=scale, at_least=RANGES["scale"][0])
        super().__init__(units, **kwargs)
        self.scale = scale
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape):
        """Makes the kernel [D, C]."""
        super().build(input_shape)
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units), initializer=self.kernel_initializer, name="kernel"
        )

    def call(self, features):
        """Features [B, D] -> logits [B, C]."""
        directions = features / safe_norms(features, axis=-1)
        return self.scale * keras.ops.matmul(directions, self.kernel / safe_norms(self.kernel, axis=0))


def fresh_cosine(
    width: int, units: int, *, seed: int, scale: float = SCALE, kind: type[CosineDense] = CosineDense
) -> CosineDense:
    """A trainable cosine classifier on features [B, width]."""
    layer = kind(units, scale, kernel_initializer=keras.initializers.GlorotUniform(seed=seed))
    layer.build((None, width))
    return layer


def candidates(head: keras.layers.Layer, *, seed: int, scale: float = SCALE) -> Candidates:
    """One fresh layer to train."""
    return [([{"scale": scale}], fresh_cosine(*head.kernel.shape, seed=seed, scale=scale))]


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


def fresh_class_means(width: int, units: int, *, seed: int, scale: float = LIFT_SCALE) -> CosineDense:
    """A layer on features [B, width], to be adapted and then trained."""
    return fresh_cosine(width, units, seed=seed, scale=scale, kind=ClassMeanCosine)


def lift(head: keras.layers.Layer, *, seed: int, scale: float = LIFT_SCALE, tau: float = 1.0) -> Candidates:
    """One layer to be adapted and then trained; tau is of its loss."""
    return [([{"scale": scale}], fresh_class_means(head.kernel.shape[0], head.units, seed=seed, scale=scale))]


def class_means(head: keras.layers.Layer, *, seed: int, scale: float = LIFT_SCALE) -> Candidates:
    """One layer to be adapted, and left so."""
    ((choices, layer),) = lift(head, seed=seed, scale=scale)
    layer.trainable = False
    return [(choices, layer)]
