"""Models to be scored, wherever they come from: images or features in, logits out."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping

import keras
import numpy as np
import tensorflow as tf

from keras_lt.datasets import Split
from keras_lt.files import check_loadable, expanded, reading
from keras_lt.forward import forward_pass
from keras_lt.input_pipeline import evaluation_batches
from keras_lt.preprocessing import NoPreprocessing, Preprocessing
from keras_lt.stages import read_preprocessing

BATCH_SIZE = 256  # images at a time
# Of `serving`, by their argument: those of a model of images, and that of a model of feature vectors.
OF_IMAGES = {"image_bytes": "serving_default", "images": "images"}
OF_FEATURES = {"features": "serving_default"}
ANSWERS = {"logits", "classes"}  # what is read of their answers


@dataclasses.dataclass(frozen=True, eq=False)
class ScoredModel:
    """A model and what goes before it.

    Attributes:
      name: what tables call it.
      logits: a split -> the logits [B, C] of its examples, in batches and in order.
      class_names: [C]; empty where the model does not know them.
    """

    name: str
    logits: Callable[[Split], Iterator[np.ndarray]]
    class_names: tuple[str, ...] = ()


def load_model(
    path: str | os.PathLike, *, preprocessing: Preprocessing | NoPreprocessing | None = None, on_features: bool = False
) -> ScoredModel:
    """A model of a file or folder.

    Args:
      path: a `.keras` file, images or features -> logits, or the folder of a SavedModel that `keras_lt.export` wrote.
      preprocessing: what a `.keras` file of images takes; without it, `preprocessing.json` beside the file.
      on_features: whether what is to be scored are features, and not images.
    Raises:
      FileNotFoundError: there is neither, or no preprocessing.
      ValueError: the file's model does not take what is to be scored, or the SavedModel has other signatures.
    """
    path = expanded(path)
    if (path / "saved_model.pb").exists():
        check_loadable(path)
        return _saved_model(path, OF_FEATURES if on_features else OF_IMAGES)
    if path.suffix != ".keras" or not path.exists():
        raise FileNotFoundError(f"--model must be a .keras file, or a folder with saved_model.pb. Not found: {path}")
    if on_features:
        return _keras_model(path, NoPreprocessing(), takes="features [B, D]", rank=2)
    if preprocessing is None or not preprocessing.image_size:
        preprocessing = _read_preprocessing(path.parent)
    return _keras_model(path, preprocessing, takes="images [B, S, S, 3]", rank=4)


def _read_preprocessing(folder: pathlib.Path) -> Preprocessing | NoPreprocessing:
    path = folder / "preprocessing.json"
    if not path.exists():
        raise FileNotFoundError(
            "A .keras file takes its preprocessing from the run in --workdir, or from preprocessing.json beside it. "
            f"Not found: {path}"
        )
    return read_preprocessing(folder)


def _keras_model(
    path: pathlib.Path, preprocessing: Preprocessing | NoPreprocessing, *, takes: str, rank: int
) -> ScoredModel:
    with reading(path, instead="put back a copy"):
        model = keras.saving.load_model(path, compile=False)
    if len(model.input_shape) != rank or len(model.output_shape) != 2:
        raise ValueError(
            f"--model must take {takes} and give logits [B, C]; --workdir with --classifiers scores a "
            f"classifier of a run. Received: {path}, {model.input_shape} -> {model.output_shape}"
        )

    def logits(split: Split) -> Iterator[np.ndarray]:
        batches = evaluation_batches(split, preprocessing, batch_size=BATCH_SIZE)
        forward = forward_pass(model, tuple(batches.element_spec[0].shape[1:]))
        for examples, _ in batches:
            yield forward(examples)

    return ScoredModel(str(path), logits)


def _saved_model(path: pathlib.Path, expected: Mapping[str, str]) -> ScoredModel:
    """A SavedModel with certain signatures, by their argument; of the last an example is made up."""
    with reading(path, instead="remove it, and python -m keras_lt.export writes it again"):
        loaded = tf.saved_model.load(path)
    _check_signatures(path, loaded.signatures, expected)
    argument, name = list(expected.items())[-1]
    spec = loaded.signatures[name].structured_input_signature[1][argument]
    example = tf.zeros([side or 1 for side in spec.shape], spec.dtype)
    classes = loaded.signatures[name](**{argument: example})["classes"][0]

    def logits(split: Split) -> Iterator[np.ndarray]:
        for start in range(0, len(split), BATCH_SIZE):
            rows = range(start, min(start + BATCH_SIZE, len(split)))
            ((argument, batch),) = split.examples.request(rows).items()
            yield loaded.signatures[expected[argument]](**{argument: batch})["logits"].numpy()

    return ScoredModel(str(path), logits, tuple(name.decode() for name in classes.numpy()))


def _check_signatures(path: pathlib.Path, signatures: Mapping, expected: Mapping[str, str]):
    found, fits = [], []
    for name, function in signatures.items():
        arguments, answers = set(function.structured_input_signature[1]), set(function.structured_outputs)
        found.append(f"{name}({', '.join(sorted(arguments))}) -> {', '.join(sorted(answers))}")
        if any(expected.get(argument) == name for argument in arguments) and answers >= ANSWERS:
            fits.append(name)
    if len(fits) < len(expected):
        wanted = ", ".join(f"{name}({argument})" for argument, name in expected.items())
        of = "images" if expected is OF_IMAGES else "feature vectors"
        raise ValueError(
            f"A SavedModel of {of} must have the signatures that keras_lt.export writes, {wanted}, which answer with "
            f"{' and '.join(sorted(ANSWERS))} among others. Received: {path} with {'; '.join(found) or 'none'}"
        )
