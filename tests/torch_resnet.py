"""PyTorch twins of our backbones, with random weights: the nets that the benchmarks compare with."""

import torch

from tools.benchmarks.torch_resnet import NETS, ResNet


def resnet10(classes=0):
    return ResNet(**NETS["resnet10"], classes=classes)


def resnext14(classes=0):
    return ResNet(**{**NETS["resnext50"], "blocks": (1, 1, 1, 1)}, classes=classes)


def resnet32(classes=0):
    return ResNet(**NETS["resnet32"], classes=classes)


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
