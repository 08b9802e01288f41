"""Losses: one value per example, [B], of labels [B] and logits [B, C], or of labels and features [B, D].

`LOSSES` maps a name to a function from class counts [C] to the loss that `model.compile` takes. A new loss is
one registered function `(labels, logits, ...) -> [B]` and one line there.

Class weights come as sample weights w[y]. The softmax losses are then sum(w l) / sum(w), as in Cao et al. (2019); the
sigmoid ones sum(w l) / B, as in Cui et al. (2019). Of several replicas of a TensorFlow strategy each divides by its
own rows' sum of weights, and the quotients are averaged; on JAX the batch is one.
"""

import math
from collections.abc import Callable

import keras
import numpy as np

from keras_lt.losses.class_weights import (
    CLASS_WEIGHTS,
    class_weight_table,
    effective_number_weights,
    inverse_frequency_weights,
)
from keras_lt.losses.classification import (
    LDAM_SCALE,
    balanced_softmax,
    cross_entropy,
    focal,
    ldam,
    ldam_of_logits,
    logit_adjustment,
    sigmoid_cross_entropy,
    sigmoid_focal,
)
from keras_lt.losses.on_features import FEATURE_LOSSES, lifted_structured, range_loss
from keras_lt.losses.per_example import PerExampleLoss

__all__ = [
    "CLASS_WEIGHTS",
    "COSINE_HEAD",
    "FEATURE_LOSSES",
    "FIRST_BIAS",
    "LDAM_SCALE",
    "LOSSES",
    "PRIOR_CORRECTED",
    "PerExampleLoss",
    "balanced_softmax",
    "class_weight_table",
    "cross_entropy",
    "effective_number_weights",
    "focal",
    "inverse_frequency_weights",
    "ldam",
    "ldam_of_logits",
    "lifted_structured",
    "logit_adjustment",
    "range_loss",
    "sigmoid_cross_entropy",
    "sigmoid_focal",
]


def _of_counts(function: Callable) -> Callable[..., PerExampleLoss]:
    return lambda class_counts: PerExampleLoss(function, class_counts=np.asarray(class_counts).tolist())


LOSSES: dict[str, Callable[..., keras.losses.Loss]] = {
    "cross_entropy": lambda class_counts, *, label_smoothing=0.0: PerExampleLoss(
        cross_entropy, label_smoothing=label_smoothing
    ),
    "focal": lambda class_counts, *, gamma=2.0: PerExampleLoss(focal, gamma=gamma),
    "balanced_softmax": _of_counts(balanced_softmax),
    "logit_adjustment": _of_counts(logit_adjustment),
    "ldam": _of_counts(ldam_of_logits),
    "sigmoid": lambda class_counts: PerExampleLoss(sigmoid_cross_entropy, reduction="sum_over_batch_size"),
    "sigmoid_focal": lambda class_counts, *, gamma=0.5: PerExampleLoss(
        sigmoid_focal, gamma=gamma, reduction="sum_over_batch_size"
    ),
}
PRIOR_CORRECTED = ("balanced_softmax", "logit_adjustment")  # balanced draws would correct for the tail a second time
COSINE_HEAD = ("ldam",)  # these take the logits of `CosineDense(units, LDAM_SCALE)`


def _logit_of_one_in(classes: int) -> float:
    return -math.log(classes - 1)


# Where the classifier's biases begin, of the number of classes; with every other loss at 0. Of C sigmoids that begin
# at 1/2 the C - 1 wrong ones would outweigh the right one, so they begin at 1/C (Cui et al., 2019).
FIRST_BIAS: dict[str, Callable[[int], float]] = {"sigmoid": _logit_of_one_in, "sigmoid_focal": _logit_of_one_in}
