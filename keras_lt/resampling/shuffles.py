"""Shuffles without a memory: where a place lands is computed from the place and a key alone."""

import numpy as np
import tensorflow as tf

PASSES, STEPS = 2, 3  # so few suffice for each order of five to be as likely, within a tenth
BITS = 30  # of a hash, that a number below a size is made of
STEP_SEEDS = np.random.SeedSequence(0).generate_state(PASSES * (STEPS + 1), np.uint64).view(np.int64)


def shuffled(places: tf.Tensor, sizes: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
    """Where each place lands in the shuffle of [0, size) that its key stands for, elementwise.

    A generalised Feistel network (Black and Rogaway, 2002): a place is a cell of a grid a little larger than the
    shuffle, each step moves a cell along its row or column by a hash of the other coordinate, and whoever lands beyond
    the size walks on.

    Args:
      places: [n] int64, each in [0, size).
      sizes, keys: of the shuffles, [n] int64; sizes below 2^33, keys well mixed, as `mixed` makes them.

    Returns: [n] int64; all places of one key together are a permutation of [0, size).
    """

    def walk_on(landed: tf.Tensor) -> tf.Tensor:
        rows = tf.where(landed >= sizes)
        of_rows = (tf.gather(values, rows[:, 0]) for values in (landed, sizes, keys))
        return tf.tensor_scatter_nd_update(landed, rows, _walked(*of_rows))

    return tf.while_loop(
        lambda landed: tf.reduce_any(landed >= sizes), walk_on, (_walked(places, sizes, keys),), parallel_iterations=1
    )[0]


def mixed(values: tf.Tensor, seed: np.int64) -> tf.Tensor:
    """Integers to well-mixed integers, int64 to int64: one step of SplitMix64 (doi:10.1145/2660193.2660195)."""
    z = tf.bitcast(values + seed, tf.uint64) * 0x9E3779B97F4A7C15
    z = tf.bitwise.bitwise_xor(z, tf.bitwise.right_shift(z, 30)) * 0xBF58476D1CE4E5B9
    z = tf.bitwise.bitwise_xor(z, tf.bitwise.right_shift(z, 27)) * 0x94D049BB133111EB
    return tf.bitcast(tf.bitwise.bitwise_xor(z, tf.bitwise.right_shift(z, 31)), tf.int64)


def _walked(places: tf.Tensor, sizes: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
    """One walk over the grid; it may end beyond the size."""
    columns = tf.cast(tf.math.ceil(tf.sqrt(tf.cast(sizes, tf.float64))), tf.int64)
    rows = (sizes + columns - 1) // columns
    cells = rows * columns
    seeds = iter(STEP_SEEDS)
    for _ in range(PASSES):
        left, heights = places // columns, (rows, columns)
        right = places - left * columns
        for _ in range(STEPS):
            left, right = right, _moved(left, mixed(right + keys, next(seeds)), heights[0])
            heights = heights[::-1]
        # A whole turn of the grid parts what small grids keep together.
        places = _moved(left * heights[1] + right, mixed(keys, next(seeds)), cells)
    return places


def _moved(values: tf.Tensor, by: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """(values + a number in [0, size) from `by`) modulo size, elementwise."""
    values += tf.bitwise.right_shift(tf.bitwise.bitwise_and(by, 2**BITS - 1) * size, BITS)
    return tf.where(values >= size, values - size, values)
