"""From a split to batches: sampled and augmented for training, every example once for evaluation."""

import os

import numpy as np
import tensorflow as tf

from keras_lt.datasets import Split
from keras_lt.optimization import Recipe
from keras_lt.preprocessing import NO_AUGMENTATION, Preprocessing
from keras_lt.resampling import sample_indices
from keras_lt.samplers import probability_table

PARALLEL_CALLS = os.cpu_count() or 1
AUTO_ENGINES = {
    "instance_balanced": "instance",
    "class_balanced": "stratified",
}  # any other sampler: weighted


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
    auto = recipe.engine == "auto"
    return sample_indices(
        labels,
        probability_table(recipe.sampler, class_counts, recipe.epochs),
        num_samples=recipe.steps(len(labels)) * recipe.batch_size,
        seed=seed,
        engine=AUTO_ENGINES.get(recipe.sampler, "weighted") if auto else recipe.engine,
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

    Args: as `training_indices`; augmentations depend on the same seed and position as the draws.
    """
    read, labels = _reader(split), _on_host(split.labels)
    stream = {"class_counts": class_counts, "seed": seed, "start_step": start_step}
    if preprocessing.augmentation == NO_AUGMENTATION and not split.is_files:
        batches = training_indices(split.labels, recipe, **stream, batch_size=recipe.batch_size)
        return _evaluated(batches, read, labels, preprocessing)

    def example(position, index):
        example_seed = tf.stack([tf.constant(seed, tf.int64), position])
        return preprocessing.train(read(index), example_seed), labels[index]

    positions = tf.data.Dataset.range(start_step * recipe.batch_size, np.iinfo(np.int64).max)
    examples = tf.data.Dataset.zip(positions, training_indices(split.labels, recipe, **stream))
    examples = examples.map(example, num_parallel_calls=PARALLEL_CALLS)
    return prefetched(examples.batch(recipe.batch_size, drop_remainder=True))


def evaluation_batches(split: Split, preprocessing: Preprocessing, *, batch_size: int) -> tf.data.Dataset:
    """Every example once, in order, the last batch a partial one: (images float32 [B, S, S, 3], labels int64 [B])."""
    read, labels = _reader(split), _on_host(split.labels)
    indices = tf.data.Dataset.range(len(split))
    if not split.is_files:
        return _evaluated(indices.batch(batch_size), read, labels, preprocessing)
    examples = indices.map(
        lambda index: (preprocessing.evaluate(read(index)), labels[index]), num_parallel_calls=PARALLEL_CALLS
    )
    return prefetched(examples.batch(batch_size))


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
    return prefetched(
        index_batches.map(
            lambda indices: (preprocessing.evaluate(read(indices)), tf.gather(labels, indices)),
            num_parallel_calls=PARALLEL_CALLS,
        )
    )


def _reader(split: Split):
    """index -> one image: encoded bytes or pixels; for pixels also indices [B] -> [B, H, W, channels]."""
    images = _on_host(split.images)
    if split.is_files:
        return lambda index: tf.io.read_file(images[index])
    return lambda indices: tf.gather(images, indices)


def _on_host(array: np.ndarray) -> tf.Tensor:
    with tf.device("CPU:0"):  # a GPU has no place for the data set, nor for strings
        return tf.constant(array)
