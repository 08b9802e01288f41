"""One way to train, for both stages: `model.fit` that resumes, and keeps the recipe's epoch."""

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_lt.checkpoints import EpochCheckpoints
from keras_lt.compat import ScaledLoss, frozen_variables, keep_positions, layers_within, unwatched
from keras_lt.datasets import LongTailed
from keras_lt.distribution import Strategy, check_replicas, evaluation_batch_size, hosts, is_first
from keras_lt.features import FeatureSet, verbosity
from keras_lt.files import atomic, reading
from keras_lt.input_pipeline import evaluation_batches, training_batches
from keras_lt.logs import EventLog
from keras_lt.metrics import ShotAccuracy, ShotGroups
from keras_lt.optimization import make_optimizer
from keras_lt.preprocessing import Preprocessing
from keras_lt.recipe import Recipe
from keras_lt.samplers import probability_table
from keras_lt.stages.callbacks import AfterEpoch, FiniteLoss, LearningRateLog, StatisticsOfAverage
from keras_lt.stages.mixing import OnMixedLabels
from keras_lt.stages.statistics import estimated_statistics

# Epochs, tau and NCM's distance are chosen by this on val. On the papers' balanced val sets it is top-1; on a val set
# with a long tail, top-1 would choose the classifier that forgets the tail.
CHOSEN_BY = "class_mean"
STATISTICS_BATCHES = 100  # of an epoch, by which batch norm's statistics of averaged weights are estimated


def fit(
    model: keras.Model,
    train_batches: Callable[[int], tf.data.Dataset],
    val_batches: Callable[[int], tf.data.Dataset],
    *,
    class_counts: np.ndarray,
    groups: ShotGroups,
    val_examples: int,
    recipe: Recipe,
    strategy: Strategy,
    multipliers: dict[str, float] | None = None,
    folder: str | os.PathLike | None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> list[dict[str, float]]:
    """`model.fit` that goes on where a checkpoint in `folder` ends, and leaves the kept epoch's weights in the model.

    Args:
      train_batches: (steps already done) -> the batches after them; of several processes, this one's share.
      val_batches: (batch size) -> the batches of the validation examples, or likewise this one's share.
      class_counts: examples drawn from, per class, [C].
      groups: of classes, by which accuracies are logged.
      val_examples: how many there are to validate.
      multipliers: path of a variable -> factor on its learning rate.
      callbacks: of the model's own, such as one that moves a weight of its loss.
    Returns: the history, a row of logs per epoch.
    """
    options = {"class_counts": class_counts, "groups": groups, "val_examples": val_examples, "recipe": recipe}
    options |= {"strategy": strategy, "multipliers": multipliers, "folder": folder, "callbacks": callbacks}
    with hosts(strategy).placing(model) as placed:
        return _fit(placed, train_batches, val_batches, **options)


def _fit(
    model,
    train_batches,
    val_batches,
    *,
    class_counts,
    groups,
    val_examples,
    recipe,
    strategy,
    multipliers,
    folder,
    callbacks,
):
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
    val_batch_size = evaluation_batch_size(strategy, recipe.micro_batch, val_examples)
    loss = recipe.loss_entry(class_counts)
    loss.reduction = "sum_over_batch_size"  # exact over any share of a batch: the pipeline has normalised the weights
    with strategy.scope():
        optimizer = make_optimizer(recipe, steps=steps, multipliers=multipliers)
        if any(layer.compute_dtype == "float16" for layer in layers_within(model)):
            optimizer = ScaledLoss(optimizer)  # `compile` goes by the outermost model's policy, which a copy has not
        model.compile(
            optimizer,
            loss,
            weighted_metrics=[ShotAccuracy(groups)],
            steps_per_execution=recipe.steps_per_execution,
            jit_compile={"auto": "auto", "true": True, "false": False}[recipe.jit_compile],
        )
    checkpoints = EpochCheckpoints(
        folder, monitor=f"val_{CHOSEN_BY}", keep=recipe.kept_epoch, writes=is_first(strategy)
    )
    with strategy.scope():
        done = checkpoints.restore(model)
    hosts(strategy).check_same(done, "epochs behind them: the work folder must be one that all of them see")

    def statistics(epoch):
        return estimated_statistics(
            model, lambda: train_batches(epoch * steps).take(min(passes, STATISTICS_BATCHES)), strategy
        )

    if done < recipe.epochs:
        shared = [
            LearningRateLog(recipe, steps),
            FiniteLoss(train_batches, recipe, passes, folder if is_first(strategy) else None),
            AfterEpoch(),
        ]
        if recipe.ema_momentum:  # then it is done to the average, too
            shared += [keras.callbacks.SwapEMAWeights(), AfterEpoch(), StatisticsOfAverage(statistics)]
        if folder is not None and is_first(strategy):
            table = probability_table(recipe.sampler, class_counts, recipe.epochs)
            shared.append(EventLog(pathlib.Path(folder, "events"), probabilities=table, groups=groups))
        with unwatched(frozen_variables(model)):
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
    checkpoints.restore_kept(model)
    if recipe.ema_momentum:
        statistics(checkpoints.kept_epoch)
    return checkpoints.history


def fit_on_images(
    model: keras.Model,
    data: LongTailed,
    preprocessing: Preprocessing,
    *,
    recipe: Recipe,
    seed: int,
    batches: Callable[..., tf.data.Dataset] = training_batches,
    val_batches: Callable[..., tf.data.Dataset] = evaluation_batches,
    strategy: Strategy,
    **options,
) -> list[dict[str, float]]:
    """`fit` of a model, images -> logits, on the train and val images of a data set.

    Args:
      batches, val_batches: as `input_pipeline.training_batches` and `evaluation_batches`.
      **options: of `fit`.
    """
    data = data.resampled(recipe.resampling, seed=seed)
    if preprocessing.mixes and not isinstance(model, OnMixedLabels):
        with strategy.scope():
            model = OnMixedLabels(model)
    stream = {"class_counts": data.class_counts, "seed": seed, **hosts(strategy).share}
    share = hosts(strategy).evaluation_share

    return fit(
        model,
        lambda start_step: batches(data.train, preprocessing, recipe, **stream, start_step=start_step),
        lambda batch_size: val_batches(data.val, preprocessing, batch_size=batch_size, **share),
        class_counts=data.class_counts,
        groups=data.groups,
        val_examples=len(data.val),
        recipe=recipe,
        strategy=strategy,
        **options,
    )


def fit_on_features(
    model: keras.Model,
    features: Mapping[str, FeatureSet],
    *,
    groups: ShotGroups,
    recipe: Recipe,
    seed: int,
    strategy: Strategy,
    **options,
) -> list[dict[str, float]]:
    """`fit` of a model, features -> logits, on the features of "train" and "val"; groups and options as there."""
    train, val = features["train"].resampled(recipe.resampling, seed=seed), features["val"]
    class_counts = np.bincount(train.labels, minlength=model.output_shape[-1])
    stream = {"class_counts": class_counts, "seed": seed, **hosts(strategy).share}
    share = hosts(strategy).evaluation_share
    return fit(
        model,
        lambda start_step: train.training_batches(recipe, **stream, start_step=start_step),
        lambda batch_size: val.evaluation_batches(batch_size=batch_size, **share),
        class_counts=class_counts,
        groups=groups,
        val_examples=len(val.labels),
        recipe=recipe,
        strategy=strategy,
        **options,
    )


def on_features(layer: keras.layers.Layer, width: int) -> keras.Model:
    """A built classifier as a model, features [B, width] -> logits [B, C]."""
    inputs = keras.Input((width,), name="features")
    return keras.Model(inputs, layer(inputs))


def save_model(model: keras.Model, path: str | os.PathLike):
    """Writes a `.keras` file, completely or not at all."""
    keep_positions(model)
    with atomic(path) as scratch:
        model.save(scratch)


def load_model(path: pathlib.Path, *, instead: str = "") -> keras.Model:
    """Reads what `save_model` wrote; where it is damaged, says what to do instead, by default of a classifier's."""
    again = f"put back a copy, or remove {path.parent}, and the training command learns it again"
    with reading(path, instead=instead or again):
        return keras.saving.load_model(path, compile=False)
