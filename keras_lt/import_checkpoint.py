"""Takes a PyTorch checkpoint over: as the representation of a work folder, or as weights to begin with.

    python -m keras_lt.import_checkpoint --checkpoint=X.pth --backbone=resnext50 --output=runs/imported
    python -m keras_lt.train --flagfile=flags/imagenet_lt.cfg --data_dir=/data/imagenet --workdir=runs/imported

It reads the reference's checkpoints, and state dicts of the same net with torchvision's names, which are the same. An
output ending in `.weights.h5` gets the backbone alone, for `--pretrained`; any other is a work folder, whose stage one
is then done, and needs the classifier too.
"""

import argparse
import pathlib
from collections.abc import Mapping, Sequence

from keras_lt.command import Arguments, launch, part, plain_errors, quietly
from keras_lt.extras import library
from keras_lt.files import expanded
from keras_lt.registry import names_in

WEIGHTS = ".weights.h5"


def parser() -> Arguments:
    """The command's own flags."""
    own = Arguments(__doc__.splitlines()[0])
    nets = names_in("backbones/__init__.py", "BACKBONES")
    augmentations = names_in("preprocessing/augmentations.py", "AUGMENTATIONS")
    own.add_argument("--checkpoint", type=expanded, required=True, help="PyTorch file")
    own.add_argument("--backbone", choices=nets, required=True, help="network that the checkpoint is of")
    own.add_argument("--output", type=expanded, required=True, help=f"folder to make, or a file *{WEIGHTS}")
    images = own.add_argument_group("what images go through, kept in the work folder")
    images.add_argument("--image_size", type=int, default=224, help="pixels")
    images.add_argument("--mean", type=_rgb, default="0.485,0.456,0.406", help="of red,green,blue in [0, 1]")
    images.add_argument("--std", type=_rgb, default="0.229,0.224,0.225", help="of red,green,blue in [0, 1]")
    images.add_argument("--augmentation", choices=augmentations, default="imagenet", help="in training")
    return own


def _rgb(text: str) -> tuple[float, float, float]:
    try:
        red, green, blue = map(float, text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be red,green,blue. Received: {text}") from error
    return red, green, blue


with quietly(__name__, lambda: parser().parse_args()):
    import keras
    import numpy as np

    from keras_lt import backbones
    from keras_lt.classifiers import fresh_dense
    from keras_lt.datasets import LongTailed
    from keras_lt.files import atomic, check_own
    from keras_lt.preprocessing import Preprocessing
    from keras_lt.stages import Representation, join
    from keras_lt.work_folder import WorkFolder

Parameters = dict[str, np.ndarray]


def read_checkpoint(path: pathlib.Path) -> tuple[Parameters, Parameters]:
    """The parameters of the backbone and of the classifier, by name; the second is empty where there is none.

    Raises:
      ImportError: PyTorch is not installed.
      OSError, ValueError: the file cannot be read without running code in it, or holds no state dict.
    """
    content = _load(path)
    try:
        # The reference keeps its best epoch in the first; the second is its latest, and how others wrap a state dict.
        state = content.get("state_dict_best", content.get("state_dict", content))
        backbone, classifier = _arrays(state.get("feat_model", state)), _arrays(state.get("classifier", {}))
    except AttributeError as error:
        received = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        raise ValueError(
            "--checkpoint must hold a state dict, alone or under state_dict, or the reference's feat_model and "
            f"classifier under state_dict_best. Received: {path} with {received}"
        ) from error
    classifier |= {name: backbone.pop(name) for name in list(backbone) if name.startswith("fc.")}
    return backbone, classifier


def _load(path: pathlib.Path):
    torch = library("torch", extra="torch", needed_by="A PyTorch checkpoint")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # which one depends on the bytes
        reason = error.__context__ or error  # around it PyTorch advises to run the code
        raise ValueError(
            "--checkpoint must be a file that torch.save wrote, of tensors alone: what could run code is refused. "
            f"Received: {path}: {type(reason).__name__}: {str(reason).partition('. ')[0]}"
        ) from error


def _arrays(tensors: Mapping) -> Parameters:
    """As NumPy, without the "module." that DataParallel puts before every name."""
    return {name.removeprefix("module."): tensor.detach().float().numpy() for name, tensor in tensors.items()}


def dense_weights(classifier: Parameters, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Kernel [D, C] and bias [C] of a classifier `fc` on features of width D.

    Raises:
      ValueError: it is no such classifier.
    """
    if set(classifier) != {"fc.weight", "fc.bias"}:
        raise ValueError(
            "A work folder needs stage one's dense classifier, fc.weight and fc.bias, in the checkpoint; for the "
            f"backbone alone give --output=<name>{WEIGHTS}. Received: {', '.join(sorted(classifier)) or 'none'}"
        )
    kernel, bias = classifier["fc.weight"].T, classifier["fc.bias"]
    if kernel.shape != (width, *bias.shape):
        raise ValueError(
            f"fc.weight must be [C, {width}] and fc.bias [C] on this backbone. "
            f"Received: {classifier['fc.weight'].shape} and {bias.shape}"
        )
    return kernel, bias


def import_weights(checkpoint: pathlib.Path, *, backbone: str, output: pathlib.Path) -> None:
    """Writes the backbone of a checkpoint as a file for `--pretrained`."""
    network, _ = _read(checkpoint, backbone, image_size=None)
    with atomic(output) as scratch:
        network.save_weights(scratch)


def import_representation(
    checkpoint: pathlib.Path, *, backbone: str, preprocessing: Preprocessing, output: pathlib.Path
) -> None:
    """Makes a work folder of a checkpoint, its representation done."""
    network, classifier = _read(checkpoint, backbone, image_size=preprocessing.image_size)
    kernel, bias = dense_weights(classifier, network.output_shape[-1])
    dense = fresh_dense(*kernel.shape, seed=0)
    dense.set_weights([kernel, bias])
    network.name, dense.name = "backbone", "classifier"
    with atomic(WorkFolder(output).representation_folder) as scratch:
        Representation(join(network, dense), preprocessing, history=[]).save(scratch)


def _read(checkpoint: pathlib.Path, backbone: str, *, image_size: int | None) -> tuple[keras.Model, Parameters]:
    """The backbone with a checkpoint's weights, and the classifier's parameters."""
    with part(f"Reading {checkpoint}"):
        parameters, classifier = read_checkpoint(checkpoint)
        shapes = ", ".join(f"{name} {array.shape}" for name, array in classifier.items())
        print(f"backbone of {len(parameters)} tensors, classifier: {shapes or 'none'}")
    with part(f"Building {backbone}"):
        network = backbones.build(backbone, image_size=image_size)
        backbones.load_torch_state(network, parameters)
    return network, classifier


def main(command_line: Sequence[str] | None = None) -> None:
    """Runs the command."""
    arguments = parser().parse_args(command_line)
    source = {"checkpoint": arguments.checkpoint, "backbone": arguments.backbone}
    output = arguments.output
    as_weights = output.name.endswith(WEIGHTS)
    with plain_errors():
        made = output if as_weights else WorkFolder(output).representation_folder
        if made.exists():
            raise ValueError(f"--output must be new. Received: {made}, which exists")
        check_own(made, WEIGHTS)  # refuses what is no place for it
        if not arguments.checkpoint.is_file():
            raise ValueError(f"--checkpoint must be a file that torch.save wrote. Not found: {arguments.checkpoint}")
        if as_weights:
            import_weights(**source, output=output)
        else:
            preprocessing = Preprocessing(
                image_size=arguments.image_size,
                mean=arguments.mean,
                std=arguments.std,
                crop_fraction=LongTailed.crop_fraction,
                augmentation=arguments.augmentation,
            )
            import_representation(**source, preprocessing=preprocessing, output=output)
    goes_on = f"--pretrained={output}" if as_weights else f"--workdir={output}"
    print(
        f"\nWritten: {made}\n"
        f"Next:    python -m keras_lt.train {goes_on} --backbone={arguments.backbone} --dataset=... --data_dir=..."
    )


if __name__ == "__main__":
    launch(main)
