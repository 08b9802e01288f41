"""Resampling of a stream by rejection and replication: for data without random access (TFRecord, generators)."""

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from absl import logging

from keras_lt import samplers
from keras_lt.arguments import checked
from keras_lt.counts import check_counts
from keras_lt.resampling.indices import SEED, check_integers

BLOCK = 64  # records decided upon together: one by one, tf.data's overhead would be 20 times the work


@checked
def rejection_resample(
    dataset: tf.data.Dataset,
    *,
    class_counts: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    seed: int,
    samples_per_epoch: int | None = None,
    shuffle_buffer: int = 4096,
) -> tf.data.Dataset:
    """Records of a stream, dropped or repeated so that their classes follow the given probabilities.

    A record of class c is emitted samples_per_epoch * p_c / n_c times on average: that number rounded down or up at
    random. So an epoch reads the source about once, however rare a class is, where acceptance alone would read
    max(N p_c / n_c) records for each one it keeps. Put it before decoding: a dropped record then costs only its
    reading, and each copy gets its own augmentation.

    Args:
      dataset: finite dataset of (x, label); x is any structure and label a scalar integer.
      class_counts: records of each class in one pass over the dataset, [C].
      probabilities: [C], for ever, or [E, C], one row an epoch, after which the stream ends.
      seed: a non-negative integer.
      samples_per_epoch: records emitted per epoch, N (the sum of class_counts) when None. The fewer, the fewer copies:
        at N * min(n_c / (N p_c)) every record is emitted at most once a pass.
      shuffle_buffer: records held in memory, over about which the copies of one are spread; 1 does not shuffle.

    Returns: dataset of (x, label), of known cardinality. `accepted_fraction` tells how much of the source it uses.
      `tf.train.Checkpoint` saves its iterator exactly where the dataset's options set
      `experimental_external_state_policy` to IGNORE: TensorFlow takes the inner shuffle's fixed seed for a state.

    Raises:
      ValueError: for rows that are no distributions, or a class with a positive probability but no record.
      tf.errors.InvalidArgumentError: while reading, for a label that is not among the C classes.
    """
    _check_dataset(dataset)
    check_integers(seed=(seed, *SEED), shuffle_buffer=(shuffle_buffer, 1))
    copies = expected_copies(class_counts, probabilities, samples_per_epoch=samples_per_epoch)
    fraction = accepted_fraction(class_counts, probabilities, samples_per_epoch=samples_per_epoch)
    logging.info("rejection_resample accepts %.1f %% of the records it reads", 100 * np.mean(fraction))
    if copies.ndim == 2:
        size = _epoch_size(class_counts, samples_per_epoch)
        epochs = tf.data.Dataset.range(len(copies))
        stream = resampled_epochs(dataset, epochs, copies, size=size, seed=seed, shuffle_buffer=shuffle_buffer)
        return stream.apply(tf.data.experimental.assert_cardinality(len(copies) * size))
    stream = _passes(dataset, copies, shuffle_buffer, seed=tf.constant([seed, 0], tf.int64))
    return stream.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))


def resampled_epochs(
    dataset: tf.data.Dataset, epochs: tf.data.Dataset, copies: np.ndarray, *, size: int, seed: int, shuffle_buffer: int
) -> tf.data.Dataset:
    """`size` records for each of the epochs, by its row of copies [E, C], or by the last row once past it."""
    with tf.device("CPU:0"):
        table = tf.constant(np.atleast_2d(copies))

    @tf.autograph.experimental.do_not_convert
    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        row = table[tf.minimum(epoch, table.shape[0] - 1)]
        return _passes(dataset, row, shuffle_buffer, seed=tf.stack([np.int64(seed), epoch + 1])).take(size)

    return epochs.flat_map(one_epoch)


def expected_copies(
    class_counts: npt.ArrayLike, probabilities: npt.ArrayLike, *, samples_per_epoch: int | None = None
) -> np.ndarray:
    """How often a record of each class is emitted in one pass on average, [C] or [E, C] as the probabilities are.

    Args: as for `rejection_resample`.
    """
    probabilities = samplers.check_probabilities(probabilities)
    counts = check_counts(class_counts)
    if counts.shape != probabilities.shape[-1:]:
        raise ValueError(
            f"class_counts must be [{probabilities.shape[-1]}], as the probabilities. Received: {counts.shape}"
        )
    missing = np.flatnonzero(np.atleast_2d(probabilities).any(axis=0) & (counts == 0))
    if missing.size:
        raise ValueError(f"a class with a positive probability needs records. Received: 0 of class {missing[0]}")
    return _epoch_size(counts, samples_per_epoch) * probabilities / np.maximum(counts, 1)


def accepted_fraction(
    class_counts: npt.ArrayLike, probabilities: npt.ArrayLike, *, samples_per_epoch: int | None = None
) -> np.ndarray:
    """Fraction of the records read that are emitted at least once, a scalar, or [E] for probabilities [E, C].

    Args: as for `rejection_resample`.
    """
    copies = expected_copies(class_counts, probabilities, samples_per_epoch=samples_per_epoch)
    return np.minimum(copies, 1) @ np.asarray(class_counts) / np.sum(class_counts)


def _passes(dataset: tf.data.Dataset, copies: tf.Tensor, shuffle_buffer: int, *, seed: tf.Tensor) -> tf.data.Dataset:
    """Reads the dataset for ever and emits each record copies[label] times on average, rounded down or up.

    The copies of all records lie end to end on a line, in random order within a block, and points one apart fall on
    them: so a whole pass emits the sum of all copies, and an epoch of that size is a pass. After each block the points
    are moved at random, but over none of the line's whole numbers (Chromy, 1979), so that a stream whose classes come
    in turn falls in with nothing.
    """
    same_shapes = all(spec.shape.is_fully_defined() for spec in tf.nest.flatten(dataset.element_spec))
    blocks = dataset.batch(BLOCK if same_shapes else 1).enumerate()

    @tf.autograph.experimental.do_not_convert
    def one_pass(number: tf.Tensor) -> tf.data.Dataset:
        # Of this function's graph alone: `shuffle` mixes it into its seed, where it must not find the user's own.
        tf.random.set_seed(1)
        pass_seed = tf.random.fold_in(seed, number)

        def emitted(state: tf.Tensor, block: tf.Tensor) -> tuple:
            length, place = tf.unstack(state)  # of the line so far, of its next point; mod 1
            number, records = block
            expected = tf.gather(copies, tf.cast(records[1], tf.int64))  # on a CPU, refuses a label outside [0, C)
            draws = tf.random.stateless_uniform(
                [tf.size(expected) + 1], tf.random.fold_in(pass_seed, number), dtype=tf.float64, alg="philox"
            )
            move, order = draws[0], tf.argsort(draws[1:])
            place = tf.where(place < length, move * length, length + move * (1 - length))
            ends = place + tf.cumsum(tf.gather(expected, order))
            times = tf.floor(ends) - tf.floor(tf.concat([[place], ends[:-1]], 0))
            kept = tf.sort(tf.repeat(order, tf.cast(times, tf.int64)))
            state = tf.stack([length + tf.reduce_sum(expected), ends[-1]]) % 1
            return state, tf.nest.map_structure(lambda component: tf.gather(component, kept), records)

        records = blocks.scan(tf.zeros(2, tf.float64), emitted).unbatch()
        return records.shuffle(shuffle_buffer, seed=pass_seed[0], reshuffle_each_iteration=False)

    return tf.data.Dataset.counter().flat_map(one_pass)


def _epoch_size(class_counts: npt.ArrayLike, samples_per_epoch: int | None) -> int:
    if samples_per_epoch is None:
        return int(np.sum(class_counts))
    check_integers(samples_per_epoch=(samples_per_epoch, 1))
    return samples_per_epoch


def _check_dataset(dataset: tf.data.Dataset) -> None:
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) != 2:
        raise ValueError(f"dataset must yield (x, label). Received: element_spec={spec}")
    label = spec[1]
    if not isinstance(label, tf.TensorSpec) or label.shape.rank != 0 or not label.dtype.is_integer:
        raise ValueError(f"a label must be a scalar integer (unbatch the dataset first). Received: {label}")
    if dataset.cardinality() == 0:
        raise ValueError("dataset must hold records. Received: cardinality 0")
