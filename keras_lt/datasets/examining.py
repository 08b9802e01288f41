"""One encoded image, looked at as closely as training will; and vectors."""

import contextlib
import hashlib
import io
import os
import re
from collections.abc import Sequence

import numpy as np
import PIL.ExifTags
import PIL.Image
import tensorflow as tf

from keras_lt.preprocessing import MOST_PIXELS, decode

PNG, BIT_DEPTH = b"\x89PNG\r\n\x1a\n", 24  # how a PNG begins, and the byte that says its bits
PNG_END = b"IEND\xaeB`\x82"  # with its checksum
CHUNK = 4096  # vectors looked at together
DARK = 4096  # of 65536
PREPARE = "convert it by `python -m keras_lt.prepare`"

HEIF = re.compile(rb"....ftyp(heic|heix|heim|heis|hevc|mif1|msf1|avif)", re.DOTALL)  # how phones' formats begin

Examined = tuple[tuple[int, int], int, bytes]  # (height, width), EXIF's orientation, hash of 16 bytes


def examine_encoded(encoded: bytes) -> Examined:
    """Size, orientation and hash of a good image.

    Raises:
      ValueError: it does not decode as training decodes it, or to too many pixels.
    """
    if not encoded:
        raise ValueError("empty")
    if kind := HEIF.match(encoded):
        name = "AVIF" if kind[1] == b"avif" else "HEIC"
        raise ValueError(f"{name}, whatever its name ends in, which TensorFlow does not decode: convert it to JPEG")
    try:
        image = PIL.Image.open(io.BytesIO(encoded))  # reads the header only
    except PIL.Image.DecompressionBombError:
        raise ValueError(f"more than {MOST_PIXELS:,} pixels") from None
    except Exception:  # a broken header raises nearly anything
        raise ValueError(f"not a complete image of a known format; it begins with {encoded[:16]!r}") from None
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(f"more than {MOST_PIXELS:,} pixels: {image.width} x {image.height}")
    if (image.format, image.mode) == ("BMP", "P"):
        raise ValueError(f"BMP with a palette, of which TensorFlow takes the indices for grey: {PREPARE}")
    try:
        height, width, _ = decode(encoded).shape
    except tf.errors.OpError as error:
        raise ValueError(_why_not_decoded(encoded, image, error)) from None
    if image.format == "GIF":
        _check_loads(encoded, image)  # TensorFlow passes over pixels that are broken
    check_depth(encoded, image)
    return (height, width), _orientation(image), hash_of(encoded)


def check_whole(encoded: bytes):
    """Raises ValueError for a PNG without all of its last chunk, which Pillow takes and TensorFlow does not."""
    if encoded.startswith(PNG) and PNG_END not in encoded:
        raise ValueError("broken or cut short (PNG)")


def check_depth(encoded: bytes, image: PIL.Image.Image):
    """Raises ValueError for a PNG of 16 bits that uses the lowest twelve at most: its upper eight are nearly black."""
    if not encoded.startswith(PNG) or encoded[BIT_DEPTH] != 16:
        return
    largest = np.max(image.getextrema())  # of all bands
    if largest < (DARK if image.mode.startswith("I") else DARK >> 8):
        raise ValueError(f"PNG of 16 bits with values up to {largest} alone, nearly black: stretch them to 0..65535")


def hash_of(content) -> bytes:
    """Sixteen bytes that tell contents apart."""
    return hashlib.blake2b(content, digest_size=16).digest()


def _check_loads(encoded: bytes, image: PIL.Image.Image):
    try:
        image.load()
        check_whole(encoded)
    except Exception:  # a broken image raises nearly anything
        raise ValueError(f"corrupt or truncated ({image.format})") from None


def _why_not_decoded(encoded: bytes, image: PIL.Image.Image, error: tf.errors.OpError) -> str:
    _check_loads(encoded, image)
    said = re.sub(r"\{\{.*?\}\} | \[Op:.*", "", error.message)
    return f"{image.format} of a kind that TensorFlow does not decode: {PREPARE}. It says: {said}"


def _orientation(image: PIL.Image.Image) -> int:
    """EXIF's, 2 to 8, or 1 for upright and for nonsense."""
    if "exif" not in image.info:  # where it may still follow, as in PNG, Pillow would decode the whole image
        return 1
    try:
        orientation = image.getexif().get(PIL.ExifTags.Base.Orientation)
    except Exception:  # as broken headers
        return 1
    return orientation if orientation in range(2, 9) else 1


def first_not_finite(features) -> int | None:
    """The first row, of [N, ...], with a number that is none in float32; None without one. Rows are read in chunks."""
    for start in range(0, len(features), CHUNK):
        with np.errstate(over="ignore"):
            chunk = np.asarray(features[start : start + CHUNK], np.float32)
        bad = np.flatnonzero(~np.isfinite(chunk).reshape(len(chunk), -1).all(1))
        if bad.size:
            return start + int(bad[0])
    return None


def stamp_of_all(paths: Sequence[str]) -> np.ndarray:
    """Bytes of several files together, and a number that changes with any of them, int64 [2]."""
    stamps = stamps_of(paths)
    return np.array([stamps[:, 0].sum(), np.frombuffer(hash_of(stamps), np.int64)[0]])


def stamps_of(paths: Sequence[str]) -> np.ndarray:
    """Bytes and times of change of n files, int64 [n, 2]; zeros where there is none."""
    found = np.zeros((len(paths), 2), np.int64)
    for row, path in enumerate(paths):
        with contextlib.suppress(OSError):
            status = os.stat(path)
            # The first time can be set back, as by `cp -p` and rsync; the second is of Unix.
            found[row] = status.st_size, status.st_mtime_ns + status.st_ctime_ns
    return found
