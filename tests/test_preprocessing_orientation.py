"""EXIF's orientation, against Pillow's `exif_transpose`."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from keras_lt.preprocessing import Preprocessing, decode
from keras_lt.preprocessing.decoding import decode_window
from keras_lt.preprocessing.orientation import orientation_of

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 40, 3)).astype(np.uint8)
TRACED = [
    tf.function(function, input_signature=[tf.TensorSpec((), tf.string)]) for function in (orientation_of, decode)
]


def jpeg(orientation=None, *, order="MM", jfif=False):
    """A JPEG in full colour resolution, EXIF in its first segment, or after JFIF's."""
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "JPEG", quality=90, subsampling=0)
    encoded = file.getvalue()  # Pillow begins with a JFIF segment of eighteen bytes
    if orientation is None:
        return encoded
    endian = "big" if order == "MM" else "little"

    def number(value, size):
        return value.to_bytes(size, endian)

    def entry(tag, value):
        return number(tag, 2) + number(3, 2) + number(1, 4) + number(value, 2) + b"\0\0"

    entries = entry(0x0100, 40) + entry(0x0112, orientation) + entry(0x0128, 2)
    exif = b"Exif\0\0" + order.encode() + number(42, 2) + number(8, 4) + number(3, 2) + entries + bytes(4)
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    return encoded[:20] + segment + encoded[20:] if jfif else encoded[:2] + segment + encoded[20:]


def as_pillow_turns(encoded):
    """The stored pixels as TensorFlow decodes them, turned by Pillow."""
    image = Image.fromarray(tf.io.decode_jpeg(encoded, channels=3).numpy())
    exif = Image.open(io.BytesIO(encoded)).getexif()
    image.getexif()[0x0112] = exif.get(0x0112, 1)
    return np.asarray(ImageOps.exif_transpose(image))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("order", "jfif"), [("MM", False), ("II", True)])
def test_a_jpeg_is_upright_as_pillow_turns_it(orientation, order, jfif):
    encoded = jpeg(orientation, order=order, jfif=jfif)
    expected = as_pillow_turns(encoded)
    assert expected.shape == ((24, 40, 3) if orientation < 5 else (40, 24, 3))
    read, decoded = (function(encoded).numpy() for function in TRACED)
    assert read == orientation
    np.testing.assert_array_equal(decoded, expected)
    np.testing.assert_array_equal(decode(encoded), expected)

    def window(shape):
        assert shape.numpy().tolist() == list(expected.shape)
        return tf.constant([3, 5, 10, 8])

    np.testing.assert_array_equal(decode_window(tf.constant(encoded), window), expected[3:13, 5:13])


def test_evaluation_and_training_see_it_upright():
    # a landscape, stored lying: white sky over black ground once it is turned clockwise
    pixels = np.zeros((64, 48, 3), np.uint8)
    pixels[:, :24] = 255  # the left of the stored image goes up
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(file, "JPEG", exif=exif)
    preprocessing = Preprocessing(image_size=16, mean=(0.0,) * 3, std=(1.0,) * 3)
    image = preprocessing.evaluate(tf.constant(file.getvalue())).numpy()
    assert image[:6].min() > 0.95
    assert image[10:].max() < 0.05


@pytest.mark.parametrize(
    "encoded",
    [
        jpeg(),
        jpeg(0),
        jpeg(9),
        jpeg(256),
        jpeg(6).replace(b"MM\0\x2a\0\0\0\x08", b"MM\0\x2a\0\0\xff\xff"),  # the entries lie elsewhere
        jpeg(6).replace(b"Exif", b"exif"),
        b"\xff\xd8\xff\xe1\0\x10Exif\0\0",
        b"\x89PNG\r\nExif\0\0MM",
        b"",
    ],
)
def test_what_says_nothing_is_upright(encoded):
    assert TRACED[0](encoded).numpy() == 1
