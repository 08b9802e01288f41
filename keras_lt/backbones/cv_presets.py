"""The nets of keras_cv, by class or preset."""

import functools
import pathlib
from typing import Any

import keras

from keras_lt.backbones.normalizations import BYTES
from keras_lt.backbones.preset_names import folder_config, import_library, last_but_one, not_known, owned

_CV = (
    *("CSPDarkNetBackbone", "DenseNetBackbone", "EfficientNetLiteBackbone", "EfficientNetV1Backbone"),
    *("EfficientNetV2Backbone", "MobileNetV3Backbone", "ResNetBackbone", "ResNetV2Backbone"),
)
# Blocks per stage, for the classes of keras_cv that need no preset: it would fetch even their shapes from the network.
_DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_KERAS_CV_RESNETS = {
    f"ResNet{depth}{version}Backbone": (f"ResNet{version}Backbone", depth)
    for version in ("", "V2")
    for depth in _DEPTHS
}


def cv_net(name: str, *, image_size: int | None = None, weights: str | None = None) -> keras.Model:
    """The net of a preset, or of a class that needs none; weights="imagenet" are published ones, None draws some."""
    del image_size  # its nets take any
    models = import_library("keras_cv").models
    if name in _KERAS_CV_RESNETS and not weights:
        family, depth = _KERAS_CV_RESNETS[name]
        return getattr(models, family)(
            stackwise_filters=[64, 128, 256, 512],
            stackwise_blocks=_DEPTHS[depth],
            stackwise_strides=[1, 2, 2, 2],
            block_type="block" if depth >= 50 else "basic_block",
            include_rescaling=True,
        )
    preset = _cv_weights(name) if name in _KERAS_CV_RESNETS else name
    owner = getattr(models, owned(models, _CV).get(preset, "Backbone"))
    whole = owner.from_preset(preset, load_weights=weights is not None)
    _check_rescales(name, whole.include_rescaling)
    return whole


def _cv_weights(name: str) -> str:
    """The preset with the weights of a class; empty where there is none."""
    return next(iter(getattr(import_library("keras_cv").models, name).presets_with_weights), "")


def ask_keras_cv(name: str) -> dict[str, Any]:
    """What keras_cv knows of a class or preset, by the names of `BackboneEntry`.

    Raises:
      ValueError: there is none, or none that can be a backbone; no weights were fetched to say so.
    """
    known = [*_KERAS_CV_RESNETS, *owned(import_library("keras_cv").models, _CV)]
    if name not in known and not pathlib.Path(name).is_dir():
        raise not_known("keras_cv", name, known, of=_CV)
    _check_rescales(name, folder_config(name).get("config", {}).get("include_rescaling", True))
    weights = _cv_weights(name) if name in _KERAS_CV_RESNETS else "the preset"
    facts = {"last_block": _cv_last_level, "normalization": BYTES, "imagenet": weights}
    return {"function": functools.partial(cv_net, name), **facts}


def _check_rescales(name: str, include_rescaling: bool) -> None:
    if not include_rescaling:
        raise ValueError(f"backbone must rescale its images itself. Received: keras_cv/{name}, include_rescaling=False")


def _cv_last_level(net: keras.Model) -> keras.KerasTensor:
    levels = net.pyramid_level_inputs
    return last_but_one(net, {level: net.get_layer(layer).output for level, layer in levels.items()})
