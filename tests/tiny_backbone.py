"""A backbone small enough for a test to train: two blocks of convolution and batch norm, four features."""

import keras

from keras_lt.backbones import BEFORE_POOL, BackboneEntry, pooled


def tiny(image_size=8):
    """Images [B, S, S, 3] -> features [B, 4]; a stem and a last block, as every backbone has."""
    images = x = keras.Input((image_size, image_size, 3))
    for name in ("stem", "layer1"):
        inputs = keras.Input(x.shape[1:])
        block = keras.layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False)(inputs)
        block = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(block))
        x = keras.Model(inputs, block, name=name)(x)
    return pooled(images, x, name="tiny")


TINY = BackboneEntry(tiny, label="tiny", last_block=BEFORE_POOL, can_branch=True)
