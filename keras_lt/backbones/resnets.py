"""ResNet (He et al., arXiv:1512.03385) and its kin, with the stride in the 3x3 convolution as PyTorch has it.

A layer carries the reference's parameter name with underscores for dots, `layer1_0_conv1` for `layer1.0.conv1`: PyTorch
refuses dots in the names of parameters, and so would Keras on PyTorch.
"""

from collections.abc import Callable

import keras

from keras_lt.backbones import parts
from keras_lt.backbones.fast_layers import FusedBatchNormalization, GroupedConv2D
from keras_lt.saving import SavedByArguments

Block = Callable[..., keras.KerasTensor]


def convolution(
    x: keras.KerasTensor, filters: int, *, kernel_size: int, strides: int = 1, groups: int = 1, name: str
) -> keras.KerasTensor:
    """Convolution without bias, padded by half a kernel on both sides, drawn from N(0, 2 / (k * k * filters))."""
    padding = "same"
    if strides > 1 and kernel_size > 1:
        # "same" would put the odd row and column of padding at the end only.
        x = keras.layers.ZeroPadding2D(kernel_size // 2, name=f"{name}_pad")(x)
        padding = "valid"
    return (keras.layers.Conv2D if groups == 1 else GroupedConv2D)(
        filters,
        kernel_size,
        strides=strides,
        padding=padding,
        groups=groups,
        use_bias=False,
        kernel_initializer=keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
        name=name,
    )(x)


def batch_norm(x: keras.KerasTensor, *, name: str) -> keras.KerasTensor:
    """Batch norm with PyTorch's constants; its momentum of 0.1 is Keras's 0.9."""
    return FusedBatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)


def projection_shortcut(x: keras.KerasTensor, filters: int, *, strides: int, name: str) -> keras.KerasTensor:
    """The input itself, or a 1x1 convolution and batch norm where the shape changes."""
    if strides == 1 and x.shape[-1] == filters:
        return x
    x = convolution(x, filters, kernel_size=1, strides=strides, name=f"{name}_downsample_0")
    return batch_norm(x, name=f"{name}_downsample_1")


@keras.saving.register_keras_serializable("keras_lt")
class PadChannels(SavedByArguments, keras.layers.Layer):
    """Puts zero channels around the given ones, [..., C] -> [..., before + C + after]."""

    def __init__(self, before: int, after: int, **kwargs):
        super().__init__(**kwargs)
        self.before, self.after = before, after

    def call(self, inputs):
        """[..., C] -> [..., before + C + after]."""
        return keras.ops.pad(inputs, [(0, 0)] * (inputs.ndim - 1) + [(self.before, self.after)])


def zero_padded_shortcut(x: keras.KerasTensor, filters: int, *, strides: int, name: str) -> keras.KerasTensor:
    """Every `strides`-th pixel, with zeros for the new channels, half of them on each side: no parameters."""
    if strides > 1:
        x = keras.layers.MaxPooling2D(1, strides=strides, name=f"{name}_subsample")(x)
    missing = filters - x.shape[-1]
    if missing:
        x = PadChannels(missing // 2, missing - missing // 2, name=f"{name}_pad")(x)
    return x


def basic_block(
    x: keras.KerasTensor, filters: int, *, strides: int, name: str, shortcut: Block = projection_shortcut
) -> keras.KerasTensor:
    """Two 3x3 convolutions around a shortcut (He et al., 2016, figure 5 left), [B,h,w,*] -> [B,h',w',filters]."""
    identity = shortcut(x, filters, strides=strides, name=name)
    x = convolution(x, filters, kernel_size=3, strides=strides, name=f"{name}_conv1")
    x = keras.layers.ReLU(name=f"{name}_relu1")(batch_norm(x, name=f"{name}_bn1"))
    x = convolution(x, filters, kernel_size=3, name=f"{name}_conv2")
    x = batch_norm(x, name=f"{name}_bn2")
    return keras.layers.ReLU(name=f"{name}_out")(keras.layers.Add(name=f"{name}_add")([x, identity]))


def bottleneck(
    x: keras.KerasTensor, filters: int, *, strides: int, name: str, groups: int = 1, group_width: int = 64
) -> keras.KerasTensor:
    """1x1, 3x3 and 1x1 convolutions around a shortcut, the stride in the 3x3, [B,h,w,*] -> [B,h',w',4 * filters].

    Args:
      groups, group_width: of the 3x3 convolution; the width is that of a group in the first stage, where filters = 64.
        ResNeXt's 32x4d (Xie et al., arXiv:1611.05431) is 32 and 4.
    """
    width = filters * groups * group_width // 64
    identity = projection_shortcut(x, 4 * filters, strides=strides, name=name)
    x = convolution(x, width, kernel_size=1, name=f"{name}_conv1")
    x = keras.layers.ReLU(name=f"{name}_relu1")(batch_norm(x, name=f"{name}_bn1"))
    x = convolution(x, width, kernel_size=3, strides=strides, groups=groups, name=f"{name}_conv2")
    x = keras.layers.ReLU(name=f"{name}_relu2")(batch_norm(x, name=f"{name}_bn2"))
    x = convolution(x, 4 * filters, kernel_size=1, name=f"{name}_conv3")
    x = batch_norm(x, name=f"{name}_bn3")
    return keras.layers.ReLU(name=f"{name}_out")(keras.layers.Add(name=f"{name}_add")([x, identity]))


def stage(
    x: keras.KerasTensor, filters: int, *, block: Block, blocks: int, strides: int, name: str
) -> keras.KerasTensor:
    """A run of blocks as one sub-model, so that it is frozen, found and saved as a whole; the first block strides."""
    inputs = outputs = keras.Input(x.shape[1:])
    for i in range(blocks):
        outputs = block(outputs, filters, strides=strides if i == 0 else 1, name=f"{name}_{i}")
    return keras.Model(inputs, outputs, name=name)(x)


def resnet(
    blocks: tuple[int, ...],
    *,
    block: Block = bottleneck,
    widths: tuple[int, ...] = (64, 128, 256, 512),
    stem: tuple[int, int] = (7, 2),
    max_pool: bool = True,
    image_size: int | None = None,
    name: str,
) -> keras.Model:
    """Images [B,H,W,3] -> features [B,D]: a stem, then stages of which each but the first halves the image.

    The defaults are for photographs. For small images (section 4.2 of the paper) a net has three stages of 16, 32 and
    64 filters after a stem of (3, 1) without maximum.

    Args:
      blocks, widths: blocks and filters of each stage.
      block: `basic_block` (D is the last width) or `bottleneck` (D is four times that).
      stem: kernel size and strides of the first convolution.
      max_pool: whether a maximum over 3x3 at stride 2 follows it.
      image_size: side of the square images in pixels; None takes any size.
    """
    kernel_size, strides = stem
    images = keras.Input((image_size, image_size, 3), name="images")
    x = convolution(images, widths[0], kernel_size=kernel_size, strides=strides, name="conv1")
    x = keras.layers.ReLU(name="relu")(batch_norm(x, name="bn1"))
    if max_pool:
        # Zeros never win against the ReLU's output, so they pad the maximum as well as minus infinity would.
        x = keras.layers.ZeroPadding2D(1, name="maxpool_pad")(x)
        x = keras.layers.MaxPooling2D(3, strides=2, name="maxpool")(x)
    for i, (filters, number) in enumerate(zip(widths, blocks, strict=True)):
        x = stage(x, filters, block=block, blocks=number, strides=2 if i else 1, name=f"layer{i + 1}")
    return parts.pooled(images, x, name=name)
