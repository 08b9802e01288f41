"""EfficientNet-Lite0 in PyTorch, the rival of our backbone of that name."""

import torch
from torch import nn

from keras_lt.backbones.efficientnet_lite import STAGES


def convolution(channels: int, filters: int, size: int, *, strides: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution and its batch norm.

    It is padded by half a kernel, on each side as much, which is quicker than TensorFlow's way for strides of 2 and
    images of an even size, and the same otherwise.
    """
    return [
        nn.Conv2d(channels, filters, size, strides, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(filters, eps=1e-3, momentum=0.01),
    ]


class Block(nn.Module):
    """An inverted bottleneck, [B,C,h,w] -> [B,C',h',w']."""

    def __init__(self, channels: int, filters: int, *, size: int, strides: int, expansion: int):
        super().__init__()
        width = channels * expansion
        widened = [*convolution(channels, width, 1), nn.ReLU6(inplace=True)] if expansion > 1 else []
        self.layers = nn.Sequential(
            *widened,
            *convolution(width, width, size, strides=strides, groups=width),
            nn.ReLU6(inplace=True),
            *convolution(width, filters, 1),
        )
        self.alike = strides == 1 and channels == filters

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The shortcut is there where the shape stays."""
        return x + self.layers(x) if self.alike else self.layers(x)


class EfficientNetLite(nn.Module):
    """Images [B,3,H,W] -> features [B,1280], or logits [B,classes]."""

    def __init__(self, *, classes: int = 0):
        super().__init__()
        layers = [*convolution(3, 32, 3, strides=2), nn.ReLU6(inplace=True)]
        channels = 32
        for blocks, size, strides, expansion, filters in STAGES:
            for block in range(blocks):
                own = {"size": size, "strides": 1 if block else strides, "expansion": expansion}
                layers.append(Block(channels, filters, **own))
                channels = filters
        self.layers = nn.Sequential(*layers, *convolution(channels, 1280, 1), nn.ReLU6(inplace=True))
        self.fc = nn.Linear(1280, classes) if classes else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B,3,H,W] -> [B,1280 or classes]."""
        return self.fc(self.layers(x).mean((2, 3)))
