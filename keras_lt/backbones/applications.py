"""The nets of `keras.applications`."""

import functools
from collections.abc import Callable

import keras

from keras_lt.backbones.entries import BackboneEntry
from keras_lt.backbones.normalizations import BYTES, CAFFE, SYMMETRIC, TORCH, Normalization


def _entry(
    net: Callable[..., keras.Model], label: str, *, normalization: Normalization, last_block: str
) -> BackboneEntry:
    function = functools.partial(_without_top, net)
    return BackboneEntry(function, label=label, normalization=normalization, last_block=last_block, imagenet="Keras")


def _without_top(
    net: Callable[..., keras.Model], *, image_size: int | None = None, weights: str | None = None
) -> keras.Model:
    return net(include_top=False, weights=weights, input_shape=(image_size, image_size, 3))


APPLICATIONS: dict[str, BackboneEntry] = {
    "keras_applications/ResNet50": _entry(
        keras.applications.ResNet50, "ResNet-50", normalization=CAFFE, last_block="conv5_block1_1_conv"
    ),
    "keras_applications/ResNet101": _entry(
        keras.applications.ResNet101, "ResNet-101", normalization=CAFFE, last_block="conv5_block1_1_conv"
    ),
    "keras_applications/ResNet152": _entry(
        keras.applications.ResNet152, "ResNet-152", normalization=CAFFE, last_block="conv5_block1_1_conv"
    ),
    "keras_applications/ResNet50V2": _entry(
        keras.applications.ResNet50V2, "ResNet-50 V2", normalization=SYMMETRIC, last_block="conv5_block1_preact_bn"
    ),
    "keras_applications/ResNet101V2": _entry(
        keras.applications.ResNet101V2, "ResNet-101 V2", normalization=SYMMETRIC, last_block="conv5_block1_preact_bn"
    ),
    "keras_applications/ResNet152V2": _entry(
        keras.applications.ResNet152V2, "ResNet-152 V2", normalization=SYMMETRIC, last_block="conv5_block1_preact_bn"
    ),
    "keras_applications/DenseNet121": _entry(
        keras.applications.DenseNet121, "DenseNet-121", normalization=TORCH, last_block="conv5_block1_0_bn"
    ),
    "keras_applications/DenseNet169": _entry(
        keras.applications.DenseNet169, "DenseNet-169", normalization=TORCH, last_block="conv5_block1_0_bn"
    ),
    "keras_applications/DenseNet201": _entry(
        keras.applications.DenseNet201, "DenseNet-201", normalization=TORCH, last_block="conv5_block1_0_bn"
    ),
    "keras_applications/EfficientNetB0": _entry(
        keras.applications.EfficientNetB0, "EfficientNet-B0", normalization=BYTES, last_block="block6a_expand_conv"
    ),
    "keras_applications/EfficientNetB3": _entry(
        keras.applications.EfficientNetB3, "EfficientNet-B3", normalization=BYTES, last_block="block6a_expand_conv"
    ),
    "keras_applications/ConvNeXtTiny": _entry(
        keras.applications.ConvNeXtTiny,
        "ConvNeXt-T",
        normalization=BYTES,
        last_block="convnext_tiny_stage_3_block_0_depthwise_conv",
    ),
    "keras_applications/ConvNeXtBase": _entry(
        keras.applications.ConvNeXtBase,
        "ConvNeXt-B",
        normalization=BYTES,
        last_block="convnext_base_stage_3_block_0_depthwise_conv",
    ),
}
