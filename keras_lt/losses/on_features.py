"""Losses on features: labels [B] and features [B, D] to one value per example, [B], whose mean is the paper's loss.

They compare the examples of a batch with one another, in float32. Shapes depend on B alone, whatever classes are in
the batch, so that the functions compile.
"""

import keras

from keras_lt.labels import ids_and_features
from keras_lt.registry import NOT_NEGATIVE, Entry

ABSENT = -1.0  # below every squared distance


@keras.saving.register_keras_serializable("keras_lt")
def lifted_structured(labels, features, margin=1.0):
    """Lifted structured embedding (Oh Song et al., 2016): of a class near, of different classes apart.

    A pair i, j of a class costs max(0, log(sum exp(margin - D_ik) + sum exp(margin - D_jl)) + D_ij)^2, the sums being
    over all examples of other classes; the loss is half the mean over the pairs. Each example has half of its pairs'.

    Args:
      labels: class ids, [B].
      features: [B, D].
      margin: in units of the distance.
    Returns: [B]; 0 where no two examples are of one class, or all are.
    """
    labels, features = ids_and_features(labels, features)
    same = _same_class(labels)
    distances = _distances(_squared_distances(features))
    # -1e9, not -inf: a row without other classes keeps a finite slope, which the hinge then stops.
    near = keras.ops.logsumexp(keras.ops.where(same, -1e9, margin - distances), axis=1)
    costs = keras.ops.square(keras.ops.relu(keras.ops.logaddexp(near[:, None], near[None]) + distances))
    pairs = keras.ops.cast(same, "float32") - keras.ops.eye(
        keras.ops.shape(same)[0], dtype="float32"
    )  # each pair twice
    per_example = keras.ops.mean(keras.ops.sum(pairs, axis=1))
    return 0.5 * keras.ops.divide_no_nan(keras.ops.sum(pairs * costs, axis=1), per_example)


@keras.saving.register_keras_serializable("keras_lt")
def range_loss(labels, features, *, k=2, margin=5.0, intra_weight=1e-4, inter_weight=1e-3):
    """Range loss (Zhang et al., 2017): narrows each class where it is widest, and parts the two nearest classes.

    All distances are squared, so weights and margin depend on how long the features are. The margin is that of OLTR's
    implementation (Liu et al., 2019); on the longer features of faces ones of ten thousands are in use.

    Args:
      labels: class ids, [B].
      features: [B, D].
      k: the intra-class term sums, over the batch's classes, the harmonic mean of the k largest distances within one;
        of a class with fewer pairs, of those there are.
      margin: the inter-class term is max(0, margin - the smallest distance between two class means).
      intra_weight, inter_weight: of the two terms.
    Returns: [B]; a class's term is shared by its examples, the other by all.
    """
    labels, features = ids_and_features(labels, features)
    same = _same_class(labels)
    members = keras.ops.cast(same, "float32")
    widths = _harmonic_means(_largest_within_classes(same, _squared_distances(features), k))
    means = keras.ops.matmul(members, features) / keras.ops.sum(members, axis=1, keepdims=True)
    nearest = keras.ops.min(keras.ops.where(same, float("inf"), _squared_distances(means)))
    # n examples of a class get B / n of its width each: their mean over B is the sum over classes.
    intra = widths / keras.ops.mean(members, axis=1)
    return intra_weight * intra + inter_weight * keras.ops.relu(margin - nearest)


# (labels [B], features [B, D]) -> [B]
FEATURE_LOSSES: dict[str, Entry] = {
    "lifted": Entry(lifted_structured, label="Lifted", ranges={"margin": NOT_NEGATIVE}),
    "range": Entry(
        range_loss,
        label="Range",
        ranges={"k": (1, 1001), **dict.fromkeys(("margin", "intra_weight", "inter_weight"), NOT_NEGATIVE)},
    ),
}


def _same_class(labels):
    """Whether two examples are of one class, [B, B]; an example is of its own."""
    return keras.ops.equal(labels[:, None], labels[None])


def _squared_distances(vectors):
    """Between any two rows, [B, D] -> [B, B]."""
    # Distances do not see the mean, and without it the difference of large numbers loses fewer digits.
    vectors = vectors - keras.ops.mean(vectors, axis=0)
    norms = keras.ops.sum(keras.ops.square(vectors), axis=1)
    products = keras.ops.matmul(vectors, keras.ops.transpose(vectors))
    return keras.ops.maximum(norms[:, None] + norms[None] - 2 * products, 0.0)


def _distances(squares):
    """The root, with slope 0 at 0."""
    apart = squares > 0
    return keras.ops.where(apart, keras.ops.sqrt(keras.ops.where(apart, squares, 1.0)), 0.0)


def _largest_within_classes(same, distances, k):
    """The k largest distances of each example's class, [B, k], `ABSENT` where the class has fewer pairs.

    A class's k largest are among the k largest of each of its rows, which is B^2 k numbers to look at and not B^3.
    """
    later = keras.ops.triu(keras.ops.ones_like(distances), 1) > 0  # a pair once
    rows = keras.ops.where(keras.ops.logical_and(same, later), distances, ABSENT)
    rows = keras.ops.pad(rows, ((0, 0), (0, k)), constant_values=ABSENT)  # a batch may be smaller than k
    largest, _ = keras.ops.top_k(rows, k)
    of_class = keras.ops.where(same[:, :, None], largest[None], ABSENT)
    largest, _ = keras.ops.top_k(keras.ops.reshape(of_class, (keras.ops.shape(same)[0], -1)), k)
    return largest


def _harmonic_means(distances):
    """Along the last axis, of those that are there; 0 where none is."""
    there = keras.ops.cast(distances >= 0, "float32")
    inverses = there / keras.ops.maximum(distances, keras.config.epsilon())
    return keras.ops.divide_no_nan(keras.ops.sum(there, axis=-1), keras.ops.sum(inverses, axis=-1))
