"""The classifier family: Keras layers from features [B, D] to logits [B, C].

`CLASSIFIERS` maps a name to a function from stage one's own classifier, its head, to the built layers that may take its
place, each with the choices that it stands for. What follows is the same for all: `adapt` those that have it,
fit those with trainable weights, keep the first choice of those that validate best.

Choices are constructor arguments, such as {"tau": 0.7}, in a list, or a search: a generator that yields lists of them
and is sent their scores. A layer that stands for several has `sweep(features [B, D], choices)`, which yields the logits
[B, C] of each and shares between them what it can: the kernel in memory, and its product with the features.
"""

from collections.abc import Callable, Generator

import keras

from keras_lt.classifiers import cosine, dense, lws, ncm, tau_norm
from keras_lt.classifiers.cosine import CosineDense, fresh_cosine
from keras_lt.classifiers.dense import fold, fresh_dense
from keras_lt.classifiers.lws import LearnableWeightScaling
from keras_lt.classifiers.ncm import NearestClassMean
from keras_lt.classifiers.tau_norm import TauNormalizedDense, tau_normalize

__all__ = [
    "BACKBONE_PARTS",
    "CLASSIFIERS",
    "CosineDense",
    "LearnableWeightScaling",
    "NearestClassMean",
    "TauNormalizedDense",
    "fold",
    "fresh_cosine",
    "fresh_dense",
    "tau_normalize",
]

# (head, *, seed) -> [(choices, layer), ...]
CLASSIFIERS: dict[str, Callable[..., list[tuple[list[dict] | Generator, keras.layers.Layer]]]] = {
    "joint": dense.joint,
    "ncm": ncm.candidates,
    "crt": dense.crt,
    "crt_last_block": dense.crt,
    "crt_all": dense.crt,
    "crt_all_tenth": dense.crt,
    "fine_tune": dense.fine_tuned,
    "tau_norm": tau_norm.candidates,
    "tau_search": tau_norm.searched,
    "tau_learned": tau_norm.learned,
    "lws": lws.candidates,
    "lws_tau_norm": lws.from_tau_norm,
    "cosine": cosine.candidates,
}
# The part of the backbone that is trained along, and the factor on the learning rate of all that is trained.
BACKBONE_PARTS: dict[str, tuple[str, float]] = {
    "crt_last_block": ("last_block", 1.0),
    "crt_all": ("all", 1.0),
    "crt_all_tenth": ("all", 0.1),
    "fine_tune": ("all", 0.1),
}
