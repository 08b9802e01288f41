"""The nets of keras_hub and keras_cv, by preset."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras

from keras_lt.backbones.cv_presets import ask_keras_cv
from keras_lt.backbones.entries import BackboneEntry
from keras_lt.backbones.hub_presets import ask_keras_hub
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


_LIBRARIES = {"keras_hub": ask_keras_hub, "keras_cv": ask_keras_cv}
