"""Classification losses: labels [B] and logits [B, C] to one value per example, [B], computed in float32.

Labels are class ids; `class_ids` takes a column of them and one-hot rows for the same.
"""

import keras

from keras_lt.arguments import known_values
from keras_lt.counts import check_counts
from keras_lt.labels import ids_and_logits

LDAM_SCALE = 30.0  # of the cosines; Cao et al.'s


@keras.saving.register_keras_serializable("keras_lt")
def cross_entropy(labels, logits, label_smoothing=0.0):
    """Softmax cross-entropy, computed in float32.

    Args:
      labels: class ids, [B].
      logits: [B, C].
      label_smoothing: share of the target that is spread evenly over all classes (Szegedy et al., 2016).
    Returns: loss per example in nats, [B].
    """
    labels, logits = ids_and_logits(labels, logits)
    loss = keras.ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    if not label_smoothing:
        return loss
    spread = -keras.ops.mean(keras.ops.log_softmax(logits, axis=-1), axis=-1)
    return (1 - label_smoothing) * loss + label_smoothing * spread


@keras.saving.register_keras_serializable("keras_lt")
def focal(labels, logits, gamma):
    """Focal loss on the softmax, -(1 - p)^gamma log p (Lin et al., 2017).

    Args:
      labels: class ids, [B].
      logits: [B, C].
      gamma: 0 is the cross-entropy; more gives well-classified examples less weight.
    Returns: loss per example in nats, [B].
    """
    loss = cross_entropy(labels, logits)
    # Held above 0, where a power below 1 has no finite slope.
    missing = keras.ops.maximum(-keras.ops.expm1(-loss), keras.config.epsilon())
    return missing**gamma * loss


@keras.saving.register_keras_serializable("keras_lt")
def balanced_softmax(labels, logits, class_counts):
    """Cross-entropy of logits + log(class_counts), so that the logits themselves suit balanced data (Ren et al., 2020).

    Args:
      labels: class ids, [B].
      logits: [B, C].
      class_counts: training images per class, [C].
    Returns: loss per example in nats, [B].
    """
    labels, logits = ids_and_logits(labels, logits)
    return cross_entropy(labels, logits + keras.ops.log(_counts(class_counts, logits.shape[-1])))


@keras.saving.register_keras_serializable("keras_lt")
def logit_adjustment(labels, logits, class_counts, tau=1.0):
    """Cross-entropy of logits + tau log pi, pi being the classes' shares of the images (Menon et al., 2021).

    Args:
      labels: class ids, [B].
      logits: [B, C].
      class_counts: training images per class, [C].
      tau: 0 is the cross-entropy, 1 the balanced softmax.
    Returns: loss per example in nats, [B].
    """
    labels, logits = ids_and_logits(labels, logits)
    counts = _counts(class_counts, logits.shape[-1])
    return cross_entropy(labels, logits + tau * keras.ops.log(counts / keras.ops.sum(counts)))


@keras.saving.register_keras_serializable("keras_lt")
def ldam(labels, cosines, class_counts, max_margin=0.5, scale=LDAM_SCALE):
    """Label-distribution-aware margin loss (Cao et al., 2019): rarer classes must win by more.

    Args:
      labels: class ids, [B].
      cosines: of features and class weights, [B, C], as `CosineDense(units, scale=1)` gives them.
      class_counts: training images per class, [C].
      max_margin: of the rarest class; a class of n images has one proportional to n^(-1/4).
      scale: of the cosines after the margin.
    Returns: loss per example in nats, [B].
    """
    labels, cosines = ids_and_logits(labels, cosines)
    margins = _counts(class_counts, cosines.shape[-1]) ** -0.25
    margins = max_margin * margins / keras.ops.max(margins)
    own = keras.ops.one_hot(labels, cosines.shape[-1], dtype="float32")
    return cross_entropy(labels, scale * (cosines - own * margins))


@keras.saving.register_keras_serializable("keras_lt")
def ldam_of_logits(labels, logits, class_counts, max_margin=0.5, scale=LDAM_SCALE):
    """`ldam` of logits that are `scale` times the cosines, [B, C], so that they are a classifier's as they are."""
    labels, logits = ids_and_logits(labels, logits)
    return ldam(labels, logits / scale, class_counts, max_margin, scale)


@keras.saving.register_keras_serializable("keras_lt")
def sigmoid_cross_entropy(labels, logits):
    """One sigmoid for every class against the rest; the sum of their binary cross-entropies.

    Args:
      labels: class ids, [B].
      logits: [B, C].
    Returns: loss per example in nats, [B].
    """
    return keras.ops.sum(keras.ops.softplus(_wrongness(labels, logits)), axis=-1)


@keras.saving.register_keras_serializable("keras_lt")
def sigmoid_focal(labels, logits, gamma):
    """Focal loss on one sigmoid for every class, as Cui et al. (2019) use it under their class weights.

    They divide the sum by the batch's positives, of which each example has one: a mean over examples.

    Args:
      labels: class ids, [B].
      logits: [B, C].
      gamma: 0 is `sigmoid_cross_entropy`; more gives well-separated classes less weight.
    Returns: loss per example in nats, [B].
    """
    wrongness = _wrongness(labels, logits)
    # (1 - p)^gamma as a logarithm, which has a finite slope where 1 - p is 0.
    weights = keras.ops.exp(gamma * keras.ops.log_sigmoid(wrongness))
    return keras.ops.sum(weights * keras.ops.softplus(wrongness), axis=-1)


def _wrongness(labels, logits):
    """Logits of every sigmoid being incorrect, [B, C]: of the example's own class with the other sign."""
    labels, logits = ids_and_logits(labels, logits)
    return logits * (1 - 2 * keras.ops.one_hot(labels, logits.shape[-1], dtype="float32"))


def _counts(class_counts, classes: int):
    """As float32; a class without images counts as one of a single image, for 0 has no logarithm and no power -1/4."""
    if known_values("class_counts", class_counts) is not None:
        class_counts = check_counts(class_counts, classes=classes)
    elif tuple(class_counts.shape) != (classes,):
        raise ValueError(f"class_counts must be [{classes}], one per class. Received: shape {class_counts.shape}")
    return keras.ops.maximum(keras.ops.convert_to_tensor(class_counts, "float32"), 1.0)
