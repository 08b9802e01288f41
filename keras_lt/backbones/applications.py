"""Adapters that give the nets of `keras.applications` the shape of our own: stages in a row, ending in `pool`."""

import dataclasses
from collections.abc import Callable
from typing import Literal

import keras

from keras_lt.backbones import parts


@dataclasses.dataclass(frozen=True)
class Normalization:
    """What a net expects of an image in [0, 1]: (image - mean) / std, then the channels in this order.

    `mean` and `std` are red, green, blue whatever the order.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channel_order: Literal["rgb", "bgr"] = "rgb"


_CAFFE = Normalization(mean=(123.68 / 255, 116.779 / 255, 103.939 / 255), std=(1 / 255,) * 3, channel_order="bgr")
_SYMMETRIC = Normalization(mean=(0.5,) * 3, std=(0.5,) * 3)
_TORCH = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
# These nets take values of 0 to 255 and normalise inside.
_BYTES = Normalization(mean=(0.0,) * 3, std=(1 / 255,) * 3)


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
    "keras_applications/ResNet50": Application(keras.applications.ResNet50, _CAFFE, "conv5_block1_1_conv"),
    "keras_applications/ResNet101": Application(keras.applications.ResNet101, _CAFFE, "conv5_block1_1_conv"),
    "keras_applications/ResNet152": Application(keras.applications.ResNet152, _CAFFE, "conv5_block1_1_conv"),
    "keras_applications/ResNet50V2": Application(keras.applications.ResNet50V2, _SYMMETRIC, "conv5_block1_preact_bn"),
    "keras_applications/ResNet101V2": Application(keras.applications.ResNet101V2, _SYMMETRIC, "conv5_block1_preact_bn"),
    "keras_applications/ResNet152V2": Application(keras.applications.ResNet152V2, _SYMMETRIC, "conv5_block1_preact_bn"),
    "keras_applications/DenseNet121": Application(keras.applications.DenseNet121, _TORCH, "conv5_block1_0_bn"),
    "keras_applications/DenseNet169": Application(keras.applications.DenseNet169, _TORCH, "conv5_block1_0_bn"),
    "keras_applications/DenseNet201": Application(keras.applications.DenseNet201, _TORCH, "conv5_block1_0_bn"),
    "keras_applications/EfficientNetB0": Application(keras.applications.EfficientNetB0, _BYTES, "block6a_expand_conv"),
    "keras_applications/EfficientNetB3": Application(keras.applications.EfficientNetB3, _BYTES, "block6a_expand_conv"),
    "keras_applications/ConvNeXtTiny": Application(
        keras.applications.ConvNeXtTiny, _BYTES, "convnext_tiny_stage_3_block_0_depthwise_conv"
    ),
    "keras_applications/ConvNeXtBase": Application(
        keras.applications.ConvNeXtBase, _BYTES, "convnext_base_stage_3_block_0_depthwise_conv"
    ),
}


def application(name: str, *, image_size: int | None = None, weights: str | None = None) -> keras.Model:
    """Images [B,H,W,3] -> features [B,D] by a net of `keras.applications` in two parts, `body` and `last_block`.

    Args:
      name: a key of `APPLICATIONS`.
      image_size: side of the square images in pixels; None takes any size.
      weights: "imagenet", which Keras downloads, or a file that `save_weights` of that net without its top wrote.
    """
    net = APPLICATIONS[name]
    whole = net.build(include_top=False, weights=weights, input_shape=(image_size, image_size, 3))
    cut = whole.get_layer(net.last_block).input
    body = keras.Model(whole.input, cut, name="body")
    last = keras.Model(cut, whole.output, name="last_block")
    images = keras.Input((image_size, image_size, 3), name="images")
    return parts.pooled(images, last(body(images)), name=net.build.__name__)
