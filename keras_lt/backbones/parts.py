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


def branched(backbone: keras.Model) -> keras.Model:
    """A net whose last residual block is there twice, side by side on one trunk (BBN, arXiv:1912.02413).

    Args:
      backbone: one of our own, images [B,H,W,3] -> [B,D]; it lends the trunk and a block, the other block is a new one.
    Returns: images [B,H,W,3] -> features of both branches, [B, 2D].
    """
    _check_ends_in_pool(backbone)
    stage = backbone.layers[-2]
    sums = [i for i, layer in enumerate(stage.layers) if isinstance(layer, keras.layers.Add)]
    # A block ends in the ReLU that follows its sum; the only one of a stage is all of it.
    cut = stage.layers[sums[-2] + 1].output if len(sums) > 1 else stage.input
    first = keras.Model(cut, stage.output, name="first_branch")
    second = keras.models.clone_model(first)
    second.name = "second_branch"
    inputs = keras.Input(cut.shape[1:])
    both = keras.Model(inputs, keras.layers.Concatenate()([first(inputs), second(inputs)]), name="branches")

    images, x = _trunk(backbone)
    if len(sums) > 1:
        x = keras.Model(stage.input, cut, name=stage.name)(x)
    return pooled(images, both(x), name=backbone.name)


def branches(backbone: keras.Model) -> tuple[keras.Model, keras.Model]:
    """Both branches of a `branched` backbone, each a model images [B,H,W,3] -> [B,D] that shares its weights."""
    images, x = _trunk(backbone)
    both = backbone.get_layer("branches")
    return tuple(pooled(images, both.get_layer(name)(x), name=name) for name in ("first_branch", "second_branch"))


def _trunk(backbone: keras.Model) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """New images, and what the last stage takes of them."""
    images = x = keras.Input(backbone.input_shape[1:], name="images")
    for layer in backbone.layers[1:-2]:
        x = layer(x)
    return images, x


def _check_ends_in_pool(backbone: keras.Model) -> None:
    if not isinstance(backbone.layers[-1], keras.layers.GlobalAveragePooling2D):
        raise ValueError(
            "backbone must be a model of keras_lt.backbones, ending in average pooling. "
            f"Received: {backbone.name} ending in {backbone.layers[-1].name}"
        )
