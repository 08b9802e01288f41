"""A backbone as an entry: how it is built, and all that has to be known before that."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import keras

from keras_lt.arguments import checked
from keras_lt.backbones import parts
from keras_lt.backbones.text_towers import TextTower
from keras_lt.backbones.weight_files import load_weights
from keras_lt.files import expanded
from keras_lt.keras_settings import plain_settings
from keras_lt.registry import Entry


@dataclasses.dataclass(frozen=True)
class Normalization:
    """What a net expects of an image in [0, 1]: (image - mean) / std, then the channels in this order.

    `mean` and `std` are red, green, blue whatever the order.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channel_order: Literal["rgb", "bgr"] = "rgb"


@dataclasses.dataclass(frozen=True)
class Resizing:
    """How an image becomes a square of the size that a net takes.

    Attributes:
      resize: "crop" takes a square out of the middle, "stretch" all of the image, whatever its sides.
      interpolation: between pixels, one that `preprocessing.Preprocessing` has.
    """

    resize: Literal["crop", "stretch"] = "crop"
    interpolation: str = "bilinear"


CENTRE = Resizing()
CAFFE = Normalization(mean=(123.68 / 255, 116.779 / 255, 103.939 / 255), std=(1 / 255,) * 3, channel_order="bgr")
SYMMETRIC = Normalization(mean=(0.5,) * 3, std=(0.5,) * 3)
TORCH = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
# For nets that take values of 0 to 255 and normalise inside.
BYTES = Normalization(mean=(0.0,) * 3, std=(1 / 255,) * 3)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackboneEntry(Entry):
    """A net from images [B,H,W,3] to a feature map [B,h,w,D], tokens [B,T,D] or a vector [B,D]; called, a backbone.

    >>> keras_lt.backbones.find("resnet8")(image_size=28).output_shape
    (None, 128)

    Attributes:
      function: (*, image_size) -> the net, without the layers that classify; where published weights fit, it also
        takes weights="imagenet".
      label: as papers write it.
      normalization: how its images must be normalised; None is by the data set's own statistics.
      resizing: how images come to its size.
      image_size: side of the only images that it takes, pixels; 0 takes others too.
      smallest: side of the smallest images that it takes, pixels.
      size_multiple: what the side of its images must be a multiple of.
      pooling: how what it gives becomes one vector: a name in `parts.POOLINGS`, or (net) -> the layer; empty goes by
        the shape.
      last_block: where its last block begins: the name of a layer, or (net) -> the tensor that the block takes.
        `parts.BEFORE_POOL` is a net that is a backbone as it is, its last block the sub-model before `pool`. Empty is
        not known: then it is one layer.
      imagenet: whose weights pretrained="imagenet" stands for; empty where none fit.
      check_imagenet: raises ModuleNotFoundError where these weights are in a package that is not installed.
      imagenet_instead: the name of the like net that published weights fit.
      takes_adapters: whether its blocks of tokens are known, so that adapters can come into them.
      can_branch: whether its last block can be there several times, for several branches or experts.
      text_tower: names of classes -> directions of its features; None without one.
    """

    normalization: Normalization | None = None
    resizing: Resizing = CENTRE
    image_size: int = 0
    size_multiple: int = 1
    smallest: int = 1
    pooling: str | Callable[[keras.Model], parts.PoolingLayer] = "average"
    last_block: str | Callable[[keras.Model], keras.KerasTensor] = ""
    imagenet: str = ""
    check_imagenet: Callable[[], object] = lambda: None
    imagenet_instead: str = ""
    takes_adapters: bool = False
    can_branch: bool = False
    text_tower: TextTower | None = None

    @property
    def pools_map(self) -> bool:
        """Whether it averages a feature map; of a model of one's own, as far as that is known before it is built."""
        return not callable(self.pooling) and (not self.pooling or parts.POOLINGS[self.pooling][0] == 4)

    @checked
    @plain_settings()
    def __call__(self, *, image_size: int | None = None, pretrained: str = "") -> keras.Model:
        """Images [B,H,W,3] -> features float32 [B,D]; `parts` says of which layers.

        Args:
          image_size: side of the square images in pixels; None is the net's own, or any where it takes any.
          pretrained: "imagenet", a file that `save_weights` of the net wrote, or empty for none.
        """
        self.check_weights(pretrained)
        self.check_image_size(image_size)
        published = {"weights": "imagenet"} if pretrained == "imagenet" else {}
        net = self.function(image_size=image_size, **published)
        if pretrained and not published:
            load_weights(net, str(expanded(pretrained)))
        return parts.as_backbone(net, last_block=self.last_block, pooling=self.pooling, image_size=image_size)

    def available(self) -> "BackboneEntry":
        """The entry with all of its facts, which of a preset only its library knows.

        Raises:
          ModuleNotFoundError: the library is not installed.
          ValueError: the library has no such net, or none that can be a backbone; no weights were fetched to say so.
        """
        return self

    def check_weights(self, pretrained: str) -> None:
        """Raises ValueError or ModuleNotFoundError where there are no such weights for it."""
        if pretrained == "imagenet" and not self.imagenet:
            other = self.imagenet_instead
            instead = f"; use --backbone={other} --pretrained=imagenet" if other else ""
            raise ValueError(
                f"pretrained must be empty or a file for {self.label}: no published weights fit it{instead}. "
                "Received: pretrained=imagenet"
            )
        if pretrained == "imagenet":
            self.check_imagenet()
        elif pretrained and not expanded(pretrained).is_file():
            raise ValueError(f"pretrained must be 'imagenet' or a weights file. Not found: {pretrained}")

    def check_image_size(self, image_size: int | None) -> None:
        """Raises ValueError where it takes no images of this side; of a preset once it is `available`."""
        if image_size and self.image_size not in (0, image_size):
            raise ValueError(
                f"image_size must be {self.image_size}, or 0 for that, as {self.label} has it. "
                f"Received: image_size={image_size}"
            )
        if image_size and image_size < self.smallest:
            raise ValueError(
                f"image_size must be at least {self.smallest} for {self.label}. Received: image_size={image_size}"
            )
        if image_size and image_size % self.size_multiple:
            raise ValueError(
                f"image_size must be a multiple of {self.size_multiple}, the side of a patch of {self.label}. "
                f"Received: image_size={image_size}"
            )

    def check_last_block(self) -> None:
        """Raises ValueError where nobody knows where its last block begins; of a preset once it is `available`."""
        if not self.last_block:
            raise ValueError(
                "train_parts=last_block needs a backbone whose last block is known; one that is not cut, as nets of "
                "tokens, trains by train_parts=all, classifier, lora or adaptformer. Of a model of your own "
                f"backbones.of_model(model, last_block=<its first layer>) says it. Received: backbone={self.label}"
            )

    def check_takes_adapters(self) -> None:
        """Raises ValueError where nobody knows its blocks of tokens; of a preset once it is `available`."""
        if not self.takes_adapters:
            raise ValueError(
                "train_parts=lora and adaptformer need a frozen net of tokens: a ViT, DeiT, DINOv2, DINOv3, CLIP, "
                f"MetaCLIP 2 or SigLIP of keras_hub. Received: backbone={self.label}"
            )

    def check_text_start(self, class_names: Sequence[str], pretrained: str) -> None:
        """Raises ValueError where no texts can say where a head begins; of a preset once it is `available`."""
        if self.text_tower is None:
            raise ValueError(
                "head_start=text needs a net with a text tower: a CLIP, MetaCLIP 2 or SigLIP of keras_hub. "
                f"Received: backbone={self.label}"
            )
        if pretrained != "imagenet":
            raise ValueError(
                "head_start=text needs both towers as they were trained together: pretrained=imagenet, which is the "
                f"preset's weights. Received: pretrained={pretrained or 'none'}"
            )
        self.text_tower.check(class_names)
