"""Weights from a file of the same network; those of another are refused."""

import collections
import io
import zipfile
from collections.abc import Iterator

import h5py
import keras

KINDS = ".weights.h5, .h5 or .keras"


def load_weights(model: keras.Model, path: str):
    """Loads weights that Keras saved of this net, as `.weights.h5`, `.h5` or `.keras`.

    Keras leaves aside what a file holds too much, so that our ResNet-50 takes a ResNet-101: the shapes are compared
    first.

    Raises:
      ValueError: the file is of another kind or damaged, or holds the weights of another net.
    """
    own = collections.Counter(
        tuple(weight.shape) for weight in model.weights if keras.backend.is_float_dtype(weight.dtype)
    )
    try:
        saved = collections.Counter(_shapes(path))
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"pretrained must be a whole {KINDS} file. Received: {path}: {error}") from error
    differing = sorted(shape for shape in own | saved if own[shape] != saved[shape])
    if differing:
        some = ", ".join(f"{saved[shape]} of shape {shape} instead of {own[shape]}" for shape in differing[:3])
        more = f" and {len(differing) - 3} such differences more" if len(differing) > 3 else ""
        raise ValueError(f"pretrained must hold the weights of {model.name}. Received: {path} with {some}{more}")
    model.load_weights(path)


def _shapes(path: str) -> Iterator[tuple[int, ...]]:
    """The shapes of a net's arrays in a file; the optimizer's, counts and seeds are none of them."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            file = io.BytesIO(archive.read("model.weights.h5"))
    elif h5py.is_hdf5(path):
        file = path
    else:
        raise ValueError(f"pretrained must be a {KINDS} file. Received: {path}, which has something else in it")
    with h5py.File(file, "r") as groups:
        datasets = []
        for name, group in groups.items():
            if name not in ("optimizer", "optimizer_weights"):
                group.visititems(lambda _, item: datasets.append(item) if isinstance(item, h5py.Dataset) else None)
        yield from (dataset.shape for dataset in datasets if dataset.dtype.kind == "f")
