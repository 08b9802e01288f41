"""Any Keras model as a backbone."""

import functools
from typing import Any

import keras
import numpy as np

from keras_lt.backbones.entries import BackboneEntry, Normalization
from keras_lt.backbones.parts import BEFORE_POOL, has_last_block, on_images, poolings_of
from keras_lt.backbones.token_nets import token_net


def of_model(
    model: keras.Model, *, pooling: str = "", last_block: str = "", normalization: Normalization | None = None
) -> BackboneEntry:
    """A model as a backbone, without the model being changed: each build trains a copy that begins with its weights.

    >>> layers = [keras.layers.Conv2D(8, 3, strides=2, name=name) for name in ("first", "second")]
    >>> model = keras.Sequential([keras.Input((28, 28, 3)), *layers])
    >>> backbone = keras_lt.backbones.of_model(model, last_block="second", normalization=keras_lt.backbones.TORCH)
    >>> recipe = keras_lt.Recipe(epochs=1, steps_per_epoch=2, batch_size=64)
    >>> representation = keras_lt.learn_representation(data, backbone=backbone, recipe=recipe)
    2/2 - ...

    The model itself will do as well, `learn_representation(data, backbone=model)`: it is then one layer, its map or
    tokens are averaged, and its images are normalised by the data set's statistics.

    Args:
      model: Functional, Sequential or of a class of its own; images [B,H,W,3] -> feature map [B,h,w,D], tokens [B,T,D]
        or vector [B,D]. It has its weights, and can be made again from its `get_config`.
      pooling: "average" of a feature map, "mean" of tokens or the "first", "none" for a vector; empty is what fits.
      last_block: the name of the layer with which the last block begins, of a Functional or Sequential model. Empty is
        not known, unless the model is a backbone of this package.
      normalization: how its images must be normalised; None is by the data set's own statistics.
    Raises:
      ValueError: it has no weights yet, or takes other than images, or has no such layer.
    """
    if not model.built:
        raise ValueError(f"backbone must be built: call it once on images. Received: {model.name} without weights")
    inputs = getattr(model, "inputs", None)  # a class of its own has none
    if inputs and (len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[-1] not in (None, 3)):
        shapes = ", ".join(str(tensor.shape) for tensor in inputs)
        raise ValueError(
            f"backbone must take images [B,H,W,3] and nothing else. Received: {model.name} taking {shapes}"
        )
    if last_block and last_block not in [layer.name for layer in model.layers if inputs]:
        raise ValueError(
            f"last_block must be a layer of a Functional or Sequential model. Received: {last_block} in {model.name}"
        )
    is_backbone = has_last_block(model)
    if inputs and not pooling:
        # Not `model.output`, which a Sequential that was never called has not, with some versions of Keras.
        outputs = [model.layers[-1].input] if is_backbone else model.outputs
        given = outputs[0] if len(outputs) == 1 else None
        pooling = next(iter(poolings_of(getattr(given, "shape", None))), "")
    return BackboneEntry(
        functools.partial(_copy, model),
        label=model.name,
        normalization=normalization,
        pooling=pooling,
        last_block=last_block or (BEFORE_POOL if is_backbone else ""),
        takes_adapters=token_net(model) is not None,
    )


def _copy(model: keras.Model, *, image_size: int | None = None) -> keras.Model:
    """The same net with weights of its own, made as loading a file makes it, in the current dtype policy.

    Raises:
      ValueError: it takes images of another size, or cannot be made again.
    """
    sides = model.inputs[0].shape[1:3] if hasattr(model, "inputs") else (None, None)
    if image_size and any(side not in (None, image_size) for side in sides):
        raise ValueError(f"image_size must be {sides[0]}, as {model.name} has it. Received: image_size={image_size}")
    try:
        config = keras.saving.serialize_keras_object(model) | {"compile_config": None}
        copy = keras.saving.deserialize_keras_object(_computing_in(keras.config.dtype_policy().name, config))
        copy.set_weights(model.get_weights())
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            "backbone must be a model that can be saved and loaded: of registered classes, with a get_config that has "
            f"all arguments. Received: {model.name}: {str(error).strip()}"
        ) from error
    _check_alike(model, copy, size=sides[0] or image_size)
    if not has_last_block(copy):
        return copy
    pool = copy.layers[-1]  # of a backbone: in single precision, whatever the rest computes in
    features = type(pool).from_config({**pool.get_config(), "dtype": "float32"})(pool.input)
    return keras.Model(copy.inputs[0], features, name=copy.name)


def _computing_in(policy: str, config: Any) -> Any:
    """A configuration whose layers have this dtype policy wherever they had float32."""
    if isinstance(config, list | tuple):
        return type(config)(_computing_in(policy, part) for part in config)
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy" and config["config"]["name"] == "float32":
        return {**config, "config": {"name": policy}}
    return {key: _computing_in(policy, part) for key, part in config.items()}


def _check_alike(model: keras.Model, copy: keras.Model, *, size: int | None) -> None:
    """A class without a `get_config` of its own is made with the defaults of its arguments: another net, maybe."""
    images = np.random.default_rng(0).random((1, size or 224, size or 224, 3), np.float32)

    def given(net: keras.Model) -> list[np.ndarray]:
        outputs = keras.tree.flatten(on_images(net, images, training=False))
        return [keras.ops.convert_to_numpy(keras.ops.cast(output, "float32")) for output in outputs]

    for ours, theirs in zip(given(copy), given(model), strict=True):
        # Half precision may differ by some hundredths.
        if ours.shape == theirs.shape and np.linalg.norm(ours - theirs) <= 0.1 * np.linalg.norm(theirs):
            continue
        raise ValueError(
            "backbone must give the same again when it is made from its get_config, which must have all arguments. "
            f"Received: {model.name}"
        )
