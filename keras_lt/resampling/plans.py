"""Plans: which example stands where in an endless stream, a block of positions at a time.

A plan draws a block's example indices from the number of the block alone, by stateless ops: it has no memory,
so that a stream may start, or start again, anywhere. Up to `AT_ONCE` examples an epoch is one block, and shuffles are
sorts; beyond, blocks are `BLOCK` long and shuffles are computed place by place, so that neither the time to the first
index nor the memory grows with the epoch.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_lt.resampling.shuffles import mixed, shuffled


class Plan(NamedTuple):
    """A stream in blocks.

    Attributes:
      size: positions of a block, S.
      draw: number of a block, a scalar int64 -> its example indices, [S] int64.
    """

    size: int
    draw: Callable[[tf.Tensor], tf.Tensor]


AT_ONCE, BLOCK = 2**20, 2**17
BLOCKS_AHEAD = 2  # drawn at once, so that the stream does not pause between blocks
IMAGES_PER_VISIT = 4  # of a class, before the cycle moves to the next one: the reference's num_samples_cls
# Equal rows have no last block, so their quotas come round again. 34/55 are neighbours in Fibonacci's sequence: blocks
# near each other round differently, and a whole period is within one example of its expectation.
QUOTA_PERIOD, QUOTA_STEP = 55, 34


def indices(plan: Plan, begin: int | tf.Tensor, end: int | tf.Tensor) -> tf.data.Dataset:
    """The stream from one position up to another, as vectors of int64."""

    @tf.autograph.experimental.do_not_convert  # plans are pure TensorFlow, and converting takes longer than drawing
    def vector(block: tf.Tensor) -> tf.Tensor:
        first = block * plan.size
        return plan.draw(block)[tf.maximum(begin - first, 0) : tf.minimum(end - first, plan.size)]

    blocks = tf.data.Dataset.range(begin // plan.size, -(-end // plan.size))
    return blocks.map(vector, num_parallel_calls=BLOCKS_AHEAD, deterministic=True)


class ExamplesByClass:
    """The examples of each class side by side, as tensors: `order[first[c] : first[c] + counts[c]]` are class c's."""

    def __init__(self, labels: np.ndarray, classes: int):
        counts = np.bincount(labels, minlength=classes)
        self.order = tf.constant(_by_class(labels))
        self.first = tf.constant(np.cumsum(counts) - counts, tf.int64)
        self.counts = tf.constant(counts, tf.int64)
        self.sorts = len(labels) <= AT_ONCE  # rather than to compute shuffles place by place

    def drawn(self, label: tf.Tensor, nth: tf.Tensor, seed: np.int64) -> tf.Tensor:
        """The nth draw of a class from its endless shuffled cycles, [n] and [n] -> example indices [n].

        Cycle k of a class is a permutation of its images, the same whichever draws are asked for.
        """
        size = tf.gather(self.counts, label)
        cycle = nth // size
        place = nth - cycle * size
        if self.sorts:
            return _sorted_cycles(self, label, cycle, place, seed)
        key = mixed(cycle * self.counts.shape[0] + label, seed)
        return self.at(label, shuffled(place, size, key))

    def at(self, label: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
        """The example indices of classes' images, [n] and [n] -> [n] int64."""
        return tf.cast(tf.gather(self.order, tf.gather(self.first, label) + place), tf.int64)


def _by_class(labels: np.ndarray) -> np.ndarray:
    """Example indices sorted by class, stably; in one word with its class each sorts several times as fast."""
    bits = len(labels).bit_length()
    words = np.left_shift(labels, bits, dtype=np.int64)
    words |= np.arange(len(labels), dtype=np.int32 if bits < 32 else np.int64)
    words.sort()
    words &= 2**bits - 1
    return words.astype(np.int32) if bits < 32 else words


def instance_plan(labels: np.ndarray, probabilities: np.ndarray, *, num_samples: int, seed: int) -> Plan:
    """The head of a permutation of all examples in each epoch, or several permutations when num_samples is larger.

    It does not look at the probabilities.
    """
    examples = len(labels)
    permutations = -(-num_samples // examples)
    (order_seed,) = _derived_seeds(seed, 1)

    def sorted_epoch(epoch: tf.Tensor) -> tf.Tensor:
        keys = tf.random.stateless_uniform(
            [permutations, examples], [order_seed, epoch], None, None, tf.int64, alg="philox"
        )
        return tf.reshape(tf.cast(tf.argsort(keys), tf.int64), [-1])[:num_samples]

    def block(number: tf.Tensor) -> tf.Tensor:
        position = number * size + tf.range(size, dtype=tf.int64)
        place = position % num_samples
        key = mixed(position // num_samples * permutations + place // examples, order_seed)
        return shuffled(place % examples, tf.fill([size], np.int64(examples)), key)

    if max(examples, num_samples) <= AT_ONCE:
        return Plan(num_samples, sorted_epoch)
    size = _block_size(num_samples)
    return Plan(size, block)


def weighted_plan(labels: np.ndarray, probabilities: np.ndarray, *, num_samples: int, seed: int) -> Plan:
    """Independent draws: a class by its probability in the epoch's row, then any image of it."""
    rows = _different(probabilities)
    by_class = ExamplesByClass(labels, rows.shape[-1])
    cumulative = np.cumsum(rows, axis=1)
    # Exactly one from the last class with a positive probability on, so that a draw in [0, 1) stays below it.
    cumulative = tf.constant(cumulative / cumulative[:, -1:])
    (draw_seed,) = _derived_seeds(seed, 1)
    size = min(num_samples, _block_size(num_samples, rows.shape[1]))  # at most two epochs meet in a block

    def classes(epoch: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        row = cumulative[tf.minimum(epoch, len(rows) - 1)]  # equal rows are one
        return tf.searchsorted(row, draws, side="right")

    def draw(block: tf.Tensor) -> tf.Tensor:
        draws = tf.random.stateless_uniform([2, size], [draw_seed, block], dtype=tf.float64, alg="philox")
        epoch = block * size // num_samples
        here = (epoch + 1) * num_samples - block * size  # positions until the next epoch
        label = tf.concat([classes(epoch, draws[0, :here]), classes(epoch + 1, draws[0, here:])], 0)
        return by_class.at(label, tf.cast(draws[1] * tf.cast(tf.gather(by_class.counts, label), tf.float64), tf.int64))

    return Plan(size, draw)


def stratified_plan(labels: np.ndarray, probabilities: np.ndarray, *, num_samples: int, seed: int) -> Plan:
    """Class cycles where all rows give the same classes the same probability, quotas otherwise."""
    rows = _different(probabilities)
    by_class = ExamplesByClass(labels, rows.shape[-1])
    drawn = rows > 0
    equal = np.where(drawn, 1 / drawn.sum(axis=-1, keepdims=True), 0)
    if (drawn == drawn[0]).all() and np.allclose(rows, equal, rtol=1e-6, atol=0):
        return class_cycle_plan(by_class, np.flatnonzero(drawn[0]), num_samples=num_samples, seed=seed)
    return quota_plan(by_class, rows, num_samples=num_samples, seed=seed)


def class_cycle_plan(by_class: ExamplesByClass, visited: np.ndarray, *, num_samples: int, seed: int) -> Plan:
    """The reference's class-aware sampler: a shuffled cycle over classes, the next four images of each visited class.

    Class and image are functions of the position in the whole stream, so both cycles run on across epochs.
    """
    classes = len(visited)
    size = _block_size(num_samples)
    visits = -(-size // IMAGES_PER_VISIT) + 1  # a block may begin and end inside a visit, and inside a round
    rounds = -(-size // (IMAGES_PER_VISIT * classes)) + 1
    class_seed, image_seed = _derived_seeds(seed, 2)
    visited = tf.constant(visited)

    def draw(block: tf.Tensor) -> tf.Tensor:
        position = block * size + tf.range(size, dtype=tf.int64)
        visit = position[0] // IMAGES_PER_VISIT + tf.range(visits, dtype=tf.int64)
        round_id = visit // classes
        turn = visit - round_id * classes
        if by_class.sorts:
            round_ids = round_id[0] + tf.range(rounds, dtype=tf.int64)
            order = tf.argsort(mixed(round_ids[:, None] * classes + tf.range(classes, dtype=tf.int64), class_seed))
            turn = tf.gather(tf.reshape(order, [-1]), visit - round_id[0] * classes)
        else:
            turn = shuffled(turn, tf.fill([visits], np.int64(classes)), mixed(round_id, class_seed))
        nth_visit = position // IMAGES_PER_VISIT - visit[0]
        # Of every class as many images a round.
        nth = tf.gather(round_id, nth_visit) * IMAGES_PER_VISIT + position % IMAGES_PER_VISIT
        return by_class.drawn(tf.gather(tf.gather(visited, turn), nth_visit), nth, image_seed)

    return Plan(size, draw)


def quota_plan(by_class: ExamplesByClass, rows: np.ndarray, *, num_samples: int, seed: int) -> Plan:
    """Each class as often as its probability says, rounded so that it evens out, its draws spread over the block.

    Every class draws from its own shuffled cycle of images, which runs on across blocks.

    Args:
      rows: of the epochs, [E, C]; one for all. Where there are several, a block is an epoch whatever its length.
    """
    order_seed, image_seed = _derived_seeds(seed, 2)
    if len(rows) == 1:
        size = _block_size(num_samples, rows.shape[1])
        quotas = systematic_quotas(rows[0], size, seed=seed)
    else:
        size = num_samples
        before = np.zeros((len(rows) + 1, rows.shape[1]), np.int64)
        np.cumsum(carried_quotas(rows, num_samples, seed=seed), axis=0, out=before[1:])
        before = tf.constant(before)

        def quotas(block: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return before[block], before[block + 1] - before[block]

    def draw(block: tf.Tensor) -> tf.Tensor:
        first, count = quotas(block)
        label = _run_ids(count)
        # Draw k of a class that has K falls in the k-th of K equal parts of the block.
        nth = tf.range(size, dtype=tf.int64) - tf.gather(tf.cumsum(count, exclusive=True), label)
        jitter = tf.random.stateless_uniform([size], [order_seed, block], dtype=tf.float64, alg="philox")
        time = (tf.cast(nth, tf.float64) + jitter) / tf.cast(tf.gather(count, label), tf.float64)
        return tf.gather(by_class.drawn(label, tf.gather(first, label) + nth, image_seed), tf.argsort(time))

    return Plan(size, draw)


ENGINES: dict[str, Callable[..., Plan]] = {
    "weighted": weighted_plan,
    "stratified": stratified_plan,
    "instance": instance_plan,
}


def systematic_quotas(row: np.ndarray, size: int, *, seed: int) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """How often each class was shown before a block, and in it, for blocks that are all alike: block -> two [C] int64.

    size * p is rounded up or down by systematic sampling: the classes' shares lie end to end on a line as long as the
    block, and points one apart, from a start that differs by block, fall on them.

    Args:
      row: of class probabilities, [C].
    """
    starts = (np.random.default_rng(seed).random() + np.arange(QUOTA_PERIOD) * QUOTA_STEP / QUOTA_PERIOD) % 1
    edges = np.cumsum(row)
    edges *= size / edges[-1]
    whole = np.floor(edges)
    fraction, each_period = edges - whole, np.searchsorted(np.sort(starts), edges - whole)
    # Those of a period's blocks before each one, sorted; one that is still to come is beyond all fractions.
    earlier = np.sort(np.where(np.tri(QUOTA_PERIOD, k=-1), starts, 1.0))
    starts, earlier, fraction = tf.constant(starts), tf.constant(earlier), tf.constant(fraction)
    whole, each_period = tf.constant(whole, tf.int64), tf.constant(each_period, tf.int64)

    def between(below: tf.Tensor) -> tf.Tensor:
        return below - tf.concat([[0], below[:-1]], 0)

    def quotas(block: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # A block has one more point below an edge than its whole number where its start is below the fraction.
        period, number = block // QUOTA_PERIOD, block % QUOTA_PERIOD
        more = tf.searchsorted(tf.gather(earlier, number), fraction, out_type=tf.int64)
        here = whole + tf.cast(tf.gather(starts, number) < fraction, tf.int64)
        return between(block * whole + period * each_period + more), between(here)

    return quotas


def carried_quotas(table: np.ndarray, num_samples: int, *, seed: int) -> np.ndarray:
    """How often each epoch shows each class, for rows that change: [E, C] -> [E, C] int64.

    What an epoch rounds off a class is carried to its next one, and the largest remainders are rounded up. So a class
    that is drawn at least once an epoch is never a whole image off what all rows so far expect.
    """
    rng = np.random.default_rng(seed)
    quotas, owed = np.zeros(table.shape, np.int64), np.zeros(table.shape[1])
    for row, quota in zip(table, quotas, strict=True):
        owed += row / row.sum() * num_samples
        quota[:] = np.maximum(np.floor(owed), 0)
        # By remainder, ties in random order; a row without a class must not show it, whatever it is owed.
        order = rng.permutation(np.flatnonzero(row))
        order = order[np.argsort(quota[order] - owed[order], kind="stable")]
        missing = num_samples - quota.sum()
        if missing < 0:  # those far ahead of their share take nothing, so that others must take less
            order = order[quota[order] > 0]
        to_all, to_first = divmod(missing, len(order))
        quota[order] += to_all
        quota[order[:to_first]] += 1
        owed -= quota
    return quotas


def _sorted_cycles(
    by_class: ExamplesByClass, label: tf.Tensor, cycle: tf.Tensor, place: tf.Tensor, seed: np.int64
) -> tf.Tensor:
    """The example at each place of a cycle of its class, sorted by a hash of (image, cycle), [n] each -> [n] int64."""
    classes = by_class.counts.shape[0]
    first_cycle = tf.math.unsorted_segment_min(cycle, label, classes)
    last_cycle = tf.math.unsorted_segment_max(cycle, label, classes)
    cycles = tf.where(last_cycle < first_cycle, np.int64(0), last_cycle - first_cycle + 1)  # of a class not drawn, none
    of = _run_ids(cycles)  # the class of every cycle, class after class
    begin, size = tf.gather(by_class.first, of), tf.gather(by_class.counts, of)
    number = tf.ragged.range(first_cycle, first_cycle + cycles).flat_values
    run = _run_ids(size)  # of every image of every cycle
    slot = tf.ragged.range(begin, begin + size).flat_values
    key = mixed(tf.gather(number * by_class.order.shape[0], run) + slot, seed)
    # 31 bits number the cycles, 32 bits of hash shuffle inside each.
    shuffled_slots = tf.gather(slot, tf.argsort(run * 2**32 + (key & 0xFFFFFFFF)))
    begin = tf.cumsum(cycles * by_class.counts, exclusive=True)
    nth = (cycle - tf.gather(first_cycle, label)) * tf.gather(by_class.counts, label) + place
    return tf.cast(tf.gather(by_class.order, tf.gather(shuffled_slots, tf.gather(begin, label) + nth)), tf.int64)


def _different(probabilities: np.ndarray) -> np.ndarray:
    """The rows of a table [E, C], or one where all are equal, as for a vector [C]."""
    rows = np.atleast_2d(probabilities)
    return rows if (rows[1:] != rows[0]).any() else rows[:1]


def _block_size(num_samples: int, classes: int = 0) -> int:
    """An epoch or, of a long one, positions enough to be worth the work that a block is per class."""
    return num_samples if num_samples <= AT_ONCE else max(BLOCK, classes)


def _run_ids(lengths: tf.Tensor) -> tf.Tensor:
    """Each element's run, [0, 0, 0, 2] for runs of [3, 0, 1]; tf.repeat would need memory runs * longest run."""
    ends = tf.cumsum(lengths)
    return tf.cumsum(tf.math.unsorted_segment_sum(tf.ones_like(ends), ends, ends[-1] + 1)[:-1])


def _derived_seeds(seed: int, count: int) -> np.ndarray:
    """Seeds far from each other, whatever the given one, [count] int64."""
    return np.random.SeedSequence(seed).generate_state(count, np.uint64).view(np.int64)
