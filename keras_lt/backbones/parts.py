"""The parts of a backbone: stages in a row, the last block, the last feature map, the pooled features.

A backbone is a Functional model that runs straight from `images` through its stages to a layer named `pool`. The last
block, where it is known, is the sub-model before `pool`; a net that nobody knows how to cut is one layer, `body`,
between `images` and `pool`. So parts are found by position, and survive saving and loading.
"""

from collections.abc import Callable

import keras

from keras_lt.saving import SavedByArguments

BEFORE_POOL = "the sub-model before pool"


@keras.saving.register_keras_serializable("keras_lt")
class FirstToken(keras.layers.Layer):
    """The class token of tokens, [B,T,D] -> [B,D]."""

    def call(self, inputs):
        """[B,T,D] -> [B,D]."""
        return inputs[:, 0]


@keras.saving.register_keras_serializable("keras_lt")
class ClassTokenAndMean(SavedByArguments, keras.layers.Layer):
    """The class token beside the mean of the patches, [B,T,D] -> [B,2D].

    Args:
      others: how many tokens, from the first, are no patches: the class token, and registers after it.
    """

    def __init__(self, others=1, **kwargs):
        super().__init__(**kwargs)
        self.others = others

    def call(self, inputs):
        """[B,T,D] -> [B,2D]."""
        return keras.ops.concatenate([inputs[:, 0], keras.ops.mean(inputs[:, self.others :], axis=1)], axis=-1)


PoolingLayer = Callable[..., keras.layers.Layer]  # (*, name, dtype) -> the layer

# How what a net gives becomes a vector: the rank that it needs, and the layer.
POOLINGS: dict[str, tuple[int, PoolingLayer]] = {
    "average": (4, keras.layers.GlobalAveragePooling2D),  # over the positions of a feature map
    "mean": (3, keras.layers.GlobalAveragePooling1D),  # over tokens
    "first": (3, FirstToken),
    "first_and_mean": (3, ClassTokenAndMean),
    "none": (2, keras.layers.Identity),
}


def pooled(
    images: keras.KerasTensor, given: keras.KerasTensor, *, pooling: str | PoolingLayer = "average", name: str
) -> keras.Model:
    """Ends a backbone: images [B,H,W,3] -> what a net gives of them, pooled to float32 [B,D].

    Args:
      given: a feature map [B,h,w,D], tokens [B,T,D] or a vector [B,D].
      pooling: a name in `POOLINGS`, or a layer; empty is the first that fits.
    """
    shape = getattr(given, "shape", None)
    fitting = poolings_of(shape)
    if not fitting or shape[-1] is None:
        raise ValueError(
            "backbone must give one feature map [B,h,w,D], tokens [B,T,D] or a vector [B,D], of a known D. "
            f"Received: {name} that gives {shape or given}"
        )
    if callable(pooling):
        return keras.Model(images, pooling(name="pool", dtype="float32")(given), name=name)
    if pooling not in ("", *fitting):
        raise ValueError(
            f"pooling must be {' or '.join(fitting)} for a net that gives {shape}. Received: pooling={pooling}"
        )
    _, layer = POOLINGS[pooling or fitting[0]]
    return keras.Model(images, layer(name="pool", dtype="float32")(given), name=name)


def of_features(width: int) -> keras.Model:
    """What stands for a backbone where data are features already, [B, width] -> the same."""
    features = keras.Input((width,), name="features")
    return keras.Model(features, keras.layers.Identity(name="pool", dtype="float32")(features), name="of_features")


def poolings_of(shape: tuple[int | None, ...] | None) -> list[str]:
    """The names in `POOLINGS` that fit what a net gives, by its shape; None is of nothing known."""
    return [name for name, (rank, _) in POOLINGS.items() if shape and rank == len(shape)]


def as_backbone(
    net: keras.Model,
    *,
    last_block: str | Callable[[keras.Model], keras.KerasTensor],
    pooling: str | Callable[[keras.Model], PoolingLayer],
    image_size: int | None = None,
) -> keras.Model:
    """A net as a backbone that shares its weights, the last block a stage of its own where it is known.

    Args:
      net: images [B,H,W,3] -> feature map [B,h,w,D], tokens [B,T,D] or vector [B,D].
      last_block, pooling: as in `BackboneEntry`.
      image_size: side of the square images in pixels; None is the net's own, or any size where it takes any.
    Raises:
      ValueError: the net takes images of another size, or does not end as it should.
    """
    if last_block == BEFORE_POOL:
        if not has_last_block(net):
            raise ValueError(f"backbone must end in {BEFORE_POOL}. Received: {net.name}")
        return net
    name, takes = net.name, keras.tree.flatten(getattr(net, "inputs", None) or [])
    side = takes[0].shape[1] if takes else None
    if image_size and side not in (None, image_size):
        raise ValueError(f"image_size must be {side}, as {name} has it. Received: image_size={image_size}")
    image_size = image_size or side
    if callable(pooling):
        pooling = pooling(net)
    if last_block:
        stages = _in_two(net, last_block(net) if callable(last_block) else net.get_layer(last_block).input)
    else:
        net.name, stages = "body", [net]
    images = x = keras.Input((image_size, image_size, 3), name="images")
    for stage in stages:
        x = on_images(stage, x)
    return pooled(images, x, pooling=pooling, name=name)


def on_images(net: keras.Model, images, **options):
    """What a net gives of images."""
    return net(as_input(net, images), **options)


def as_input(net: keras.Model, images):
    """Images as a net takes them, which may be by a name, as in {"pixels": images}."""
    takes = getattr(net, "input", None)
    return dict.fromkeys(takes, images) if isinstance(takes, dict) else images


def _in_two(net: keras.Model, cut: keras.KerasTensor) -> list[keras.Model]:
    """`body` and `last_block`, which takes the tensor of the net where it is cut.

    Raises:
      ValueError: it cannot be cut there, or the parts could not be loaded again: better now than after the training.
    """
    for layer in net.layers:
        try:
            type(layer).from_config(layer.get_config())
        except (TypeError, ValueError) as error:
            raise ValueError(
                "backbone must be of layers that can be saved and loaded where its last block is a part of its own. "
                f"Received: {net.name}, layer={layer.name}: {error}"
            ) from error
    try:
        last = keras.Model(cut, net.outputs[0], name="last_block")
        if sum(isinstance(layer, keras.layers.InputLayer) for layer in last.layers) > 1:  # before 3.14 Keras builds it
            raise ValueError("its images go around the cut as well")
    except ValueError as error:
        raise ValueError(
            f"last_block must be where all of the net goes through one tensor. Received: {net.name}: {error}"
        ) from error
    return [keras.Model(net.inputs[0], cut, name="body"), last]


def has_last_block(backbone: keras.Model) -> bool:
    """Whether a model is a backbone of several stages, the last of them a sub-model before `pool`."""
    if not hasattr(backbone, "inputs") or len(backbone.layers) < 4:
        return False
    *_, last, pool = backbone.layers
    return isinstance(last, keras.Model) and pool.name == "pool"


def last_block(backbone: keras.Model) -> list[keras.layers.Layer]:
    """The layers of the last stage, the "LB" of the paper's table 1: set `trainable` on each."""
    if not has_last_block(backbone):
        raise ValueError(
            f"backbone must be one of keras_lt.backbones whose last block is known. Received: {backbone.name}"
        )
    return [backbone.layers[-2]]


def feature_map(backbone: keras.Model) -> keras.Model:
    """The backbone without its pooling, sharing its weights: images [B,H,W,3] -> [B,h,w,D]."""
    pool = backbone.layers[-1]
    if pool.name != "pool" or len(pool.input.shape) != 4:
        raise ValueError(
            f"backbone must be one of keras_lt.backbones that pools a feature map [B,h,w,D]. Received: {backbone.name}"
        )
    return keras.Model(backbone.input, pool.input, name=f"{backbone.name}_feature_map")


def branched(backbone: keras.Model) -> keras.Model:
    """A net whose last residual block is there twice, side by side on one trunk (BBN, arXiv:1912.02413).

    Args:
      backbone: of an entry that `can_branch`; it lends the trunk and a block, the other block is a new one.
    Returns: images [B,H,W,3] -> features of both branches, [B, 2D].
    """
    [stage] = last_block(backbone)
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


def with_experts(
    backbone: keras.Model, experts: int, *, pooling: str | PoolingLayer = "average", same_start: bool = False
) -> keras.Model:
    """A net whose last block is there several times, side by side on one trunk.

    Args:
      backbone: with a last block; it lends the trunk and the first expert, the others are new.
      experts: E.
      pooling: of the feature maps of all experts side by side, as in `pooled`.
      same_start: whether all begin with the weights of the backbone's own block, as where these are pretrained.
    Returns: images [B,H,W,3] -> features of all experts, one after another, [B, E D].
    """
    [stage] = last_block(backbone)
    blocks = [stage]
    for number in range(2, experts + 1):
        block = keras.models.clone_model(stage)
        block.name = f"{stage.name}_{number}"
        if same_start:
            block.set_weights(stage.get_weights())
        blocks.append(block)
    inputs = keras.Input(stage.input.shape[1:])
    together = keras.Model(inputs, keras.layers.Concatenate()([block(inputs) for block in blocks]), name="experts")
    images, x = _trunk(backbone)
    return pooled(images, together(x), pooling=pooling, name=backbone.name)


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
