"""Training on features in memory: an epoch is one call of a compiled function, which later fits of that shape reuse.

`model.fit` compiles anew for every model, and starts a pipeline for every epoch: seconds, where training itself takes
milliseconds. The draws, the updates and the epoch that is kept are the same.
"""

import functools
import json
import threading
import time
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from keras_lt.classifiers.chunks import classify
from keras_lt.distribution import Strategy, hosts
from keras_lt.features import FeatureSet, verbosity
from keras_lt.input_pipeline import Stream, epoch_rows, update_weights
from keras_lt.metrics import ShotGroups
from keras_lt.optimization import make_optimizer
from keras_lt.recipe import Recipe
from keras_lt.stages.callbacks import check_weights, no_number
from keras_lt.stages.fitting import CHOSEN_BY

QUIET_SECONDS = 5  # after which the epochs are shown
KEPT_FUNCTIONS = 32  # compiled; each holds the weights of one classifier and its optimiser
_one_at_a_time = threading.Lock()  # the functions hold weights


def trains_in_memory(train: FeatureSet, recipe: Recipe, *, strategy: Strategy, folder: object) -> bool:
    """Whether a classifier can be trained here: on one device, without checkpoints, and on features in memory."""
    return (
        folder is None
        and keras.backend.backend() == "tensorflow"
        and hosts(strategy).one_host
        and strategy.num_replicas_in_sync == 1
        and type(train.features) is np.ndarray  # no memory map, and no rows of one
        and train.views is None
        and recipe.accumulate_steps == 1
        and not recipe.ema_momentum
        and recipe.jit_compile != "true"
    )


def fit_in_memory(
    layer: keras.layers.Layer,
    features: Mapping[str, FeatureSet],
    *,
    groups: ShotGroups,
    recipe: Recipe,
    seed: int,
    multipliers: Mapping[str, float] | None = None,
):
    """Trains a built classifier on the features of "train", and leaves the weights of the epoch that the recipe keeps.

    The best epoch is so by `CHOSEN_BY`, the earliest of equals.

    Args:
      features: where "val" has no rows, the last epoch is kept.
      multipliers: path of a variable -> factor on its learning rate.
    Raises:
      FloatingPointError: the loss, or a weight, is no longer a number.
    """
    train, val = features["train"].resampled(recipe.resampling, seed=seed), features["val"]
    class_counts = np.bincount(train.labels, minlength=layer.units)
    table = recipe.weight_table(class_counts)
    rows_of = epoch_rows(train.labels, Stream(recipe, class_counts, seed))
    arrays = tf.constant(np.asarray(train.features, np.float32)), tf.constant(train.labels)
    factors = tuple((multipliers or {}).get(variable.path, 1.0) for variable in layer.trainable_weights)
    with _one_at_a_time:
        compiled = _compiled(
            type(layer),
            json.dumps({**layer.get_config(), "name": None}),
            train.width,
            recipe,
            loss=json.dumps(keras.saving.serialize_keras_object(recipe.loss_entry(class_counts))),
            steps=recipe.steps(len(train.labels)),
            factors=factors,
        )
        compiled.start(layer)
        best, kept = -np.inf, layer.get_weights()
        progress = keras.utils.Progbar(recipe.epochs, unit_name="epoch", verbose=verbosity())
        begun = time.monotonic()
        for epoch in range(recipe.epochs):
            rows = rows_of(epoch)
            weights = tf.ones(rows.shape) if table is None else update_weights(table[epoch], train.labels[rows], recipe)
            losses = compiled.epoch(*arrays, tf.constant(rows), weights).numpy()
            if (bad := np.flatnonzero(~np.isfinite(losses))).size:
                raise no_number(f"The loss is {losses[bad[0]]}", epoch=epoch, batch=bad[0], rate=recipe.rate(epoch))
            check_weights(compiled.layer, epoch=epoch, batch=len(losses) - 1, rate=recipe.rate(epoch))
            if hasattr(compiled.layer, "after_epoch"):
                compiled.layer.after_epoch()
            score = epoch
            if len(val.labels) and recipe.kept_epoch == "best":
                score = groups.of_predictions(classify(compiled.layer, val.features), val.labels)[CHOSEN_BY]
            if score > best:
                best, kept = score, compiled.layer.get_weights()
            if time.monotonic() - begun > QUIET_SECONDS:
                progress.update(epoch + 1)
    layer.set_weights(kept)


class _Compiled:
    """A copy of a layer, its optimiser, and an epoch of both as one function.

    Attributes:
      layer: the copy.
      epoch: (features [N, D], labels [N], rows [S, B], weights of these [S, B]) -> loss of every step, [S].

    Args:
      batch_size: B.
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        loss: keras.losses.Loss,
        optimizer: keras.optimizers.Optimizer,
        *,
        width: int,
        batch_size: int,
    ):
        self.layer = layer
        self._optimizer = optimizer
        self._fresh = [np.array(keras.ops.convert_to_numpy(variable)) for variable in optimizer.variables]

        def step(features, labels, rows, weights):
            with tf.GradientTape() as tape:
                value = loss(tf.gather(labels, rows), layer(tf.gather(features, rows), training=True), weights)
            optimizer.apply(tape.gradient(value, layer.trainable_weights), layer.trainable_weights)
            return value

        def epoch(features, labels, rows, weights):
            return tf.map_fn(
                lambda batch: step(features, labels, *batch), (rows, weights), fn_output_signature=tf.float32
            )

        # Traced here: TensorFlow warns of functions, each of a layer, that it traces when they are called.
        self.epoch = tf.function(epoch, autograph=False).get_concrete_function(
            tf.TensorSpec((None, width), tf.float32),
            tf.TensorSpec((None,), tf.int64),
            tf.TensorSpec((None, batch_size), tf.int64),
            tf.TensorSpec((None, batch_size), tf.float32),
        )

    def start(self, layer: keras.layers.Layer):
        """Takes that layer's weights, and an optimiser that has seen nothing."""
        self.layer.set_weights(layer.get_weights())
        for variable, value in zip(self._optimizer.variables, self._fresh, strict=True):
            variable.assign(value)


@functools.lru_cache(KEPT_FUNCTIONS)
def _compiled(
    kind: type[keras.layers.Layer],
    config: str,
    width: int,
    recipe: Recipe,
    *,
    loss: str,
    steps: int,
    factors: tuple[float, ...],
) -> _Compiled:
    """What trains layers of that kind and configuration on features [B, width]; config and loss are written as JSON."""
    copy = kind.from_config(json.loads(config))
    copy.build((None, width))
    multipliers = {variable.path: factor for variable, factor in zip(copy.trainable_weights, factors, strict=True)}
    optimizer = make_optimizer(recipe, steps=steps, multipliers=multipliers)
    optimizer.build(copy.trainable_weights)
    function = keras.saving.deserialize_keras_object(json.loads(loss))
    function.reduction = "sum_over_batch_size"  # the weights are normalised
    return _Compiled(copy, function, optimizer, width=width, batch_size=recipe.batch_size)
