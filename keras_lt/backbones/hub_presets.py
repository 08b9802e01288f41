"""The nets of keras_hub, by preset: feature maps, tokens, and the image towers of nets of images and text."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_lt.backbones.entries import CENTRE, Normalization, Resizing
from keras_lt.backbones.parts import ClassTokenAndMean, FirstToken, PoolingLayer, on_images
from keras_lt.backbones.preset_names import folder_config, import_library, last_but_one, not_known, owned
from keras_lt.backbones.text_towers import TextTower, as_they_are, projected_back


@dataclasses.dataclass(frozen=True, kw_only=True)
class HubClass:
    """What is to know of the presets of one class of keras_hub.

    Attributes:
      part: the preset's net -> what of it is the backbone.
      pooling, last_block: as in `BackboneEntry`.
      one_size: whether it takes images of its preset's size alone.
      patch_size: of nets that are made for a size of images, the side of their patches, which it is a multiple of,
        where the preset's folder says no other; 0 of other nets.
      takes_adapters: as in `BackboneEntry`.
      text: (net, token ids [B, T]) -> directions of features [B, D], as in `TextTower`; None without a text tower.
    """

    part: Callable[[keras.Model], keras.Model] = lambda net: net
    pooling: str | Callable[[keras.Model], PoolingLayer] = "average"
    last_block: str | Callable[[keras.Model], keras.KerasTensor] = ""
    one_size: bool = False
    patch_size: int = 0
    takes_adapters: bool = False
    text: Callable[[keras.Model, Any], Any] | None = None


def _last_level(net: keras.Model) -> keras.KerasTensor:
    return last_but_one(net, net.pyramid_outputs)


def _last_stage(net: keras.Model) -> keras.Model:
    """Of a net that gives all of its stages by name."""
    images = keras.Input(net.input_shape[1:])
    return keras.Model(images, net(images)[net.stage_names[-1]], name=net.name)


def _image_tower(net: keras.Model) -> keras.Model:
    """In the dtype policy in force: a preset's folder says one for its towers, which keras_hub leaves as it is."""
    tower, policy = net.vision_encoder, keras.config.dtype_policy().name
    if tower.dtype_policy.name == policy:
        return tower
    same = type(tower).from_config(tower.get_config() | {"dtype": policy})
    same.set_weights(tower.get_weights())
    return same


def _normalized_image_tower(net: keras.Model) -> keras.Model:
    """Of a net whose last layer norm stands behind its image tower; it is the same for every token."""
    tower = _image_tower(net)
    images = keras.Input(tower.image_shape)
    return keras.Model(images, net.vision_post_layer_norm(on_images(tower, images)), name=tower.name)


def _with_positions_of_its_size(net: keras.Model) -> keras.Model:
    """The same net without positions of another size behind those that it trains.

    It would save what it has learned resized to that size, and resize it back when it is loaded: another net. See also
    `compat.keep_positions`.
    """
    if net.embeddings.position_embedding_shape == net.embeddings.image_shape:
        return net
    same = type(net).from_config(net.get_config() | {"position_embedding_shape": net.image_shape})
    positions = net.embeddings.position_embeddings
    resized = net.embeddings.interpolated_position_embeddings
    same.set_weights([(resized if weight is positions else weight).numpy() for weight in net.weights])
    return same


def _class_token(net: keras.Model) -> PoolingLayer:
    return FirstToken if net.use_class_token else keras.layers.GlobalAveragePooling1D


def _class_token_and_patches(net: keras.Model) -> PoolingLayer:
    """As DINOv2's linear probe (arXiv:2304.07193, section B.3) takes them; the registers are left out."""
    return functools.partial(ClassTokenAndMean, others=1 + net.num_register_tokens)


_PYRAMID = HubClass(last_block=_last_level)
_MAP = HubClass()
_HUB: dict[str, HubClass] = {
    "CLIPBackbone": HubClass(
        part=_image_tower, pooling="first", one_size=True, takes_adapters=True, text=projected_back
    ),
    "CSPNetBackbone": _PYRAMID,
    "DINOV2Backbone": HubClass(
        part=_with_positions_of_its_size, pooling=_class_token_and_patches, patch_size=14, takes_adapters=True
    ),
    "DINOV3Backbone": HubClass(pooling=_class_token_and_patches, patch_size=16, takes_adapters=True),
    "DeiTBackbone": HubClass(pooling="first", one_size=True, takes_adapters=True),
    "DenseNetBackbone": _PYRAMID,
    "EfficientNetBackbone": _PYRAMID,
    "HGNetV2Backbone": HubClass(part=_last_stage),
    "MetaCLIP2Backbone": HubClass(
        part=_normalized_image_tower, pooling="first", one_size=True, takes_adapters=True, text=projected_back
    ),
    "MiTBackbone": _MAP,  # its layers cannot be made from their own configuration, the net as a whole can
    "MobileNetBackbone": _MAP,
    "MobileNetV5Backbone": _MAP,
    "ResNetBackbone": _PYRAMID,
    "SigLIPBackbone": HubClass(part=_image_tower, pooling="none", one_size=True, takes_adapters=True, text=as_they_are),
    "SwinTransformerBackbone": HubClass(pooling="mean", one_size=True),
    "VGGBackbone": _MAP,
    "ViTBackbone": HubClass(pooling=_class_token, one_size=True, takes_adapters=True),
    "XceptionBackbone": _MAP,
}


def hub_net(preset: str, *, of: HubClass, image_size: int | None = None, weights: str | None = None) -> keras.Model:
    """What of a preset's net is the backbone; weights="imagenet" are the preset's own, None draws some.

    Args:
      of: its class.
      image_size: as `BackboneEntry` takes it.
    """
    shape = {"image_shape": (image_size, image_size, 3)} if image_size and of.patch_size else {}
    return of.part(_models().Backbone.from_preset(preset, load_weights=weights is not None, **shape))


def ask_keras_hub(preset: str) -> dict[str, Any]:
    """What keras_hub knows of a preset, by the names of `BackboneEntry`.

    Raises:
      ValueError: it is none, or not of a class that can be a backbone; no weights were fetched to say so.
    """
    kind = _class_of(preset)
    if kind not in _HUB:
        raise _refused(preset, received=f", a {kind}")
    of, converter, config = _HUB[kind], _converter(preset), folder_config(preset).get("config", {})
    return {
        "function": functools.partial(hub_net, preset, of=of),
        "pooling": of.pooling,
        "last_block": of.last_block,
        "takes_adapters": of.takes_adapters,
        "text_tower": of.text and TextTower(preset, of.text),
        "image_size": _own_size(config, converter) if of.one_size else 0,
        "size_multiple": config.get("patch_size", of.patch_size) if of.patch_size else 1,
        "normalization": converter and _normalization(converter),
        "resizing": _resizing(preset, converter) if converter else CENTRE,
    }


def _class_of(preset: str) -> str:
    """The class of a preset's net: of known ones without the network, of handles by their configuration alone."""
    models = _models()
    if preset in models.Backbone.presets:
        classes = {name: found for name, found in vars(models).items() if name.endswith("Backbone")}
        return min((n for n in classes if preset in classes[n].presets), key=lambda n: len(classes[n].presets))
    config = folder_config(preset)
    if kind := config.get("class_name"):
        return kind
    if pathlib.Path(preset).is_dir():
        if not config:
            raise _refused(preset, received=", a folder without a config.json")
    elif "://" not in preset:
        raise _refused(preset)
    try:
        return type(models.Backbone.from_preset(preset, load_weights=False)).__name__
    except ValueError as error:  # of a class that keras_hub cannot take over, or of none
        raise _refused(preset, received=f": {error}") from error


def _refused(preset: str, *, received: str = "") -> ValueError:
    return not_known("keras_hub", preset, owned(_models(), _HUB), of=_HUB, received=received)


def _converter(preset: str) -> Any:
    """The preset's image converter; None where it has none."""
    try:
        return import_library("keras_hub").layers.ImageConverter.from_preset(preset)
    except FileNotFoundError:
        return None


def _own_size(config: dict[str, Any], converter: Any) -> int:
    """Side of the images that a preset of one size takes, in pixels; 0 where nothing but its weights say it."""
    if shape := config.get("vision_encoder", {}).get("config", config).get("image_shape"):
        return shape[0]
    return converter.image_size[0] if converter and converter.image_size else 0


def _normalization(converter: Any) -> Normalization:
    """It gives pixel * scale + offset of pixels up to 255."""
    scale = 255 * np.broadcast_to(1.0 if converter.scale is None else converter.scale, 3)
    offset = np.broadcast_to(0.0 if converter.offset is None else converter.offset, 3)
    return Normalization(mean=tuple((-offset / scale).tolist()), std=tuple((1 / scale).tolist()))


def _resizing(preset: str, converter: Any) -> Resizing:
    if converter.pad_to_aspect_ratio:
        raise ValueError(
            "backbone must be of images that are cropped or stretched to its size. "
            f"Received: backbone=keras_hub/{preset}, pad_to_aspect_ratio=True"
        )
    resize = "crop" if converter.crop_to_aspect_ratio else "stretch"
    return Resizing(resize=resize, interpolation=converter.interpolation)


def _models() -> Any:
    return import_library("keras_hub").models
