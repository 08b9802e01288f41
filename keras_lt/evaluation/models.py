"""Models to be scored, wherever they come from: images in, logits out."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping

import keras
import numpy as np
import tensorflow as tf

from keras_lt.datasets import Split
from keras_lt.files import expanded
from keras_lt.input_pipeline import evaluation_batches
from keras_lt.preprocessing import Preprocessing
from keras_lt.stages import read_preprocessing

BATCH_SIZE = 256  # images at a time
SIGNATURES = {"image_bytes": "serving_default", "images": "images"}  # of `serving`, by their argument
ANSWERS = {"logits", "classes"}  # what is read of their answers


@dataclasses.dataclass(frozen=True, eq=False)
class ScoredModel:
    """A model and what goes before it.

    Attributes:
      name: what tables call it.
      logits: a split -> the logits [B, C] of its images, in batches and in order.
      class_names: [C]; empty where the model does not know them.
    """

    name: str
    logits: Callable[[Split], Iterator[np.ndarray]]
    class_names: tuple[str, ...] = ()


def load_model(path: str | os.PathLike, *, preprocessing: Preprocessing | None = None) -> ScoredModel:
    """A model of a file or folder.

    Args:
      path: a `.keras` file, images -> logits, or the folder of a SavedModel that `keras_lt.export` wrote.
      preprocessing: what a `.keras` file takes; without it, `preprocessing.json` beside the file.
    Raises:
      FileNotFoundError: there is neither, or no preprocessing.
      ValueError: the file's model is not images -> logits, or the SavedModel has other signatures.
    """
    path = expanded(path)
    if (path / "saved_model.pb").exists():
        return _saved_model(path)
    if path.suffix != ".keras" or not path.exists():
        raise FileNotFoundError(f"--model must be a .keras file, or a folder with saved_model.pb. Not found: {path}")
    return _keras_model(path, preprocessing or _read_preprocessing(path.parent))


def _read_preprocessing(folder: pathlib.Path) -> Preprocessing:
    path = folder / "preprocessing.json"
    if not path.exists():
        raise FileNotFoundError(
            "A .keras file takes its preprocessing from the run in --workdir, or from preprocessing.json beside it. "
            f"Not found: {path}"
        )
    return read_preprocessing(folder)


def _keras_model(path: pathlib.Path, preprocessing: Preprocessing) -> ScoredModel:
    model = keras.saving.load_model(path, compile=False)
    if len(model.input_shape) != 4 or len(model.output_shape) != 2:
        raise ValueError(
            "--model must take images [B, S, S, 3] and give logits [B, C]; --workdir with --classifiers scores a "
            f"classifier of a run. Received: {path}, {model.input_shape} -> {model.output_shape}"
        )

    def logits(split: Split) -> Iterator[np.ndarray]:
        for images, _ in evaluation_batches(split, preprocessing, batch_size=BATCH_SIZE):
            yield model.predict_on_batch(images.numpy())

    return ScoredModel(str(path), logits)


def _saved_model(path: pathlib.Path) -> ScoredModel:
    loaded = tf.saved_model.load(path)
    _check_signatures(path, loaded.signatures)
    classes = loaded.signatures["images"](images=tf.zeros((1, 1, 1, 3), tf.uint8))["classes"][0]

    def logits(split: Split) -> Iterator[np.ndarray]:
        for start in range(0, len(split), BATCH_SIZE):
            rows = range(start, min(start + BATCH_SIZE, len(split)))
            ((argument, batch),) = split.examples.request(rows).items()
            yield loaded.signatures[SIGNATURES[argument]](**{argument: batch})["logits"].numpy()

    return ScoredModel(str(path), logits, tuple(name.decode() for name in classes.numpy()))


def _check_signatures(path: pathlib.Path, signatures: Mapping):
    found, fits = [], []
    for name, function in signatures.items():
        arguments, answers = set(function.structured_input_signature[1]), set(function.structured_outputs)
        found.append(f"{name}({', '.join(sorted(arguments))}) -> {', '.join(sorted(answers))}")
        if any(SIGNATURES.get(argument) == name for argument in arguments) and answers >= ANSWERS:
            fits.append(name)
    if len(fits) < len(SIGNATURES):
        expected = ", ".join(f"{name}({argument})" for argument, name in SIGNATURES.items())
        raise ValueError(
            f"A SavedModel must have the signatures that keras_lt.export writes, {expected}, which answer with "
            f"{' and '.join(sorted(ANSWERS))} among others. Received: {path} with {'; '.join(found) or 'none'}"
        )
