"""PyTorch's files of tensors, read without PyTorch and without running what they hold."""

import collections
import io
import math
import os
import pickle
from typing import NamedTuple

import numpy as np

from keras_lt.files import expanded

_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of such a file
_DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
}


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
