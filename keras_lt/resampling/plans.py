"""Epoch plans: which examples one epoch shows, in order.

A plan is a function from an epoch to its example indices [num_samples], built from stateless TensorFlow ops: it has no
memory, so that a stream may start, or start again, at any epoch.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

Plan = Callable[[tf.Tensor], tf.Tensor]  # epoch, a scalar int64 -> example indices, [num_samples] int64

IMAGES_PER_VISIT = 4  # of a class, before the cycle moves to the next one: the reference's num_samples_cls
# A vector of probabilities has no last epoch, so its quotas come round again. 34/55 are neighbours in Fibonacci's
# sequence: epochs near each other round differently, and a whole period is within one example of its expectation.
QUOTA_PERIOD, QUOTA_STEP = 55, 34


class ExamplesByClass:
    """The examples of each class side by side, as tensors: `order[first[c] : first[c] + counts[c]]` are class c's."""

    def __init__(self, labels: np.ndarray, classes: int):
        counts = np.bincount(labels, minlength=classes)
        # NumPy sorts 16-bit integers stably in linear time, which is ten times faster at iNaturalist's size.
        narrow = labels.astype(np.uint16) if classes <= np.iinfo(np.uint16).max else labels
        self.order = tf.constant(np.argsort(narrow, kind="stable"), tf.int64)
        self.first = tf.constant(np.cumsum(counts) - counts, tf.int64)
        self.counts = tf.constant(counts, tf.int64)


def instance_plan(by_class: ExamplesByClass, probabilities: np.ndarray, *, num_samples: int, seed: int) -> Plan:
    """The head of a permutation of all examples, or several permutations when num_samples is larger.

    It does not look at the probabilities.
    """
    examples = by_class.order.shape[0]
    permutations = -(-num_samples // examples)
    (order_seed,) = _derived_seeds(seed, 1)

    def plan(epoch: tf.Tensor) -> tf.Tensor:
        keys = tf.random.stateless_uniform(
            [permutations, examples], [order_seed, epoch], None, None, tf.int64, alg="philox"
        )
        return tf.reshape(tf.cast(tf.argsort(keys), tf.int64), [-1])[:num_samples]

    return plan


def weighted_plan(by_class: ExamplesByClass, probabilities: np.ndarray, *, num_samples: int, seed: int) -> Plan:
    """Independent draws: a class by its probability in the epoch's row, then any image of it."""
    cumulative = np.cumsum(np.atleast_2d(probabilities), axis=1)
    # Exactly one from the last class with a positive probability on, so that a draw in [0, 1) stays below it.
    cumulative = tf.constant(cumulative / cumulative[:, -1:])
    (draw_seed,) = _derived_seeds(seed, 1)

    def plan(epoch: tf.Tensor) -> tf.Tensor:
        row = cumulative[tf.minimum(epoch, cumulative.shape[0] - 1)]  # a vector holds for ever
        draws = tf.random.stateless_uniform([2, num_samples], [draw_seed, epoch], dtype=tf.float64, alg="philox")
        label = tf.searchsorted(row, draws[0], side="right")
        image = tf.cast(draws[1] * tf.cast(tf.gather(by_class.counts, label), tf.float64), tf.int64)
        return tf.gather(by_class.order, tf.gather(by_class.first, label) + image)

    return plan


def stratified_plan(by_class: ExamplesByClass, probabilities: np.ndarray, *, num_samples: int, seed: int) -> Plan:
    """Class cycles where all rows give the same classes the same probability, quotas otherwise."""
    drawn = np.atleast_2d(probabilities) > 0
    equal = np.where(drawn, 1 / drawn.sum(axis=-1, keepdims=True), 0)
    if (drawn == drawn[0]).all() and np.allclose(probabilities, equal, rtol=1e-6, atol=0):
        return class_cycle_plan(by_class, np.flatnonzero(drawn[0]), num_samples=num_samples, seed=seed)
    return quota_plan(by_class, probabilities, num_samples=num_samples, seed=seed)


def class_cycle_plan(by_class: ExamplesByClass, visited: np.ndarray, *, num_samples: int, seed: int) -> Plan:
    """The reference's class-aware sampler: a shuffled cycle over classes, the next four images of each visited class.

    Class and image are functions of the position in the whole stream, so both cycles run on across epochs.
    """
    classes = len(visited)
    per_round = IMAGES_PER_VISIT * classes
    rounds = -(-num_samples // per_round) + 1  # an epoch may begin and end inside a round
    class_seed, image_seed = _derived_seeds(seed, 2)
    count = np.zeros(by_class.counts.shape[0], np.int64)
    count[visited] = rounds * IMAGES_PER_VISIT
    begin = tf.constant(np.cumsum(count) - count)
    count, visited = tf.constant(count), tf.constant(visited)

    def plan(epoch: tf.Tensor) -> tf.Tensor:
        position = epoch * num_samples + tf.range(num_samples, dtype=tf.int64)
        first_round = epoch * num_samples // per_round
        round_ids = first_round + tf.range(rounds, dtype=tf.int64)
        order = tf.argsort(_hash(round_ids[:, None] * classes + tf.range(classes, dtype=tf.int64), class_seed))
        visit = position // IMAGES_PER_VISIT - first_round * classes
        label = tf.gather(visited, tf.gather(tf.reshape(order, [-1]), visit))
        # Every class is visited once a round, so all classes share the number of images drawn before this epoch.
        first = tf.fill([by_class.counts.shape[0]], first_round * IMAGES_PER_VISIT)
        draws = _image_cycles(by_class, first, count, image_seed)
        nth = visit // classes * IMAGES_PER_VISIT + position % IMAGES_PER_VISIT
        return tf.gather(draws, tf.gather(begin, label) + nth)

    return plan


def quota_plan(by_class: ExamplesByClass, probabilities: np.ndarray, *, num_samples: int, seed: int) -> Plan:
    """Each class as often as its probability says, rounded so that it evens out, its draws spread over the epoch.

    Every class draws from its own shuffled cycle of images, which runs on across epochs.
    """
    order_seed, image_seed = _derived_seeds(seed, 2)
    table = np.atleast_2d(probabilities)
    if probabilities.ndim == 1:
        table = np.repeat(table, QUOTA_PERIOD, axis=0)
    changes = (table != table[0]).any()
    quotas = (carried_quotas if changes else systematic_quotas)(table, num_samples, seed=seed)
    period = len(quotas)
    drawn_before = tf.constant(np.cumsum(quotas, axis=0) - quotas)
    drawn_per_period = tf.constant(quotas.sum(axis=0))
    quotas = tf.constant(quotas)

    def plan(epoch: tf.Tensor) -> tf.Tensor:
        count = quotas[epoch % period]
        first = drawn_before[epoch % period] + epoch // period * drawn_per_period
        draws = _image_cycles(by_class, first, count, image_seed)
        # Draw k of a class that has K falls in the k-th of K equal parts of the epoch.
        nth = tf.ragged.range(count).flat_values
        total = tf.gather(count, _run_ids(count))
        jitter = tf.random.stateless_uniform([num_samples], [order_seed, epoch], dtype=tf.float64, alg="philox")
        time = (tf.cast(nth, tf.float64) + jitter) / tf.cast(total, tf.float64)
        return tf.gather(draws, tf.argsort(time))

    return plan


ENGINES: dict[str, Callable[..., Plan]] = {
    "weighted": weighted_plan,
    "stratified": stratified_plan,
    "instance": instance_plan,
}


def systematic_quotas(table: np.ndarray, num_samples: int, *, seed: int) -> np.ndarray:
    """How often each epoch shows each class, for rows that are all alike: [E, C] -> [E, C] int64.

    num_samples * p is rounded up or down by systematic sampling: the classes' shares lie end to end on a line of length
    num_samples, and points one apart, from a start that differs by epoch, fall on them.
    """
    start = (np.random.default_rng(seed).random() + np.arange(len(table)) * QUOTA_STEP / QUOTA_PERIOD) % 1
    edges = np.cumsum(table, axis=1)
    edges *= num_samples / edges[:, -1:]
    points_below = np.ceil(edges - start[:, None]).astype(np.int64)
    return np.diff(points_below, axis=1, prepend=0)


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


def _image_cycles(by_class: ExamplesByClass, first: tf.Tensor, count: tf.Tensor, seed: np.int64) -> tf.Tensor:
    """Draws first[c] .. first[c] + count[c] - 1 of every class c from its endless shuffled cycles, class after class.

    Cycle k of a class is a permutation of its images, sorted by a hash of (image, k): it is the same whichever draws
    are asked for.

    Args:
      by_class: the examples by class.
      first, count: number of the first draw and how many, [C] int64; count is 0 for a class without images.
      seed: of the hash.

    Returns: example indices, [sum of count] int64.
    """
    images = tf.maximum(by_class.counts, 1)
    first_cycle = first // images
    cycles = tf.where(count > 0, (first + count - 1) // images - first_cycle + 1, 0)
    label = _run_ids(cycles)  # of every cycle, class after class
    begin, size = tf.gather(by_class.first, label), tf.gather(images, label)
    number = tf.ragged.range(first_cycle, first_cycle + cycles).flat_values
    cycle = _run_ids(size)  # of every image of every cycle
    slot = tf.ragged.range(begin, begin + size).flat_values
    key = _hash(tf.gather(number * by_class.order.shape[0], cycle) + slot, seed)
    # 31 bits number the cycles, 32 bits of hash shuffle inside each.
    shuffled = tf.gather(slot, tf.argsort(cycle * 2**32 + (key & 0xFFFFFFFF)))
    begin = tf.cumsum(cycles * images, exclusive=True) + first % images
    return tf.gather(by_class.order, tf.gather(shuffled, tf.ragged.range(begin, begin + count).flat_values))


def _run_ids(lengths: tf.Tensor) -> tf.Tensor:
    """Each element's run, [0, 0, 0, 2] for runs of [3, 0, 1]; tf.repeat would need memory runs * longest run."""
    ends = tf.cumsum(lengths)
    return tf.cumsum(tf.math.unsorted_segment_sum(tf.ones_like(ends), ends, ends[-1] + 1)[:-1])


def _hash(values: tf.Tensor, seed: np.int64) -> tf.Tensor:
    """Integers to well-mixed integers, int64 to int64: one step of SplitMix64 (doi:10.1145/2660193.2660195)."""
    z = tf.bitcast(values + seed, tf.uint64) * 0x9E3779B97F4A7C15
    z = tf.bitwise.bitwise_xor(z, tf.bitwise.right_shift(z, 30)) * 0xBF58476D1CE4E5B9
    z = tf.bitwise.bitwise_xor(z, tf.bitwise.right_shift(z, 27)) * 0x94D049BB133111EB
    return tf.bitcast(tf.bitwise.bitwise_xor(z, tf.bitwise.right_shift(z, 31)), tf.int64)


def _derived_seeds(seed: int, count: int) -> np.ndarray:
    """Seeds far from each other, whatever the given one, [count] int64."""
    return np.random.SeedSequence(seed).generate_state(count, np.uint64).view(np.int64)
