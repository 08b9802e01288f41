"""One encoded image made ready for training: upright, RGB, in a format that TensorFlow reads, no larger than asked."""

import io

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps, UnidentifiedImageError

from keras_lt.datasets.examining import check_depth, check_whole
from keras_lt.preprocessing import MOST_PIXELS, decode

ORIENTATION = 0x0112  # EXIF's tag; 2 to 8 say that the pixels lie turned or mirrored


def convert(encoded: bytes, *, shorter_side: int = 0, quality: int = 90, lossless: bool = False) -> bytes:
    """Decodes an image, and writes it anew only where it has to change.

    JPEG, and PNG in grey or RGB, pass byte for byte when upright and not too large. Everything else becomes an RGB
    JPEG: turned as EXIF says, the first frame of an animation, the upper eight of sixteen bits, alpha dropped.

    Args:
      encoded: a file of any format that Pillow reads.
      shorter_side: larger images are resized to it, pixels; 0 leaves sizes as they are.
      quality: of a JPEG written anew, 1 to 100.
      lossless: write PNG instead.

    Raises:
      ValueError: the image is damaged, or larger than `MOST_PIXELS`.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"{image.width}x{image.height} is more than {MOST_PIXELS:,} pixels")
            image.load()
            check_whole(encoded)
            check_depth(encoded, image)
            too_large = 0 < shorter_side < min(image.size)
            if not too_large and _is_ready(encoded, image):
                return encoded
            ready = _rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError as error:
        raise ValueError("no format that Pillow knows") from error
    except Exception as error:  # a damaged file makes decoders raise whatever they meet
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if too_large:
        scale = shorter_side / min(ready.size)
        # The reference's resizing, so that evaluation finds the images as if it had resized them itself.
        ready = ready.resize([round(scale * side) for side in ready.size], Image.Resampling.BILINEAR)
    file = io.BytesIO()
    ready.save(file, "PNG" if lossless else "JPEG", quality=quality)  # PNG has none
    return file.getvalue()


def _is_ready(encoded: bytes, image: Image.Image) -> bool:
    upright = image.getexif().get(ORIENTATION, 1) not in range(2, 9)
    plain = image.mode in ("L", "RGB") and not (image.format == "PNG" and image.is_animated)
    if not (upright and plain and image.format in ("JPEG", "MPO", "PNG")):  # MPO: a JPEG with a second one behind it
        return False
    try:
        return image.format != "PNG" or decode(encoded) is not None
    except tf.errors.OpError:  # TensorFlow looks at checksums that Pillow passes over
        return False


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if image.mode.startswith("I"):
        pixels = np.asarray(image)
        if pixels.min() < 0 or pixels.max() > 65535:
            raise ValueError("pixels have more than 16 bits")
        image = Image.fromarray((pixels >> 8).astype(np.uint8))  # Pillow's own conversion would cut at 255
    return image.convert("RGB")
