"""Files of weights: Keras's own, arrays by PyTorch's names, and PyTorch's files read without it."""

import collections
import io
import math
import os
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import h5py
import keras
import numpy as np

from keras_lt.arguments import as_numbers, checked
from keras_lt.files import expanded

KINDS = ".weights.h5, .h5 or .keras"
SHOWN = 10  # of the names that do not fit
_BATCH_NORM_VARIABLES = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of PyTorch's files before its version 1.6
_DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
}


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


@checked
def load_torch_state(model: keras.Model, state: Mapping[str, np.ndarray]) -> None:
    """Assigns the reference's parameters to one of `BACKBONES`, all of them or none.

    Args:
      model: a residual net, fresh or trained.
      state: `layer1.0.conv1.weight` and so on -> array, convolutions as [out, in / groups, kh, kw]. Step counts
        (`num_batches_tracked`) are ignored.
    Raises:
      ValueError: names are unknown or missing, or shapes differ; lists them.
    """
    variables = dict(_named_variables(model))
    arrays = {
        name: _keras_layout(as_numbers(name, array))
        for name, array in state.items()
        if name.rpartition(".")[2] != "num_batches_tracked"
    }
    problems = [f"{name} is unknown" for name in arrays.keys() - variables.keys()]
    problems += [f"{name} is missing" for name in variables.keys() - arrays.keys()]
    problems += [
        f"{name} has shape {arrays[name].shape} in Keras layout instead of {tuple(variables[name].shape)}"
        for name in arrays.keys() & variables.keys()
        if arrays[name].shape != tuple(variables[name].shape)
    ]
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise ValueError(f"state must fit {model.name} exactly. Received: {'; '.join(sorted(problems)[:SHOWN])}{more}")
    for name, variable in variables.items():
        variable.assign(arrays[name])


def _keras_layout(array: np.ndarray) -> np.ndarray:
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def _named_variables(model: keras.Model) -> Iterator[tuple[str, keras.Variable]]:
    for layer in model.layers:
        name = layer.name.replace("_", ".")
        if isinstance(layer, keras.Model):
            yield from _named_variables(layer)
        elif isinstance(layer, keras.layers.Conv2D):
            yield f"{name}.weight", layer.kernel
        elif isinstance(layer, keras.layers.BatchNormalization):
            for theirs, ours in _BATCH_NORM_VARIABLES.items():
                yield f"{name}.{theirs}", getattr(layer, ours)


class _Storage(NamedTuple):
    """Numbers that one or several tensors are views of."""

    key: str
    dtype: np.dtype
    size: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in numbers


def read_tensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The tensors of a state dict by name, of a file as `torch.save` wrote them before its version 1.6.

    Such a file is a row of pickles, which may name any function to call; here they may name tensors and nothing else.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is another kind of file, holds something else than tensors, or is cut short.
    """
    file = io.BytesIO(expanded(path).read_bytes())
    try:
        # Beside the state: the protocol's version and the machine, which is little-endian as all are today.
        magic, _, _, state, keys = (_TensorUnpickler(file).load() for _ in range(5))
        if magic != _MAGIC or not all(isinstance(tensor, _Tensor) for tensor in state.values()):
            raise pickle.UnpicklingError("it holds something else than tensors by name")
        storages = {tensor.storage.key: tensor.storage for tensor in state.values()}
        numbers = {key: _read_numbers(file, storages[key]) for key in keys}
        return {name: _array(tensor, numbers[tensor.storage.key]) for name, tensor in state.items()}
    except Exception as error:  # a broken pickle raises nearly anything
        raise ValueError(
            "Expected a file of tensors by name as PyTorch wrote them before its version 1.6. "
            f"Received: {path}: {error}"
        ) from error


class _TensorUnpickler(pickle.Unpickler):
    """Unpickles containers, numbers, words and tensors only."""

    def find_class(self, module: str, name: str):
        """The few names that a state dict needs."""
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._rebuilt
        if module == "torch" and name in _DTYPES:
            return name  # a word cannot be called, nor changed
        raise pickle.UnpicklingError(f"it calls {module}.{name}, which no tensor does")

    def persistent_load(self, pid):
        """What stands for the numbers of a tensor, which come after the pickles."""
        kind, storage, key, _, size, view = pid
        if kind != "storage" or view is not None:
            raise pickle.UnpicklingError("it refers to something else than a tensor's numbers")
        return _Storage(str(key), _DTYPES[storage], int(size))

    def _rebuilt(self, storage, offset, shape, strides, *_) -> _Tensor:
        return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _read_numbers(file: io.BytesIO, storage: _Storage) -> np.ndarray:
    """A count, then so many numbers."""
    count = int.from_bytes(file.read(8), "little")
    if count != storage.size:
        raise ValueError(f"{storage.size} numbers are expected where {count} begin")
    encoded = file.read(count * storage.dtype.itemsize)
    if len(encoded) < count * storage.dtype.itemsize:
        raise ValueError("it is cut short")
    return np.frombuffer(encoded, storage.dtype)


def _array(tensor: _Tensor, numbers: np.ndarray) -> np.ndarray:
    """A copy of a tensor, whose numbers may lie in another order than its own."""
    steps = list(zip(tensor.shape, tensor.strides, strict=True))
    last = tensor.offset + sum((size - 1) * stride for size, stride in steps)
    if (
        min((tensor.offset, *tensor.shape, *tensor.strides)) < 0
        or last >= numbers.size
        or math.prod(tensor.shape) > numbers.size  # strides of 0 would make any size of a few numbers
    ):
        raise ValueError("a tensor does not lie within its numbers")
    strides = [stride * numbers.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, strides, writeable=False).copy()
