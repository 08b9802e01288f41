"""Encoded images, or pixels as they are, to RGB pixels."""

from collections.abc import Callable

import tensorflow as tf

MOST_PIXELS = 100_000_000  # of one image: 0.3 GB as bytes, 1.2 GB as float32 RGB
LONGEST = 8  # of a side over the other: what evaluation looks at of an image is cut out before it is resized


def bounded(encoded: tf.Tensor) -> tf.Tensor:
    """An encoded image as it is; an InvalidArgumentError before it is decoded where it has too many pixels.

    Or where it is a BMP with a palette of colours. JPEG, PNG, BMP, GIF and WebP say in their first bytes how large they
    are; a few kB can stand for gigabytes.
    """
    pixels, is_grey = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: (tf.reduce_prod(tf.cast(tf.image.extract_jpeg_shape(encoded)[:2], tf.int64)), True),
        lambda: _said_by_head(encoded),  # fifty small operations, of which a JPEG needs none
    )
    checks = (
        tf.debugging.assert_less_equal(
            pixels, tf.constant(MOST_PIXELS, tf.int64), f"An image has more than {MOST_PIXELS:,} pixels"
        ),
        tf.debugging.assert_equal(is_grey, True, "A BMP has a palette of colours, whose indices are no brightness"),
    )
    with tf.control_dependencies([check for check in checks if check is not None]):
        return tf.identity(encoded)


def _said_by_head(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Pixels of an image that is no JPEG, int64, 0 where nothing says; and whether its palette, if any, is of greys."""
    start = tf.strings.substr(tf.strings.join([tf.strings.substr(encoded, 0, 64), b"\0" * 64]), 0, 64)
    head = tf.cast(tf.io.decode_raw(start, tf.uint8), tf.int64)

    def number(first, count):
        return tf.reduce_sum(head[first : first + count] * [256**place for place in range(count)])

    def from_the_end(first):  # of four bytes, the largest first
        return tf.reduce_sum(head[first : first + 4] * [256**place for place in (3, 2, 1, 0)])

    def reads(first, text):
        return tf.equal(tf.strings.substr(start, first, len(text)), text)

    rows = number(22, 4)  # of a BMP; negative where the first is the uppermost
    packed = number(21, 4)  # WebP's fourteen bits each
    areas = [
        (reads(0, b"\x89PNG"), from_the_end(16) * from_the_end(20)),
        (reads(0, b"GIF8"), number(6, 2) * number(8, 2)),
        (reads(0, b"BM"), number(18, 4) * tf.minimum(rows, 2**32 - rows)),
        (reads(12, b"VP8X"), (number(24, 3) + 1) * (number(27, 3) + 1)),
        (reads(12, b"VP8 "), (number(26, 2) % 2**14) * (number(28, 2) % 2**14)),
        (reads(12, b"VP8L"), (packed % 2**14 + 1) * (packed // 2**14 % 2**14 + 1)),
    ]
    zero = tf.constant(0, tf.int64)
    has_palette = reads(0, b"BM") & tf.equal(number(28, 2), 8)
    is_grey = tf.cond(has_palette, lambda: _is_grey(encoded, number(14, 4), number(46, 4)), lambda: True)
    return tf.reduce_max([tf.where(is_it, area, zero) for is_it, area in areas]), is_grey


def _is_grey(encoded: tf.Tensor, header: tf.Tensor, colours: tf.Tensor) -> tf.Tensor:
    """Whether the palette behind the header of a BMP of 8 bits has every index stand for itself."""
    place = tf.minimum(14 + header, tf.cast(tf.strings.length(encoded), tf.int64))
    palette = tf.strings.substr(tf.strings.join([encoded, b"\0" * 1024]), place, tf.constant(1024, tf.int64))
    shades = tf.reshape(tf.io.decode_raw(palette, tf.uint8), (256, 4))[:, :3]
    used = tf.range(256, dtype=tf.int64) < tf.where(colours > 0, colours, 256)
    return tf.reduce_all((shades == tf.cast(tf.range(256), tf.uint8)[:, tf.newaxis]) | ~used[:, tf.newaxis])


def cut_to_ratio(image: tf.Tensor) -> tf.Tensor:
    """The middle of an image [..., H, W, 3] that is more than `LONGEST` times as long as wide; others as they are."""
    sides = tf.shape(image)[-3:-1]
    height, width = tf.unstack(tf.minimum(sides, LONGEST * tf.reduce_min(sides)))
    top, left = tf.unstack((sides - [height, width]) // 2)
    return image[..., top : top + height, left : left + width, :]


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
