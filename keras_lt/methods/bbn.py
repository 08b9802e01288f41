"""BBN: one branch for the data as they are, one for the tail (Zhou et al., CVPR 2020, arXiv:1912.02413).

Every step sees pairs of images, one drawn uniformly and one by the reversed sampler. They share all of the net but its
last block, of which each has its own. A weight, alpha, falls from 1 to 0 over training: with it, features and loss pass
from the uniform branch to the reversed one.
"""

import dataclasses
import functools

import keras
import numpy as np
import tensorflow as tf

from keras_lt import backbones, stages
from keras_lt.classifiers import HEADS
from keras_lt.datasets import Split
from keras_lt.input_pipeline import Stream, mapped, training_batches
from keras_lt.preprocessing import Preprocessing
from keras_lt.saving import SavedByArguments
from keras_lt.stages import Hooks

HORIZONS = {90: 100, 180: 200}  # T_max of the reference's two iNaturalist schedules; else it is the number of epochs
# What BBN is made of, and so nobody's to choose.
FIXED = {
    "sampler": ("instance_balanced",),
    "engine": ("auto",),
    "loss": ("cross_entropy",),
    "class_weights": ("none",),
    "feature_loss": ("",),
    "resampling": ("none",),
    "head": ("auto",),
    "pretrained": ("",),
    "train_parts": ("all",),
    "mixup": (0,),
    "cutmix": (0,),
    "ema_momentum": (0,),  # its shared layers have statistics of two draws, which are estimated for one alone
}


def cumulative_alpha(epoch: float, horizon: float) -> float:
    """Weight of the uniform branch after that many epochs of T_max, 1 - (epoch / T_max)^2."""
    return 1 - (epoch / horizon) ** 2


@keras.saving.register_keras_serializable("keras_lt")
class BilateralBranches(SavedByArguments, keras.Model):
    """Trains the two branches of a model, images -> logits, each on its own draws; the model itself is what is kept.

    A pair (uniform images, reversed images) has the logits z = W [2a f_u ; 2(1 - a) f_r] + b for a = alpha and, for
    their labels, the loss a CE(z, y_u) + (1 - a) CE(z, y_r). Single images go through both branches with a = 1/2: that
    is the model as it is.
    The halves of a pair are two passes through the trunk, so each has its own statistics in batch norm.

    Args:
      model: Functional, images [B, S, S, 3] -> logits [B, C]; its layer "backbone" is `backbones.branched`, its layer
        "classifier" linear.
    """

    def __init__(self, model: keras.Model, **options):
        super().__init__(**options)
        self.model = model
        self.uniform, self.reversed = backbones.branches(model.get_layer("backbone"))
        self.alpha = self.add_weight(shape=(), initializer="ones", trainable=False, autocast=False, name="alpha")

    def call(self, inputs, training=False):
        """Images [B, S, S, 3] -> logits [B, C]; a pair of such images -> logits [B, C] and alpha."""
        if not _is_pair(inputs):
            return self.model(inputs, training=training)
        uniform, rebalanced = inputs
        alpha = keras.ops.convert_to_tensor(self.alpha)
        features = keras.ops.concatenate(
            [
                2 * alpha * self.uniform(uniform, training=training),
                2 * (1 - alpha) * self.reversed(rebalanced, training=training),
            ],
            axis=-1,
        )
        return self.model.get_layer("classifier")(features), alpha

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Keras's hook: for a pair of labels the weighted sum of both losses."""
        if not _is_pair(y):
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        logits, alpha = y_pred
        uniform = super().compute_loss(x, y[0], logits, None, training)
        rebalanced = super().compute_loss(x, y[1], logits, None, training)
        return alpha * uniform + (1 - alpha) * rebalanced

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Keras's hook: a pair of labels counts as two examples, by their weights."""
        if _is_pair(y):
            logits, alpha = y_pred  # not the model's own: on JAX metrics are computed without it
            ones = keras.ops.ones_like(logits[:, 0])
            sample_weight = keras.ops.concatenate([alpha * ones, (1 - alpha) * ones])
            y, y_pred = keras.ops.concatenate(y), keras.ops.concatenate([logits, logits])
        return super().compute_metrics(x, y, y_pred, sample_weight)


def _is_pair(batch) -> bool:
    return isinstance(batch, tuple | list)


class CumulativeLearning(keras.callbacks.Callback):
    """Sets the weight of the uniform branch for every epoch, and logs it.

    Args:
      horizon: T_max, in epochs.
    """

    def __init__(self, horizon: int):
        super().__init__()
        self.horizon = horizon

    def on_epoch_begin(self, epoch: int, logs: dict | None = None):
        """Keras's hook."""
        self.model.alpha.assign(cumulative_alpha(epoch, self.horizon))

    def on_epoch_end(self, epoch: int, logs: dict | None = None):
        """Keras's hook."""
        logs["alpha"] = cumulative_alpha(epoch, self.horizon)


def paired_batches(split: Split, preprocessing: Preprocessing, stream: Stream) -> tf.data.Dataset:
    """Batches of both samplers side by side: ((images, images), (labels, labels)), the uniform draws first.

    Args: as `input_pipeline.training_batches`; the stream's sampler is the uniform one. The other draws, and their
      augmentations, have a seed of their own that follows from the stream's.
    """
    recipe = dataclasses.replace(stream.recipe, sampler="reversed")
    seed = int(np.random.SeedSequence([stream.seed, 1]).generate_state(1)[0])
    both = (stream, dataclasses.replace(stream, recipe=recipe, seed=seed))
    pairs = tf.data.Dataset.zip(*(training_batches(split, preprocessing, one) for one in both))
    return mapped(pairs, lambda uniform, rebalanced: tuple(zip(uniform, rebalanced, strict=True)))


def check_backbone(backbone: backbones.BackboneEntry):
    """Raises ValueError where the last block cannot be there twice."""
    if not backbone.can_branch:
        own = ", ".join(name for name, entry in backbones.BACKBONES.items() if entry.can_branch)
        raise ValueError(f"backbone of method=bbn must be one of {own}. Received: backbone={backbone.label}")


def network(backbone: keras.Model, *, pretrained: bool) -> keras.Model:
    """The backbone with its last block twice; pretrained ones are refused."""
    return backbones.branched(backbone)


def hooks() -> Hooks:
    """What BBN changes: branched backbones, trained on pairs of images; its classifier is the one trained with them."""
    return Hooks(
        name="bbn",
        check_backbone=check_backbone,
        network=network,
        head=HEADS["dense"],
        training_model=lambda model, class_counts: BilateralBranches(model),
        batches=paired_batches,
        callbacks=lambda recipe: [CumulativeLearning(HORIZONS.get(recipe.epochs, recipe.epochs))],
        fixed=FIXED,
        classifier=functools.partial(stages.learn_classifier, "joint"),
    )
