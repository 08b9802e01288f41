"""One image of `keras_lt.prepare`: upright RGB, as large as is asked for."""

import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_lt.datasets.examining import examine_encoded
from keras_lt.preparing.conversion import convert
from keras_lt.preprocessing import decode
from tests.pictures import encoded, noise, opened

COLORS = {"red": (254, 0, 0), "green": (0, 254, 0), "blue": (0, 0, 254), "white": (255, 255, 255)}


def quarters(width=32, height=16):
    """Red and green above, blue and white below."""
    image = Image.new("RGB", (2, 2))
    image.putdata(list(COLORS.values()))
    return image.resize((width, height), Image.Resampling.NEAREST)


def corners(image):
    """The names of the colors in the middle of the four quarters, as one reads."""
    width, height = image.size
    points = [(x, y) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    pixels = np.array([image.convert("RGB").getpixel(point) for point in points])
    distances = np.abs(pixels[:, np.newaxis] - np.array(list(COLORS.values()))).sum(-1)
    return [list(COLORS)[nearest] for nearest in distances.argmin(-1)]


@pytest.mark.parametrize(
    ("size", "expected"), [((500, 375), (341, 256)), ((300, 900), (256, 768)), ((90, 70), (90, 70))]
)
def test_the_shorter_side_is_resized_and_never_enlarged(size, expected):
    assert opened(convert(encoded(noise(*size)), shorter_side=256)).size == expected  # 500 * 256 / 375 = 341.3


def test_a_turned_jpeg_comes_out_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise: what lies bottom left goes top left
    image = opened(convert(encoded(quarters(32, 16), quality=95, exif=exif)))
    assert image.size == (16, 32)
    assert corners(image) == ["blue", "red", "white", "green"]
    assert 0x0112 not in image.getexif()  # or a viewer would turn it again


def test_an_upright_jpeg_with_exif_passes():
    exif = Image.Exif()
    exif[0x0112] = 1
    image = encoded(quarters(), exif=exif)
    assert convert(image, shorter_side=16) == image


@pytest.mark.parametrize(
    "image",
    [
        encoded(quarters(), "WEBP", lossless=True),
        encoded(quarters().convert("CMYK")),
        encoded(quarters(), "TIFF"),
        encoded(quarters(), "GIF", save_all=True, append_images=[noise(32, 16)]),
        encoded(quarters(), "PNG", save_all=True, append_images=[noise(32, 16)]),
        encoded(quarters().convert("RGBA"), "PNG"),
        encoded(quarters().convert("P"), "PNG"),
    ],
    ids=["webp", "cmyk", "tiff", "animated gif", "animated png", "alpha", "palette"],
)
def test_other_formats_become_rgb_jpeg_or_png(image):
    jpeg, png = opened(convert(image)), opened(convert(image, lossless=True))
    assert (jpeg.format, jpeg.mode, png.format, png.mode) == ("JPEG", "RGB", "PNG", "RGB")
    assert corners(jpeg) == corners(png) == list(COLORS)


def test_of_sixteen_bits_the_upper_eight_are_kept():
    pixels = np.array([[0, 255, 256], [32768, 65279, 65535]], np.uint16)
    image = opened(convert(encoded(Image.fromarray(pixels), "PNG"), lossless=True))
    assert np.asarray(image)[..., 0].tolist() == [[0, 0, 1], [128, 254, 255]]


def png_header(width, height):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_a_decompression_bomb_is_refused_unopened(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # as the command does
    with pytest.raises(ValueError, match="10001x10000 is more than 100,000,000 pixels"):
        convert(png_header(10001, 10000))


@pytest.mark.parametrize("lost", range(1, 13))
def test_a_png_that_lacks_of_its_last_chunk_is_broken_for_training_and_preparation_alike(lost):
    cut = encoded(quarters(), "PNG")[:-lost]  # whose pixels are all there
    with pytest.raises(ValueError, match="cut short"):
        convert(cut)
    with pytest.raises(ValueError, match=r"^corrupt or truncated \(PNG\)$"):
        examine_encoded(cut)


def refuses(function, image):
    try:
        function(image)
    except ValueError:
        return True
    return False


def test_a_gif_of_broken_pixels_is_broken_for_training_and_preparation_alike():
    whole = encoded(noise(32, 24), "GIF")
    places = range(800, len(whole), 7)  # behind the header and its colours
    broken = [whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :] for place in places]
    refused = [image for image in broken if refuses(convert, image)]
    assert len(refused) > 5
    assert all(refuses(examine_encoded, image) for image in refused)


def test_a_png_that_tensorflow_refuses_is_written_anew_and_never_passed_on():
    whole = encoded(quarters(), "PNG")
    checksum = whole.index(b"IEND") - 8  # of the pixels' chunk, which Pillow passes over
    broken = whole[:checksum] + bytes(4) + whole[checksum + 4 :]
    with pytest.raises(tf.errors.OpError):
        decode(broken)
    assert np.array_equal(decode(convert(broken, lossless=True)), decode(whole))
