"""The parts of a backbone: stages in a row, the last block, the last feature map, the pooled features.

Every backbone is a Functional model that runs straight from `images` through its stages to a layer named `pool`, so
its parts are found by position and survive saving and loading.
"""

import keras


def pooled(images: keras.KerasTensor, feature_map: keras.KerasTensor, *, name: str) -> keras.Model:
    """Ends a backbone: images [B,H,W,3] -> spatial mean of the feature map, [B,D]."""
    features = keras.layers.GlobalAveragePooling2D(name="pool", dtype="float32")(feature_map)
    return keras.Model(images, features, name=name)


def in_two(whole: keras.Model, cut: keras.KerasTensor, *, image_size: int | None = None, name: str) -> keras.Model:
    """Another library's net as a backbone of two stages, `body` and `last_block`, sharing its weights.

    Args:
      whole: images [B,H,W,3] -> feature map [B,h,w,D].
      cut: the feature map inside it that the last block takes.
      image_size: side of the square images in pixels; None takes any size.
    """
    body = keras.Model(whole.input, cut, name="body")
    last = keras.Model(cut, whole.output, name="last_block")
    images = keras.Input((image_size, image_size, 3), name="images")
    return pooled(images, last(body(images)), name=name)


def last_block(backbone: keras.Model) -> list[keras.layers.Layer]:
    """The layers of the last stage, the "LB" of the paper's table 1: set `trainable` on each."""
    _check_ends_in_pool(backbone)
    return [backbone.layers[-2]]


def feature_map(backbone: keras.Model) -> keras.Model:
    """The backbone without its pooling, sharing its weights: images [B,H,W,3] -> [B,h,w,D]."""
    _check_ends_in_pool(backbone)
    return keras.Model(backbone.input, backbone.layers[-1].input, name=f"{backbone.name}_feature_map")


def _check_ends_in_pool(backbone: keras.Model) -> None:
    if not isinstance(backbone.layers[-1], keras.layers.GlobalAveragePooling2D):
        raise ValueError(
            "backbone must be a model of keras_lt.backbones, ending in average pooling. "
            f"Received: {backbone.name} ending in {backbone.layers[-1].name}"
        )
