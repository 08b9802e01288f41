import math
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lt.losses import (
    LOSSES,
    PerExampleLoss,
    balanced_softmax,
    cross_entropy,
    effective_number_weights,
    focal,
    ldam,
)

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


def test_effective_number_weights_are_the_reference_ones():
    golden = np.load(GOLDEN / "losses.npz")
    weights = effective_number_weights(golden["class_counts"], 0.9999)
    np.testing.assert_allclose(weights, golden["effective_number_weights"], rtol=1e-5)
    # beta 1/2 and one or two images: effective numbers 1 and 3/2, so weights 1 and 2/3, scaled to sum to two.
    np.testing.assert_allclose(effective_number_weights([1, 2], 0.5), [1.2, 0.8])
    np.testing.assert_allclose(effective_number_weights([1, 2], 0), [1, 1])
    with pytest.raises(ValueError, match=r"beta must lie in \[0, 1\). Received: beta=1"):
        effective_number_weights([1, 2], 1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "function",
    [
        lambda labels, logits: focal(labels, logits, 0.5),
        lambda labels, logits: focal(labels, logits, 2.0),
        lambda labels, logits: balanced_softmax(labels, logits, [1000, 1]),
    ],
)
def test_losses_and_slopes_are_finite_at_logits_of_a_hundred(function, dtype):
    logits = tf.cast([[100.0, -100.0], [-100.0, 100.0]], dtype)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        losses = function(np.array([0, 0]), logits)
    assert losses.dtype == "float32"
    assert np.isfinite(losses).all()
    assert losses[0] < 1
    assert losses[1] > 190  # 200, less the logarithm of a thousand where the prior says so
    assert np.isfinite(tf.cast(tape.gradient(losses, logits), tf.float32)).all()


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


@pytest.mark.parametrize("name", LOSSES)
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
