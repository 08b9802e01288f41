"""Backbones: images [B,H,W,3] -> features [B,D], and what else is asked of them.

`BACKBONES` are the reference's nets and the small ones; `build` also knows the adapters by name.
"""

import functools
import pathlib
from collections.abc import Callable

import keras

from keras_lt.backbones.applications import APPLICATIONS, Normalization, application
from keras_lt.backbones.cifar_resnet import cifar_resnet
from keras_lt.backbones.parts import feature_map, last_block
from keras_lt.backbones.residual import basic_block, bottleneck, projection_shortcut
from keras_lt.backbones.resnet import resnet
from keras_lt.backbones.torch_state import load_torch_state

__all__ = [
    "APPLICATIONS",
    "BACKBONES",
    "NAMES",
    "Normalization",
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

NAMES = (*BACKBONES, *APPLICATIONS)


def build(name: str, *, image_size: int | None = None, pretrained: str = "") -> keras.Model:
    """Images [B,H,W,3] -> features [B,D].

    Args:
      name: one of `NAMES`.
      image_size: side of the square images in pixels; None takes any size.
      pretrained: a `.weights.h5` or `.keras` file of that net (for a net of `keras.applications`: what Keras saved of
        it without its top), or for those "imagenet", which Keras downloads; empty for none.
    """
    check(name, pretrained=pretrained)
    if name in APPLICATIONS:
        return application(name, image_size=image_size, weights=pretrained or None)
    backbone = BACKBONES[name](image_size=image_size)
    if pretrained:
        backbone.load_weights(pretrained)
    return backbone


def check(name: str, *, pretrained: str = "") -> None:
    """Raises ValueError where `build` knows no such name, or no such weights for it."""
    if name not in BACKBONES | APPLICATIONS:
        raise ValueError(f"backbone must be one of {', '.join(BACKBONES | APPLICATIONS)}. Received: backbone={name}")
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
    return APPLICATIONS[name].normalization if name in APPLICATIONS else None
