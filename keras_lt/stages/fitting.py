"""One way to train, for both stages: `model.fit` that resumes, and keeps the recipe's epoch."""

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_lt.checkpoints import EpochCheckpoints
from keras_lt.compat import ScaledLoss, frozen_variables, keep_positions, layers_within, unwatched
from keras_lt.datasets import LongTailed, Split
from keras_lt.distribution import Strategy, evaluation_batch_size, hosts, is_first
from keras_lt.features import FeatureSet, verbosity
from keras_lt.files import atomic, reading
from keras_lt.input_pipeline import Stream, evaluation_batches, training_batches
from keras_lt.logs import EventLog
from keras_lt.metrics import ShotAccuracy, ShotGroups
from keras_lt.optimization import make_optimizer
from keras_lt.preprocessing import Preprocessing
from keras_lt.recipe import Recipe
from keras_lt.samplers import probability_table
from keras_lt.stages.callbacks import (
    AfterEpoch,
    FiniteLoss,
    StatisticsOfAverage,
    estimated_statistics,
    learning_rate_log,
)
from keras_lt.stages.checks import check_devices
from keras_lt.stages.training_models import OnMixedLabels

# Epochs, tau and NCM's distance are chosen by this on val. On the papers' balanced val sets it is top-1; on a val set
# with a long tail, top-1 would choose the classifier that forgets the tail.
CHOSEN_BY = "class_mean"
ASKED_EXAMPLES = 1000  # by which a checkpoint tells a data set from others
STATISTICS_BATCHES = 100  # of an epoch, by which batch norm's statistics of averaged weights are estimated


def fit(
    model: keras.Model,
    train_batches: Callable[[Stream], tf.data.Dataset],
    val_batches: Callable[[int], tf.data.Dataset],
    *,
    stream: Stream,
    groups: ShotGroups,
    val_examples: int,
    strategy: Strategy,
    multipliers: dict[str, float] | None = None,
    folder: str | os.PathLike | None,
    trained_on: Split,
    made_of: Mapping[str, object] | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> list[dict[str, float]]:
    """`model.fit` that goes on where a checkpoint in `folder` ends, and leaves the kept epoch's weights in the model.

    Args:
      train_batches: (the stream from some step on) -> its batches; of several processes, this one's share.
      val_batches: (batch size) -> the batches of the validation examples, or likewise this one's share.
      stream: from its first step on; its recipe is that of the training.
      groups: of classes, by which accuracies are logged.
      val_examples: how many there are to validate.
      multipliers: path of a variable -> factor on its learning rate.
      trained_on: the training examples, which `train_batches` draws from.
      made_of: by name, what else the numbers depend on; where it is another, a checkpoint is refused.
      callbacks: of the model's own, such as one that moves a weight of its loss.
    Returns: the history, a row of logs per epoch.
    """
    recipe, writes = stream.recipe, is_first(strategy)
    check_devices(strategy, recipe)
    steps = recipe.steps(int(stream.class_counts.sum()))
    passes = steps * recipe.accumulate_steps
    val_batch_size = evaluation_batch_size(strategy, recipe.micro_batch, val_examples)
    made_of = {} if folder is None else {**_made_of(stream, trained_on), **(made_of or {})}
    checkpoints = EpochCheckpoints(
        folder, monitor=f"val_{CHOSEN_BY}", keep=recipe.kept_epoch, writes=writes, made_of=made_of
    )

    def batches(start_step):
        return train_batches(dataclasses.replace(stream, start_step=start_step))

    def statistics(epoch):
        some = min(passes, STATISTICS_BATCHES)
        return estimated_statistics(placed, lambda: batches(epoch * steps).take(some), strategy)

    with hosts(strategy).placing(model) as placed:
        with strategy.scope():
            _compile(placed, stream, steps=steps, groups=groups, multipliers=multipliers)
            done = checkpoints.restore(placed)
        hosts(strategy).check_same(done, "epochs behind them: the work folder must be one that all of them see")
        if done < recipe.epochs:
            shared = [
                learning_rate_log(recipe, steps),
                FiniteLoss(batches, recipe, passes, folder if writes else None),
                *_after_epoch(recipe, statistics),
                *(_event_log(stream, groups, folder) if folder is not None and writes else ()),
            ]
            with unwatched(frozen_variables(placed)):
                placed.fit(
                    batches(done * steps),
                    steps_per_epoch=passes,
                    initial_epoch=done,
                    epochs=recipe.epochs,
                    validation_data=val_batches(val_batch_size),
                    callbacks=[*shared, *callbacks, checkpoints],
                    shuffle=False,  # the stream is drawn as it should be
                    verbose=verbosity(),
                )
        checkpoints.restore_kept(placed)
        if recipe.ema_momentum:
            statistics(checkpoints.kept_epoch)
    return checkpoints.history


def _after_epoch(recipe: Recipe, statistics: Callable[[int], Callable]) -> list[keras.callbacks.Callback]:
    """What is done to the weights before they are validated, and where an average of them is, to that too."""
    if not recipe.ema_momentum:
        return [AfterEpoch()]
    return [AfterEpoch(), keras.callbacks.SwapEMAWeights(), AfterEpoch(), StatisticsOfAverage(statistics)]


def _event_log(stream: Stream, groups: ShotGroups, folder: str | os.PathLike) -> list[EventLog]:
    table = probability_table(stream.recipe.sampler, stream.class_counts, stream.recipe.epochs)
    return [EventLog(pathlib.Path(folder, "events"), probabilities=table, groups=groups)]


def _made_of(stream: Stream, trained_on: Split) -> dict[str, object]:
    """What tells a training from another one: of its examples the labels, and a thousand spread over all."""
    recipe = {name: value for name, value in dataclasses.asdict(stream.recipe).items() if not callable(value)}
    rows = np.unique(np.linspace(0, len(trained_on) - 1, ASKED_EXAMPLES, dtype=np.int64))
    digest = hashlib.sha256(trained_on.labels.tobytes() + trained_on.examples.subset(rows).key_hashes().tobytes())
    return {**recipe, "seed": stream.seed, "examples": digest.hexdigest()[:16]}


def _compile(model: keras.Model, stream: Stream, *, steps: int, groups: ShotGroups, multipliers: dict | None):
    """Compiles the model by the stream's recipe; steps and the others are as in `fit`."""
    recipe = stream.recipe
    loss = recipe.loss_entry(stream.class_counts)
    loss.reduction = "sum_over_batch_size"  # exact over any share of a batch: the pipeline has normalised the weights
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
    made_of: Mapping[str, object] | None = None,
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
    share = hosts(strategy).evaluation_share
    return fit(
        model,
        functools.partial(batches, data.train, preprocessing),
        lambda batch_size: val_batches(data.val, preprocessing, batch_size=batch_size, **share),
        stream=Stream(recipe, data.class_counts, seed, **hosts(strategy).share),
        groups=data.groups,
        val_examples=len(data.val),
        strategy=strategy,
        trained_on=data.train,
        made_of={**(made_of or {}), **dataclasses.asdict(preprocessing)},
        **options,
    )


def fit_on_features(
    layer: keras.layers.Layer,
    features: Mapping[str, FeatureSet],
    *,
    groups: ShotGroups,
    recipe: Recipe,
    seed: int,
    strategy: Strategy,
    **options,
) -> list[dict[str, float]]:
    """`fit` of a built classifier on the features of "train" and "val"; groups and options as there."""
    train, val = features["train"].resampled(recipe.resampling, seed=seed), features["val"]
    with strategy.scope():
        model = on_features(layer, train.width)
    class_counts = np.bincount(train.labels, minlength=model.output_shape[-1])
    share = hosts(strategy).evaluation_share
    return fit(
        model,
        train.training_batches,
        lambda batch_size: val.evaluation_batches(batch_size=batch_size, **share),
        stream=Stream(recipe, class_counts, seed, **hosts(strategy).share),
        groups=groups,
        val_examples=len(val.labels),
        strategy=strategy,
        trained_on=train.as_split,
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
