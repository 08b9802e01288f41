"""Losses: one value per example, [B], of labels [B] and logits [B, C], or of labels and features [B, D].

`LOSSES` maps a name to the entry of a function from class counts [C] to the loss that `model.compile` takes. A new loss
is one registered function `(labels, logits, ...) -> [B]` and one line there.

Class weights come as sample weights w[y]. The softmax losses are then sum(w l) / sum(w) over the batch of an update, as
in Cao et al. (2019); the sigmoid ones sum(w l) / B, as in Cui et al. (2019). `input_pipeline.weighted` has the sums, so
that a training takes plain means over whatever share of a batch it sees.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from keras_lt.counts import check_counts
from keras_lt.losses.class_weights import (
    CLASS_WEIGHTS,
    WeightsEntry,
    class_weight_table,
    effective_number_weights,
    inverse_frequency_weights,
    power_weights,
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
from keras_lt.losses.later import (
    balanced_binary_cross_entropy,
    class_balanced_binary,
    label_aware_smoothing,
    lade,
    smoothing_by_class,
)
from keras_lt.losses.on_features import FEATURE_LOSSES, lifted_structured, range_loss
from keras_lt.losses.per_example import PerExampleLoss
from keras_lt.registry import NOT_NEGATIVE, SHARE, Entry, member

__all__ = [
    "CLASS_WEIGHTS",
    "FEATURE_LOSSES",
    "LDAM_SCALE",
    "LOSSES",
    "LossEntry",
    "PerExampleLoss",
    "WeightsEntry",
    "balanced_binary_cross_entropy",
    "balanced_softmax",
    "class_balanced_binary",
    "class_weight_table",
    "cross_entropy",
    "effective_number_weights",
    "focal",
    "inverse_frequency_weights",
    "label_aware_smoothing",
    "lade",
    "ldam",
    "ldam_of_logits",
    "lifted_structured",
    "logit_adjustment",
    "loss_entry",
    "power_weights",
    "range_loss",
    "sigmoid_cross_entropy",
    "sigmoid_focal",
    "smoothing_by_class",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossEntry(Entry):
    """A loss: class_counts [C] -> the loss that `model.compile` takes.

    Attributes:
      head: the classifier whose logits it takes, a name in `stages.HEADS` with parameters; "" takes any. The loss's own
        parameters may stand in it, in braces.
      first_bias: where the classifier's biases begin, of the number of classes; None is 0.
      prior: (class_counts [C], **parameters) -> what the loss puts beside the classes' probabilities, [C], so that the
        logits themselves need not hold it; None where the loss leaves the classes' sizes to the logits.
      normalizes_weights: whether class weights count by their share of the batch's, sum(w l) / sum(w), or as they are.
      compares: whether it compares all examples of an update, which then cannot be of several micro-batches.
    """

    head: str = ""
    first_bias: Callable[[int], float] | None = None
    prior: Callable[..., np.ndarray] | None = None
    normalizes_weights: bool = True
    compares: bool = False

    @property
    def needed_head(self) -> str:
        """`head` with the loss's parameters in it."""
        return self.head.format(**self.parameters)

    def prior_beside(self, class_counts: np.ndarray) -> np.ndarray:
        """What the loss puts beside the classes' probabilities, [C], ones where it does not; no image counts as one."""
        counts = np.maximum(class_counts, 1.0)
        return np.ones(counts.size) if self.prior is None else self.prior(counts, **self.parameters)


def loss_entry(loss: str) -> LossEntry:
    """The entry of a name in `LOSSES`, with parameters such as "focal:gamma=1"."""
    return member(LOSSES, loss, what="loss")


def _logit_of_one_in(classes: int) -> float:
    """Of C sigmoids that begin at 1/2 the C - 1 wrong ones would outweigh the right one (Cui et al., 2019)."""
    return -math.log(classes - 1)


def _of_counts(function: Callable, class_counts: np.ndarray, **arguments) -> PerExampleLoss:
    return PerExampleLoss(function, class_counts=check_counts(class_counts).tolist(), **arguments)


def _label_aware_smoothing(
    class_counts: np.ndarray, *, head: float = 0.3, tail: float = 0.0, shape: str = "concave", power: float = 2.0
) -> PerExampleLoss:
    settings = {"head": head, "tail": tail, "shape": shape, "power": power}
    smoothing_by_class(class_counts, **settings)  # refuses what does not fit
    return _of_counts(label_aware_smoothing, class_counts, **settings)


def _class_balanced_binary(class_counts: np.ndarray, *, beta: float = 0.9999) -> PerExampleLoss:
    weights = effective_number_weights(class_counts, beta)
    return PerExampleLoss(class_balanced_binary, class_weights=weights.tolist())


LOSSES: dict[str, LossEntry] = {
    "cross_entropy": LossEntry(
        lambda class_counts, label_smoothing=0.0: PerExampleLoss(cross_entropy, label_smoothing=label_smoothing),
        label="Cross-entropy",
        ranges={"label_smoothing": SHARE},
    ),
    "focal": LossEntry(
        lambda class_counts, gamma=2.0: PerExampleLoss(focal, gamma=gamma),
        label="Focal",
        ranges={"gamma": NOT_NEGATIVE},
    ),
    "balanced_softmax": LossEntry(
        lambda class_counts: _of_counts(balanced_softmax, class_counts),
        label="Balanced softmax",
        prior=lambda class_counts: class_counts,
    ),
    "logit_adjustment": LossEntry(
        lambda class_counts, tau=1.0: _of_counts(logit_adjustment, class_counts, tau=tau),
        label="Logit adjustment",
        ranges={"tau": NOT_NEGATIVE},
        prior=lambda class_counts, *, tau: class_counts**tau,
    ),
    "ldam": LossEntry(
        lambda class_counts, max_margin=0.5, scale=LDAM_SCALE: _of_counts(
            ldam_of_logits, class_counts, max_margin=max_margin, scale=scale
        ),
        label="LDAM",
        ranges={"max_margin": NOT_NEGATIVE, "scale": (1.0, math.inf)},
        head="cosine:scale={scale}",
    ),
    "sigmoid": LossEntry(
        lambda class_counts: PerExampleLoss(sigmoid_cross_entropy, reduction="sum_over_batch_size"),
        label="Sigmoid",
        head="dense",
        first_bias=_logit_of_one_in,
        normalizes_weights=False,
    ),
    "sigmoid_focal": LossEntry(
        lambda class_counts, gamma=0.5: PerExampleLoss(sigmoid_focal, gamma=gamma, reduction="sum_over_batch_size"),
        label="Sigmoid focal",
        ranges={"gamma": NOT_NEGATIVE},
        head="dense",
        first_bias=_logit_of_one_in,
        normalizes_weights=False,
    ),
    "label_aware_smoothing": LossEntry(_label_aware_smoothing, label="Label-aware smoothing"),
    # Sun et al. (ICLR 2025): nearly all of the target is spread over all classes.
    "los": LossEntry(
        lambda class_counts, delta=0.98: PerExampleLoss(cross_entropy, label_smoothing=delta),
        label="Label over-smoothing",
        ranges={"delta": SHARE},
    ),
    "balanced_binary_cross_entropy": LossEntry(
        lambda class_counts, label_smoothing=0.0: _of_counts(
            balanced_binary_cross_entropy, class_counts, label_smoothing=label_smoothing
        ),
        label="Balanced binary cross-entropy",
        ranges={"label_smoothing": SHARE},
        prior=lambda class_counts, **_: class_counts,
    ),
    "lade": LossEntry(
        lambda class_counts, weight=0.1, regularizer=0.1: _of_counts(
            lade, class_counts, weight=weight, regularizer=regularizer
        ),
        label="LADE",
        ranges={"weight": NOT_NEGATIVE, "regularizer": NOT_NEGATIVE},
        prior=lambda class_counts, **_: class_counts,
        compares=True,
    ),
    "class_balanced_binary": LossEntry(
        _class_balanced_binary,
        label="Class-balanced binary",
        prior=lambda class_counts, *, beta: 1 / np.maximum(effective_number_weights(class_counts, beta), 1e-12),
    ),
}
