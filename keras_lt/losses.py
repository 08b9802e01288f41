"""Classification losses: labels [B] and logits [B, C] to one value per example, [B].

`LOSSES` maps a name to a function from class counts [C] to the loss that `model.compile` takes. A new loss is
one registered function `(labels, logits, ...) -> [B]` and one line there.
"""

from collections.abc import Callable

import keras

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
}
