"""Classification losses: labels [B] and logits [B, C] to one value per example, [B].

`LOSSES` maps a name to a function from class counts [C] to the loss that `model.compile` takes. A new loss is
one registered function `(labels, logits, ...) -> [B]` and one line there.
"""

from collections.abc import Callable

import keras
import numpy as np

MIXED_LABEL_WIDTH = 3  # the larger part's class, the smaller part's, the larger part's weight


@keras.saving.register_keras_serializable("keras_lt")
def cross_entropy(labels, logits, label_smoothing=0.0):
    """Softmax cross-entropy, computed in float32.

    Args:
      labels: class ids, [B].
      logits: [B, C].
      label_smoothing: share of the target that is spread evenly over all classes (Szegedy et al., 2016).
    Returns: loss per example in nats, [B].
    """
    logits = keras.ops.cast(logits, "float32")
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
    prior = keras.ops.log(keras.ops.convert_to_tensor(class_counts, "float32"))
    return cross_entropy(labels, keras.ops.cast(logits, "float32") + prior)


@keras.saving.register_keras_serializable("keras_lt")
def ldam(labels, cosines, class_counts, max_margin=0.5, scale=30.0):
    """Label-distribution-aware margin loss (Cao et al., 2019): rarer classes must win by more.

    Args:
      labels: class ids, [B].
      cosines: of features and class weights, [B, C], as `CosineDense(units, scale=1)` gives them.
      class_counts: training images per class, [C].
      max_margin: of the rarest class; a class of n images has one proportional to n^(-1/4).
      scale: of the cosines after the margin.
    Returns: loss per example in nats, [B].
    """
    margins = keras.ops.convert_to_tensor(class_counts, "float32") ** -0.25
    margins = max_margin * margins / keras.ops.max(margins)
    cosines = keras.ops.cast(cosines, "float32")
    own = keras.ops.one_hot(labels, cosines.shape[-1], dtype="float32")
    return cross_entropy(labels, scale * (cosines - own * margins))


def effective_number_weights(class_counts, beta):
    """Class weights inverse to the effective number of images, (1 - beta^n) / (1 - beta) (Cui et al., 2019).

    Args:
      class_counts: training images per class, [C], none 0.
      beta: in [0, 1); 0 weighs all classes alike, near 1 inversely to their images.
    Returns: float64 [C], summing to C.
    """
    if not 0 <= beta < 1:
        raise ValueError(f"beta must lie in [0, 1). Received: beta={beta}")
    weights = 1 / -np.expm1(np.asarray(class_counts) * np.log(beta)) if beta else np.ones(len(class_counts))
    return weights * len(weights) / weights.sum()


@keras.saving.register_keras_serializable("keras_lt")
class PerExampleLoss(keras.losses.Loss):
    """A per-example function as a Keras loss: `model.compile(loss=PerExampleLoss(cross_entropy))`.

    Args:
      function: (labels [B], logits [B, C], **arguments) -> loss [B], registered with Keras to be saved.
      **arguments: what else the function takes, say `class_counts` [C]; saved with the loss.
    """

    def __init__(
        self,
        function: Callable,
        *,
        name: str | None = None,
        reduction: str | None = "sum_over_batch_size",
        **arguments,
    ):
        super().__init__(name=name or function.__name__, reduction=reduction, dtype="float32")
        self.function = function
        self.arguments = arguments

    def call(self, labels, logits):
        """Loss per example, [B]; of mixed labels [B, 3] (`preprocessing.mixing`) the weighted mean of both classes'."""
        if len(labels.shape) == 2 and labels.shape[-1] == MIXED_LABEL_WIDTH:
            weight = keras.ops.cast(labels[:, 2], "float32")
            return weight * self._of_class(labels[:, 0], logits) + (1 - weight) * self._of_class(labels[:, 1], logits)
        return self._of_class(labels, logits)

    def _of_class(self, labels, logits):
        # Keras hands the labels over as floats; some data sets have them as a column.
        labels = keras.ops.cast(keras.ops.reshape(labels, (-1,)), "int32")
        return self.function(labels, logits, **self.arguments)

    def get_config(self):
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "function": keras.saving.serialize_keras_object(self.function),
            **keras.saving.serialize_keras_object(self.arguments),
        }

    @classmethod
    def from_config(cls, config):
        """Rebuilds the loss around the registered function."""
        return cls(**keras.saving.deserialize_keras_object(config))


LOSSES: dict[str, Callable[..., keras.losses.Loss]] = {
    "cross_entropy": lambda class_counts, **smoothing: PerExampleLoss(cross_entropy, **smoothing),
    "focal": lambda class_counts: PerExampleLoss(focal, gamma=2.0),
    "balanced_softmax": lambda class_counts: PerExampleLoss(
        balanced_softmax, class_counts=np.asarray(class_counts).tolist()
    ),
}
PRIOR_CORRECTED = ("balanced_softmax",)  # these correct for the tail themselves: balanced draws would do it twice
