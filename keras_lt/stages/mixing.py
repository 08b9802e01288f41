"""Training on images of two classes, as MixUp and CutMix make them."""

import keras

from keras_lt.labels import MixedLabels
from keras_lt.saving import SavedByArguments


@keras.saving.register_keras_serializable("keras_lt")
class OnMixedLabels(SavedByArguments, keras.Model):
    """Trains a model, images -> logits, by `MixedLabels`; the model itself is what is kept.

    The loss, a mean over examples, is w l(larger) + (1 - w) l(smaller) of the larger part's weight w. Class ids [B] are
    taken as they are, so that it is validated on plain images.

    Args:
      model: Functional, images [B, S, S, 3] -> logits [B, C].
    """

    def __init__(self, model: keras.Model):
        # Of the model's policy, by which `compile` scales the loss of float16.
        super().__init__(name=model.name, dtype=model.dtype_policy, autocast=False)
        self.model = model

    def call(self, images, training=False):
        """Images [B, S, S, 3] -> logits [B, C]."""
        return self.model(images, training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Keras's hook: a mixed image counts as two, whose weights add up to those of two."""
        if isinstance(y, MixedLabels):
            doubled = 2.0 if sample_weight is None else 2.0 * sample_weight
            sample_weight = keras.ops.concatenate([doubled * y.weight, doubled * (1 - y.weight)])
            y, y_pred = keras.ops.concatenate([y.larger, y.smaller]), keras.ops.concatenate([y_pred, y_pred])
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Keras's hook: a mixed image counts as one of its larger part's class."""
        return super().compute_metrics(x, y.larger if isinstance(y, MixedLabels) else y, y_pred, sample_weight)
