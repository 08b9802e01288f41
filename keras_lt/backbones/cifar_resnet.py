"""ResNet for small images: three stages after a 3x3 stem (He et al., arXiv:1512.03385, section 4.2)."""

import functools

import keras

from keras_lt.backbones import parts, residual


def cifar_resnet(
    depth: int,
    *,
    widths: tuple[int, int, int] = (16, 32, 64),
    stem_strides: int = 1,
    shortcut: residual.Block = residual.zero_padded_shortcut,
    image_size: int | None = None,
    name: str,
) -> keras.Model:
    """Images [B,H,W,3] -> features [B, widths[-1]].

    The defaults are LDAM-DRW's (Cao et al., arXiv:1906.07413), whose ResNet-32 has no parameters in its shortcuts.

    Args:
      depth: layers with weights, the classifier included: 6 n + 2 for n blocks a stage.
      stem_strides: 2 halves the image at once, a quarter of the work.
      shortcut: `residual.zero_padded_shortcut` or `residual.projection_shortcut`.
      image_size: side of the square images in pixels; None takes any size.
    """
    if depth < 8 or depth % 6 != 2:
        raise ValueError(f"depth must be 6 n + 2 for n >= 1 blocks a stage. Received: depth={depth}")
    block = functools.partial(residual.basic_block, shortcut=shortcut)
    images = keras.Input((image_size, image_size, 3), name="images")
    x = residual.convolution(images, widths[0], kernel_size=3, strides=stem_strides, name="conv1")
    x = residual.relu(residual.batch_norm(x, name="bn1"), name="relu")
    for i, filters in enumerate(widths):
        x = residual.stage(x, filters, block=block, blocks=depth // 6, strides=1 if i == 0 else 2, name=f"layer{i + 1}")
    return parts.pooled(images, x, name=name)
