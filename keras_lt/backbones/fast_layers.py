"""Layers with the weights and numbers of Keras's own, by kernels that are faster: batch norm, grouped convolution.

Keras sends grouped convolutions on TensorFlow through XLA, whose gradient of them takes seconds a layer on a CPU.
TensorFlow's own kernel (oneDNN) takes milliseconds; where it is missing, a few dense convolutions do.
"""

import functools
import math

import keras

from keras_lt.compat import inside_xla, renormalizes


@keras.saving.register_keras_serializable("keras_lt")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` with the same weights and numbers, faster in training.

    Keras takes mean, variance, difference, product and sum one by one, in float32 also where the net computes in half
    precision. Where TensorFlow's fused kernel does not fit (statistics over several devices, masks, other ranks and
    backends), this is Keras's layer.
    """

    def call(self, inputs, training=None, mask=None):
        """[B,h,w,C] -> [B,h,w,C]."""
        if not (training and self.trainable and mask is None and self._fits(inputs)):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf  # noqa: PLC0415 - the other backends need none

        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma.value,
            offset=self.beta.value,
            mean=[],  # those of the batch
            variance=[],
            epsilon=self.epsilon,
        )
        pixels = keras.ops.cast(tf.size(inputs) // inputs.shape[-1], variance.dtype)
        variance *= (pixels - 1) / pixels  # the kernel divides by pixels - 1, Keras by pixels
        for moving, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + now * (1 - self.momentum))
        return outputs

    def _fits(self, inputs) -> bool:
        return (
            keras.backend.backend() == "tensorflow"
            and self.axis in (-1, 3)
            and len(inputs.shape) == 4
            and keras.backend.standardize_dtype(inputs.dtype) in ("float32", "bfloat16", "float16")
            and self.scale
            and self.center
            and not (self.synchronized or renormalizes(self))
        )


@keras.saving.register_keras_serializable("keras_lt")
class FusedInferenceBatchNormalization(FusedBatchNormalization):
    """The same, with one kernel in inference too; TensorFlow makes it one with a convolution before and a ReLU6 behind.

    `FusedBatchNormalization` computes in inference as Keras does, in two passes over the images.
    """

    def call(self, inputs, training=None, mask=None):
        """[B,h,w,C] -> [B,h,w,C]."""
        if (training and self.trainable) or mask is not None or not self._fits(inputs):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf  # noqa: PLC0415 - the other backends need none

        return tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma.value,
            offset=self.beta.value,
            mean=self.moving_mean.value,
            variance=self.moving_variance.value,
            epsilon=self.epsilon,
            is_training=False,
        ).y


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
