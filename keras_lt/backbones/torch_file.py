"""PyTorch's files of tensors, read without PyTorch and without running what they hold."""

import collections
import os
import pickle
from typing import BinaryIO, NamedTuple

import numpy as np

from keras_lt.files import expanded

_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
}


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    size: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_tensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The tensors of a state dict by name, of a file as `torch.save` wrote them before its version 1.6.

    Such a file is a row of pickles, which may name any function to call; here they may name tensors and nothing else.

    Raises:
      ValueError: the file is none, holds something else than tensors, or is cut short.
    """
    try:
        with expanded(path).open("rb") as file:
            if _Tensors(_Bounded(file)).load() != _MAGIC:
                raise pickle.UnpicklingError("it does not begin as one")
            for _ in range(2):  # the protocol's version and the machine, which is little-endian as all are today
                _Tensors(_Bounded(file)).load()
            state = _Tensors(_Bounded(file)).load()
            keys = _Tensors(_Bounded(file)).load()
            if not isinstance(state, dict) or not all(isinstance(value, _Tensor) for value in state.values()):
                raise pickle.UnpicklingError("it holds more than tensors by name")
            sizes = {tensor.storage.key: tensor.storage for tensor in state.values()}
            storages = {key: _read_storage(file, sizes[key]) for key in keys}
            return {name: _array(tensor, storages[tensor.storage.key]) for name, tensor in state.items()}
    except (pickle.UnpicklingError, EOFError, KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"Expected a file of tensors by name, as PyTorch wrote them. Received: {path}: {error}"
        ) from error


class _Bounded:
    """A file for one pickle, which does not read on into what follows it."""

    def __init__(self, file: BinaryIO):
        self.read, self.readline = file.read, file.readline


class _Tensors(pickle.Unpickler):
    """Unpickles containers, numbers, words and tensors."""

    def find_class(self, module: str, name: str):
        """The few names that a state dict needs."""
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuilt
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise pickle.UnpicklingError(f"it calls {module}.{name}, which no tensor does")

    def persistent_load(self, pid):
        """What stands for the numbers of a tensor, which come after the pickles."""
        kind, dtype, key, _, size, view = pid
        if kind != "storage" or view is not None or not isinstance(dtype, np.dtype):
            raise pickle.UnpicklingError("it refers to something that is no tensor's")
        return _Storage(str(key), dtype, int(size))


def _rebuilt(storage, offset, shape, strides, *_) -> _Tensor:
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _read_storage(file: BinaryIO, storage: _Storage) -> np.ndarray:
    """A count of numbers, then these."""
    (count,) = np.frombuffer(file.read(8), "<i8")
    numbers = file.read(storage.size * storage.dtype.itemsize)
    if count != storage.size or len(numbers) < storage.size * storage.dtype.itemsize:
        raise EOFError("it is cut short")
    return np.frombuffer(numbers, storage.dtype)


def _array(tensor: _Tensor, numbers: np.ndarray) -> np.ndarray:
    """A tensor of the numbers of its storage, which it may take in another order than they lie."""
    steps = list(zip(tensor.shape, tensor.strides, strict=True))
    last = tensor.offset + sum((size - 1) * stride for size, stride in steps)
    if min((tensor.offset, *tensor.shape, *tensor.strides), default=0) < 0 or last >= numbers.size:
        raise ValueError("a tensor does not lie in its storage")
    strides = [stride * numbers.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, strides, writeable=False).copy()
