"""What of a backbone is trained: all of it, a part, nothing, or adapters in it."""

import dataclasses
import math
from collections.abc import Callable

import keras

from keras_lt.backbones.adapters import BottleneckNet, LowRankNet, adapted, blocks_of
from keras_lt.backbones.entries import BackboneEntry
from keras_lt.backbones.parts import last_block
from keras_lt.registry import NOT_NEGATIVE, Entry, member


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartsEntry(Entry):
    """(backbone, *, classes, **parameters) -> the backbone in which these parts alone are trainable.

    Attributes:
      check: raises ValueError for a backbone that has no such parts, once it is `available`.
      frozen: whether nothing of the backbone is trained, so that its features can be extracted once.
    """

    check: Callable[[BackboneEntry], None] = lambda entry: None
    frozen: bool = False


def _set(backbone: keras.Model, *, trainable: bool) -> keras.Model:
    for layer in backbone.layers:
        layer.trainable = trainable
    return backbone


def _all(backbone: keras.Model, *, classes: int) -> keras.Model:
    return _set(backbone, trainable=True)


def _none(backbone: keras.Model, *, classes: int) -> keras.Model:
    return _set(backbone, trainable=False)


def _last_block(backbone: keras.Model, *, classes: int) -> keras.Model:
    for stage in last_block(_set(backbone, trainable=False)):
        stage.trainable = True
    return backbone


def _lora(backbone: keras.Model, *, classes: int, rank: int = 0) -> keras.Model:
    """Four matrices to a block: of as many numbers as the head's, or fewer, where the rank is 0."""
    return adapted(backbone, LowRankNet, rank=rank or power_of_two(classes / (4 * blocks_of(backbone))))


def _adaptformer(backbone: keras.Model, *, classes: int, bottleneck: int = 0) -> keras.Model:
    """Two matrices to a block: of as many numbers as the head's, or fewer, where the bottleneck is 0."""
    return adapted(backbone, BottleneckNet, bottleneck=bottleneck or power_of_two(classes / (2 * blocks_of(backbone))))


def power_of_two(number: float) -> int:
    """The largest power of two that is no larger, and at least 1: LIFT's rule for the size of adapters."""
    return 2 ** max(0, math.floor(math.log2(number)))


TRAIN_PARTS: dict[str, PartsEntry] = {
    "all": PartsEntry(_all, label="All"),
    "last_block": PartsEntry(_last_block, label="Last block", check=BackboneEntry.check_last_block),
    "classifier": PartsEntry(_none, label="Classifier", frozen=True),
    "lora": PartsEntry(_lora, label="LoRA", ranges={"rank": NOT_NEGATIVE}, check=BackboneEntry.check_takes_adapters),
    "adaptformer": PartsEntry(
        _adaptformer, label="AdaptFormer", ranges={"bottleneck": NOT_NEGATIVE}, check=BackboneEntry.check_takes_adapters
    ),
}


def is_frozen(train_parts: str) -> bool:
    """Whether nothing of the backbone is trained.

    Raises:
      ValueError: there are no such parts.
    """
    return member(TRAIN_PARTS, train_parts, what="train_parts").frozen
