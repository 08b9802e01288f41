"""A per-example function as the loss that `model.compile` takes."""

from collections.abc import Callable

import keras

MIXED_LABEL_WIDTH = 3  # the larger part's class, the smaller part's, the larger part's weight


@keras.saving.register_keras_serializable("keras_lt")
class PerExampleLoss(keras.losses.Loss):
    """A per-example function as a Keras loss: `model.compile(loss=PerExampleLoss(cross_entropy))`.

    Args:
      function: (labels [B], logits [B, C], **arguments) -> loss [B], registered with Keras to be saved.
      reduction: of Keras; the default is sum(w l) / sum(w) of sample weights w, the plain mean where there are none.
      **arguments: what else the function takes, say `class_counts` [C]; saved with the loss.
    """

    def __init__(
        self,
        function: Callable,
        *,
        name: str | None = None,
        reduction: str | None = "mean_with_sample_weight",
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
