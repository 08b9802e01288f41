"""Batch norm that TensorFlow trains in one kernel instead of a dozen."""

import keras

from keras_lt.compat import renormalizes


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
