"""BalPoE: every expert is biased otherwise, their product is not (Aimar et al., CVPR 2023, arXiv:2206.05260)."""

import functools
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_lt.losses import logit_adjustment
from keras_lt.methods.experts import BALANCED, check_experts, expert_hooks, trained_by
from keras_lt.registry import check_numbers
from keras_lt.stages import Hooks


@keras.saving.register_keras_serializable("keras_lt", "balpoe_loss")
def loss(labels, expert_logits, class_counts, *, taus: Sequence[float]):
    """The mean over experts of the cross-entropy of logits + tau_e log pi; at test time their mean is taken.

    Args:
      labels: class ids, [B].
      expert_logits: [E, B, C].
      class_counts: training images per class, [C]; a class without images counts as one of a single image.
      taus: of every expert, [E]; with a mean of 1 the mean of the logits suits balanced data.
    Returns: loss per example in nats, [B].
    """
    expert_logits = ops.convert_to_tensor(expert_logits)
    if len(taus) != expert_logits.shape[0]:
        raise ValueError(f"taus must be one for each of the {expert_logits.shape[0]} experts. Received: taus={taus}")
    pairs = zip(ops.unstack(expert_logits), taus, strict=True)
    return sum(logit_adjustment(labels, logits, class_counts, tau) for logits, tau in pairs) / len(taus)


def prior(class_counts, *, taus: str, experts: int, **_) -> np.ndarray:
    """What the mean of the logits takes for granted, up to a factor: the classes' shares to the power 1 - mean tau."""
    return np.maximum(class_counts, 1.0) ** (1 - np.mean(_numbers(taus, experts)))


def hooks(*, experts: int = 3, taus: str = "", cosine: bool = True) -> Hooks:
    """What BalPoE changes: experts on one trunk, one tau each.

    Args:
      experts: E.
      taus: of every expert, joined by +; empty is evenly from 0 to 2, with a mean of 1, as the authors' 0+1+2.
      cosine: whether their classifiers are of cosines, as the authors', or plain linear ones.
    """
    check_experts(experts)
    train = functools.partial(trained_by, loss, taus=_numbers(taus, experts))
    return expert_hooks("balpoe", train, experts=experts, cosine=cosine, fixed=BALANCED)


def _numbers(text: str, experts: int) -> list[float]:
    if not text:
        return np.linspace(0, 2, experts).tolist()
    try:
        numbers = [float(number) for number in text.split("+")]
    except ValueError as error:
        raise ValueError(f"taus must be numbers joined by +, such as taus=0+1+2. Received: taus={text}") from error
    for tau in numbers:
        check_numbers(tau=tau)
    if len(numbers) != experts:
        raise ValueError(
            f"taus must be one number for each expert, such as taus=0+1+2. Received: taus={text}, experts={experts}"
        )
    return numbers
