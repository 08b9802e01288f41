"""Cosine classifier: the direction of features and weights alone, so that no class gains by a large norm."""

import math

import keras

from keras_lt.classifiers.dense import Candidates, Head, safe_norms
from keras_lt.registry import check_numbers

SCALE = 16.0  # OLTR's; a softmax over plain cosines could not get sharp
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
