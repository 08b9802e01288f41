"""Encoded images, or pixels as they are, to RGB pixels."""

from collections.abc import Callable

import tensorflow as tf


def decode(image: tf.Tensor) -> tf.Tensor:
    """An encoded JPEG, PNG, BMP or GIF (first frame), or uint8 [..., H, W, 1 or 3], as uint8 [..., H, W, 3]."""
    image = tf.convert_to_tensor(image)
    if image.dtype == tf.string:
        image = tf.io.decode_image(image, channels=3, expand_animations=False)
        image.set_shape((None, None, 3))
        return image
    return tf.image.grayscale_to_rgb(image) if image.shape[-1] == 1 else image


def decode_window(image: tf.Tensor, window: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """A window of an image, decoded alone where it is a JPEG.

    Args:
      image: as `decode` takes it, without leading axes.
      window: the image's shape, int [3] -> [top, left, height, width], int [4].
    Returns: uint8 [height, width, 3].
    """

    def from_jpeg():
        return tf.image.decode_and_crop_jpeg(image, window(tf.image.extract_jpeg_shape(image)), channels=3)

    def from_pixels():
        pixels = decode(image)
        return tf.image.crop_to_bounding_box(pixels, *tf.unstack(window(tf.shape(pixels))))

    return tf.cond(tf.io.is_jpeg(image), from_jpeg, from_pixels) if image.dtype == tf.string else from_pixels()
