"""One way to train, for both stages: `model.fit` that resumes, and keeps the epoch that validates best."""

import os
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from keras_lt.checkpoints import EpochCheckpoints, atomic
from keras_lt.datasets import LongTailed
from keras_lt.distribution import check_batch_size, evaluation_batch_size
from keras_lt.features import verbosity
from keras_lt.input_pipeline import evaluation_batches, training_batches
from keras_lt.losses import LOSSES
from keras_lt.metrics import ShotAccuracy
from keras_lt.optimization import CoupledSGD, Recipe, cosine_learning_rate
from keras_lt.preprocessing import Preprocessing

# Epochs, tau and NCM's distance are chosen by this on val. On the papers' balanced val sets it is top-1; on a val set
# with a long tail, top-1 would choose the classifier that forgets the tail.
CHOSEN_BY = "class_mean"


def fit(
    model: keras.Model,
    train_batches: Callable[[int], tf.data.Dataset],
    val_batches: Callable[[int], tf.data.Dataset],
    *,
    val_examples: int,
    recipe: Recipe,
    class_counts: np.ndarray,
    strategy: tf.distribute.Strategy,
    multipliers: dict[str, float] | None = None,
    folder: str | os.PathLike | None,
) -> list[dict[str, float]]:
    """`model.fit` that goes on where a checkpoint in `folder` ends, and leaves the best epoch's weights in the model.

    Args:
      train_batches: (steps already done) -> the batches after them.
      val_batches: (batch size) -> the batches of the `val_examples` validation examples.
    Returns: the history, a row of logs per epoch.
    """
    check_batch_size(strategy, recipe.batch_size)
    steps = recipe.steps(int(class_counts.sum()))
    val_batch_size = evaluation_batch_size(strategy, recipe.batch_size, val_examples)
    with strategy.scope():
        optimizer = CoupledSGD(
            recipe.learning_rate,
            momentum=recipe.momentum,
            coupled_weight_decay=recipe.weight_decay,
            multipliers=multipliers,
        )
        model.compile(optimizer, LOSSES[recipe.loss](class_counts), metrics=[ShotAccuracy(class_counts)])
    checkpoints = EpochCheckpoints(folder, monitor=f"val_{CHOSEN_BY}")
    done = checkpoints.restore(model)
    if done < recipe.epochs:
        model.fit(
            train_batches(done * steps),
            steps_per_epoch=steps,
            initial_epoch=done,
            epochs=recipe.epochs,
            validation_data=val_batches(val_batch_size),
            callbacks=[
                keras.callbacks.LearningRateScheduler(lambda epoch: cosine_learning_rate(recipe, epoch)),
                checkpoints,
            ],
            shuffle=False,  # the stream is drawn as it should be
            verbose=verbosity(),
        )
    checkpoints.restore_best(model)
    return checkpoints.history


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
        val_examples=len(data.val),
        recipe=recipe,
        class_counts=data.class_counts,
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
