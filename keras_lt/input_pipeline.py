"""From a split to batches: sampled and augmented for training, every example once for evaluation."""

import os

import numpy as np
import tensorflow as tf

from keras_lt.datasets import Split
from keras_lt.datasets.examples import on_host
from keras_lt.preprocessing import Preprocessing
from keras_lt.recipe import Recipe
from keras_lt.resampling import sample_indices
from keras_lt.samplers import probability_table

fold_in = tf.random.experimental.stateless_fold_in

PARALLEL_CALLS = os.cpu_count() or 1


def training_indices(
    labels: np.ndarray,
    recipe: Recipe,
    *,
    class_counts: np.ndarray,
    seed: int,
    start_step: int = 0,
    batch_size: int | None = None,
) -> tf.data.Dataset:
    """The recipe's draws, epoch by epoch: int64 indices, or [batch_size] vectors of them.

    Args:
      labels: of the examples drawn from, [N].
      class_counts: training images per class, [C].
      seed: with the position in the stream, all that the draws depend on.
      start_step: the steps behind a resumed run, over all epochs.
    """
    return sample_indices(
        labels,
        probability_table(recipe.sampler, class_counts, recipe.epochs),
        num_samples=recipe.steps(len(labels)) * recipe.batch_size,
        seed=seed,
        engine=recipe.sampler_entry.engine if recipe.engine == "auto" else recipe.engine,
        start=start_step * recipe.batch_size,
        batch_size=batch_size,
    )


def training_batches(
    split: Split,
    preprocessing: Preprocessing,
    recipe: Recipe,
    *,
    class_counts: np.ndarray,
    seed: int,
    start_step: int = 0,
) -> tf.data.Dataset:
    """Sampled, augmented batches: (images float32 [B, S, S, 3], labels int64 [B]).

    Where the preprocessing mixes, labels are `MixedLabels`. Where the recipe has class weights, a third element is that
    of every example, float32 [B].

    Args: as `training_indices`; augmentations depend on the same seed and position as the draws.
    """
    read, labels = split.examples.reader(), on_host(split.labels)
    stream = {"class_counts": class_counts, "seed": seed, "start_step": start_step}

    def seed_at(position):
        return tf.stack([tf.constant(seed, tf.int64), position])

    if preprocessing.augments or not split.examples.in_batches:
        positions = tf.data.Dataset.range(start_step * recipe.batch_size, np.iinfo(np.int64).max)
        examples = tf.data.Dataset.zip(positions, training_indices(split.labels, recipe, **stream)).map(
            lambda position, index: (preprocessing.train(read(index), seed_at(position)), labels[index]),
            num_parallel_calls=PARALLEL_CALLS,
        )
        batches = examples.batch(recipe.micro_batch, drop_remainder=True)
    else:
        rows = training_indices(split.labels, recipe, **stream, batch_size=recipe.micro_batch)
        batches = _evaluated(rows, read, labels, preprocessing)
    if preprocessing.mixes:
        passes = tf.data.Dataset.range(start_step * recipe.batch_size // recipe.micro_batch, np.iinfo(np.int64).max)
        batches = tf.data.Dataset.zip(passes, batches).map(
            lambda position, batch: preprocessing.mix(*batch, seed_at(position)), num_parallel_calls=PARALLEL_CALLS
        )
    return prefetched(weighted(batches, recipe, class_counts=class_counts, start_step=start_step))


def weighted(
    batches: tf.data.Dataset, recipe: Recipe, *, class_counts: np.ndarray, start_step: int = 0
) -> tf.data.Dataset:
    """Training batches (inputs, labels [B]) with the recipe's class weights as a third element; unchanged without any.

    Args:
      class_counts: training images per class, [C]; with the recipe they say how long an epoch is.
      start_step: the steps behind the first batch.
    """
    table = recipe.weight_table(class_counts)
    if table is None:
        return batches
    table, passes = on_host(table), recipe.steps(int(np.sum(class_counts))) * recipe.accumulate_steps

    def add_weights(position, batch):  # one argument for the batch, or `map` would spread it
        inputs, labels = batch
        return inputs, labels, tf.gather(table[tf.minimum(position // passes, len(table) - 1)], labels)

    positions = tf.data.Dataset.range(start_step * recipe.accumulate_steps, np.iinfo(np.int64).max)
    return tf.data.Dataset.zip(positions, batches).map(add_weights)


def evaluation_batches(
    split: Split, preprocessing: Preprocessing, *, batch_size: int, start: int = 0
) -> tf.data.Dataset:
    """Every example once, in order, the last batch a partial one: (images float32 [B, S, S, 3], labels int64 [B]).

    Args:
      start: the examples to leave out at the front.
    """
    read, labels = split.examples.reader(), on_host(split.labels)
    indices = tf.data.Dataset.range(start, len(split))
    if split.examples.in_batches:
        return prefetched(_evaluated(indices.batch(batch_size), read, labels, preprocessing))
    examples = indices.map(
        lambda index: (preprocessing.evaluate(read(index)), labels[index]), num_parallel_calls=PARALLEL_CALLS
    )
    return prefetched(examples.batch(batch_size))


def view_batches(
    split: Split, preprocessing: Preprocessing, *, views: int, seed: int, batch_size: int, start: int = 0
) -> tf.data.Dataset:
    """Every example augmented `views` times: (images float32 [B, S, S, 3], labels int64 [B]).

    All views of the first example come first, so that a file is read from a disk once.

    Args:
      seed: with the example's row and the view's number, all that the augmentation depends on.
      start: the views to leave out at the front.
    """
    read, labels = split.examples.reader(), on_host(split.labels)

    def view_at(position):
        row, view = position // views, position % views
        view_seed = fold_in(tf.stack([tf.constant(seed, tf.int64), view]), row)
        return preprocessing.train(read(row), view_seed), labels[row]

    positions = tf.data.Dataset.range(start, len(split) * views)
    return prefetched(positions.map(view_at, num_parallel_calls=PARALLEL_CALLS).batch(batch_size))


def prefetched(batches: tf.data.Dataset) -> tf.data.Dataset:
    """The batches, two of them ready ahead of the model.

    TensorFlow's tuner is off: nothing is left for it to choose, and at the end of an iterator its thread may sleep on
    for up to a minute, which the training then waits for.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.prefetch(2).with_options(options)


def _evaluated(index_batches: tf.data.Dataset, read, labels, preprocessing: Preprocessing) -> tf.data.Dataset:
    """Batches of pixels are gathered and preprocessed whole: five times the speed of one by one on small images."""
    return index_batches.map(
        lambda indices: (preprocessing.evaluate(read(indices)), tf.gather(labels, indices)),
        num_parallel_calls=PARALLEL_CALLS,
    )
