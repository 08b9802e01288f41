"""The classifier family: Keras layers from features [B, D] to logits [B, C].

`CLASSIFIERS` maps a name to a function from stage one's dense layer to the built layers that may take its
place, each with the choices that it stands for. What follows is the same for all: `adapt` those that have it,
fit those with trainable weights, keep the first choice of those that validate best.

Choices are constructor arguments, such as {"tau": 0.7}. A layer that stands for several has
`sweep(features [B, D], choices)`, which yields the logits [B, C] of each and shares between them what it can:
the kernel in memory, and its product with the features.
"""

from collections.abc import Callable

import keras

from keras_lt.classifiers import cosine, dense, lws, ncm, tau_norm
from keras_lt.classifiers.cosine import CosineDense
from keras_lt.classifiers.dense import fold, fresh_dense
from keras_lt.classifiers.lws import LearnableWeightScaling
from keras_lt.classifiers.ncm import NearestClassMean
from keras_lt.classifiers.tau_norm import TauNormalizedDense, tau_normalize

__all__ = [
    "CLASSIFIERS",
    "CosineDense",
    "LearnableWeightScaling",
    "NearestClassMean",
    "TauNormalizedDense",
    "fold",
    "fresh_dense",
    "tau_normalize",
]

# (kernel [D, C], bias [C], *, seed) -> [(choices, layer), ...]
CLASSIFIERS: dict[str, Callable[..., list[tuple[list[dict], keras.layers.Layer]]]] = {
    "joint": dense.joint,
    "ncm": ncm.candidates,
    "crt": dense.crt,
    "tau_norm": tau_norm.candidates,
    "tau_learned": tau_norm.learned,
    "lws": lws.candidates,
    "cosine": cosine.candidates,
}
