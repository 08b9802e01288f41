"""Speed of training and inference of every backbone, beside the same net in PyTorch."""

import argparse
from collections.abc import Callable, Sequence

import numpy as np

from tools.benchmarks.timing import duration, fastest, use_threads

CLASSES = 1000
SMALL = ("resnet8", "resnet32")  # made for images of 32 pixels
RESNETS = (*SMALL, "resnet10", "resnet50", "resnet101", "resnet152", "resnext50", "resnext101", "resnext152")
NAMES = (*RESNETS, "efficientnet_lite0")
PRECISIONS = ("float32", "bfloat16")

Steps = tuple[Callable[[], object], Callable[[], object]]  # one of training, one of inference


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command line."""
    parser.add_argument("--backbones", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--batch_size", type=int, default=8, help="images")
    parser.add_argument("--image_size", type=int, help="pixels; 224 unless given, for the small nets 32")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--seconds", type=float, default=5.0, help="measured time of each step")
    parser.add_argument(
        "--threads", type=int, default=1, help="of each framework; one is measured in processor time, more in wall time"
    )


def run(arguments: argparse.Namespace) -> None:
    """A table per backbone: forward, backward and update, and inference, in both precisions, without and with XLA."""
    clock = use_threads(arguments.threads)
    threads = "one thread" if arguments.threads == 1 else f"{arguments.threads} threads"
    for name in arguments.backbones:
        size = arguments.image_size or (32 if name in SMALL else 224)
        images = np.random.default_rng(0).standard_normal((arguments.batch_size, size, size, 3)).astype(np.float32)
        print(f"\n{name}, {size}x{size}, batch {arguments.batch_size}, {threads}; ms per image")
        print(f"{'':20}{'first calls':>12}{'training':>11}{'/ PyTorch':>11}{'inference':>11}{'/ PyTorch':>11}")
        steps, first = {}, {}
        for rival, prepare in _rivals(name, images, arguments.precisions).items():
            try:
                steps[rival] = prepare()
            except ImportError as error:
                print(f"{rival:20}{error}")
                continue
            first[rival] = sum(duration(step) for step in steps[rival])  # traces and compiles
        training, inference = (
            fastest({rival: pair[i] for rival, pair in steps.items()}, seconds=arguments.seconds, clock=clock)
            for i in range(2)
        )
        for rival in steps:
            row = f"{rival:20}{first[rival]:10.1f} s"
            for times in (training, inference):
                ratio = times[rival] / times.get(f"PyTorch {rival.split()[1]}", np.nan)
                row += f"{1e3 * times[rival] / len(images):11.2f}{ratio:11.2f}"
            print(row, flush=True)


def _rivals(name: str, images: np.ndarray, precisions: Sequence[str]) -> dict[str, Callable[[], Steps]]:
    """What builds the steps of each rival; the second word of its name is the precision."""
    ours = {
        f"ours {precision}{' XLA' if jit_compile else ''}": lambda precision=precision, jit_compile=jit_compile: (
            _keras_steps(name, images, precision=precision, jit_compile=jit_compile)
        )
        for precision in precisions
        for jit_compile in (False, True)
    }
    theirs = {
        f"PyTorch {precision}": lambda precision=precision: _torch_steps(name, images, precision=precision)
        for precision in precisions
    }
    return theirs | ours  # in this order, see `_torch_steps`


def _keras_steps(name: str, images: np.ndarray, *, precision: str, jit_compile: bool) -> Steps:
    import keras  # noqa: PLC0415 - after `use_threads`
    import tensorflow as tf  # noqa: PLC0415

    from keras_lt import backbones  # noqa: PLC0415
    from keras_lt.forward import forward_pass  # noqa: PLC0415
    from keras_lt.keras_settings import plain_settings  # noqa: PLC0415
    from keras_lt.optimization import CoupledSGD  # noqa: PLC0415

    with plain_settings(dtype_policy="float32" if precision == "float32" else f"mixed_{precision}"):
        backbone = backbones.build(name, image_size=images.shape[1])
        model = keras.Model(backbone.input, keras.layers.Dense(CLASSES, dtype="float32")(backbone.output))
    model.compile(
        CoupledSGD(1e-3, coupled_weight_decay=5e-4),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=jit_compile,
    )
    inputs, labels = tf.constant(images), tf.zeros(len(images), tf.int64)
    infer = model.predict_on_batch if jit_compile else forward_pass(model, images.shape[1:])
    return lambda: model.train_on_batch(inputs, labels), lambda: infer(inputs)


def _torch_steps(name: str, images: np.ndarray, *, precision: str) -> Steps:
    """In the layout that PyTorch is fastest with; on a GPU where there is one, as TensorFlow."""
    import torch  # noqa: PLC0415
    import torch._dynamo  # noqa: PLC0415 - PyTorch for GPUs loads Triton by it, which ends a process that has XLA

    from tools.benchmarks.torch_efficientnet_lite import EfficientNetLite  # noqa: PLC0415
    from tools.benchmarks.torch_resnet import NETS, ResNet  # noqa: PLC0415

    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = ResNet(**NETS[name], classes=CLASSES) if name in RESNETS else EfficientNetLite(classes=CLASSES)
    net = net.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), 1e-3, momentum=0.9, weight_decay=5e-4)
    inputs = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)  # channels last already
    labels = torch.zeros(len(images), dtype=torch.int64, device=device)
    autocast = torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16")

    def training():
        net.train()
        optimizer.zero_grad()
        with autocast:
            logits = net(inputs)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    def inference():
        net.eval()
        with torch.inference_mode(), autocast:
            return net(inputs).float().cpu().numpy()

    return training, inference
