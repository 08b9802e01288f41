"""Residual nets in PyTorch with the reference's parameter names, which are torchvision's: twins of our backbones."""

import torch
from torch import nn


class ZeroPadded(nn.Module):
    """Every `strides`-th pixel between channels of zeros."""

    def __init__(self, missing, strides):
        super().__init__()
        self.missing, self.strides = missing, strides

    def forward(self, x):
        channels = (self.missing // 2, self.missing - self.missing // 2)
        return nn.functional.pad(x[:, :, :: self.strides, :: self.strides], (0, 0, 0, 0, *channels))


class Block(nn.Module):
    """Convolutions with batch norm, around a shortcut."""

    def __init__(self, convolutions, shortcut):
        super().__init__()
        self.names = [(f"conv{number}", f"bn{number}") for number in range(1, len(convolutions) + 1)]
        for (conv, bn), convolution in zip(self.names, convolutions, strict=True):
            self.add_module(conv, convolution)
            self.add_module(bn, nn.BatchNorm2d(convolution.out_channels))
        self.downsample = shortcut

    def forward(self, x):
        shortcut = self.downsample(x)
        for conv, bn in self.names:
            x = getattr(self, bn)(getattr(self, conv)(x))
            x = torch.relu(x + shortcut if bn == self.names[-1][1] else x)
        return x


class ResNet(nn.Module):
    """Images [B,3,H,W] -> features [B,D], or logits [B,classes]; `block` is (inputs, filters, strides) -> Block."""

    def __init__(self, blocks, filters, block, *, photographs, classes=0):
        super().__init__()
        self.conv1 = convolution(3, filters[0], 7, strides=2) if photographs else convolution(3, filters[0], 3)
        self.bn1 = nn.BatchNorm2d(filters[0])
        self.maxpool = nn.MaxPool2d(3, 2, padding=1) if photographs else nn.Identity()
        width = filters[0]
        self.stages = [f"layer{stage}" for stage in range(1, len(blocks) + 1)]
        for stage, name in enumerate(self.stages):
            members = []
            for i in range(blocks[stage]):
                members.append(block(width, filters[stage], 2 if i == 0 and stage > 0 else 1))
                width = getattr(members[-1], members[-1].names[-1][0]).out_channels
            self.add_module(name, nn.Sequential(*members))
        self.fc = nn.Linear(width, classes) if classes else nn.Identity()

    def forward(self, x):
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for name in self.stages:
            x = getattr(self, name)(x)
        return self.fc(x.mean((2, 3)))


def convolution(inputs, filters, size, *, strides=1, groups=1):
    return nn.Conv2d(inputs, filters, size, strides, padding=size // 2, groups=groups, bias=False)


def projection(inputs, filters, strides):
    if strides == 1 and inputs == filters:
        return nn.Identity()
    return nn.Sequential(convolution(inputs, filters, 1, strides=strides), nn.BatchNorm2d(filters))


def basic(inputs, filters, strides):
    convolutions = [convolution(inputs, filters, 3, strides=strides), convolution(filters, filters, 3)]
    return Block(convolutions, projection(inputs, filters, strides))


def zero_padded(inputs, filters, strides):
    convolutions = [convolution(inputs, filters, 3, strides=strides), convolution(filters, filters, 3)]
    return Block(convolutions, ZeroPadded(filters - inputs, strides))


def resnext_bottleneck(inputs, filters, strides):
    width = 2 * filters  # 32 groups of 4 in the first stage, where filters = 64
    convolutions = [
        convolution(inputs, width, 1),
        convolution(width, width, 3, strides=strides, groups=32),
        convolution(width, 4 * filters, 1),
    ]
    return Block(convolutions, projection(inputs, 4 * filters, strides))


def resnet10(classes=0):
    return ResNet((1, 1, 1, 1), (64, 128, 256, 512), basic, photographs=True, classes=classes)


def resnext14(classes=0):
    return ResNet((1, 1, 1, 1), (64, 128, 256, 512), resnext_bottleneck, photographs=True, classes=classes)


def resnet32(classes=0):
    return ResNet((5, 5, 5), (16, 32, 64), zero_padded, photographs=False, classes=classes)


def drawn(net, *, seed=0):
    """The net with random parameters and statistics, so that no two channels are alike."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if tensor.ndim == 4:
                tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
            elif tensor.ndim == 1 and name.endswith(("weight", "running_var")):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.is_floating_point():
                tensor.normal_(0, 0.1, generator=generator)
    return net
