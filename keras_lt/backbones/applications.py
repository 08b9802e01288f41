"""The nets of `keras.applications`."""

import functools

import keras

from keras_lt.backbones.entries import BYTES, CAFFE, SYMMETRIC, TORCH, BackboneEntry, Normalization


def _without_top(net: str, *, image_size: int | None = None, weights: str | None = None, **options) -> keras.Model:
    function = getattr(keras.applications, net)
    return function(include_top=False, weights=weights, input_shape=(image_size, image_size, 3), **options)


def _nets(
    normalization: Normalization, last_block: str, *, keras_pooling: str = "", **labels: str
) -> dict[str, BackboneEntry]:
    """Entries of nets that are alike.

    Args:
      last_block: the name of the layer that it begins with.
      keras_pooling: of the net itself, where its vector is more than a mean.
      **labels: name in `keras.applications` -> as papers write it.
    """
    options, pooling = ({"pooling": keras_pooling}, {"pooling": "none"}) if keras_pooling else ({}, {})
    facts = {"normalization": normalization, "last_block": last_block, "imagenet": "Keras", "smallest": 32, **pooling}
    return {
        f"keras_applications/{net}": BackboneEntry(
            functools.partial(_without_top, net, **options), label=label, **facts
        )
        for net, label in labels.items()
    }


def _convnext(size: str, **labels: str) -> dict[str, BackboneEntry]:
    """Its ImageNet head was trained on the layer norm of the mean, which only Keras's own pooling gives."""
    return _nets(BYTES, f"convnext_{size}_stage_3_block_0_depthwise_conv", keras_pooling="avg", **labels)


APPLICATIONS: dict[str, BackboneEntry] = {
    **_nets(CAFFE, "conv5_block1_1_conv", ResNet50="ResNet-50", ResNet101="ResNet-101", ResNet152="ResNet-152"),
    **_nets(
        SYMMETRIC, "conv5_block1_preact_bn", **{f"ResNet{depth}V2": f"ResNet-{depth} V2" for depth in (50, 101, 152)}
    ),
    **_nets(TORCH, "conv5_block1_0_bn", **{f"DenseNet{depth}": f"DenseNet-{depth}" for depth in (121, 169, 201)}),
    **_nets(BYTES, "block6a_expand_conv", EfficientNetB0="EfficientNet-B0", EfficientNetB3="EfficientNet-B3"),
    **_nets(
        BYTES,
        "block6a_expand_conv",
        **{f"EfficientNetV2{size}": f"EfficientNetV2-{size}" for size in ("B0", "B1", "B2", "B3", "S", "M", "L")},
    ),
    **_nets(BYTES, "expanded_conv_8_expand", MobileNetV3Small="MobileNetV3-Small"),
    **_nets(BYTES, "expanded_conv_12_expand", MobileNetV3Large="MobileNetV3-Large"),
    **_convnext("tiny", ConvNeXtTiny="ConvNeXt-T"),
    **_convnext("small", ConvNeXtSmall="ConvNeXt-S"),
    **_convnext("base", ConvNeXtBase="ConvNeXt-B"),
    **_convnext("large", ConvNeXtLarge="ConvNeXt-L"),
    **_convnext("xlarge", ConvNeXtXLarge="ConvNeXt-XL"),
}
