"""Example indices drawn by class probability, as a `tf.data` stream: for data with random access."""

import numbers
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_lt import samplers
from keras_lt.arguments import as_array, checked
from keras_lt.registry import check_choice
from keras_lt.resampling import plans

ENDLESS = 2**62
SEED = (0, 2**63)  # at least, and below: TensorFlow takes no more


@checked
def sample_indices(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    *,
    num_samples: int,
    seed: int,
    engine: str = "weighted",
    start: int = 0,
    batch_size: int | None = None,
    worker: int = 0,
    workers: int = 1,
) -> tf.data.Dataset:
    """Stream of example indices whose classes follow the given probabilities, epoch after epoch.

    Which index stands at a position depends on the seed and the position only: not on `start`, on `batch_size` or on
    the number of workers. Nothing is remembered, so a stream starts anywhere at the cost of one epoch's plan, and
    `tf.train.Checkpoint` saves its iterator without options.

    Engines:
      weighted: independent draws, a class by its probability and then any image of it.
      stratified: the reference's class-aware sampler where all rows are class-balanced: a shuffled cycle over the
        classes, four images at each, from that class's own shuffled cycle. For other rows each epoch holds
        num_samples * p images of a class, rounded up or down so that the rounding evens out over epochs, spread over
        the whole epoch. Either way no image repeats before all of its class were seen, across epochs too.
      instance: a full shuffle each epoch, without replacement; it does not look at the probabilities, only at how
        many rows they have.

    Args:
      labels: class of each example, [N] integers.
      probabilities: [C], for ever, or [E, C], one row an epoch, after which the stream ends.
      num_samples: examples per epoch.
      seed: a non-negative integer.
      engine: "weighted", "stratified" or "instance".
      start: position of the first example of the stream, in examples (not batches).
      batch_size: examples over all workers per batch; scalars when None. Batches run on across epochs, and the last one
        of a finite stream may be smaller.
      worker, workers: this worker's number and how many there are. Each gets its own slice of every batch, or every
        workers-th scalar.

    Returns: dataset of int64 indices, scalars or [batch_size / workers]; its cardinality is known.

    Raises:
      ValueError: for labels outside the C classes, rows that are no distributions, a class with a positive
        probability but no example, and numbers out of range.
    """
    labels, probabilities = checked_classes(labels, probabilities)
    check_integers(
        num_samples=(num_samples, 1), seed=(seed, *SEED), start=(start, 0), workers=(workers, 1), worker=(worker, 0)
    )
    if batch_size is not None:
        check_integers(batch_size=(batch_size, 1))
        if batch_size % workers:
            raise ValueError(f"batch_size must be a multiple of workers={workers}. Received: batch_size={batch_size}")
    if worker >= workers:
        raise ValueError(f"worker must be in [0, {workers}). Received: worker={worker}")
    check_choice(plans.ENGINES, engine=engine)

    end, length = ENDLESS, tf.data.INFINITE_CARDINALITY
    if probabilities.ndim == 2:
        end = len(probabilities) * num_samples
        length = end - start
        if length < 0:
            raise ValueError(f"start must be at most {end}, the stream's length. Received: start={start}")
    plan = _plan(labels, probabilities, num_samples=num_samples, seed=seed, engine=engine)
    vectors = plans.indices(plan, start, end)
    if batch_size is None:
        stream = vectors.unbatch().apply(tf.data.experimental.assert_cardinality(length))
        return stream if workers == 1 else stream.shard(workers, worker)
    return _own_batches(vectors, length, batch_size, worker=worker, workers=workers)


def epoch_indices(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, *, num_samples: int, seed: int, engine: str = "weighted"
) -> Callable[[int], np.ndarray]:
    """The draws of `sample_indices` an epoch at a time, without a stream: epoch, from 0 -> indices, [num_samples].

    Args: as there.
    """
    plan = _plan(*checked_classes(labels, probabilities), num_samples=num_samples, seed=seed, engine=engine)

    def draws(epoch: int) -> np.ndarray:
        begin, end = epoch * num_samples, (epoch + 1) * num_samples
        blocks = range(begin // plan.size, -(-end // plan.size))
        with tf.device("CPU:0"):
            drawn = np.concatenate([plan.draw(tf.constant(block, tf.int64)).numpy() for block in blocks])
        return drawn[begin - blocks.start * plan.size :][:num_samples]

    return draws


def _plan(labels: np.ndarray, probabilities: np.ndarray, *, num_samples: int, seed: int, engine: str) -> plans.Plan:
    """What an engine draws."""
    with tf.device("CPU:0"):  # tf.data runs there; on an accelerator its constants would be copied back and forth
        return plans.ENGINES[engine](labels, probabilities, num_samples=num_samples, seed=seed)


def _own_batches(
    vectors: tf.data.Dataset, length: int, batch_size: int, *, worker: int, workers: int
) -> tf.data.Dataset:
    """A worker's slices of the batches that the vectors make, end to end; length is -1 for an endless stream."""
    all_full = length == tf.data.INFINITE_CARDINALITY or length % batch_size == 0
    stream = vectors.rebatch(batch_size, drop_remainder=all_full)  # drops nothing, but makes the shape static

    def own_slice(batch: tf.Tensor) -> tf.Tensor:
        size = batch_size if all_full else tf.size(batch)
        return batch[worker * size // workers : (worker + 1) * size // workers]

    if workers > 1:
        stream = stream.map(own_slice)
    batches = length if length == tf.data.INFINITE_CARDINALITY else -(-length // batch_size)
    return stream.apply(tf.data.experimental.assert_cardinality(batches))


def checked_classes(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Labels [N] and probabilities [C] or [E, C] as arrays, once they are known to fit each other."""
    labels, probabilities = as_array("labels", labels), samplers.check_probabilities(probabilities)
    if labels.ndim != 1 or labels.size == 0 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be [N] integers. Received: shape={labels.shape}, dtype={labels.dtype}")
    classes = probabilities.shape[-1]
    if labels.min() < 0 or labels.max() >= classes:
        outside = np.flatnonzero((labels < 0) | (labels >= classes))
        raise ValueError(
            f"labels must be in [0, {classes}), the classes of the probabilities. "
            f"Received: {labels[outside[0]]} for example {outside[0]}"
        )
    wanted = np.atleast_2d(probabilities).any(axis=0)
    missing = np.flatnonzero(wanted & (np.bincount(labels, minlength=classes) == 0))
    if missing.size:
        raise ValueError(
            f"a class with a positive probability needs examples. Received: no label {missing[0]} among {len(labels)}"
        )
    return labels, probabilities


def check_integers(**limits: tuple[int, ...]) -> None:
    """Raises a ValueError for a value, by name, that is no integer in its limits: name=(value, at least[, below])."""
    for name, (value, lowest, *below) in limits.items():
        if not isinstance(value, numbers.Integral) or value < lowest or any(value >= limit for limit in below):
            most = "".join(f" and < {limit:,}" for limit in below)
            raise ValueError(f"{name} must be an integer >= {lowest}{most}. Received: {name}={value!r}")
