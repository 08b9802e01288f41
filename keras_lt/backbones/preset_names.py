"""What the presets of any library have in common: names, folders, levels, and how wrong ones are answered."""

import difflib
import json
import pathlib
import types
from collections.abc import Iterable, Mapping
from typing import Any

import keras

from keras_lt import extras


def folder_config(preset: str) -> dict[str, Any]:
    """The `config.json` of a preset's folder; empty where it is no folder, or has none."""
    path = pathlib.Path(preset, "config.json")
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"config.json of a preset must be JSON. Received: {path}: {error}") from error
    return config if isinstance(config, dict) else {}


def owned(models: types.ModuleType, classes: Iterable[str]) -> dict[str, str]:
    """The presets of these classes -> the name of their class."""
    return {preset: name for name in classes if hasattr(models, name) for preset in getattr(models, name).presets}


def not_known(library: str, preset: str, known: Iterable[str], *, of: Iterable[str], received: str = "") -> ValueError:
    """The error for a preset that cannot be a backbone, with names that are near it and can."""
    spelled = {name.lower(): name for name in known}
    sought = preset.lower().removesuffix("backbone")  # classes are known by their presets
    near = [spelled[name] for name in difflib.get_close_matches(sought, spelled, n=5, cutoff=0.4)]
    return ValueError(
        f"backbone must be {library}/ and a preset of {', '.join(of)}, or a folder of one; near are "
        f"{', '.join(near) or 'none'}. Received: backbone={library}/{preset}{received}"
    )


def last_but_one(net: keras.Model, levels: Mapping[str, keras.KerasTensor]) -> keras.KerasTensor:
    """What follows the last level but one of a net's feature pyramid is the last block."""
    if len(levels) < 2:
        raise ValueError(f"backbone must be a net with two pyramid levels or more. Received: {net.name}")
    return levels[sorted(levels, key=lambda level: int(level.removeprefix("P")))[-2]]


def import_library(library: str) -> types.ModuleType:
    """A library that is an extra of this package.

    Raises:
      ImportError: it is not installed, or cannot be imported.
    """
    return extras.library(library, extra=library.replace("_", "-"), needed_by=f"--backbone={library}/...")
