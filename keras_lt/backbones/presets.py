"""The nets of keras_hub and keras_cv, by preset."""

import dataclasses
import difflib
import functools
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np

from keras_lt.backbones.entries import BackboneEntry
from keras_lt.backbones.normalizations import BYTES, Normalization
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
    """The entry of "keras_hub/<preset>" or "keras_cv/<class or preset>"; None for other names. It loads neither.

    A preset is a name that the library knows, and fetches from the network, or a folder that `save_to_preset` wrote;
    keras_hub's also a handle such as "hf://timm/resnet50.a1_in1k" or a folder with timm's `config.json` and
    `model.safetensors`.
    """
    library, _, preset = name.partition("/")
    if library not in _LIBRARIES or not preset:
        return None
    net, ask = _LIBRARIES[library]
    options = {"label": preset, "imagenet": "the preset"}
    return PresetEntry(functools.partial(net, preset), ask=functools.partial(ask, preset), **options)


def _hub_last_level(net: keras.Model) -> keras.KerasTensor:
    return _last_but_one(net, net.pyramid_outputs)


def _cv_last_level(net: keras.Model) -> keras.KerasTensor:
    levels = net.pyramid_level_inputs
    return _last_but_one(net, {level: net.get_layer(layer).output for level, layer in levels.items()})


def _last_but_one(net: keras.Model, levels: Mapping[str, keras.KerasTensor]) -> keras.KerasTensor:
    """What follows the last level but one of a net's feature pyramid is the last block."""
    if len(levels) < 2:
        raise ValueError(f"backbone must be a net with two pyramid levels or more. Received: {net.name}")
    return levels[sorted(levels, key=lambda level: int(level.removeprefix("P")))[-2]]


# The classes that can be backbones, and what is to know of each.
_HUB: dict[str, dict[str, Any]] = {
    "CSPNetBackbone": {"last_block": _hub_last_level},
    "DenseNetBackbone": {"last_block": _hub_last_level},
    "EfficientNetBackbone": {"last_block": _hub_last_level},
    "MiTBackbone": {},  # its layers cannot be made from their own configuration, the net as a whole can
    "ResNetBackbone": {"last_block": _hub_last_level},
}
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


def _hub_net(preset: str, *, image_size: int | None = None, weights: str | None = None) -> keras.Model:
    del image_size  # its nets take any
    return _keras_hub().models.Backbone.from_preset(preset, load_weights=weights is not None)


def _ask_keras_hub(preset: str) -> dict[str, Any]:
    kind = _hub_class(preset)
    if kind not in _HUB:
        known = _owned(_keras_hub().models, _HUB)
        raise _not_known("keras_hub", preset, known, of=f"of {', '.join(_HUB)}", received=f", a {kind}")
    return {**_HUB[kind], "normalization": _hub_normalization(preset)}


def _hub_class(preset: str) -> str:
    """The class of a preset's net: of known ones without the network, of handles by their configuration alone."""
    models = _keras_hub().models
    if preset in models.Backbone.presets:
        classes = {name: found for name, found in vars(models).items() if name.endswith("Backbone")}
        return min((n for n in classes if preset in classes[n].presets), key=lambda n: len(classes[n].presets))
    if kind := _folder_config(preset).get("class_name"):
        return kind
    if "://" not in preset and not pathlib.Path(preset).is_dir():
        raise _not_known("keras_hub", preset, _owned(models, _HUB), of=f"of {', '.join(_HUB)}")
    return type(models.Backbone.from_preset(preset, load_weights=False)).__name__


def _hub_normalization(preset: str) -> Normalization | None:
    """What the preset's converter does; None where it has none."""
    try:
        converter = _keras_hub().layers.ImageConverter.from_preset(preset)
    except FileNotFoundError:
        converter = None
    if converter is None:
        return None
    # It gives pixel * scale + offset of pixels up to 255.
    scale = 255 * np.broadcast_to(1.0 if converter.scale is None else converter.scale, 3)
    offset = np.broadcast_to(0.0 if converter.offset is None else converter.offset, 3)
    return Normalization(mean=tuple((-offset / scale).tolist()), std=tuple((1 / scale).tolist()))


def _cv_net(name: str, *, image_size: int | None = None, weights: str | None = None) -> keras.Model:
    del image_size  # its nets take any
    models = _keras_cv().models
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
    owner = getattr(models, _owned(models, _CV).get(preset, "Backbone"))
    whole = owner.from_preset(preset, load_weights=weights is not None)
    _check_rescales(name, whole.include_rescaling)
    return whole


def _cv_weights(name: str) -> str:
    """The preset with the weights of a class; empty where there is none."""
    return next(iter(getattr(_keras_cv().models, name).presets_with_weights), "")


def _ask_keras_cv(name: str) -> dict[str, Any]:
    known = [*_KERAS_CV_RESNETS, *_owned(_keras_cv().models, _CV)]
    if name not in known and not pathlib.Path(name).is_dir():
        raise _not_known("keras_cv", name, known, of=f"of {', '.join(_CV)}")
    _check_rescales(name, _folder_config(name).get("config", {}).get("include_rescaling", True))
    weights = _cv_weights(name) if name in _KERAS_CV_RESNETS else "the preset"
    return {"last_block": _cv_last_level, "normalization": BYTES, "imagenet": weights}


def _check_rescales(name: str, include_rescaling: bool) -> None:
    if not include_rescaling:
        raise ValueError(f"backbone must rescale its images itself. Received: keras_cv/{name}, include_rescaling=False")


_LIBRARIES = {"keras_hub": (_hub_net, _ask_keras_hub), "keras_cv": (_cv_net, _ask_keras_cv)}


def _folder_config(preset: str) -> dict[str, Any]:
    path = pathlib.Path(preset, "config.json")
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def _owned(models, classes: Iterable[str]) -> dict[str, str]:
    """The presets of these classes -> the name of their class."""
    return {preset: name for name in classes if hasattr(models, name) for preset in getattr(models, name).presets}


def _not_known(library: str, preset: str, known: Iterable[str], *, of: str, received: str = "") -> ValueError:
    spelled = {name.lower(): name for name in known}
    sought = preset.lower().removesuffix("backbone")  # other classes of keras_cv are known by their presets
    near = [spelled[name] for name in difflib.get_close_matches(sought, spelled, n=5, cutoff=0.4)]
    return ValueError(
        f"backbone must be {library}/ and a preset {of}, or a folder of one; near are {', '.join(near) or 'none'}. "
        f"Received: backbone={library}/{preset}{received}"
    )


def _keras_hub():
    try:
        import keras_hub  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise _missing("keras_hub", error) from error
    return keras_hub


def _keras_cv():
    try:
        import keras_cv  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise _missing("keras_cv", error) from error
    return keras_cv


def _missing(library: str, error: ModuleNotFoundError) -> ModuleNotFoundError:
    return ModuleNotFoundError(
        f"--backbone={library}/... needs {library}: pip install 'keras_lt[{library}]'. Received: {error}"
    )
