"""Training on mixed labels: its loss and metrics, on one device, several, and on JAX."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lt.labels import MixedLabels
from keras_lt.losses import PerExampleLoss, cross_entropy
from keras_lt.metrics import ShotAccuracy
from keras_lt.optimization import Recipe
from keras_lt.stages import OnMixedLabels, WithFeatureLoss, learn_classifier, learn_representation
from tests.conftest import some_of
from tests.programs import NOISE, TWO_CPUS, lines_of

RECIPE = Recipe(epochs=1, batch_size=16, learning_rate=0.05)

# One step of gradient descent from a given kernel, on four images of two features each; prints loss and kernel.
STEP = """
import json, keras, numpy as np, tensorflow as tf
from keras_lt.distribution import make_strategy
from keras_lt.labels import MixedLabels
from keras_lt.losses import PerExampleLoss, cross_entropy
from keras_lt.metrics import ShotAccuracy
from keras_lt.stages import OnMixedLabels

features = np.float32([[1, 0], [0, 1], [1, 1], [2, -1]])
labels = MixedLabels(np.array([0, 1, 2, 1]), np.array([1, 2, 0, 0]), np.float32([0.6, 0.6, 0.9, 1.0]))
with STRATEGY.scope():
    inner = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, use_bias=False)])
    inner.set_weights([np.float32([[0.5, -0.5, 0], [0, 1, -1]])])
    model = OnMixedLabels(inner)
    model.compile(keras.optimizers.SGD(1.0), PerExampleLoss(cross_entropy, reduction="sum_over_batch_size"),
                  weighted_metrics=[ShotAccuracy([200, 50, 5])])
batches = tf.data.Dataset.from_tensors((features, labels))
logs = model.fit(batches, validation_data=(features, labels.larger), verbose=0).history
print(json.dumps([logs["loss"], logs["all"], *inner.get_weights()[0].tolist()]))
"""

ON_JAX = "import os; os.environ['KERAS_BACKEND'] = 'jax'\n"
MIXED_RUN = """
recipe = Recipe(epochs=1, batch_size=8, learning_rate=0.01)
strategy = make_strategy("multi_host")
learned = learn_representation(data, backbone="tiny", recipe=recipe, mixup=0.5, cutmix=0.5, strategy=strategy)
print(np.isfinite(learned.history[0]["loss"]))
"""


def by_hand():
    """The same step in NumPy: the gradient of the mean loss is X' (softmax - target) / 4."""
    features = np.array([[1.0, 0], [0, 1], [1, 1], [2, -1]])
    kernel = np.array([[0.5, -0.5, 0], [0, 1, -1]])
    target = np.array([[0.6, 0.4, 0], [0, 0.6, 0.4], [0.1, 0, 0.9], [0, 1, 0]])
    logits = features @ kernel
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    loss = -(target * np.log(probabilities)).sum(1).mean()
    return loss, kernel - features.T @ (probabilities - target) / 4


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("before", "strategy"),
    [(TWO_CPUS, "make_strategy('mirrored', ['CPU:0', 'CPU:1'])"), (ON_JAX, "make_strategy('none')")],
    ids=["two devices", "jax"],
)
def test_a_step_is_the_one_by_hand(before, strategy):
    *_, line = lines_of(before, STEP.replace("STRATEGY", strategy))
    (loss,), (accuracy,), *kernel = json.loads(line)
    expected, moved = by_hand()
    assert loss == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(kernel, moved, atol=1e-6)
    assert accuracy == 0.5  # of the larger parts 0, 1, 2, 1 the logits have 0, 1, 1, 0


@pytest.mark.exhaustive
def test_a_run_on_the_devices_of_every_host_mixes():
    *_, line = lines_of(ON_JAX, NOISE, MIXED_RUN)
    assert line == "True"


def test_regularisation_counts_once():
    inner = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, kernel_regularizer=keras.regularizers.L2(0.1))])
    inner.set_weights([np.float32([[3, 0], [0, 4]]), np.zeros(2)])
    model = OnMixedLabels(inner)
    model.compile(loss=PerExampleLoss(cross_entropy))
    logits = model(np.zeros((1, 2)))
    mixed = MixedLabels(*map(tf.constant, ([0], [1], [0.7])))
    assert float(model.compute_loss(y=mixed, y_pred=logits)) == pytest.approx(np.log(2) + 0.1 * 25)


def test_weights_of_examples_weigh_both_parts():
    model = OnMixedLabels(keras.Sequential([keras.Input((2,)), keras.layers.Identity()]))
    model.compile(loss=PerExampleLoss(cross_entropy, reduction="sum_over_batch_size"))
    logits = np.float32([[np.log(3), 0], [0, 0]])
    mixed = MixedLabels(*map(tf.constant, ([0, 0], [1, 1], [0.7, 0.5])))
    loss = model.compute_loss(y=mixed, y_pred=logits, sample_weight=tf.constant([2.0, 0.0]))
    assert float(loss) == pytest.approx((0.7 * np.log(4 / 3) + 0.3 * np.log(4)) * 2 / 2, rel=1e-6)


def test_a_mixed_image_counts_as_its_larger_part():
    model = OnMixedLabels(keras.Sequential([keras.Input((3,)), keras.layers.Identity()]))
    model.compile(loss=PerExampleLoss(cross_entropy), metrics=[ShotAccuracy([200, 50, 5])])
    mixed = MixedLabels(*map(tf.constant, ([0, 1], [2, 0], [0.6, 0.9])))
    logits = tf.one_hot([0, 0], 3)
    model.compute_loss(y=mixed, y_pred=logits)
    logs = model.compute_metrics(None, mixed, logits)
    logs = logs.get("shot_accuracy", logs)  # which Keras 3.10 to 3.13 have beside the loss
    expected = {"many": 1, "medium": 0, "few": np.nan, "all": 0.5, "class_mean": 0.5}
    assert {name: float(logs[name]) for name in expected} == pytest.approx(expected, nan_ok=True)


def test_a_loss_on_features_takes_both_classes():
    """A made-up loss, label + first feature; the logits are two zeros, so that cross-entropy is log 2."""
    inputs = keras.Input((2,))
    backbone = keras.layers.Identity(name="backbone")
    head = keras.layers.Dense(2, kernel_initializer="zeros", name="classifier")
    inner = keras.Model(inputs, head(backbone(inputs)))

    def feature_loss(labels, features):
        return keras.ops.cast(labels, "float32") + features[:, 0]

    model = WithFeatureLoss(inner, feature_loss, weight=0.5)
    model.compile(loss=PerExampleLoss(cross_entropy))
    features = np.float32([[10, 0], [20, 0]])
    mixed = MixedLabels(*map(tf.constant, ([0, 1], [1, 1], [0.75, 0.5])))
    for labels, of_features in (mixed, 15.625), (np.array([0, 1]), 15.5), (np.eye(2), 15.5):  # (0 + 10 + 1 + 20) / 2
        loss = float(model.compute_loss(y=labels, y_pred=model(features)))
        assert loss == pytest.approx(np.log(2) + 0.5 * of_features)


@pytest.mark.parametrize("feature_loss", some_of(["", "range"], "range"))
def test_a_representation_learns_from_mixed_images_and_is_saved_as_without(data, tiny_backbone, tmp_path, feature_loss):
    recipe = dataclasses.replace(RECIPE, feature_loss=feature_loss)
    learned = learn_representation(data, backbone=tiny_backbone, recipe=recipe, mixup=0.2, cutmix=1.0)
    learned.save(tmp_path)
    model = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert type(model) is type(keras.Model(model.input, model.output))
    np.testing.assert_array_equal(model.get_layer("classifier").kernel, learned.head.kernel)
    assert np.isfinite(learned.history[0]["loss"])


def test_stage_two_learns_from_mixed_images(data, tiny_backbone):
    """Of max_norm each epoch ends with a projection, by which no class's weights are longer than the radius."""
    learned = learn_representation(data, backbone=tiny_backbone, recipe=RECIPE, mixup=0.2)
    recipe = dataclasses.replace(RECIPE, learning_rate=5.0)  # far beyond it without the projection
    classifier = learn_classifier("max_norm:threshold=0", learned, data, recipe=recipe, stage_two="images")
    shortest = np.linalg.norm(learned.head.get_weights()[0], axis=0).min()
    np.testing.assert_allclose(np.linalg.norm(classifier.model.get_weights()[0], axis=0).max(), shortest, rtol=1e-5)


def test_float16_scales_the_loss_of_mixed_labels(data, tiny_backbone):
    inner = learn_representation(
        data, backbone=tiny_backbone, recipe=RECIPE, precision="mixed_float16", mixup=0.2
    ).model
    model = OnMixedLabels(inner)
    model.compile("sgd")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
