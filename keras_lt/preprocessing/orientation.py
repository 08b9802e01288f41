"""Which way up a JPEG is: EXIF's orientation, as phones write it, read and applied inside TensorFlow.

An orientation of 1 is upright; 2 to 8 say that pixels are stored mirrored, turned or both. It is undone as Pillow's
`exif_transpose` does: rows and columns change places, then columns, then rows are reversed.
"""

import tensorflow as tf

HEAD, ENTRIES = 1024, 64  # bytes that are looked at, and EXIF's entries among them, twelve bytes each
EXIF = b"Exif\0\0"
PLACES = (6, 24)  # of that word: in the first segment, or in the one after JFIF's
TAG = 0x0112


def orientation_of(encoded: tf.Tensor) -> tf.Tensor:
    """EXIF's orientation of an encoded JPEG, int32 1 to 8; 1 for other formats, without EXIF and for nonsense."""
    padded = tf.strings.join([tf.strings.substr(encoded, 0, HEAD), b"\0" * (HEAD + 12 * ENTRIES)])
    begins = [tf.equal(tf.strings.substr(padded, place, len(EXIF)), EXIF) for place in PLACES]
    has_exif = tf.reduce_any(begins) & tf.io.is_jpeg(encoded)
    tiff = tf.where(begins[0], PLACES[0], PLACES[1]) + len(EXIF)
    return tf.cond(has_exif, lambda: _orientation_at(padded, tiff), lambda: tf.constant(1))


def _orientation_at(padded: tf.Tensor, tiff: tf.Tensor) -> tf.Tensor:
    """The orientation by the TIFF header that EXIF begins with."""
    head = tf.cast(tf.io.decode_raw(tf.strings.substr(padded, 0, HEAD + 12 * ENTRIES), tf.uint8), tf.int32)
    little = tf.equal(head[tiff], ord("I"))

    def number(digits):  # two bytes, [..., 2]
        return tf.where(little, digits[..., 0] + 256 * digits[..., 1], 256 * digits[..., 0] + digits[..., 1])

    # The offset of the entries has four bytes, of which the upper two are zero in any file that is looked at.
    offset = tf.where(little, head[tiff + 4 : tiff + 6], head[tiff + 6 : tiff + 8])
    start = tf.minimum(tiff + number(offset), HEAD - 2)
    count = tf.minimum(number(head[start : start + 2]), ENTRIES)
    entries = tf.reshape(head[start + 2 : start + 2 + 12 * count], (-1, 12))
    found = tf.boolean_mask(number(entries[:, 8:10]), tf.equal(number(entries[:, :2]), TAG))
    orientation = tf.reduce_max(tf.concat([[1], found], 0))
    return tf.where(orientation <= 8, orientation, 1)


def turns(orientation: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """What makes an image upright, bools: rows and columns change places; columns, and rows, are then reversed."""
    return (
        orientation >= 5,
        tf.reduce_any(tf.equal(orientation, [2, 3, 6, 7])),
        tf.reduce_any(tf.equal(orientation, [3, 4, 7, 8])),
    )


def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """A stored image, or a window of one, [H, W, 3], as it is to be looked at."""

    def turned():
        transposed, columns, rows = turns(orientation)
        turned = tf.cond(transposed, lambda: tf.transpose(image, (1, 0, 2)), lambda: tf.identity(image))
        turned = tf.cond(columns, lambda: tf.reverse(turned, [1]), lambda: tf.identity(turned))
        return tf.cond(rows, lambda: tf.reverse(turned, [0]), lambda: tf.identity(turned))

    result = tf.cond(orientation > 1, turned, lambda: tf.identity(image))
    return tf.ensure_shape(result, (None, None, image.shape[-1]))


def upright_shape(shape: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """The shape, int [3], that a stored image of that shape has when it is upright."""
    return tf.where(orientation >= 5, tf.gather(shape, (1, 0, 2)), shape)


def stored_window(window: tf.Tensor, shape: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Where a window of the upright image lies in the stored one, both [top, left, height, width].

    Args:
      shape: of the upright image, int [3].
    """
    transposed, columns, rows = turns(orientation)
    top, left, height, width = tf.unstack(window)
    left = tf.where(columns, shape[1] - left - width, left)
    top = tf.where(rows, shape[0] - top - height, top)
    return tf.where(transposed, tf.stack([left, top, width, height]), tf.stack([top, left, height, width]))
