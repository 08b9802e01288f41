"""One way to train, for both stages: `model.fit` that resumes, and keeps the epoch that validates best."""

import os
import pathlib
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_lt.checkpoints import EpochCheckpoints, atomic
from keras_lt.datasets import LongTailed
from keras_lt.distribution import Strategy, check_replicas, evaluation_batch_size, hosts, is_first
from keras_lt.features import verbosity
from keras_lt.input_pipeline import evaluation_batches, training_batches
from keras_lt.logs import EventLog
from keras_lt.losses import LOSSES
from keras_lt.metrics import ShotAccuracy
from keras_lt.optimization import CoupledSGD, Recipe
from keras_lt.preprocessing import Preprocessing
from keras_lt.samplers import probability_table
from keras_lt.stages.callbacks import FiniteLoss, LearningRate

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
    strategy: Strategy,
    multipliers: dict[str, float] | None = None,
    folder: str | os.PathLike | None,
    class_counts: np.ndarray | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> list[dict[str, float]]:
    """`model.fit` that goes on where a checkpoint in `folder` ends, and leaves the best epoch's weights in the model.

    Args:
      train_batches: (steps already done) -> the batches after them, of several processes the share of this one.
      val_batches: (batch size) -> the batches of the validation examples, or likewise this one's share.
      data: what the batches are of.
      class_counts: examples drawn from, per class, [C]; None is the data set's training images.
      callbacks: of the model's own, such as one that moves a weight of its loss.
    Returns: the history, a row of logs per epoch.
    """
    options = {"data": data, "recipe": recipe, "strategy": strategy, "multipliers": multipliers, "folder": folder}
    options["class_counts"] = data.class_counts if class_counts is None else class_counts
    options["callbacks"] = callbacks
    with hosts(strategy).placing(model) as placed:
        return _fit(placed, train_batches, val_batches, **options)


def _fit(model, train_batches, val_batches, *, data, recipe, strategy, multipliers, folder, class_counts, callbacks):
    """`fit` of a model that is where it is trained."""
    check_replicas(
        strategy,
        batch_size=recipe.batch_size,
        accumulate_steps=recipe.accumulate_steps,
        steps_per_execution=recipe.steps_per_execution,
        jit_compile=recipe.jit_compile == "true",
    )
    steps = recipe.steps(int(class_counts.sum()))
    passes = steps * recipe.accumulate_steps
    val_batch_size = evaluation_batch_size(strategy, recipe.pass_size, len(data.val))
    loss = LOSSES[recipe.loss](class_counts, **recipe.loss_options)
    if recipe.class_weights == "none":
        loss.reduction = "sum_over_batch_size"  # by which the weights of rows that fill a batch up are exact
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
            loss,
            weighted_metrics=[ShotAccuracy(data.listed_counts)],
            steps_per_execution=recipe.steps_per_execution,
            jit_compile={"auto": "auto", "true": True, "false": False}[recipe.jit_compile],
        )
    checkpoints = EpochCheckpoints(folder, monitor=f"val_{CHOSEN_BY}", writes=is_first(strategy))
    with strategy.scope():  # where a checkpoint is found, the optimizer's variables are made here
        done = checkpoints.restore(model)
    hosts(strategy).check_same(done, "epochs behind them: the work folder must be one that all of them see")
    if done < recipe.epochs:
        shared = [
            LearningRate(recipe, passes),
            FiniteLoss(train_batches, recipe, passes, folder if is_first(strategy) else None),
        ]
        if recipe.ema_momentum:
            shared.append(keras.callbacks.SwapEMAWeights())
        if folder is not None and is_first(strategy):
            table = probability_table(recipe.sampler, class_counts, recipe.epochs)
            events = pathlib.Path(folder, "events")
            shared.append(EventLog(events, probabilities=table, class_counts=data.listed_counts))
        model.fit(
            train_batches(done * steps),
            steps_per_epoch=passes,
            initial_epoch=done,
            epochs=recipe.epochs,
            validation_data=val_batches(val_batch_size),
            callbacks=[*shared, *callbacks, checkpoints],
            shuffle=False,  # the stream is drawn as it should be
            verbose=verbosity(),
        )
    checkpoints.restore_best(model)
    return checkpoints.history


def fit_on_images(
    model: keras.Model,
    data: LongTailed,
    preprocessing: Preprocessing,
    *,
    recipe: Recipe,
    seed: int,
    strategy: Strategy,
    **options,
) -> list[dict[str, float]]:
    """`fit` of a model, images -> logits, on the train and val images of a data set; options as there."""
    data = data.resampled(recipe.resampling, seed=seed)
    stream = {"class_counts": data.class_counts, "seed": seed, **hosts(strategy).share}
    return fit(
        model,
        lambda start_step: training_batches(data.train, preprocessing, recipe, **stream, start_step=start_step),
        lambda batch_size: evaluation_batches(
            data.val, preprocessing, batch_size=batch_size, **hosts(strategy).evaluation_share
        ),
        data=data,
        recipe=recipe,
        strategy=strategy,
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
