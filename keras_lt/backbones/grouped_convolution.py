"""Grouped convolution that also trains on a CPU.

Keras sends grouped convolutions on TensorFlow through XLA, whose gradient of them takes seconds a layer on a CPU.
TensorFlow's own kernel (oneDNN) takes milliseconds; where it is missing, a few dense convolutions do.
"""

import functools
import math

import keras

from keras_lt.compat import inside_xla

BLOCK_WIDTH = 32  # input channels: of 16 to 256, the fastest under XLA that still compiles in seconds


@keras.saving.register_keras_serializable("keras_lt")
class GroupedConv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D(groups=...)` by the fast way of each device and mode, with the same weights and numbers."""

    def convolution_op(self, inputs, kernel):
        """Images [B,h,w,*] and kernel [k,k,* / groups,filters] -> [B,h',w',filters]."""
        if keras.backend.backend() != "tensorflow" or self.data_format != "channels_last":
            return super().convolution_op(inputs, kernel)
        import tensorflow as tf  # noqa: PLC0415 - the other backends need none

        convolve = functools.partial(
            tf.nn.conv2d, strides=self.strides, padding=self.padding.upper(), dilations=self.dilation_rate
        )
        if not _has_kernel(inputs.dtype):
            if max(self.dilation_rate) > 1:  # of these TensorFlow has no gradient on a CPU, by XLA it has
                return super().convolution_op(inputs, kernel)
            return self._block_diagonal(convolve, inputs, kernel)
        outputs = convolve(inputs, kernel)
        # Keeps the graph optimiser from fusing bias or ReLU into the convolution: without oneDNN, and an exported model
        # may come to run without, there is a kernel for grouped convolutions, but none for fused ones.
        return tf.ensure_shape(outputs, outputs.shape)

    def _block_diagonal(self, convolve, inputs, kernel):
        """Dense convolutions of neighbouring groups together, with zeros between the groups."""
        height, width, channels, _ = kernel.shape
        groups = math.gcd(self.groups, max(1, BLOCK_WIDTH // channels))  # side by side in a block
        blocks = self.groups // groups
        # Axes: [k, k, group of the input, its channels, block, group of the output, its channels].
        kernel = keras.ops.reshape(kernel, (height, width, 1, channels, blocks, groups, -1))
        same_group = keras.ops.reshape(keras.ops.eye(groups, dtype=kernel.dtype), (1, 1, groups, 1, 1, groups, 1))
        dense = keras.ops.reshape(kernel * same_group, (height, width, groups * channels, blocks, -1))
        parts = keras.ops.split(inputs, blocks, axis=-1)
        return keras.ops.concatenate([convolve(part, dense[:, :, :, i]) for i, part in enumerate(parts)], axis=-1)


def _has_kernel(dtype) -> bool:
    """Whether the grouped convolution about to be traced or run on TensorFlow has a good kernel, gradient included."""
    import tensorflow as tf  # noqa: PLC0415 - the other backends need none

    if any(tf.config.list_logical_devices(kind) for kind in ("GPU", "TPU")):
        return True
    return not inside_xla() and _trains_on_cpu(dtype)


@functools.cache
def _trains_on_cpu(dtype) -> bool:
    """Tries the gradient of a tiny grouped convolution: oneDNN may be off or absent, and knows no float16."""
    import tensorflow as tf  # noqa: PLC0415 - the other backends need none

    with tf.init_scope(), tf.device("CPU"):  # now, also while a graph is traced; tapes do not record here
        images, gradient = tf.zeros((1, 3, 3, 4), dtype), tf.zeros((1, 1, 1, 4), dtype)
        try:
            tf.raw_ops.Conv2DBackpropFilter(
                input=images, filter_sizes=(3, 3, 2, 4), out_backprop=gradient, strides=[1] * 4, padding="VALID"
            )
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError):
            return False
    return True
