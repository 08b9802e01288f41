import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lt.losses import FEATURE_LOSSES, lifted_structured, range_loss
from tests.conftest import some_of

# Two of class 0 and one of class 1, at the corners of the triangle with sides 3, 4 and 5.
TRIANGLE = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]], np.float32)


def distance(a, b):
    return math.sqrt(sum((a - b) ** 2))


def lifted_in_loops(labels, features, margin):
    costs = []
    for i, j in itertools.combinations(range(len(labels)), 2):
        if labels[i] == labels[j]:
            near = [
                math.exp(margin - distance(features[one], features[other]))
                for one in (i, j)
                for other in range(len(labels))
                if labels[other] != labels[one]
            ]
            if near:
                costs.append(max(0, math.log(sum(near)) + distance(features[i], features[j])) ** 2)
    return sum(costs) / (2 * len(costs)) if costs else 0.0


def range_in_loops(labels, features, *, k, margin, intra_weight, inter_weight):
    intra, means = 0.0, []
    for one in set(labels):
        members = features[labels == one]
        means.append(members.mean(0))
        widest = sorted((distance(a, b) ** 2 for a, b in itertools.combinations(members, 2)), reverse=True)[:k]
        intra += len(widest) / sum(1 / width for width in widest) if widest else 0
    nearest = min((distance(a, b) ** 2 for a, b in itertools.combinations(means, 2)), default=math.inf)
    return intra_weight * intra + inter_weight * max(0, margin - nearest)


def loss_and_slope(function, labels, features):
    features = tf.convert_to_tensor(features)
    with tf.GradientTape() as tape:
        tape.watch(features)
        losses = function(labels, features)
        mean = tf.reduce_mean(losses)
    return losses.numpy(), tf.cast(tape.gradient(mean, features), tf.float32).numpy()


def test_lifted_structured_by_hand():
    """Of the one pair: log(e^(1-4) + e^(1-5)) + 3 = log(1 + 1/e), squared and halved; half of it each."""
    losses = lifted_structured(np.array([0, 0, 1]), TRIANGLE)
    cost = math.log1p(1 / math.e) ** 2
    np.testing.assert_allclose(losses, [cost * 3 / 4, cost * 3 / 4, 0], rtol=1e-5)
    np.testing.assert_allclose(np.mean(losses), cost / 2, rtol=1e-5)


def test_lifted_structured_is_zero_where_the_others_are_far():
    """log(e^(1-4) + e^(1-5)) + 2 < 0 for the pair two apart."""
    features = TRIANGLE * [[1, 1], [2 / 3, 1], [1, 1]]
    losses, slope = loss_and_slope(lifted_structured, np.array([0, 0, 1]), features.astype(np.float32))
    assert not losses.any()
    assert not slope.any()


def test_range_loss_by_hand():
    """Squared distances 36, 9, 9 in class 0: 2 / (1/36 + 1/9) = 14.4. Class means 4 apart: 20 - 16 = 4."""
    features = np.array([[0, -3], [0, 0], [0, 3], [4, 0]], np.float32)
    labels = np.array([7, 7, 7, 2])
    losses = range_loss(labels, features, margin=20.0, intra_weight=1.0, inter_weight=1.0)
    np.testing.assert_allclose(losses, [14.4 * 4 / 3 + 4] * 3 + [4], rtol=1e-5)
    np.testing.assert_allclose(np.mean(losses), 18.4, rtol=1e-5)
    # The widest alone is 36, all three 3 / (1/36 + 1/9 + 1/9) = 12, and there are no more than three.
    for k, intra in {1: 36, 3: 12, 5: 12}.items():
        losses = range_loss(labels, features, k=k, margin=20.0, intra_weight=0.5, inter_weight=2.0)
        np.testing.assert_allclose(np.mean(losses), 0.5 * intra + 2 * 4, rtol=1e-5)


def test_range_loss_of_one_pair_is_its_squared_distance():
    losses = range_loss(np.array([0, 0, 1]), TRIANGLE, margin=0.0, intra_weight=1.0)
    np.testing.assert_allclose(np.mean(losses), 9, rtol=1e-5)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("classes", [1, 2, 6, 1000])
def test_losses_are_the_papers_loops(classes, seed):
    """Also in batches of one class, and of hardly a pair."""
    rng = np.random.default_rng(seed)
    labels, features = rng.integers(0, classes, 24), rng.normal(size=(24, 5))
    for margin in (1.0, 3.0):
        losses = lifted_structured(labels, features, margin)
        np.testing.assert_allclose(np.mean(losses), lifted_in_loops(labels, features, margin), rtol=1e-4)
    for k in (1, 2, 4):
        options = {"k": k, "margin": 4.0, "intra_weight": 0.3, "inter_weight": 0.7}
        expected = range_in_loops(labels, features, **options)
        np.testing.assert_allclose(np.mean(range_loss(labels, features, **options)), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("function", "in_loops", "options"),
    [
        (lifted_structured, lifted_in_loops, {"margin": 2.0}),
        (range_loss, range_in_loops, {"k": 2, "margin": 9.0, "intra_weight": 0.3, "inter_weight": 0.7}),
    ],
    ids=["lifted", "range"],
)
def test_slopes_are_those_of_the_papers_loops(function, in_loops, options):
    rng = np.random.default_rng(0)
    labels, features = np.array([0, 0, 0, 0, 1, 1, 1, 2]), rng.normal(size=(8, 3))
    _, slope = loss_and_slope(lambda *batch: function(*batch, **options), labels, features)
    expected = np.zeros_like(features)
    for place in np.ndindex(*features.shape):
        step = np.zeros_like(features)
        step[place] = 1e-5
        up, down = (in_loops(labels, features + sign * step, **options) for sign in (1, -1))
        expected[place] = (up - down) / 2e-5
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(slope, expected, atol=1e-4)


@pytest.mark.parametrize("name", FEATURE_LOSSES)
def test_the_order_of_the_examples_does_not_matter(name):
    rng = np.random.default_rng(0)
    labels, features = rng.integers(0, 4, 16), rng.normal(size=(16, 5)).astype(np.float32)
    order = rng.permutation(16)
    losses = np.asarray(FEATURE_LOSSES[name](labels, features))
    assert np.unique(losses).size > 1
    np.testing.assert_allclose(FEATURE_LOSSES[name](labels[order], features[order]), losses[order], rtol=1e-4)


@pytest.mark.parametrize("dtype", some_of(["float32", "bfloat16"], "float32"))
@pytest.mark.parametrize("labels", [[0], [0, 0], [0, 1], [0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 2, 3], [0, 0, 0, 1]])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("name", FEATURE_LOSSES)
def test_losses_and_slopes_are_finite_in_any_batch(name, labels, scale, dtype):
    """Features of length 0, of one place twice, and of ten thousand; classes with one example, or the only one."""
    features = tf.cast(scale * np.array([[1, 2], [1, 2], [0, 1], [1, 2]])[: len(labels)], dtype)
    losses, slope = loss_and_slope(FEATURE_LOSSES[name], np.array(labels), features)
    assert losses.dtype == np.float32
    assert losses.shape == (len(labels),)
    assert np.isfinite(losses).all()
    assert np.isfinite(slope).all()
    if name == "lifted" and len(set(labels)) in (1, len(labels)):
        assert not losses.any()
        assert not slope.any()


@pytest.mark.parametrize("name", FEATURE_LOSSES)
def test_bfloat16_features_are_compared_in_float32(name):
    rng = np.random.default_rng(0)
    labels, features = rng.integers(0, 4, 16), tf.cast(30 + rng.normal(size=(16, 5)), "bfloat16")
    np.testing.assert_array_equal(
        FEATURE_LOSSES[name](labels, features), FEATURE_LOSSES[name](labels, tf.cast(features, "float32"))
    )


@pytest.mark.parametrize("name", FEATURE_LOSSES)
def test_losses_compile_for_a_batch_of_unknown_size_and_labels_in_a_column(name):
    @tf.function(
        input_signature=[tf.TensorSpec([None, 1], tf.float32), tf.TensorSpec([None, 5], tf.float32)], jit_compile=True
    )
    def compiled(labels, features):
        return FEATURE_LOSSES[name](labels, features)

    rng = np.random.default_rng(0)
    for batch_size in (1, 7, 16):
        labels = rng.integers(0, 3, batch_size)
        features = rng.normal(size=(batch_size, 5)).astype(np.float32)
        losses = compiled(labels[:, None].astype(np.float32), features)
        np.testing.assert_allclose(losses, FEATURE_LOSSES[name](labels, features), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", FEATURE_LOSSES)
def test_a_loss_is_saved_by_its_name(name):
    saved = keras.saving.serialize_keras_object(FEATURE_LOSSES[name].function)
    assert keras.saving.deserialize_keras_object(saved) is FEATURE_LOSSES[name].function
