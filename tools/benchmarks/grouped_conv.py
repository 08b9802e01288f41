"""Speed of ResNeXt's grouped convolutions."""

import argparse
from collections.abc import Callable

import numpy as np

from tools.benchmarks.timing import duration, use_threads


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command line."""
    parser.add_argument("--batch_size", type=int, default=8, help="images")
    parser.add_argument("--steps", type=int, default=10, help="repetitions; the best counts")


def run(arguments: argparse.Namespace) -> None:
    """Forward and backward of ResNeXt-50's grouped convolutions: Keras's layer, ours and PyTorch's."""
    clock = use_threads(1)
    print(
        f"32 groups, 3x3, batch {arguments.batch_size}, float32, one thread; ms per forward and backward, "
        f"best of {arguments.steps}"
    )
    rivals = {
        "keras Conv2D": lambda *shape: _keras_step(*shape, ours=False, jit_compile=False),
        "ours": lambda *shape: _keras_step(*shape, ours=True, jit_compile=False),
        "ours, XLA": lambda *shape: _keras_step(*shape, ours=True, jit_compile=True),
        "PyTorch": _torch_step,
    }
    print(f"{'':14}" + "".join(f"{name:>14}" for name in rivals) + f"{'Keras / ours':>14}{'ours / PyTorch':>16}")
    for side, channels in ((56, 128), (28, 256), (14, 512), (7, 1024)):
        times = {}
        for name, prepare in rivals.items():
            try:
                step = prepare(arguments.batch_size, side, channels)
            except ImportError:
                times[name] = np.nan
                continue
            step()  # traces and compiles
            # Keras's takes seconds, and nothing to gain from repeating them.
            times[name] = min(duration(step, clock) for _ in range(1 if name == "keras Conv2D" else arguments.steps))
        row = "".join(f"{1e3 * seconds:14.1f}" for seconds in times.values())
        speedup, ratio = times["keras Conv2D"] / times["ours"], times["ours"] / times["PyTorch"]
        print(f"{f'{side}x{side}x{channels}':14}{row}{speedup:14.0f}{ratio:16.2f}", flush=True)


def _keras_step(batch_size: int, side: int, channels: int, *, ours: bool, jit_compile: bool) -> Callable[[], object]:
    """One forward and backward pass of a grouped convolution on TensorFlow, by images and kernel."""
    import keras  # noqa: PLC0415 - after `use_threads`
    import tensorflow as tf  # noqa: PLC0415

    from keras_lt.backbones.fast_layers import GroupedConv2D  # noqa: PLC0415

    layer_class = GroupedConv2D if ours else keras.layers.Conv2D
    layer = layer_class(channels, 3, padding="same", groups=32, use_bias=False)
    images = tf.random.stateless_normal((batch_size, side, side, channels), seed=(0, 0))
    layer.build(images.shape)

    @tf.function(jit_compile=jit_compile)
    def step(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = tf.reduce_sum(layer(images) ** 2)
        return tape.gradient(loss, [images, layer.kernel.value])

    return lambda: [gradient.numpy() for gradient in step(images)]


def _torch_step(batch_size: int, side: int, channels: int) -> Callable[[], object]:
    """The same on PyTorch, in the layout it is fastest with."""
    import torch  # noqa: PLC0415

    layer = torch.nn.Conv2d(channels, channels, 3, padding=1, groups=32, bias=False)
    layer = layer.to(memory_format=torch.channels_last)
    images = torch.randn(batch_size, channels, side, side).to(memory_format=torch.channels_last).requires_grad_()

    def step():
        return torch.autograd.grad((layer(images) ** 2).sum(), [images, layer.weight])

    return step
