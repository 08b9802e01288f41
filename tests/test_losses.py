import json
import math
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lt.losses import (
    FEATURE_LOSSES,
    LDAM_SCALE,
    LOSSES,
    PerExampleLoss,
    balanced_softmax,
    cross_entropy,
    focal,
    ldam,
    logit_adjustment,
    loss_entry,
    sigmoid_cross_entropy,
    sigmoid_focal,
)
from tests.conftest import some_of
from tests.programs import TWO_CPUS, lines_of

GOLDEN = pathlib.Path(__file__).parent / "golden"


@keras.saving.register_keras_serializable("keras_lt_tests")
def weighted_cross_entropy(labels, logits, class_weights):
    return keras.ops.take(keras.ops.convert_to_tensor(class_weights), labels) * cross_entropy(labels, logits)


def test_cross_entropy_by_hand():
    losses = cross_entropy(np.array([0, 1, 1]), np.array([[0.0, 0.0], [math.log(3), 0.0], [-1000.0, 1000.0]]))
    np.testing.assert_allclose(losses, [math.log(2), math.log(4), 0.0], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "inputs", "function"),
    [
        ("ce", "logits", lambda labels, logits, counts: cross_entropy(labels, logits)),
        ("focal_g1", "logits", lambda labels, logits, counts: focal(labels, logits, 1.0)),
        ("focal_g2", "logits", lambda labels, logits, counts: focal(labels, logits, 2.0)),
        ("balanced_softmax", "logits", balanced_softmax),
        ("balanced_softmax", "logits", logit_adjustment),  # with tau 1 the same: the softmax does not see a constant
        ("ldam", "cosine_logits", ldam),
    ],
)
def test_a_loss_and_its_gradient_are_the_reference_ones(name, inputs, function):
    golden = np.load(GOLDEN / "losses.npz")
    logits = tf.constant(golden[inputs])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = tf.reduce_mean(function(golden["labels"], logits, golden["class_counts"]))
    np.testing.assert_allclose(loss, golden[name], rtol=2e-6)
    np.testing.assert_allclose(tape.gradient(loss, logits), golden[f"{name}_grad"], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "reference", "inputs", "scale"),
    [
        ("cross_entropy", ("cb_ce_weighted_mean", "cb_ce_grad"), "logits", 1.0),
        ("ldam", ("ldam_drw", "ldam_drw_grad"), "cosine_logits", LDAM_SCALE),
    ],
)
def test_a_softmax_loss_under_class_weights_is_the_reference_one(name, reference, inputs, scale):
    golden = np.load(GOLDEN / "losses.npz")
    inputs, labels = tf.constant(golden[inputs]), golden["labels"]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        weights = golden["effective_number_weights"][labels]
        loss = LOSSES[name](golden["class_counts"])(labels, scale * inputs, sample_weight=weights)
    np.testing.assert_allclose(loss, golden[reference[0]], rtol=2e-6)
    np.testing.assert_allclose(tape.gradient(loss, inputs), golden[reference[1]], atol=1e-6)


def test_logit_adjustment_by_hand():
    """Of 300 and 100 images: logits 0 become tau log 3 more for the first class."""
    logits = np.zeros((2, 2))
    for tau, odds in {0.0: 1, 1.0: 3, 2.0: 9}.items():
        losses = logit_adjustment(np.array([0, 1]), logits, [300, 100], tau)
        np.testing.assert_allclose(losses, [math.log(1 + 1 / odds), math.log(1 + odds)], rtol=1e-6)


def test_sigmoid_losses_by_hand():
    """Probabilities 3/4, 1/2 and 1/4 of a yes; the right answers yes, no and no have 3/4, 1/2 and 3/4."""
    labels, logits = np.array([0]), np.array([[math.log(3), 0.0, -math.log(3)]])
    losses = [math.log(4 / 3), math.log(2), math.log(4 / 3)]
    np.testing.assert_allclose(sigmoid_cross_entropy(labels, logits), [sum(losses)], rtol=1e-6)
    for gamma in (0.0, 0.5, 2.0):
        expected = np.dot([0.25**gamma, 0.5**gamma, 0.25**gamma], losses)
        np.testing.assert_allclose(sigmoid_focal(labels, logits, gamma), [expected], rtol=1e-6)


def test_sigmoid_losses_under_weights_are_divided_by_the_number_of_examples():
    """At logits 0 an example of two classes costs 2 log 2, and with gamma 1 half of it."""
    labels, logits, weights = np.array([0, 1]), np.zeros((2, 2)), np.array([1.0, 5.0])
    for name, options, each in (("sigmoid", {}, 2 * math.log(2)), ("sigmoid_focal", {"gamma": 1.0}, math.log(2))):
        loss = LOSSES[name]([3, 1], **options)(labels, logits, sample_weight=weights)
        np.testing.assert_allclose(loss, 6 * each / 2, rtol=1e-6)


def test_sigmoids_begin_at_one_in_all_classes():
    for name in ("sigmoid", "sigmoid_focal"):
        assert 1 / (1 + math.exp(-LOSSES[name].first_bias(10))) == pytest.approx(0.1)
        assert LOSSES[name].first_bias(2) == 0


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("cross_entropy", [1, 1]),
        ("balanced_softmax", [9, 4]),
        ("logit_adjustment", [9, 4]),
        ("logit_adjustment:tau=0.5", [3, 2]),
        ("logit_adjustment:tau=0", [1, 1]),
    ],
)
def test_what_a_loss_puts_beside_the_logits(loss, expected):
    np.testing.assert_allclose(loss_entry(loss).prior_beside([9, 4]), expected)


def test_parameters_reach_the_loss():
    """Cosines 1 and 0.5, margins proportional to n^-1/4 of 16 and 1 images: halves of 0.4, and 0.4."""
    logits, labels = np.array([[10.0, 5.0]]), np.array([0])
    loss = loss_entry("ldam:max_margin=0.4:scale=10")([16, 1])
    np.testing.assert_allclose(loss(labels, logits), math.log1p(math.exp(10 * (0.5 - (1 - 0.2)))), rtol=1e-5)
    assert loss_entry("ldam:scale=10").needed_head == "cosine:scale=10.0"
    adjusted = loss_entry("logit_adjustment:tau=2")([3, 1])
    np.testing.assert_allclose(adjusted(labels, np.zeros((1, 2))), math.log(1 + 1 / 9), rtol=1e-5)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("focal:margin=1", "focal has the parameters gamma=2.0. Received: loss=focal:margin=1"),
        ("sigmoid:gamma=1", "sigmoid has no parameters"),
        ("focal:gamma=much", "gamma must be a number. Received: loss=focal:gamma=much"),
        ("focal:gamma", "written name:parameter=value"),
        ("ce", "loss must be one of cross_entropy, focal"),
    ],
)
def test_parameters_that_a_loss_has_not_are_refused(loss, message):
    with pytest.raises(ValueError, match=message):
        loss_entry(loss)


@pytest.mark.parametrize(
    "loss", ["focal:gamma=-1", "cross_entropy:label_smoothing=1", "ldam:scale=0", "focal:gamma=nan"]
)
def test_parameters_out_of_range_are_refused(loss):
    with pytest.raises(ValueError, match=r"must (be|lie)"):
        loss_entry(loss)([3, 1])


# Of 200: .3 / 2 or .98 / 2 is smoothed away from the first class; each of two logits gets the logarithm of a thousand.
LIMITS = {
    "label_aware_smoothing": (30, 170),
    "los": (98, 102),
    "balanced_binary_cross_entropy": (0, 200 - 2 * math.log(1000)),
}
SCALED = ("lade", "class_balanced_binary")  # by a number of the batch; by the class weights of small classes


@pytest.mark.parametrize("counts", [[1000, 1], [1000, 0]], ids=["tail", "absent"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", [*LOSSES, "focal_half"])
def test_losses_and_slopes_are_finite_at_logits_of_a_hundred(name, dtype, counts):
    loss = LOSSES["focal"](counts, gamma=0.5) if name == "focal_half" else LOSSES[name](counts)
    logits = tf.cast([[100.0, -100.0], [-100.0, 100.0]], dtype)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        losses = loss.call(tf.constant([0, 0]), logits)
        mean = loss(tf.constant([0, 0]), logits, sample_weight=tf.constant([1.0, 3.0]))
    assert losses.dtype == mean.dtype == "float32"
    assert np.isfinite(losses).all()
    assert np.isfinite(mean)
    if name in LIMITS:
        np.testing.assert_allclose(losses, LIMITS[name], rtol=1e-5, atol=1e-5)
    elif name in SCALED:
        assert losses[0] < losses[1]
    else:
        assert losses[0] < 1
        assert losses[1] > 190  # 200, less the logarithm of a thousand where the prior says so
    assert np.isfinite(tf.cast(tape.gradient(mean, logits), tf.float32)).all()


def test_label_smoothing_spreads_a_share_over_all_classes():
    """Logits 2 and 0: log(1 + e^-2) = 0.126928 for the first class, 2.126928 for the second, 1.126928 on average."""
    loss = cross_entropy(np.array([0]), np.array([[2.0, 0.0]]), label_smoothing=0.1)
    np.testing.assert_allclose(loss, [0.9 * 0.126928 + 0.1 * 1.126928], rtol=1e-5)
    one_hot = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.3)
    logits = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    labels = np.array([0, 3, 2, 2])
    ours = LOSSES["cross_entropy"](np.ones(5), label_smoothing=0.3)(labels, logits)
    np.testing.assert_allclose(ours, one_hot(np.eye(5)[labels], logits), rtol=1e-5)


def test_cross_entropy_is_computed_in_float32():
    logits = keras.ops.cast([[7.0] + [0.0] * 512], "bfloat16")
    losses = cross_entropy(np.array([0]), logits)
    assert losses.dtype == "float32"
    np.testing.assert_allclose(losses, [math.log1p(512 * math.exp(-7))], rtol=1e-5)  # bfloat16 has 1e-3


@pytest.mark.parametrize("labels", [[0, 1, 1], [[0], [1], [1]]], ids=["vector", "column"])
def test_keras_loss_is_the_mean_over_examples(labels):
    logits = np.array([[0.0, 0.0], [math.log(3), 0.0], [0.0, 0.0]])
    mean = (math.log(2) + math.log(4) + math.log(2)) / 3
    np.testing.assert_allclose(PerExampleLoss(cross_entropy)(np.array(labels), logits), mean, rtol=1e-6)


def test_keras_loss_passes_and_keeps_what_else_the_function_takes():
    loss = PerExampleLoss(weighted_cross_entropy, class_weights=np.array([2.0, 3.0], np.float32), reduction="sum")
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert restored.name == "weighted_cross_entropy"
    np.testing.assert_allclose(restored(np.array([0, 1]), np.zeros((2, 2))), 5 * math.log(2), rtol=1e-6)


@pytest.mark.versions
@pytest.mark.parametrize("name", some_of(LOSSES, "cross_entropy", "lade"))
def test_a_model_trains_with_each_loss_and_survives_saving(name, tmp_path):
    features = np.eye(3, dtype=np.float32)
    labels = np.arange(3)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, kernel_initializer="zeros")])
    model.compile(keras.optimizers.SGD(0.5), LOSSES[name](np.array([100, 10, 1])))
    history = model.fit(features, labels, epochs=5, verbose=0).history["loss"]
    assert history[-1] < history[0]
    model.save(tmp_path / "model.keras")
    restored = keras.models.load_model(tmp_path / "model.keras")
    assert restored.evaluate(features, labels, verbose=0) == model.evaluate(features, labels, verbose=0)


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_survives_its_configuration(name):
    rng = np.random.default_rng(0)
    labels, logits, weights = rng.integers(0, 3, 8), rng.normal(size=(8, 3)), rng.uniform(size=8)
    options = {"cross_entropy": {"label_smoothing": 0.1}, "focal": {"gamma": 0.7}, "sigmoid_focal": {"gamma": 0.7}}
    loss = LOSSES[name](np.array([100, 10, 1]), **options.get(name, {}))
    restored = keras.saving.deserialize_keras_object(json.loads(json.dumps(keras.saving.serialize_keras_object(loss))))
    assert restored.get_config() == loss.get_config()
    assert float(restored(labels, logits, weights)) == float(loss(labels, logits, weights))


# A batch of four, and their weights.
INPUTS = np.log([[1, 1], [3, 1], [1, 3], [7, 1]])
LABELS = np.array([0, 1, 0, 1])
WEIGHTS = np.array([1.0, 3.0, 2.0, 6.0])


def one_step(name):
    """The loss of one step of `fit` on weighted examples, and the kernel after it, which was the identity."""
    dense = keras.layers.Dense(2, use_bias=False, kernel_initializer="identity")
    model = keras.Sequential([keras.Input((2,)), dense])
    model.compile(keras.optimizers.SGD(1.0), LOSSES[name]([3, 1]))
    fitted = model.fit(INPUTS, LABELS, sample_weight=WEIGHTS, batch_size=4, shuffle=False, verbose=0)
    return [*fitted.history["loss"], *np.asarray(dense.kernel).ravel()]


def expected_step(shares, name):
    """What `one_step` gives where the examples have these shares of the loss."""
    right = np.eye(2)[LABELS]
    if name == "sigmoid":
        said = 1 / (1 + np.exp(-INPUTS))
        losses = -np.log(np.where(right, said, 1 - said)).sum(1)
    else:
        said = np.exp(INPUTS) / np.exp(INPUTS).sum(1, keepdims=True)
        losses = -np.log(said)[right > 0]
    kernel = np.eye(2) - INPUTS.T @ (np.array(shares)[:, None] * (said - right))
    return [np.dot(shares, losses), *kernel.ravel()]


@pytest.mark.parametrize(
    ("name", "shares"),
    [("cross_entropy", [1 / 12, 3 / 12, 2 / 12, 6 / 12]), ("sigmoid", [1 / 4, 3 / 4, 2 / 4, 6 / 4])],
)
def test_fit_on_weighted_examples(name, shares):
    np.testing.assert_allclose(one_step(name), expected_step(shares, name), rtol=1e-5)


@pytest.mark.exhaustive
def test_two_replicas_average_their_own_weighted_means():
    """Rows 0 and 1 weigh 4, rows 2 and 3 weigh 8; the sigmoid's divisor is the number of examples on any device."""
    on_both = """
from tests.test_losses import one_step
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    for name in ("cross_entropy", "sigmoid"):
        print(*one_step(name))
"""
    softmax, sigmoid = (np.array(line.split(), float) for line in lines_of(TWO_CPUS, on_both))
    np.testing.assert_allclose(softmax, expected_step([1 / 8, 3 / 8, 2 / 16, 6 / 16], "cross_entropy"), rtol=1e-5)
    np.testing.assert_allclose(sigmoid, expected_step([1 / 4, 3 / 4, 2 / 4, 6 / 4], "sigmoid"), rtol=1e-5)


def values(compiled):
    """Every loss of one batch under weights, and every feature loss's values, by functions that a backend compiled."""
    rng = np.random.default_rng(0)
    labels, weights = rng.integers(0, 4, 12), rng.uniform(size=12).astype(np.float32)
    logits, features = (rng.normal(size=(12, width)).astype(np.float32) for width in (4, 5))
    numbers = [float(compiled(LOSSES[name]([90, 9, 3, 1]))(labels, logits, weights)) for name in LOSSES]
    for function in FEATURE_LOSSES.values():
        numbers.extend(np.asarray(compiled(function)(labels, features)).tolist())
    return numbers


@pytest.mark.exhaustive
def test_values_on_jax_are_those_on_tensorflow():
    on_jax = """
import os
os.environ["KERAS_BACKEND"] = "jax"
import jax
from tests.test_losses import values
print(*values(jax.jit))
"""
    ours, (theirs,) = values(tf.function), lines_of(on_jax)
    assert len(ours) == len(LOSSES) + 12 * len(FEATURE_LOSSES)
    np.testing.assert_allclose(np.array(theirs.split(), float), ours, rtol=1e-4)
