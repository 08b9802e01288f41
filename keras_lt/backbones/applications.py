"""Adapters that give the nets of `keras.applications` the shape of our own: stages in a row, ending in `pool`."""

import dataclasses
from collections.abc import Callable

import keras

from keras_lt.backbones import parts
from keras_lt.backbones.local_weights import load_weights
from keras_lt.backbones.normalizations import BYTES, CAFFE, SYMMETRIC, TORCH, Normalization


@dataclasses.dataclass(frozen=True)
class Application:
    """A net of `keras.applications`.

    Attributes:
      build: its function there.
      normalization: what its ImageNet weights were trained with.
      last_block: name of the first layer of its last stage.
    """

    build: Callable[..., keras.Model]
    normalization: Normalization
    last_block: str


APPLICATIONS = {
    "keras_applications/ResNet50": Application(keras.applications.ResNet50, CAFFE, "conv5_block1_1_conv"),
    "keras_applications/ResNet101": Application(keras.applications.ResNet101, CAFFE, "conv5_block1_1_conv"),
    "keras_applications/ResNet152": Application(keras.applications.ResNet152, CAFFE, "conv5_block1_1_conv"),
    "keras_applications/ResNet50V2": Application(keras.applications.ResNet50V2, SYMMETRIC, "conv5_block1_preact_bn"),
    "keras_applications/ResNet101V2": Application(keras.applications.ResNet101V2, SYMMETRIC, "conv5_block1_preact_bn"),
    "keras_applications/ResNet152V2": Application(keras.applications.ResNet152V2, SYMMETRIC, "conv5_block1_preact_bn"),
    "keras_applications/DenseNet121": Application(keras.applications.DenseNet121, TORCH, "conv5_block1_0_bn"),
    "keras_applications/DenseNet169": Application(keras.applications.DenseNet169, TORCH, "conv5_block1_0_bn"),
    "keras_applications/DenseNet201": Application(keras.applications.DenseNet201, TORCH, "conv5_block1_0_bn"),
    "keras_applications/EfficientNetB0": Application(keras.applications.EfficientNetB0, BYTES, "block6a_expand_conv"),
    "keras_applications/EfficientNetB3": Application(keras.applications.EfficientNetB3, BYTES, "block6a_expand_conv"),
    "keras_applications/ConvNeXtTiny": Application(
        keras.applications.ConvNeXtTiny, BYTES, "convnext_tiny_stage_3_block_0_depthwise_conv"
    ),
    "keras_applications/ConvNeXtBase": Application(
        keras.applications.ConvNeXtBase, BYTES, "convnext_base_stage_3_block_0_depthwise_conv"
    ),
}


def application(name: str, *, image_size: int | None = None, pretrained: str = "") -> keras.Model:
    """Images [B,H,W,3] -> features [B,D] by a net of `keras.applications` in two parts, `body` and `last_block`.

    Args:
      name: a key of `APPLICATIONS`.
      image_size: side of the square images in pixels; None takes any size.
      pretrained: "imagenet", which Keras downloads, a file that `save_weights` of that net without its top wrote, or
        empty for none.
    """
    net = APPLICATIONS[name]
    weights = "imagenet" if pretrained == "imagenet" else None
    whole = net.build(include_top=False, weights=weights, input_shape=(image_size, image_size, 3))
    if pretrained and not weights:
        load_weights(whole, pretrained)
    cut = whole.get_layer(net.last_block).input
    return parts.in_two(whole, cut, image_size=image_size, name=net.build.__name__)
