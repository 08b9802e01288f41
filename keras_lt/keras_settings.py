"""Keras's own settings as the package needs them, whatever a user's keras.json says.

Layers, losses and casts ask Keras for what nobody told them. The package's images are [B, H, W, 3] and its numbers
float32, so all that it builds or computes it does under these settings; a user's own come back afterwards.
"""

import contextlib
from collections.abc import Iterator

import keras

IMAGE_DATA_FORMAT, FLOATX, EPSILON = "channels_last", "float32", 1e-7


@contextlib.contextmanager
def plain_settings(*, dtype_policy: str = "") -> Iterator[None]:
    """Keras's defaults inside; also a decorator.

    Args:
      dtype_policy: of layers that are made inside; empty leaves the one that is in force.
    """
    config = keras.config
    settings = {
        config.set_image_data_format: (config.image_data_format(), IMAGE_DATA_FORMAT),
        config.set_floatx: (config.floatx(), FLOATX),
        config.set_epsilon: (config.epsilon(), EPSILON),
    }
    if dtype_policy:
        settings[config.set_dtype_policy] = config.dtype_policy(), dtype_policy
    try:
        for put, (_, ours) in settings.items():
            put(ours)
        yield
    finally:
        for put, (theirs, _) in settings.items():
            put(theirs)
