import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lt.backbones.fast_layers import FusedBatchNormalization, FusedInferenceBatchNormalization

MODES = {
    "eager": lambda function: function,
    "graph": tf.function,
    "jit": lambda function: tf.function(function, jit_compile=True),
}


def pair(fused=FusedBatchNormalization, **options):
    """Ours and Keras's, with the same uneven weights for four channels."""
    rng = np.random.default_rng(0)
    layers = [cls(momentum=0.9, epsilon=1e-5, **options) for cls in (fused, keras.layers.BatchNormalization)]
    weights = [rng.uniform(0.5, 1.5, 4) for _ in range(4)]
    for layer in layers:
        layer.build((None, 5, 6, 4))
        layer.set_weights(weights)
    return layers


def trained(layer, images, mode, *, training=True):
    """Outputs and gradients of one training step; statistics move on."""

    def step(images):
        with tf.GradientTape() as tape:
            tape.watch([images, layer.gamma.value, layer.beta.value])  # also where the layer is frozen
            outputs = layer(images, training=training)
            loss = tf.reduce_sum(tf.sin(tf.cast(outputs, tf.float32)))
        return outputs, *tape.gradient(loss, [images, layer.gamma.value, layer.beta.value])

    return [tf.cast(values, tf.float32).numpy() for values in MODES[mode](step)(images)]


def photographs(dtype="float32"):
    return tf.constant(np.random.default_rng(1).normal(2.0, 3.0, (3, 5, 6, 4)), dtype)


@pytest.mark.versions
def test_the_fused_kernel_is_used():
    ours, theirs = pair()
    ops = [
        {
            op.type
            for op in tf.function(lambda x, layer=layer: layer(x, training=True))
            .get_concrete_function(photographs())
            .graph.get_operations()
        }
        for layer in (ours, theirs)
    ]
    assert "FusedBatchNormV3" in ops[0] - ops[1]


@pytest.mark.versions
@pytest.mark.parametrize("mode", MODES)
def test_a_training_step_is_that_of_keras(mode):
    ours, theirs = pair()
    for our, their in zip(trained(ours, photographs(), mode), trained(theirs, photographs(), mode), strict=True):
        np.testing.assert_allclose(our, their, rtol=1e-4, atol=1e-5)
    for our, their in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_allclose(our, their, rtol=1e-5, err_msg=our.name)


@pytest.mark.versions
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_keeps_float32_statistics(dtype):
    ours, theirs = pair(dtype=f"mixed_{dtype}")
    outputs = [trained(layer, photographs(dtype), "graph") for layer in (ours, theirs)]
    for our, their in zip(*outputs, strict=True):
        np.testing.assert_allclose(our, their, rtol=0.05, atol=0.05)
    for our, their in zip(ours.weights, theirs.weights, strict=True):
        assert our.dtype == "float32"
        np.testing.assert_allclose(our, their, rtol=1e-5, err_msg=our.name)


def test_moving_statistics_by_hand():
    layer = FusedBatchNormalization(momentum=0.5)
    outputs = layer(np.array([1.0, 3.0], np.float32).reshape(1, 1, 2, 1), training=True)
    assert layer.moving_mean.numpy() == 1.0  # half of 0 and of 2
    assert layer.moving_variance.numpy() == 1.0  # half of 1 and of 1: divided by two pixels, not by one
    np.testing.assert_allclose(np.ravel(outputs), [-1.0, 1.0], atol=1e-3)


def test_frozen_and_in_inference_it_uses_the_moving_statistics():
    ours, theirs = pair()
    np.testing.assert_allclose(ours(photographs()), theirs(photographs()), rtol=1e-5)
    ours.trainable = False
    np.testing.assert_allclose(ours(photographs(), training=True), theirs(photographs()), rtol=1e-5)


@pytest.mark.versions
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("trainable", "training"), [(True, False), (False, True), (True, True)])
def test_the_kernel_of_inference_gives_what_keras_gives(mode, trainable, training):
    """Outputs, and gradients with the statistics as constants, as in a frozen layer below one that is trained."""
    ours, theirs = layers = pair(FusedInferenceBatchNormalization)
    for layer in layers:
        layer.trainable = trainable
    outputs = [trained(layer, photographs(), mode, training=training) for layer in layers]
    for our, their in zip(*outputs, strict=True):
        np.testing.assert_allclose(our, their, rtol=1e-4, atol=1e-5)
    for our, their in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_allclose(our, their, rtol=1e-5, err_msg=our.name)


@pytest.mark.versions
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_kernel_of_inference_in_half_precision(dtype):
    ours, theirs = (
        layer(photographs(dtype)) for layer in pair(FusedInferenceBatchNormalization, dtype=f"mixed_{dtype}")
    )
    assert ours.dtype == theirs.dtype == dtype
    np.testing.assert_allclose(tf.cast(ours, "float32"), tf.cast(theirs, "float32"), rtol=0.01, atol=0.01)


@pytest.mark.versions
@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (6, 4)),
        ({"axis": 1}, (2, 4, 3, 3)),
        ({"center": False}, (2, 3, 3, 4)),
        ({"dtype": "float64"}, (2, 3, 3, 4)),
    ],
)
def test_what_the_kernel_does_not_fit_is_left_to_keras(options, shape):
    layers = [cls(**options) for cls in (FusedInferenceBatchNormalization, keras.layers.BatchNormalization)]
    images = np.random.default_rng(0).normal(1.0, 2.0, shape)
    for training in (True, False):
        ours, theirs = (layer(images, training=training) for layer in layers)
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.versions
def test_it_survives_saving(tmp_path):
    images = keras.Input((5, 6, 4))
    model = keras.Model(images, FusedBatchNormalization()(images))
    model.save(tmp_path / "model.keras")
    assert isinstance(keras.models.load_model(tmp_path / "model.keras").layers[1], FusedBatchNormalization)
