"""From a split to batches: sampled and augmented for training, every example once for evaluation."""

import dataclasses
import os
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_lt.datasets import Split
from keras_lt.datasets.examples import on_host
from keras_lt.preprocessing import Preprocessing
from keras_lt.recipe import Recipe
from keras_lt.resampling import epoch_indices, sample_indices
from keras_lt.samplers import probability_table

fold_in = tf.random.experimental.stateless_fold_in

PARALLEL_CALLS = os.cpu_count() or 1


@dataclasses.dataclass(frozen=True, eq=False)
class Stream:
    """What the stream of training batches depends on beside the examples.

    Attributes:
      recipe: how many are drawn, and by which sampler.
      class_counts: training images per class, [C].
      seed: with the position in the stream, all that draws and augmentations depend on.
      start_step: the steps behind a resumed run, over all epochs.
      worker, workers: the number of this process, and of all; each has its own neighbours of every pass.
    """

    recipe: Recipe
    class_counts: np.ndarray
    seed: int = 0
    start_step: int = 0
    worker: int = 0
    workers: int = 1

    @property
    def share(self) -> int:
        """This worker's examples of a pass."""
        return self.recipe.micro_batch // self.workers

    @property
    def undivided(self) -> "Stream":
        """The same draws, by batches of a whole update."""
        recipe = dataclasses.replace(self.recipe, accumulate_steps=1, steps_per_execution=1)
        return dataclasses.replace(self, recipe=recipe, worker=0, workers=1)

    def steps(self) -> tf.data.Dataset:
        """The numbers of the steps, from the first one on."""
        return tf.data.Dataset.range(self.start_step, np.iinfo(np.int64).max)


def seed_at(seed: int, position: tf.Tensor) -> tf.Tensor:
    """The seed of a position in a stream, int64 [2]."""
    return tf.stack([tf.constant(seed, tf.int64), position])


def training_indices(labels: np.ndarray, stream: Stream) -> tf.data.Dataset:
    """The recipe's draws, epoch by epoch, for a pass over images each: int64 vectors [pass_size / workers].

    Args:
      labels: of the examples drawn from, [N].
    """
    return sample_indices(
        labels,
        **draws(labels, stream),
        seed=stream.seed,
        start=stream.start_step * stream.recipe.batch_size,
        batch_size=stream.recipe.micro_batch,
        worker=stream.worker,
        workers=stream.workers,
    )


def epoch_rows(labels: np.ndarray, stream: Stream) -> Callable[[int], np.ndarray]:
    """The draws of `training_indices` without a pipeline: epoch, from 0 -> rows of its S updates, int64 [S, B]."""
    indices = epoch_indices(labels, **draws(labels, stream), seed=stream.seed)
    return lambda epoch: indices(epoch).reshape(-1, stream.recipe.batch_size)


def draws(labels: np.ndarray, stream: Stream) -> dict:
    """The recipe, as arguments of `resampling.sample_indices`."""
    recipe = stream.recipe
    return {
        "probabilities": probability_table(recipe.sampler, stream.class_counts, recipe.epochs),
        "num_samples": recipe.steps(len(labels)) * recipe.batch_size,
        "engine": recipe.sampler_entry.engine if recipe.engine == "auto" else recipe.engine,
    }


def training_batches(split: Split, preprocessing: Preprocessing, stream: Stream) -> tf.data.Dataset:
    """Sampled, augmented batches: (images float32 [B, S, S, 3], labels int64 [B]).

    Where the preprocessing mixes, labels are `MixedLabels`. Where the recipe has class weights, a third element is that
    of every example, float32 [B].

    Of several workers each reads its own share alone; the shares are the batches of one. MixUp and CutMix blend images
    from all over the batch of an update, so with them every worker makes all of it.
    """
    recipe, share = stream.recipe, stream.share
    if preprocessing.mixes and (stream.workers, recipe.accumulate_steps) != (1, 1):
        updates = training_batches(split, preprocessing, stream.undivided)
        count = tf.data.experimental.assert_cardinality(int(updates.cardinality()) * recipe.accumulate_steps)
        batches = updates.rebatch(recipe.micro_batch, drop_remainder=True).apply(count)  # which `rebatch` forgets
        return own_rows(batches, stream)
    labels, rows = on_host(split.labels), training_indices(split.labels, stream)
    if preprocessing.augments or split.examples.encoded:
        first = stream.start_step * recipe.batch_size // stream.workers
        numbers = tf.data.Dataset.range(first, np.iinfo(np.int64).max)

        def example(content, row, number):  # augmented by its place in the whole batch, whoever reads it
            position = number // share * recipe.micro_batch + stream.worker * share + number % share
            return preprocessing.train(content, seed_at(stream.seed, position)), labels[row]

        examples = _read_and_mapped(tf.data.Dataset.zip(rows.unbatch(), numbers), split, example)
        batches = examples.batch(share, drop_remainder=True).apply(as_many_as(rows))
    else:
        batches = _evaluated(rows, split, preprocessing)
    if preprocessing.mixes:
        batches = mapped(
            tf.data.Dataset.zip(stream.steps(), batches),
            lambda step, batch: preprocessing.mix(*batch, seed_at(stream.seed, step)),
            parallel=True,
        )
    return prefetched(weighted(batches, split.labels, stream))


def weighted(batches: tf.data.Dataset, labels: np.ndarray, stream: Stream) -> tf.data.Dataset:
    """Training batches (inputs, labels [B]) with the recipe's class weights as a third element; unchanged without any.

    They are `update_weights`, over an update's passes and workers.

    Args:
      labels: of the examples drawn from, [N].
    """
    recipe = stream.recipe
    table = recipe.weight_table(stream.class_counts)
    if table is None:
        return batches
    weights_of, labels_of, steps = on_host(table), on_host(labels), recipe.steps(len(labels))

    def of_update(step, rows):
        of_class = weights_of[tf.minimum(step // steps, len(table) - 1)]
        weights = update_weights(of_class, tf.gather(labels_of, rows), recipe)
        return tf.reshape(weights, (recipe.accumulate_steps, stream.workers, stream.share))[:, stream.worker]

    rows = training_indices(labels, stream.undivided)
    weights = mapped(tf.data.Dataset.zip(stream.steps(), rows), of_update).unbatch().apply(as_many_as(batches))
    return mapped(tf.data.Dataset.zip(batches, weights), lambda batch, weights: (*batch, weights))


def update_weights(of_class: np.ndarray | tf.Tensor, labels: np.ndarray | tf.Tensor, recipe: Recipe) -> tf.Tensor:
    """What every example of an update counts in a loss that is a mean over examples, float32 [..., B].

    Where the recipe's loss wants a mean over weights, they are w B / sum(w) of all B examples: the plain mean is then
    exact, however the update is divided.

    Args:
      of_class: class weights w, float32 [C].
      labels: of the examples of one update or several, [..., B].
    """
    weights = tf.gather(of_class, labels)
    return weights / tf.reduce_mean(weights, -1, keepdims=True) if recipe.loss_entry.normalizes_weights else weights


def evaluation_batches(
    split: Split, preprocessing: Preprocessing, *, batch_size: int, start: int = 0, **share: int
) -> tf.data.Dataset:
    """Every example once, in order, the last batch a partial one: (images float32 [B, S, S, 3], labels int64 [B]).

    Args:
      start: the examples to leave out at the front.
      share: worker, workers and devices as in `evaluation_rows`, by which weights [B] may be a third element.
    """
    rows, weigh = evaluation_rows(len(split), batch_size=batch_size, start=start, **share)
    if not split.examples.encoded:
        return prefetched(weigh(_evaluated(rows, split, preprocessing)))
    labels = on_host(split.labels)
    examples = _read_and_mapped(
        tf.data.Dataset.zip((rows.unbatch(),)),
        split,
        lambda content, row: (preprocessing.evaluate(content), labels[row]),
    )
    return prefetched(weigh(examples.batch(batch_size // share.get("workers", 1)).apply(as_many_as(rows))))


def evaluation_rows(
    examples: int, *, batch_size: int, start: int = 0, worker: int = 0, workers: int = 1, devices: int = 1
) -> tuple[tf.data.Dataset, Callable[[tf.data.Dataset], tf.data.Dataset]]:
    """Batches of the rows of all examples, in order; and what adds their weights to batches of these examples.

    The last batch may not divide by the devices, so its first row is then repeated with weight 0; the other weights are
    such that a mean over all rows is the mean over the examples.

    Args:
      batch_size: rows over all workers, which the devices divide.
      worker, workers: this process's number, and how many there are; each has its own neighbours of every batch.
      devices: over all workers; of one, which takes any number of rows, batches have no weights.
    """
    weight = 1 + -(examples % batch_size) % devices / examples

    def filled(batch):
        size = tf.size(batch)
        padded = tf.concat([batch, tf.fill([-size % devices], batch[0])], 0)
        own = tf.size(padded) // workers
        mine = slice(worker * own, (worker + 1) * own)
        return padded[mine], tf.where(tf.range(tf.size(padded)) < size, np.float32(weight), 0)[mine]

    rows = tf.data.Dataset.range(start, examples).batch(batch_size)
    if devices == 1:
        return rows, lambda batches: batches
    rows = mapped(rows, filled)
    weights = mapped(rows, lambda _, weights: weights)

    def weigh(batches):
        return mapped(tf.data.Dataset.zip(batches, weights), lambda batch, weights: (*batch, weights))

    return mapped(rows, lambda own, _: own), weigh


def view_batches(
    split: Split, preprocessing: Preprocessing, *, views: int, seed: int, batch_size: int, start: int = 0
) -> tf.data.Dataset:
    """Every example augmented `views` times: (images float32 [B, S, S, 3], labels int64 [B]).

    All views of the first example come first, so that a file is read from a disk once.

    Args:
      seed: with the example's row and the view's number, all that the augmentation depends on.
      start: the views to leave out at the front.
    """
    labels = on_host(split.labels)

    def view_of(content, row, view):
        return preprocessing.train(content, fold_in(seed_at(seed, view), row)), labels[row]

    positions = tf.data.Dataset.range(start, len(split) * views)
    rows_and_views = mapped(positions, lambda position: (position // views, position % views))
    return prefetched(_read_and_mapped(rows_and_views, split, view_of).batch(batch_size))


def own_rows(batches: tf.data.Dataset, stream: Stream) -> tf.data.Dataset:
    """This worker's share of batches that are whole."""

    def rows(array):
        share = tf.shape(array)[0] // stream.workers
        return array[stream.worker * share : (stream.worker + 1) * share]

    return mapped(batches, lambda *batch: tf.nest.map_structure(rows, batch if len(batch) > 1 else batch[0]))


def mapped(dataset: tf.data.Dataset, function: Callable, *, parallel: bool = False) -> tf.data.Dataset:
    """`dataset.map` of a function that is TensorFlow alone: to look for Python to convert takes longer than tracing it.

    Args:
      parallel: whether elements are computed side by side, as many as there are cores.
    """
    function = tf.autograph.experimental.do_not_convert(function)
    return dataset.map(function, num_parallel_calls=PARALLEL_CALLS if parallel else None)


def as_many_as(batches: tf.data.Dataset) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
    """Says of a dataset, by `apply`, that it has as many elements as another, which `unbatch` and `rebatch` forget."""
    return tf.data.experimental.assert_cardinality(int(batches.cardinality()))


def prefetched(batches: tf.data.Dataset) -> tf.data.Dataset:
    """The batches, two of them ready ahead of the model.

    TensorFlow's tuner is off: nothing is left for it to choose, and at the end of an iterator its thread may sleep on
    for up to a minute, which the training then waits for.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.prefetch(2).with_options(options)


def _read_and_mapped(elements: tf.data.Dataset, split: Split, function: Callable) -> tf.data.Dataset:
    """`function(content, row, *others)` of elements (row, *others), as many side by side as there are cores."""
    read, at_once = split.examples.reader(), split.examples.read_at_once
    if at_once == 1:
        return mapped(elements, lambda row, *others: function(read(row), row, *others), parallel=True)
    chunks = mapped(elements.batch(at_once), lambda rows, *others: (read(rows), rows, *others), parallel=True)
    return mapped(chunks.unbatch(), function, parallel=True)


def _evaluated(index_batches: tf.data.Dataset, split: Split, preprocessing: Preprocessing) -> tf.data.Dataset:
    """Batches of pixels are gathered and preprocessed whole: five times the speed of one by one on small images."""
    read, labels = split.examples.reader(), on_host(split.labels)
    return mapped(
        index_batches,
        lambda indices: (preprocessing.evaluate(read(indices)), tf.gather(labels, indices)),
        parallel=True,
    )
