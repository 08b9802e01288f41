import math
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lt.losses import LOSSES, PerExampleLoss, cross_entropy

GOLDEN = pathlib.Path(__file__).parent / "golden"


@keras.saving.register_keras_serializable("keras_lt_tests")
def weighted_cross_entropy(labels, logits, class_weights):
    return keras.ops.take(keras.ops.convert_to_tensor(class_weights), labels) * cross_entropy(labels, logits)


def test_cross_entropy_by_hand():
    losses = cross_entropy(np.array([0, 1, 1]), np.array([[0.0, 0.0], [math.log(3), 0.0], [-1000.0, 1000.0]]))
    np.testing.assert_allclose(losses, [math.log(2), math.log(4), 0.0], rtol=1e-6)


def test_cross_entropy_and_its_gradient_are_the_reference_ones():
    golden = np.load(GOLDEN / "losses.npz")
    logits = tf.constant(golden["logits"])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = tf.reduce_mean(cross_entropy(golden["labels"], logits))
    np.testing.assert_allclose(loss, golden["ce"], rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(loss, logits), golden["ce_grad"], atol=1e-7)


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
