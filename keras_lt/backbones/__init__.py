"""Backbones: images [B,H,W,3] -> features [B,D], and what else has to be known of them.

One family: the reference's nets and the small ones in `BACKBONES`, `EFFICIENTNET_LITE`, those of `keras.applications`
in `APPLICATIONS`, the presets of keras_hub and keras_cv, and any `keras.Model`. `find` gives the entry of each.
"""

import functools

import keras

from keras_lt.arguments import checked
from keras_lt.backbones.adapters import folded
from keras_lt.backbones.applications import APPLICATIONS
from keras_lt.backbones.efficientnet_lite import EFFICIENTNET_LITE
from keras_lt.backbones.entries import BYTES, CAFFE, SYMMETRIC, TORCH, BackboneEntry, Normalization, Resizing
from keras_lt.backbones.own_models import of_model
from keras_lt.backbones.parts import (
    BEFORE_POOL,
    branched,
    branches,
    feature_map,
    last_block,
    of_features,
    pooled,
    with_experts,
)
from keras_lt.backbones.presets import find_preset
from keras_lt.backbones.resnets import basic_block, bottleneck, resnet, zero_padded_shortcut
from keras_lt.backbones.trained_parts import TRAIN_PARTS, is_frozen
from keras_lt.backbones.weight_files import load_torch_state

__all__ = [
    "APPLICATIONS",
    "BACKBONES",
    "BEFORE_POOL",
    "BYTES",
    "CAFFE",
    "EFFICIENTNET_LITE",
    "NAMES",
    "SYMMETRIC",
    "TORCH",
    "TRAIN_PARTS",
    "BackboneEntry",
    "Normalization",
    "Resizing",
    "branched",
    "branches",
    "build",
    "check",
    "feature_map",
    "find",
    "folded",
    "is_frozen",
    "last_block",
    "load_torch_state",
    "normalization",
    "of_features",
    "of_model",
    "pooled",
    "with_experts",
]

Backbone = str | keras.Model | BackboneEntry

_resnext = functools.partial(resnet, block=functools.partial(bottleneck, groups=32, group_width=4))
# LDAM-DRW's (Cao et al., arXiv:1906.07413), without parameters in its shortcuts.
_cifar = {"block": functools.partial(basic_block, shortcut=zero_padded_shortcut), "stem": (3, 1), "max_pool": False}
_small = {"block": basic_block, "stem": (3, 2), "max_pool": False}  # the stem halves the image: a quarter of the work


def _own(function, blocks: tuple[int, ...], *, label: str, instead: str = "", **options) -> BackboneEntry:
    """A residual net of ours; Keras's weights are Caffe's, with the stride in another convolution."""
    name = label.lower().replace("-", "")
    facts = {"last_block": BEFORE_POOL, "can_branch": True, "imagenet_instead": instead}
    return BackboneEntry(functools.partial(function, blocks, name=name, **options), label=label, **facts)


BACKBONES: dict[str, BackboneEntry] = {
    "resnet10": _own(resnet, (1, 1, 1, 1), label="ResNet-10", block=basic_block),
    "resnet50": _own(resnet, (3, 4, 6, 3), label="ResNet-50", instead="keras_applications/ResNet50"),
    "resnet101": _own(resnet, (3, 4, 23, 3), label="ResNet-101", instead="keras_applications/ResNet101"),
    "resnet152": _own(resnet, (3, 8, 36, 3), label="ResNet-152", instead="keras_applications/ResNet152"),
    "resnext50": _own(_resnext, (3, 4, 6, 3), label="ResNeXt-50"),
    "resnext101": _own(_resnext, (3, 4, 23, 3), label="ResNeXt-101"),
    "resnext152": _own(_resnext, (3, 8, 36, 3), label="ResNeXt-152"),
    "resnet32": _own(resnet, (5, 5, 5), label="ResNet-32", widths=(16, 32, 64), **_cifar),
    "resnet8": _own(resnet, (1, 1, 1), label="ResNet-8", widths=(32, 64, 128), **_small),
}

NAMES = (*BACKBONES, *EFFICIENTNET_LITE, *APPLICATIONS, "keras_hub/<preset>", "keras_cv/<preset>")


@checked
def find(backbone: Backbone) -> BackboneEntry:
    """The entry of a backbone; no library is loaded, nothing is fetched.

    Args:
      backbone: one of `NAMES`, a Keras model as `of_model` takes it, or an entry.
    Raises:
      ValueError: there is no such backbone.
    """
    if isinstance(backbone, BackboneEntry):
        return backbone
    if isinstance(backbone, keras.Model):
        return of_model(backbone)
    named = (family[backbone] for family in (BACKBONES, EFFICIENTNET_LITE, APPLICATIONS) if backbone in family)
    entry = next(named, None) or find_preset(backbone)
    if entry is None:
        raise ValueError(f"backbone must be one of {', '.join(NAMES)}, or a Keras model. Received: backbone={backbone}")
    return entry


def build(backbone: Backbone, *, image_size: int | None = None, pretrained: str = "") -> keras.Model:
    """Images [B,H,W,3] -> features [B,D].

    Args:
      backbone: as `find` takes it.
      image_size: side of the square images in pixels; None takes any size.
      pretrained: a `.weights.h5` or `.keras` file of that net (for an adapted net: what was saved of it without its
        top), or for adapted nets "imagenet", which their library downloads or a package has; empty for none.
    """
    return find(backbone)(image_size=image_size, pretrained=pretrained)


def check(backbone: Backbone, *, pretrained: str = "") -> None:
    """Raises ValueError where there is no such backbone, or no such weights for it.

    It loads no library: whether keras_hub or keras_cv know a preset says `find(backbone).available()`.
    """
    find(backbone).check_weights(pretrained)


def normalization(backbone: Backbone) -> Normalization | None:
    """How images must be normalised for a backbone; None for the data set's own statistics."""
    return find(backbone).available().normalization
