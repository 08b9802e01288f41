"""What happens between the steps of a fit: the learning rate is logged, and a loss that is no number ends it."""

import os
import pathlib
from collections.abc import Callable, Iterable

import keras
import numpy as np
import tensorflow as tf

from keras_lt.compat import layers_within
from keras_lt.distribution import Strategy
from keras_lt.files import atomic
from keras_lt.recipe import Recipe


def learning_rate_log(recipe: Recipe, steps: int) -> keras.callbacks.Callback:
    """Logs the learning rate of every epoch's last step, of so many."""

    def log(epoch: int, logs: dict):
        logs["learning_rate"] = recipe.rate(epoch + (steps - 1) / steps)

    return keras.callbacks.LambdaCallback(on_epoch_end=log)


class AfterEpoch(keras.callbacks.Callback):
    """Lets a classifier that has `after_epoch` do what it does after an epoch's steps, before it is validated."""

    def on_test_begin(self, logs: dict | None = None):
        """Keras's hook."""
        for layer in layers_within(self.model):
            if hasattr(layer, "after_epoch"):
                layer.after_epoch()


class StatisticsOfAverage(keras.callbacks.Callback):
    """While a moving average of the weights is validated, batch norm has the statistics of that average.

    Args:
      estimate: (epoch) -> the statistics are put into the model, and what puts its own back is returned.
    """

    def __init__(self, estimate: Callable[[int], Callable[[], None]]):
        super().__init__()
        self.estimate = estimate
        self._epoch, self._put_back = 0, None

    def on_epoch_begin(self, epoch: int, logs: dict | None = None):
        """Keras's hook."""
        self._epoch = epoch

    def on_test_begin(self, logs: dict | None = None):
        """Keras's hook, after that by which the average takes the weights' place."""
        self._put_back = self.estimate(self._epoch)

    def on_test_end(self, logs: dict | None = None):
        """Keras's hook."""
        self._put_back()


def estimated_statistics(
    model: keras.Model, batches: Callable[[], Iterable[tuple]], strategy: Strategy
) -> Callable[[], None]:
    """Gives the batch norm of a model the mean statistics of some training batches (Izmailov et al., UAI 2018).

    Layers that are frozen keep theirs.

    Args:
      batches: gives (inputs, ...) each, inputs as the model takes them; not asked where no batch norm is trained.
    Returns: what puts the statistics back that were there.
    """
    layers = [
        layer
        for layer in layers_within(model)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]
    variables = [variable for layer in layers for variable in (layer.moving_mean, layer.moving_variance)]
    others = list(model.non_trainable_variables)  # random state among them
    before = [np.array(keras.ops.convert_to_numpy(variable)) for variable in others]

    def put_back():
        with strategy.scope():
            for variable, value in zip(others, before, strict=True):
                variable.assign(value)

    if not layers:
        return put_back
    settings, seen = [(layer.momentum, layer.synchronized) for layer in layers], []
    try:
        for layer in layers:
            layer.momentum, layer.synchronized = 0.0, False  # a batch's own, and one device has the whole batch
        with strategy.scope():
            for inputs, *_ in batches():
                model(inputs, training=True)
                seen.append([np.array(keras.ops.convert_to_numpy(variable)) for variable in variables])
    finally:
        for layer, (momentum, synchronized) in zip(layers, settings, strict=True):
            layer.momentum, layer.synchronized = momentum, synchronized
    put_back()
    with strategy.scope():
        for variable, values in zip(variables, zip(*seen, strict=True), strict=True):
            variable.assign(np.mean(values, axis=0, dtype=np.float64).astype(np.float32))
    return put_back


class FiniteLoss(keras.callbacks.Callback):
    """Ends training where loss or weights are no longer numbers, and keeps the batch that the loss is of.

    Args:
      train_batches: (updates already done) -> the batches after them, from which that batch is drawn again.
      passes: of one epoch.
      folder: where `bad_batch.npz` goes; None keeps none.
    """

    def __init__(
        self,
        train_batches: Callable[[int], tf.data.Dataset],
        recipe: Recipe,
        passes: int,
        folder: str | os.PathLike | None,
    ):
        super().__init__()
        self.train_batches = train_batches
        self.recipe = recipe
        self.passes = passes
        self.folder = folder
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None):
        """Keras's hook."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict | None = None):
        """Keras's hook: the logged loss is a mean over the epoch, which one bad batch spoils for good."""
        if np.isfinite(logs["loss"]):
            return
        kept = ""
        if self.folder is not None:
            update, rest = divmod(self._epoch * self.passes + batch, self.recipe.accumulate_steps)
            batch_parts = next(iter(self.train_batches(update).skip(rest)))
            path = pathlib.Path(self.folder, "bad_batch.npz")
            with atomic(path) as scratch, scratch.open("wb") as file:
                np.savez(file, **_arrays(batch_parts))
            kept = f" The batch is kept in {path}."
        rate = float(self.model.optimizer.learning_rate)
        raise no_number(f"The loss is {logs['loss']}", epoch=self._epoch, batch=batch, rate=rate, kept=kept)

    def on_epoch_end(self, epoch: int, logs: dict | None = None):
        """Keras's hook: of what the last step did, no loss tells."""
        check_weights(self.model, epoch=epoch, batch=self.passes - 1, rate=float(self.model.optimizer.learning_rate))


def check_weights(model: keras.layers.Layer, *, epoch: int, batch: int, rate: float):
    """Raises FloatingPointError where trained weights are no longer numbers; epoch and batch count from 0."""
    if not all(np.isfinite(keras.ops.convert_to_numpy(variable)).all() for variable in model.trainable_variables):
        raise no_number("Weights are no longer finite", epoch=epoch, batch=batch, rate=rate)


def no_number(what: str, *, epoch: int, batch: int, rate: float, kept: str = "") -> FloatingPointError:
    """The error of a training that has diverged; epoch and batch count from 0."""
    return FloatingPointError(
        f"{what} in epoch {epoch + 1}, batch {batch + 1}, at learning rate {rate:g}: "
        f"lower the learning rate, or clip gradients by clip_norm.{kept}"
    )


def _arrays(batch: tuple) -> dict[str, np.ndarray]:
    """A batch (inputs, labels) or (inputs, labels, weights) by name; parts of several tensors have them numbered."""
    arrays = {}
    for name, part in zip(("inputs", "labels", "weights"), batch, strict=False):
        tensors = tf.nest.flatten(part)
        arrays |= {name if len(tensors) == 1 else f"{name}{i}": tensor.numpy() for i, tensor in enumerate(tensors)}
    return arrays
