import functools
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lt.backbones.fast_layers import GroupedConv2D
from tests.conftest import some_of

MODES = {
    "eager": lambda function: function,
    "graph": tf.function,
    "jit": lambda function: tf.function(function, jit_compile=True),
}


def draw(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def split_convolution(images, kernel, *, groups, **options):
    """The definition: every group of channels has its own convolution."""
    parts = zip(tf.split(images, groups, -1), tf.split(kernel, groups, -1), strict=True)
    return tf.concat([tf.nn.conv2d(part, own, **options) for part, own in parts], -1)


def with_gradients(convolve, images, kernel):
    """A convolution's result, and the gradients of its sum of squares by images and kernel."""
    with tf.GradientTape() as tape:
        tape.watch([images, kernel])
        outputs = convolve(images, kernel)
        loss = tf.reduce_sum(tf.cast(outputs, tf.float32) ** 2)
    return (outputs, *tape.gradient(loss, [images, kernel]))


def relative_error(ours, theirs):
    ours, theirs = (np.asarray(tf.cast(values, tf.float32)) for values in (ours, theirs))
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


@functools.cache
def images_kernel_and_reference(channels, filters, groups, **options):
    """Drawn images and a kernel, and what `with_gradients` has of the definition."""
    images, kernel = tf.constant(draw(2, 9, 9, channels)), tf.constant(draw(3, 3, channels // groups, filters))
    reference = functools.partial(split_convolution, groups=groups, **options)
    # By XLA: without oneDNN, TensorFlow has no gradient of a dilated convolution on a CPU.
    return images, kernel, MODES["jit"](lambda *arrays: with_gradients(reference, *arrays))(images, kernel)


@pytest.mark.versions
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("channels", "filters", "groups", "options"),
    [
        (8, 16, 4, {"strides": 1, "padding": "same"}),
        (8, 8, 2, {"strides": 2, "padding": "valid"}),
        (12, 6, 3, {"strides": 1, "padding": "valid", "dilation_rate": 2}),
        pytest.param(  # ResNeXt's first stage: four blocks of eight groups
            *(128, 128, 32, {"strides": 2, "padding": "same"}), marks=pytest.mark.exhaustive
        ),
    ],
)
def test_values_and_gradients_are_those_of_split_convolutions(mode, channels, filters, groups, options):
    layer = GroupedConv2D(filters, 3, groups=groups, use_bias=False, **options)
    strides, padding, dilations = options["strides"], options["padding"].upper(), options.get("dilation_rate", 1)
    images, kernel, theirs = images_kernel_and_reference(
        channels, filters, groups, strides=strides, padding=padding, dilations=dilations
    )
    layer.build(images.shape)
    assert layer.kernel.shape == kernel.shape
    ours = MODES[mode](lambda *arrays: with_gradients(layer.convolution_op, *arrays))(images, kernel)
    for our, their in zip(ours, theirs, strict=True):
        assert relative_error(our, their) < 1e-5


@pytest.mark.versions
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_the_layer_is_keras_own_convolution(data_format):
    arguments = {
        "groups": 4,
        "strides": 2,
        "activation": "relu",
        "data_format": data_format,
        "bias_initializer": "ones",
    }
    images = draw(2, 8, 8, 8)
    ours, theirs = GroupedConv2D(12, 3, **arguments), keras.layers.Conv2D(12, 3, **arguments)
    theirs(images)
    ours.build(images.shape)
    ours.set_weights(theirs.get_weights())
    np.testing.assert_allclose(ours(images), theirs(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["graph", "jit"])
@pytest.mark.parametrize("dtype", some_of(["bfloat16", "float16"], "bfloat16"))
def test_half_precision_is_close(mode, dtype):
    images, kernel = draw(2, 6, 6, 8), draw(3, 3, 2, 8)
    layer = GroupedConv2D(8, 3, groups=4, use_bias=False)

    def step(*arrays):
        return with_gradients(layer.convolution_op, *(tf.cast(array, dtype) for array in arrays))

    ours = MODES[mode](step)(images, kernel)
    theirs = with_gradients(
        lambda *arrays: split_convolution(*arrays, groups=4, strides=1, padding="VALID"),
        tf.constant(images),
        tf.constant(kernel),
    )
    assert ours[0].dtype == dtype
    for our, their in zip(ours, theirs, strict=True):
        assert relative_error(our, their) < 2**-6  # bfloat16 keeps eight bits


def small_net():
    """What a graph optimiser likes to fuse: convolution, bias, ReLU; convolution, batch norm, ReLU."""
    images = keras.Input((8, 8, 8))
    x = GroupedConv2D(16, 3, groups=4, activation="relu", bias_initializer="ones")(images)
    x = GroupedConv2D(16, 3, groups=8, use_bias=False)(x)
    return keras.Model(images, keras.layers.ReLU()(keras.layers.BatchNormalization()(x)))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_training_moves_the_kernel_as_keras_own_convolution_does(jit_compile):
    images, targets = draw(4, 6, 6, 4), draw(4, 4, 4, 4)
    trained = []
    for convolution in (GroupedConv2D, keras.layers.Conv2D):
        model = keras.Sequential([keras.Input((6, 6, 4)), convolution(4, 3, groups=2)])
        model.set_weights([draw(3, 3, 2, 4), np.zeros(4)])
        model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=jit_compile)
        for _ in range(3):
            model.train_on_batch(images, targets)
        trained.append(model.get_weights()[0])
    np.testing.assert_allclose(*trained, rtol=1e-4, atol=1e-5)


@pytest.mark.versions
def test_saving_and_loading_keep_the_numbers(tmp_path):
    model = small_net()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    images = draw(2, 8, 8, 8)
    np.testing.assert_array_equal(loaded(images), model(images))


WITHOUT_ONEDNN = """
import sys
import numpy as np
import tensorflow as tf

folder = sys.argv[1]
images = tf.constant(np.load(folder + "/images.npy"))
exported = tf.saved_model.load(folder + "/exported")
np.save(folder + "/served.npy", exported.serve(images))

from keras_lt.backbones.fast_layers import GroupedConv2D

layer = GroupedConv2D(8, 3, groups=4, use_bias=False)
layer.build(images.shape)
layer.set_weights([np.load(folder + "/kernel.npy")])

@tf.function
def gradient(images):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(images) ** 2)
    return tape.gradient(loss, layer.kernel.value)

np.save(folder + "/gradient.npy", gradient(images))
"""


@pytest.mark.exhaustive
def test_export_and_training_work_without_onednn(tmp_path):
    """In another process: TensorFlow decides at import whether it has oneDNN's kernels."""
    model, images, kernel = small_net(), draw(2, 8, 8, 8), draw(3, 3, 2, 8)
    model.export(tmp_path / "exported", verbose=False)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "kernel.npy", kernel)
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", WITHOUT_ONEDNN, tmp_path], env=environment, check=True)
    np.testing.assert_allclose(np.load(tmp_path / "served.npy"), model(images), rtol=1e-4, atol=1e-5)
    *_, expected = with_gradients(
        lambda *arrays: split_convolution(*arrays, groups=4, strides=1, padding="VALID"),
        tf.constant(images),
        tf.constant(kernel),
    )
    assert relative_error(np.load(tmp_path / "gradient.npy"), expected) < 1e-5
