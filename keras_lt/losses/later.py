"""Classification losses that came after the paper: [B] labels, [B, C] logits -> one value per example, [B], float32."""

import math

import keras
import numpy as np

from keras_lt.compat import of_all_replicas
from keras_lt.counts import check_counts, check_vector
from keras_lt.labels import ids_and_logits
from keras_lt.losses.classification import cross_entropy
from keras_lt.registry import check_choice, check_numbers

SHAPES = ("concave", "linear", "convex", "power")
POWER = 2.0


def smoothing_by_class(
    class_counts: np.ndarray, *, head: float, tail: float, shape: str = "concave", power: float = POWER
) -> np.ndarray:
    """Share of every class's target that label-aware smoothing spreads over all classes (Zhong et al., CVPR 2021).

    With t = (n - n_min) / (n_max - n_min), it is tail + (head - tail) g(t): g is sin(pi t / 2), concave; t, linear;
    1 + sin(3 pi / 2 + pi t / 2), convex; or t ** power. Equal counts have t = 1, the head's share.

    Args:
      class_counts: training images per class, [C].
      head, tail: shares of the largest and of the smallest class, in [0, 1).
      shape: one of `SHAPES`.
      power: of shape "power" alone; another shape takes the default.
    Returns: float64 [C].
    """
    check_numbers(head=head, tail=tail, below=1)
    check_choice(SHAPES, shape=shape)
    if shape != "power" and power != POWER:
        raise ValueError(f"power belongs to shape=power. Received: power={power}, shape={shape}")
    counts = check_counts(class_counts)
    span = counts.max() - counts.min()
    t = (counts - counts.min()) / span if span else np.ones(counts.size)
    bent = {
        "concave": np.sin(math.pi * t / 2),
        "linear": t,
        "convex": 1 + np.sin(1.5 * math.pi + math.pi * t / 2),
        "power": t**power,
    }[shape]
    return tail + (head - tail) * bent


@keras.saving.register_keras_serializable("keras_lt")
def label_aware_smoothing(labels, logits, class_counts, *, head, tail, shape="concave", power=POWER):
    """Cross-entropy smoothed more for frequent classes (MiSLAS, Zhong et al., CVPR 2021).

    (1 - e) (-log p_y) + e mean(-log p), e being `smoothing_by_class` of the label; the mean is over all C classes, as
    in the authors' code, where their paper spreads e over the other C - 1.

    Args: as `smoothing_by_class`; labels [B], logits [B, C].
    Returns: loss per example in nats, [B].
    """
    labels, logits = ids_and_logits(labels, logits)
    counts = check_counts(class_counts, classes=logits.shape[-1])
    shares = smoothing_by_class(counts, head=head, tail=tail, shape=shape, power=power)
    share = keras.ops.take(keras.ops.convert_to_tensor(shares, "float32"), labels)
    spread = -keras.ops.mean(keras.ops.log_softmax(logits, axis=-1), axis=-1)
    return (1 - share) * cross_entropy(labels, logits) + share * spread


@keras.saving.register_keras_serializable("keras_lt")
def balanced_binary_cross_entropy(labels, logits, class_counts, *, label_smoothing=0.0):
    """One sigmoid per class, of logits + log pi - log(1 - pi) (LiVT, Xu et al., CVPR 2023).

    Args:
      labels: class ids, [B].
      logits: [B, C].
      class_counts: training images per class, [C]; a class without images counts as one of a single image.
      label_smoothing: share of the target that is spread evenly over all classes.
    Returns: loss per example in nats, the sum over the C classes, [B].
    """
    labels, logits = ids_and_logits(labels, logits)
    prior = _prior(class_counts, logits.shape[-1])
    logits = logits + _float32(np.log(prior) - np.log1p(-prior))
    classes = logits.shape[-1]
    targets = keras.ops.one_hot(labels, classes, dtype="float32") * (1 - label_smoothing) + label_smoothing / classes
    return keras.ops.sum(keras.ops.softplus(logits) - targets * logits, axis=-1)


@keras.saving.register_keras_serializable("keras_lt")
def lade(labels, logits, class_counts, *, weight=0.1, regularizer=0.1):
    """Balanced softmax, and a regulariser that parts the class prior from the logits (LADE, Hong et al., CVPR 2021).

    To the cross-entropy of logits + log pi, `weight` times -sum_c pi_c (P_c - Q_c - regularizer Q_c^2) is added: P_c is
    the mean logit c of the batch's examples of class c, Q_c the log of the mean over all of the batch of
    exp(logit c) / (C pi_c). That is one number of a batch, which each example has.

    Args:
      labels: class ids, [B].
      logits: [B, C].
      class_counts: training images per class, [C].
    Returns: loss per example in nats, [B].
    """
    labels, logits = ids_and_logits(labels, logits)
    prior = _prior(class_counts, logits.shape[-1])
    log_prior = _float32(np.log(prior))
    all_labels, all_logits = of_all_replicas(labels, logits)
    one_hot = keras.ops.one_hot(all_labels, logits.shape[-1], dtype="float32")
    own = keras.ops.sum(one_hot * all_logits, axis=0) / (keras.ops.sum(one_hot, axis=0) + 1e-8)
    balanced = all_logits - log_prior - math.log(logits.shape[-1])
    examples = keras.ops.cast(keras.ops.shape(all_logits)[0], "float32")
    over_all = keras.ops.logsumexp(balanced, axis=0) - keras.ops.log(examples)
    regular = -keras.ops.sum(_float32(prior) * (own - over_all - regularizer * keras.ops.square(over_all)))
    return cross_entropy(labels, logits + log_prior) + weight * regular


@keras.saving.register_keras_serializable("keras_lt")
def class_balanced_binary(labels, logits, class_weights):
    """Binary cross-entropy of softmax probabilities, as weight balancing's code has it (Alshammari et al., CVPR 2022).

    Args:
      labels: class ids, [B].
      logits: [B, C].
      class_weights: of the label's class, [C].
    Returns: mean over the C classes, times the label's weight, [B].
    """
    labels, logits = ids_and_logits(labels, logits)
    log_probabilities = keras.ops.log_softmax(logits, axis=-1)
    # log(1 - p), of the most probable class by the others: where p is nearly one, 1 - p has no digits left.
    top = keras.ops.one_hot(keras.ops.argmax(logits, axis=-1), logits.shape[-1], dtype="float32") > 0
    others = keras.ops.logsumexp(keras.ops.where(top, -1e9, logits), axis=-1, keepdims=True)
    others = others - keras.ops.logsumexp(logits, axis=-1, keepdims=True)
    complement = keras.ops.where(
        top, others, keras.ops.log1p(-keras.ops.exp(keras.ops.where(top, -1.0, log_probabilities)))
    )
    right = keras.ops.one_hot(labels, logits.shape[-1], dtype="float32")
    losses = -keras.ops.mean(right * log_probabilities + (1 - right) * complement, axis=-1)
    weights = check_vector("class_weights", class_weights, classes=logits.shape[-1])
    return keras.ops.take(_float32(weights), labels) * losses


def _prior(class_counts, classes: int) -> np.ndarray:
    """Shares of the images, float64 [C]; a class without images counts as one of a single image."""
    counts = np.maximum(check_counts(class_counts, classes=classes), 1.0)
    return counts / counts.sum()


def _float32(array: np.ndarray):
    return keras.ops.convert_to_tensor(array, "float32")
