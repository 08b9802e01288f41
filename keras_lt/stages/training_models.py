"""Models around a model, images -> logits, that train it: on images of two classes, and with a loss on its features."""

from collections.abc import Callable

import keras

from keras_lt.compat import of_all_replicas
from keras_lt.labels import MixedLabels, class_ids
from keras_lt.losses import PerExampleLoss
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


class WithFeatureLoss(OnMixedLabels):
    """Trains a model, images -> logits, by the compiled loss plus a weighted one on its features.

    It adds nothing to what the model computes, and nothing to the loss while validating, so that validation losses
    compare between runs with and without it. The model itself is what is kept.
    Of several replicas of a TensorFlow strategy each has the loss of the whole batch's features.

    Args:
      model: Functional, images [B, S, S, 3] -> logits [B, C], with layers "backbone" and "classifier".
      feature_loss: (labels [B], features [B, D]) -> loss per example [B]; a layer may have weights of its own.
      weight: on the mean of that.
    """

    def __init__(self, model: keras.Model, feature_loss: Callable, *, weight: float = 1.0):
        super().__init__(model)
        self.feature_loss = feature_loss  # a layer's weights are found here
        self.weight = weight
        self._mean_loss = PerExampleLoss(feature_loss, name="feature_loss", reduction="sum_over_batch_size")

    def call(self, images, training=False):
        """Images [B, S, S, 3] -> {"features": [B, D], "logits": [B, C]}."""
        features = self.model.get_layer("backbone")(images, training=training)
        return {"features": features, "logits": self.model.get_layer("classifier")(features, training=training)}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Keras's hook: the loss on logits, and in training the weighted one on features."""
        logits, features = y_pred["logits"], y_pred["features"]
        loss = super().compute_loss(x, y, logits, sample_weight, training)
        if not training:
            return loss
        if isinstance(y, MixedLabels):
            larger, smaller, weight, features = of_all_replicas(y.larger, y.smaller, y.weight, features)
            added = self._mean_loss(larger, features, weight) + self._mean_loss(smaller, features, 1 - weight)
        else:
            added = self._mean_loss(*of_all_replicas(class_ids(y, logits.shape[-1]), features))
        return loss + self.weight * added

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Keras's hook: metrics of logits."""
        return super().compute_metrics(x, y, y_pred["logits"], sample_weight)
