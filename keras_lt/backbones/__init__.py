"""Backbones: images [B,H,W,3] -> features [B,D], and what else is asked of them.

`BACKBONES` are the reference's nets and the small ones; `build` also knows the adapters by name.
"""

import functools
import pathlib
from collections.abc import Callable

import keras

from keras_lt.backbones.applications import APPLICATIONS, application
from keras_lt.backbones.cifar_resnet import cifar_resnet
from keras_lt.backbones.local_weights import load_weights
from keras_lt.backbones.normalizations import Normalization
from keras_lt.backbones.parts import branched, branches, feature_map, last_block
from keras_lt.backbones.presets import is_preset, preset_backbone, preset_normalization
from keras_lt.backbones.residual import basic_block, bottleneck, projection_shortcut
from keras_lt.backbones.resnet import resnet
from keras_lt.backbones.torch_state import load_torch_state

__all__ = [
    "APPLICATIONS",
    "BACKBONES",
    "NAMES",
    "Normalization",
    "branched",
    "branches",
    "build",
    "check",
    "feature_map",
    "last_block",
    "load_torch_state",
    "normalization",
]

_RESNEXT = {"block": functools.partial(bottleneck, groups=32, group_width=4)}

BACKBONES: dict[str, Callable[..., keras.Model]] = {
    "resnet10": functools.partial(resnet, (1, 1, 1, 1), block=basic_block, name="resnet10"),
    "resnet50": functools.partial(resnet, (3, 4, 6, 3), name="resnet50"),
    "resnet101": functools.partial(resnet, (3, 4, 23, 3), name="resnet101"),
    "resnet152": functools.partial(resnet, (3, 8, 36, 3), name="resnet152"),
    "resnext50": functools.partial(resnet, (3, 4, 6, 3), **_RESNEXT, name="resnext50"),
    "resnext101": functools.partial(resnet, (3, 4, 23, 3), **_RESNEXT, name="resnext101"),
    "resnext152": functools.partial(resnet, (3, 8, 36, 3), **_RESNEXT, name="resnext152"),
    "resnet32": functools.partial(cifar_resnet, 32, name="resnet32"),
    "resnet8": functools.partial(
        cifar_resnet, 8, widths=(32, 64, 128), stem_strides=2, shortcut=projection_shortcut, name="resnet8"
    ),
}

NAMES = (*BACKBONES, *APPLICATIONS, "keras_hub/<preset>", "keras_cv/<class or preset>")


def build(name: str, *, image_size: int | None = None, pretrained: str = "") -> keras.Model:
    """Images [B,H,W,3] -> features [B,D].

    Args:
      name: one of `NAMES`.
      image_size: side of the square images in pixels; None takes any size.
      pretrained: a `.weights.h5` or `.keras` file of that net (for an adapted net: what was saved of it without its
        top), or for adapted nets "imagenet", which their library downloads; empty for none.
    """
    check(name, pretrained=pretrained)
    if is_preset(name):
        return preset_backbone(name, image_size=image_size, pretrained=pretrained)
    if name in APPLICATIONS:
        return application(name, image_size=image_size, pretrained=pretrained)
    backbone = BACKBONES[name](image_size=image_size)
    if pretrained:
        load_weights(backbone, pretrained)
    return backbone


def check(name: str, *, pretrained: str = "") -> None:
    """Raises ValueError where `build` knows no such name, or no such weights for it.

    It loads no library: whether keras_hub or keras_cv know a preset is found out by `build`.
    """
    if name not in BACKBONES | APPLICATIONS and not is_preset(name):
        raise ValueError(f"backbone must be one of {', '.join(NAMES)}. Received: backbone={name}")
    if pretrained == "imagenet" and name in BACKBONES:
        raise ValueError(
            f"pretrained must be empty or a file for {name}: published Keras weights are Caffe's, which do not fit it; "
            "use --backbone=keras_applications/ResNet152 --pretrained=imagenet. Received: pretrained=imagenet"
        )
    if pretrained not in ("", "imagenet") and not pathlib.Path(pretrained).is_file():
        raise ValueError(f"pretrained must be 'imagenet' or a weights file. Not found: {pretrained}")


def normalization(name: str) -> Normalization | None:
    """How images must be normalised for a backbone; None for the data set's own statistics."""
    check(name)
    if is_preset(name):
        return preset_normalization(name)
    return APPLICATIONS[name].normalization if name in APPLICATIONS else None
