"""The reference's residual nets in PyTorch, with its parameter names: rivals of our backbones, the same net by net."""

from collections.abc import Callable

import torch
from torch import nn


def convolution(channels: int, filters: int, size: int, *, strides: int = 1, groups: int = 1) -> nn.Conv2d:
    """Convolution without bias, padded by half a kernel."""
    return nn.Conv2d(channels, filters, size, strides, size // 2, groups=groups, bias=False)


class Block(nn.Module):
    """A residual block, [B,C,h,w] -> [B,C',h',w'].

    Args:
      layers: (filters, kernel size, strides, groups) of each convolution.
      project: the shortcut is a 1x1 convolution where the shape changes; otherwise pixels left out and zero channels.
    """

    def __init__(self, channels: int, layers: list[tuple[int, int, int, int]], *, project: bool):
        super().__init__()
        self.depth, self.strides = len(layers), max(strides for _, _, strides, _ in layers)
        filters = layers[-1][0]
        self.missing, self.downsample = filters - channels, None
        if project and (self.missing or self.strides > 1):
            projection = convolution(channels, filters, 1, strides=self.strides)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(filters))
        for i, (width, size, strides, groups) in enumerate(layers, 1):
            setattr(self, f"conv{i}", convolution(channels, width, size, strides=strides, groups=groups))
            setattr(self, f"bn{i}", nn.BatchNorm2d(width))
            channels = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The last batch norm meets the shortcut before its ReLU."""
        shortcut = x if self.downsample is None else self.downsample(x)
        if self.downsample is None and self.missing:
            shortcut = x[:, :, :: self.strides, :: self.strides]
            shortcut = nn.functional.pad(shortcut, (0, 0, 0, 0, self.missing // 2, self.missing - self.missing // 2))
        for i in range(1, self.depth):
            x = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x)).relu_()
        x = getattr(self, f"bn{self.depth}")(getattr(self, f"conv{self.depth}")(x))
        return (x + shortcut).relu_()


class ResNet(nn.Module):
    """Images [B,3,H,W] -> features [B,D], or logits [B,classes].

    Args:
      stem: (filters, kernel size, strides) of the first convolution.
      layers: (filters of the stage, strides) -> the layers of a block.
      widths: filters of each stage.
      blocks: blocks of each stage.
      pool: a maximum over 3x3 behind the stem, at stride 2.
    """

    def __init__(
        self,
        *,
        stem: tuple[int, int, int],
        layers: Callable[[int, int], list[tuple[int, int, int, int]]],
        widths: tuple[int, ...],
        blocks: tuple[int, ...],
        pool: bool = True,
        project: bool = True,
        classes: int = 0,
    ):
        super().__init__()
        channels, size, strides = stem
        self.conv1, self.bn1 = convolution(3, channels, size, strides=strides), nn.BatchNorm2d(channels)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if pool else nn.Identity()
        self.stages = [f"layer{stage}" for stage in range(1, len(blocks) + 1)]
        for stage, name in enumerate(self.stages):
            members = []
            for i in range(blocks[stage]):
                own = layers(widths[stage], 2 if stage > 0 and i == 0 else 1)
                members.append(Block(channels, own, project=project))
                channels = own[-1][0]
            setattr(self, name, nn.Sequential(*members))
        self.fc = nn.Linear(channels, classes) if classes else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B,3,H,W] -> [B,D or classes]."""
        x = self.maxpool(self.bn1(self.conv1(x)).relu_())
        for name in self.stages:
            x = getattr(self, name)(x)
        return self.fc(x.mean((2, 3)))


def basic(filters: int, strides: int) -> list[tuple[int, int, int, int]]:
    """Two 3x3 convolutions."""
    return [(filters, 3, strides, 1), (filters, 3, 1, 1)]


def bottleneck(filters: int, strides: int) -> list[tuple[int, int, int, int]]:
    """1x1, 3x3 and 1x1, four times as wide at the end."""
    return [(filters, 1, 1, 1), (filters, 3, strides, 1), (4 * filters, 1, 1, 1)]


def resnext(filters: int, strides: int) -> list[tuple[int, int, int, int]]:
    """The same with 32 groups of 4 channels where `filters` is 64."""
    return [(2 * filters, 1, 1, 1), (2 * filters, 3, strides, 32), (4 * filters, 1, 1, 1)]


_PHOTOGRAPHS = {"stem": (64, 7, 2), "widths": (64, 128, 256, 512)}
_DEEP = {"50": (3, 4, 6, 3), "101": (3, 4, 23, 3), "152": (3, 8, 36, 3)}
NETS = {
    "resnet8": {"stem": (32, 3, 2), "layers": basic, "widths": (32, 64, 128), "blocks": (1, 1, 1), "pool": False},
    "resnet10": {**_PHOTOGRAPHS, "layers": basic, "blocks": (1, 1, 1, 1)},
    "resnet32": {
        "stem": (16, 3, 1),
        "layers": basic,
        "widths": (16, 32, 64),
        "blocks": (5, 5, 5),
        "pool": False,
        "project": False,
    },
    **{f"resnet{depth}": {**_PHOTOGRAPHS, "layers": bottleneck, "blocks": blocks} for depth, blocks in _DEEP.items()},
    **{f"resnext{depth}": {**_PHOTOGRAPHS, "layers": resnext, "blocks": blocks} for depth, blocks in _DEEP.items()},
}
