"""ResNet (He et al., arXiv:1512.03385), with the stride in the 3x3 convolution as PyTorch has it."""

import keras

from keras_lt.backbones import parts, residual


def resnet(
    blocks: tuple[int, ...],
    *,
    block: residual.Block = residual.bottleneck,
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
      block: `residual.basic_block` (D is the last width) or `residual.bottleneck` (D is four times that).
      stem: kernel size and strides of the first convolution.
      max_pool: whether a maximum over 3x3 at stride 2 follows it.
      image_size: side of the square images in pixels; None takes any size.
    """
    kernel_size, strides = stem
    images = keras.Input((image_size, image_size, 3), name="images")
    x = residual.convolution(images, widths[0], kernel_size=kernel_size, strides=strides, name="conv1")
    x = residual.relu(residual.batch_norm(x, name="bn1"), name="relu")
    if max_pool:
        # Zeros never win against the ReLU's output, so they pad the maximum as well as minus infinity would.
        x = keras.layers.ZeroPadding2D(1, name="maxpool_pad")(x)
        x = keras.layers.MaxPooling2D(3, strides=2, name="maxpool")(x)
    for i, (filters, number) in enumerate(zip(widths, blocks, strict=True)):
        x = residual.stage(x, filters, block=block, blocks=number, strides=2 if i else 1, name=f"layer{i + 1}")
    return parts.pooled(images, x, name=name)
