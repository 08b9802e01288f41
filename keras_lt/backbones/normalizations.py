"""What nets expect of their images."""

import dataclasses
from typing import Literal


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
