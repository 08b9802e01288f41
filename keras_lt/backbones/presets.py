"""The nets of keras_hub and keras_cv, by preset; what keras_hub says of its own stands in `hub_presets`."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import keras

from keras_lt.backbones.entries import BYTES, BackboneEntry
from keras_lt.backbones.hub_presets import ask_keras_hub
from keras_lt.backbones.preset_names import folder_config, import_library, last_but_one, not_known, owned
from keras_lt.keras_settings import plain_settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class PresetEntry(BackboneEntry):
    """A preset as far as its name goes; what else there is to know of it comes with `available`.

    Attributes:
      ask: () -> the facts that its library knows, by the names of `BackboneEntry`.
    """

    ask: Callable[[], dict[str, Any]]

    @plain_settings()
    def __call__(self, *, image_size: int | None = None, pretrained: str = "") -> keras.Model:
        """As every backbone is built, once its library has been asked."""
        self.check_weights(pretrained)
        return self.available()(image_size=image_size, pretrained=pretrained)

    def available(self) -> BackboneEntry:
        """The entry with all of its facts."""
        facts = {field.name: getattr(self, field.name) for field in dataclasses.fields(BackboneEntry)}
        return BackboneEntry(**facts | self.ask())


def find_preset(name: str) -> PresetEntry | None:
    """The entry of "keras_hub/<preset>" or "keras_cv/<preset>"; None for other names. It loads neither.

    A preset is a name that the library knows, and fetches from the network, or a folder that `save_to_preset` wrote;
    keras_hub's also a handle such as "hf://timm/resnet50.a1_in1k" or a folder with timm's `config.json` and
    `model.safetensors`.
    """
    library, _, preset = name.partition("/")
    if library not in _LIBRARIES or not preset:
        return None
    ask = functools.partial(_LIBRARIES[library], preset)
    return PresetEntry(functools.partial(_net, ask), ask=ask, label=preset, imagenet="the preset")


def _net(ask: Callable[[], dict[str, Any]], **options) -> keras.Model:
    return ask()["function"](**options)


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


_LIBRARIES = {"keras_hub": ask_keras_hub, "keras_cv": ask_keras_cv}
