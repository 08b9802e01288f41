"""Flags that are paths, or hold one: a run is gone on with from other folders than it was begun in."""

import dataclasses
import os
from collections.abc import Collection

from keras_lt.config.run_config import RunConfig
from keras_lt.datasets import DATASETS, parse
from keras_lt.datasets.prepared import is_prepared
from keras_lt.files import expanded
from keras_lt.serving.priors import PRIORS

NO_PATHS = {"data_dir": ("",), "pretrained": ("", "imagenet"), "target_prior": ("", *PRIORS)}  # what else a flag may be
NAMED = {"dataset": ("hf:",), "backbone": ("keras_hub/", "keras_cv/")}  # flag -> after what it may name a folder


def whole_paths(config: RunConfig) -> dict[str, str]:
    """The flags that hold a path, with that which is the same from every folder."""
    paths = {}
    for flag, others in NO_PATHS.items():
        value = getattr(config, flag)
        if value.partition(":")[0] not in others:
            paths[flag] = _whole(value)
    for flag, prefixes in NAMED.items():
        value = getattr(config, flag)
        if flag == "dataset" and "data_dir" in paths and is_prepared(paths["data_dir"]):
            continue  # it is a name alone, of what was prepared
        name = parse(DATASETS, value)[0] if flag == "dataset" else value
        for prefix in prefixes:
            folder = name.removeprefix(prefix)
            # What has an equals sign would be read as a parameter.
            if name.startswith(prefix) and expanded(folder).is_dir() and "=" not in _whole(folder):
                paths[flag] = prefix + _whole(folder) + value.removeprefix(name)
    return paths


def placed_flags(config: RunConfig) -> dict[str, str]:
    """Every flag as it would be written, its path a whole one."""
    return {**config.as_flags(), **whole_paths(config)}


def differences(there: RunConfig, now: RunConfig, *, among: Collection[str] | None = None) -> list[str]:
    """The flags by which the one would be another run than the other: "--seed=0 there, --seed=1 now".

    Args:
      among: the flags that are looked at; None is all.
    """
    ours, theirs = map(placed_flags, (there, now))
    names = [f.name for f in dataclasses.fields(RunConfig) if f.metadata["of_the_run"]]
    return [
        f"--{name}={ours[name]} there, --{name}={theirs[name]} now"
        for name in names
        if ours[name] != theirs[name] and (among is None or name in among)
    ]


def _whole(path: str) -> str:
    return os.path.abspath(expanded(path))
