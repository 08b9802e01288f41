"""One way to train, for both stages: `model.fit` that resumes, and keeps the epoch that validates best."""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from keras_lt.checkpoints import EpochCheckpoints, atomic
from keras_lt.datasets import LongTailed
from keras_lt.distribution import check_replicas, evaluation_batch_size
from keras_lt.features import verbosity
from keras_lt.input_pipeline import evaluation_batches, training_batches
from keras_lt.losses import LOSSES
from keras_lt.metrics import ShotAccuracy
from keras_lt.optimization import CoupledSGD, Recipe
from keras_lt.preprocessing import Preprocessing

# Epochs, tau and NCM's distance are chosen by this on val. On the papers' balanced val sets it is top-1; on a val set
# with a long tail, top-1 would choose the classifier that forgets the tail.
CHOSEN_BY = "class_mean"


def fit(
    model: keras.Model,
    train_batches: Callable[[int], tf.data.Dataset],
    val_batches: Callable[[int], tf.data.Dataset],
    *,
    data: LongTailed,
    recipe: Recipe,
    strategy: tf.distribute.Strategy,
    multipliers: dict[str, float] | None = None,
    folder: str | os.PathLike | None,
) -> list[dict[str, float]]:
    """`model.fit` that goes on where a checkpoint in `folder` ends, and leaves the best epoch's weights in the model.

    Args:
      train_batches: (steps already done) -> the batches after them.
      val_batches: (batch size) -> the batches of the validation examples.
      data: what the batches are of.
    Returns: the history, a row of logs per epoch.
    """
    check_replicas(
        strategy,
        batch_size=recipe.batch_size,
        accumulate_steps=recipe.accumulate_steps,
        steps_per_execution=recipe.steps_per_execution,
        jit_compile=recipe.jit_compile == "true",
    )
    steps = recipe.steps(len(data.train))
    passes = steps * recipe.accumulate_steps
    val_batch_size = evaluation_batch_size(strategy, recipe.pass_size, len(data.val))
    smoothing = {"label_smoothing": recipe.label_smoothing} if recipe.label_smoothing else {}
    with strategy.scope():
        optimizer = CoupledSGD(
            recipe.learning_rate,
            momentum=recipe.momentum,
            coupled_weight_decay=recipe.weight_decay,
            multipliers=multipliers,
            global_clipnorm=recipe.clip_norm or None,
            use_ema=recipe.ema_momentum > 0,
            ema_momentum=recipe.ema_momentum,
            gradient_accumulation_steps=recipe.accumulate_steps if recipe.accumulate_steps > 1 else None,
        )
        model.compile(
            optimizer,
            LOSSES[recipe.loss](data.class_counts, **smoothing),
            metrics=[ShotAccuracy(data.listed_counts)],
            steps_per_execution=recipe.steps_per_execution,
            jit_compile={"auto": "auto", "true": True, "false": False}[recipe.jit_compile],
        )
    checkpoints = EpochCheckpoints(folder, monitor=f"val_{CHOSEN_BY}")
    done = checkpoints.restore(model)
    if done < recipe.epochs:
        callbacks = [LearningRate(recipe, passes), FiniteLoss(train_batches, recipe, passes, folder)]
        if recipe.ema_momentum:
            callbacks.append(keras.callbacks.SwapEMAWeights())
        with _global_batch_norm(model, strategy):
            model.fit(
                train_batches(done * steps),
                steps_per_epoch=passes,
                initial_epoch=done,
                epochs=recipe.epochs,
                validation_data=val_batches(val_batch_size),
                callbacks=[*callbacks, checkpoints],
                shuffle=False,  # the stream is drawn as it should be
                verbose=verbosity(),
            )
    checkpoints.restore_best(model)
    return checkpoints.history


class LearningRate(keras.callbacks.Callback):
    """Sets the recipe's learning rate, and logs it.

    Args:
      passes: of one epoch.
    """

    def __init__(self, recipe: Recipe, passes: int):
        super().__init__()
        self.recipe = recipe
        self.passes = passes
        self._epoch = 0
        self._rate = None

    def on_epoch_begin(self, epoch: int, logs: dict | None = None):
        """Keras's hook."""
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: dict | None = None):
        """Keras's hook: the rate of this batch, if it is another one."""
        rate = self.recipe.rate(self._epoch + batch / self.passes)
        if rate != self._rate:
            self.model.optimizer.learning_rate = self._rate = rate

    def on_epoch_end(self, epoch: int, logs: dict | None = None):
        """Keras's hook: logs the rate of the epoch's last batch."""
        logs["learning_rate"] = self._rate


class FiniteLoss(keras.callbacks.Callback):
    """Ends training where the loss is no longer a number, and keeps the batch that did it.

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
            inputs, labels = next(iter(self.train_batches(update).skip(rest)))
            path = pathlib.Path(self.folder, "bad_batch.npz")
            with atomic(path) as scratch, scratch.open("wb") as file:
                np.savez(file, inputs=inputs, labels=labels)
            kept = f" The batch is kept in {path}."
        raise FloatingPointError(
            f"The loss is {logs['loss']} in epoch {self._epoch + 1}, batch {batch + 1}, at learning rate "
            f"{self.recipe.rate(self._epoch + batch / self.passes):g}: lower the learning rate, or clip gradients by "
            f"clip_norm.{kept}"
        )


@contextlib.contextmanager
def _global_batch_norm(model: keras.Model, strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Several devices train with the statistics of the global batch, as one device would."""
    layers = [
        layer
        for layer in model._flatten_layers(include_self=False)
        if isinstance(layer, keras.layers.BatchNormalization) and strategy.num_replicas_in_sync > 1
    ]
    for layer in layers:
        layer.synchronized = True
    try:
        yield
    finally:
        for layer in layers:
            layer.synchronized = False


def fit_on_images(
    model: keras.Model, data: LongTailed, preprocessing: Preprocessing, *, recipe: Recipe, seed: int, **options
) -> list[dict[str, float]]:
    """`fit` of a model, images -> logits, on the train and val images of a data set; options as there."""
    return fit(
        model,
        lambda start_step: training_batches(
            data.train, preprocessing, recipe, class_counts=data.class_counts, seed=seed, start_step=start_step
        ),
        lambda batch_size: evaluation_batches(data.val, preprocessing, batch_size=batch_size),
        data=data,
        recipe=recipe,
        **options,
    )


def save_model(model: keras.Model, path: str | os.PathLike):
    """Writes a `.keras` file, whole or not at all."""
    with atomic(path) as scratch:
        model.save(scratch)


def check_choice(argument: str, value: str, valid):
    """Raises ValueError, with the valid names, where `value` is none of them."""
    if value not in valid:
        raise ValueError(f"{argument} must be one of {', '.join(valid)}. Received: {argument}={value!r}")
