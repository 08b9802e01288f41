"""Episodes: some base classes stand in for novel ones, of which a few examples are known."""

import numpy as np
import tensorflow as tf

from keras_lt.features import FeatureSet
from keras_lt.input_pipeline import Stream, mapped, prefetched

# As FSLwF's reference has them on ImageNet, where its generators are for 1, 2, 5, 10 or 20 examples.
EXEMPLARS = 20  # of a class that stands in for a novel one
TAKEN_FOR_NOVEL = 250, 389  # so many of so many base classes
BASE_QUERIES = 1, 3  # so many of so many queries


def episode_batches(train: FeatureSet, base: np.ndarray, stream: Stream) -> tf.data.Dataset:
    """Features of episode after episode, each with the classes of its queries [B].

    Args:
      train: of all training examples.
      base: bool [C].
      stream: an episode depends on its seed and the episode's number alone.
    """
    queries_of_one = stream.recipe.micro_batch
    rows_of = {label: np.flatnonzero(train.labels == label) for label in np.flatnonzero(base)}

    def read(number):
        rng = np.random.default_rng((stream.seed, number))
        support, queries = draw_episode(rows_of, queries=queries_of_one, rng=rng)
        read_rows = (np.asarray(train.features[rows], np.float32) for rows in (queries, support))
        return *read_rows, train.labels[support], train.labels[queries]

    sizes = queries_of_one, EXEMPLARS * novel_in_episode(len(rows_of))
    width = train.features.shape[1]

    def episode(number):
        types = (tf.float32, tf.float32, tf.int64, tf.int64)
        queries, support, support_labels, labels = tf.numpy_function(read, [number], types, stateful=False)
        inputs = {
            "queries": tf.ensure_shape(queries, (sizes[0], width)),
            "support": tf.ensure_shape(support, (sizes[1], width)),
            "support_labels": tf.ensure_shape(support_labels, (sizes[1],)),
        }
        return inputs, tf.ensure_shape(labels, (sizes[0],))

    numbers = tf.data.Dataset.range(stream.start_step * stream.recipe.accumulate_steps, np.iinfo(np.int64).max)
    return prefetched(mapped(numbers, episode))


def novel_in_episode(base_classes: int) -> int:
    """How many of the base classes an episode takes for novel; one at least stays, where there are two."""
    part, whole = TAKEN_FOR_NOVEL
    return base_classes * part // whole


def draw_episode(
    rows_of: dict[int, np.ndarray], *, queries: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of an episode's support [M] and, beside that, of its queries.

    A third of the queries are of classes that stay base classes, two thirds of those standing in for novel ones; which
    of them, and which of its images that are not support, is drawn uniformly.

    Args:
      rows_of: those of each base class, more than EXEMPLARS.
    """
    order = rng.permutation(list(rows_of))
    novel, staying = np.split(order, [novel_in_episode(len(order))])
    part, whole = BASE_QUERIES
    of_base = queries * part // whole
    support, left = [], dict(rows_of)
    for label in novel:
        shuffled = rng.permutation(rows_of[label])
        support.append(shuffled[:EXEMPLARS])
        left[label] = shuffled[EXEMPLARS:]
    labels = np.concatenate([rng.choice(novel, queries - of_base), rng.choice(staying, of_base)])
    return np.concatenate(support), np.array([rng.choice(left[label]) for label in labels])
