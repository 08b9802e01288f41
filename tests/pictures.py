"""Pictures for tests, and their files."""

import io

import numpy as np
from PIL import Image


def encoded(image, image_format="JPEG", **options):
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def opened(image):
    return Image.open(io.BytesIO(image))


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))
