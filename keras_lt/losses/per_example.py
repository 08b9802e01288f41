"""A per-example function as the loss that `model.compile` takes."""

from collections.abc import Callable

import keras

from keras_lt.arguments import checked
from keras_lt.labels import class_ids


@keras.saving.register_keras_serializable("keras_lt")
@checked
class PerExampleLoss(keras.losses.Loss):
    """A per-example function as a Keras loss: `model.compile(loss=PerExampleLoss(cross_entropy))`.

    Labels are class ids, [B] or [B, 1], or one-hot rows, [B, C]. Rows that are not one-hot, such as smoothed ones, give
    NaN: an error cannot be raised from inside of a compiled step.

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
        """Loss per example, [B]."""
        classes = logits.shape[-1]
        ids = class_ids(labels, classes)
        loss = self.function(ids, logits, **self.arguments)
        if len(labels.shape) == 1 or labels.shape[-1] == 1:
            return loss
        is_one_hot = keras.ops.all(keras.ops.equal(labels, keras.ops.one_hot(ids, classes, dtype="float32")), axis=-1)
        return keras.ops.where(is_one_hot, loss, float("nan"))

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
