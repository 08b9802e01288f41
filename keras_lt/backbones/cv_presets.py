"""The nets of keras_cv, by preset."""

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


def cv_net(preset: str, *, image_size: int | None = None, weights: str | None = None) -> keras.Model:
    """The net of a preset; weights="imagenet" are its own, None draws some."""
    del image_size  # its nets take any
    models = import_library("keras_cv").models
    owner = getattr(models, owned(models, _CV).get(preset, "Backbone"))
    whole = owner.from_preset(preset, load_weights=weights is not None)
    _check_rescales(preset, whole.include_rescaling)
    return whole


def ask_keras_cv(preset: str) -> dict[str, Any]:
    """What keras_cv knows of a preset, by the names of `BackboneEntry`.

    Raises:
      ValueError: there is none, or none that can be a backbone; no weights were fetched to say so.
    """
    known = owned(import_library("keras_cv").models, _CV)
    if preset not in known and not pathlib.Path(preset).is_dir():
        raise not_known("keras_cv", preset, known, of=_CV)
    _check_rescales(preset, folder_config(preset).get("config", {}).get("include_rescaling", True))
    facts = {"last_block": _cv_last_level, "normalization": BYTES, "imagenet": "the preset"}
    return {"function": functools.partial(cv_net, preset), **facts}


def _check_rescales(preset: str, include_rescaling: bool) -> None:
    if not include_rescaling:
        raise ValueError(
            f"backbone must rescale its images itself. Received: keras_cv/{preset}, include_rescaling=False"
        )


def _cv_last_level(net: keras.Model) -> keras.KerasTensor:
    levels = net.pyramid_level_inputs
    return last_but_one(net, {level: net.get_layer(layer).output for level, layer in levels.items()})
