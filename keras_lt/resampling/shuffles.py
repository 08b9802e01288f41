"""Shuffles without a memory: where a place lands is computed from the place and a key alone."""

import numpy as np
import tensorflow as tf

PASSES, STEPS = 2, 3  # so few suffice for each order of five to be as likely, within a tenth
# One a step, odd: one multiplication, a fold and another mix a key that is mixed already, at half the cost of `mixed`.
MULTIPLIERS = np.random.SeedSequence(0).generate_state(PASSES * (STEPS + 1), np.uint64) | np.uint64(1)


# Traced once for all streams: tracing takes longer than the first block.
once = tf.function(input_signature=[tf.TensorSpec([None], tf.int64)] * 3, autograph=False)


@once
def shuffled(places: tf.Tensor, sizes: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
    """Where each place lands in the shuffle of [0, size) that its key stands for, elementwise.

    A generalised Feistel network (Black and Rogaway, 2002): a place is a cell of a grid a little larger than the
    shuffle, each step moves a cell along its row or column by a hash of the other coordinate, and whoever lands beyond
    the size walks on.

    Args:
      places: [n] int64, each in [0, size).
      sizes, keys: of the shuffles, [n] int64; sizes below 2^61, keys well mixed, as `mixed` makes them.

    Returns: [n] int64; all places of one key together are a permutation of [0, size).
    """

    def walk_on(landed: tf.Tensor, beyond: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        of = [tf.gather(values, beyond[:, 0]) for values in (landed, sizes, keys)]
        places = _walked(*of)
        rest = tf.gather(beyond, tf.where(places >= of[1])[:, 0])
        return tf.tensor_scatter_nd_update(landed, beyond, places), rest

    landed = _walked(places, sizes, keys)
    landed, _ = tf.while_loop(
        lambda landed, beyond: tf.size(beyond) > 0, walk_on, (landed, tf.where(landed >= sizes)), parallel_iterations=1
    )
    return landed


def mixed(values: tf.Tensor, seed: np.int64) -> tf.Tensor:
    """Integers to well-mixed integers, int64 to int64: one step of SplitMix64 (doi:10.1145/2660193.2660195)."""
    z = tf.bitcast(values + seed, tf.uint64) * 0x9E3779B97F4A7C15
    z = tf.bitwise.bitwise_xor(z, tf.bitwise.right_shift(z, 30)) * 0xBF58476D1CE4E5B9
    z = tf.bitwise.bitwise_xor(z, tf.bitwise.right_shift(z, 27)) * 0x94D049BB133111EB
    return tf.bitcast(tf.bitwise.bitwise_xor(z, tf.bitwise.right_shift(z, 31)), tf.int64)


@once
def _walked(places: tf.Tensor, sizes: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
    """One walk over the grid; it may end beyond the size."""
    columns = tf.cast(tf.math.ceil(tf.sqrt(tf.cast(sizes, tf.float64))), tf.uint64)
    places, sizes, keys = (tf.bitcast(values, tf.uint64) for values in (places, sizes, keys))
    rows = (sizes + columns - 1) // columns
    multipliers = iter(MULTIPLIERS)
    for _ in range(PASSES):
        left, heights = places // columns, (rows, columns)
        right = places - left * columns
        for _ in range(STEPS):
            left, right = right, (left + _bits(right + keys, next(multipliers))) % heights[0]
            heights = heights[::-1]
        # A turn of the whole grid parts what small grids keep together.
        places = (left * heights[1] + right + _bits(keys, next(multipliers))) % (rows * columns)
    return tf.bitcast(places, tf.int64)


def _bits(values: tf.Tensor, multiplier: np.uint64) -> tf.Tensor:
    """62 bits, of which the upper ones are well mixed, as uint64."""
    z = values * multiplier
    z = tf.bitwise.bitwise_xor(z, tf.bitwise.right_shift(z, 32)) * 0x94D049BB133111EB
    return tf.bitwise.right_shift(z, 2)
