import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lt import forward
from keras_lt.forward import forward_pass


class Together(keras.layers.Layer):
    """Adds to every example how many there are."""

    def call(self, inputs):
        return inputs + keras.ops.cast(keras.ops.shape(inputs)[0], inputs.dtype)


def net():
    """Examples [B, 4, 4, 3], of 192 bytes, over an activation [B, 4, 4, 8], of 512, to [B, 8]."""
    images = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(8, 1, kernel_initializer="zeros")(images)
    return keras.Model(images, Together()(keras.layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize(
    ("budget", "together"),
    [(7 * 512, [7] * 7), (7 * 512 - 1, [6] * 6 + [1]), (3 * 512 + 511, [3] * 6 + [1]), (100, [1] * 7)],
    ids=["all", "one less", "three", "too large for one"],
)
def test_the_largest_activation_says_how_many_go_together(monkeypatch, budget, together):
    monkeypatch.setattr(forward, "PIECE_BYTES", budget)
    outputs = forward_pass(net(), (4, 4, 3))(tf.zeros((7, 4, 4, 3)))
    np.testing.assert_array_equal(outputs, np.repeat(together, 8).reshape(7, 8))


def test_an_accelerator_takes_all_at_once(monkeypatch):
    monkeypatch.setattr(forward, "PIECE_BYTES", 100)
    devices = [tf.config.LogicalDevice(f"/device:{kind}:0", kind) for kind in ("CPU", "GPU")]
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda: devices)
    assert forward_pass(net(), (4, 4, 3))(tf.zeros((7, 4, 4, 3)))[0, 0] == 7


def test_half_precision_comes_out_as_float32():
    images = keras.Input((4, 4, 3))
    half = keras.Model(images, keras.layers.Flatten()(keras.layers.Conv2D(2, 1, dtype="mixed_bfloat16")(images)))
    outputs = forward_pass(half, (4, 4, 3))(tf.ones((2, 4, 4, 3)))
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, half(np.ones((2, 4, 4, 3))).numpy().astype(np.float32), rtol=2**-7)
