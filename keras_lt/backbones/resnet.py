"""ResNet for photographs (He et al., arXiv:1512.03385), with the stride in the 3x3 convolution as PyTorch has it."""

import keras

from keras_lt.backbones import parts, residual


def resnet(
    blocks: tuple[int, int, int, int],
    *,
    block: residual.Block = residual.bottleneck,
    image_size: int | None = None,
    name: str,
) -> keras.Model:
    """Images [B,H,W,3] -> features [B,D]: a 7x7 stem at stride 4, then four stages at strides 4, 8, 16 and 32.

    Args:
      blocks: blocks in each stage.
      block: `residual.basic_block` (D = 512) or `residual.bottleneck` (D = 2048).
      image_size: side of the square images in pixels; None takes any size.
    """
    images = keras.Input((image_size, image_size, 3), name="images")
    x = residual.convolution(images, 64, kernel_size=7, strides=2, name="conv1")
    x = residual.relu(residual.batch_norm(x, name="bn1"), name="relu")
    # Zeros never win against the ReLU's output, so they pad the maximum as well as minus infinity would.
    x = keras.layers.ZeroPadding2D(1, name="maxpool_pad")(x)
    x = keras.layers.MaxPooling2D(3, strides=2, name="maxpool")(x)
    for i, filters in enumerate((64, 128, 256, 512)):
        x = residual.stage(x, filters, block=block, blocks=blocks[i], strides=1 if i == 0 else 2, name=f"layer{i + 1}")
    return parts.pooled(images, x, name=name)
