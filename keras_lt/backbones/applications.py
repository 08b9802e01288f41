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


def _convnext(net: Callable[..., keras.Model], label: str, *, size: str) -> BackboneEntry:
    """Its ImageNet head was trained on the layer norm of the mean, which only Keras's own pooling gives."""
    return BackboneEntry(
        functools.partial(_without_top, net, pooling="avg"),
        label=label,
        normalization=BYTES,
        pooling="none",
        last_block=f"convnext_{size}_stage_3_block_0_depthwise_conv",
        imagenet="Keras",
    )


def _without_top(
    net: Callable[..., keras.Model],
    *,
    image_size: int | None = None,
    weights: str | None = None,
    pooling: str | None = None,
) -> keras.Model:
    return net(include_top=False, weights=weights, input_shape=(image_size, image_size, 3), pooling=pooling)


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
    "keras_applications/EfficientNetV2B0": _entry(
        keras.applications.EfficientNetV2B0, "EfficientNetV2-B0", normalization=BYTES, last_block="block6a_expand_conv"
    ),
    "keras_applications/EfficientNetV2B1": _entry(
        keras.applications.EfficientNetV2B1, "EfficientNetV2-B1", normalization=BYTES, last_block="block6a_expand_conv"
    ),
    "keras_applications/EfficientNetV2B2": _entry(
        keras.applications.EfficientNetV2B2, "EfficientNetV2-B2", normalization=BYTES, last_block="block6a_expand_conv"
    ),
    "keras_applications/EfficientNetV2B3": _entry(
        keras.applications.EfficientNetV2B3, "EfficientNetV2-B3", normalization=BYTES, last_block="block6a_expand_conv"
    ),
    "keras_applications/EfficientNetV2S": _entry(
        keras.applications.EfficientNetV2S, "EfficientNetV2-S", normalization=BYTES, last_block="block6a_expand_conv"
    ),
    "keras_applications/EfficientNetV2M": _entry(
        keras.applications.EfficientNetV2M, "EfficientNetV2-M", normalization=BYTES, last_block="block6a_expand_conv"
    ),
    "keras_applications/EfficientNetV2L": _entry(
        keras.applications.EfficientNetV2L, "EfficientNetV2-L", normalization=BYTES, last_block="block6a_expand_conv"
    ),
    "keras_applications/MobileNetV3Small": _entry(
        keras.applications.MobileNetV3Small,
        "MobileNetV3-Small",
        normalization=BYTES,
        last_block="expanded_conv_8_expand",
    ),
    "keras_applications/MobileNetV3Large": _entry(
        keras.applications.MobileNetV3Large,
        "MobileNetV3-Large",
        normalization=BYTES,
        last_block="expanded_conv_12_expand",
    ),
    "keras_applications/ConvNeXtTiny": _convnext(keras.applications.ConvNeXtTiny, "ConvNeXt-T", size="tiny"),
    "keras_applications/ConvNeXtSmall": _convnext(keras.applications.ConvNeXtSmall, "ConvNeXt-S", size="small"),
    "keras_applications/ConvNeXtBase": _convnext(keras.applications.ConvNeXtBase, "ConvNeXt-B", size="base"),
    "keras_applications/ConvNeXtLarge": _convnext(keras.applications.ConvNeXtLarge, "ConvNeXt-L", size="large"),
    "keras_applications/ConvNeXtXLarge": _convnext(keras.applications.ConvNeXtXLarge, "ConvNeXt-XL", size="xlarge"),
}
