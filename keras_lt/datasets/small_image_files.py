"""Readers of the files that CIFAR (pickles), MNIST and Fashion-MNIST (idx) are published as."""

import codecs
import gzip
import io
import math
import pathlib
import pickle
import zlib

import numpy as np

CIFAR_SIDE = 32  # pixels
IDX_FILES = (
    ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
)
UNSIGNED_BYTES = 8  # idx's code for them

Arrays = tuple[np.ndarray, np.ndarray]  # images, labels


def read_cifar(folder: pathlib.Path, batches: tuple[list[str], ...], *, labels_key: bytes) -> list[Arrays]:
    """Reads splits that are each a list of pickled batches: (images uint8 [N, 32, 32, 3], labels [N]) per split.

    Args:
      folder: the unpacked archive's.
      batches: file names per split.
      labels_key: of the labels in a batch.

    Raises:
      FileNotFoundError: a batch is missing.
      ValueError: a file is not such a batch.
    """
    missing = [str(folder / name) for split in batches for name in split if not (folder / name).exists()]
    if missing:
        raise FileNotFoundError(
            f"Expected the unpacked 'python version' of CIFAR (cs.toronto.edu/~kriz/cifar.html), {folder.name}/, in "
            f"--data_dir; without --data_dir it is downloaded. Not found: {', '.join(missing)}"
        )
    splits = []
    for names in batches:
        images, labels = zip(*(_read_batch(folder / name, labels_key) for name in names), strict=True)
        splits.append((np.concatenate(images), np.concatenate(labels)))
    return splits


def _read_batch(path: pathlib.Path, labels_key: bytes) -> Arrays:
    encoded = path.read_bytes()
    try:
        batch = _CifarUnpickler(io.BytesIO(encoded), encoding="bytes").load()
        planes, labels = np.asarray(batch[b"data"], np.uint8), np.asarray(batch[labels_key], np.int64)
        return planes.reshape(-1, 3, CIFAR_SIDE, CIFAR_SIDE).transpose(0, 2, 3, 1), labels
    except Exception as error:  # a broken pickle raises nearly anything
        raise ValueError(
            f"Expected a batch of CIFAR: a pickled dict with b'data' and {labels_key}. Received: {path}: {error}"
        ) from error


class _CifarUnpickler(pickle.Unpickler):
    """Unpickles containers, numbers, bytes and arrays only: a pickle from the network may name any function to call."""

    def find_class(self, module: str, name: str):
        """The few callables that a pickled array needs, Python 2's and 3's; their home moved in NumPy 2."""
        module = module.replace("numpy._core", "numpy.core")
        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
            ("numpy.core.numeric", "_frombuffer"): np.empty(0).__reduce_ex__(5)[0],
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): _dtype,
            ("_codecs", "encode"): codecs.encode,  # how Python 3 writes bytes for Python 2
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"it calls {module}.{name}, which no batch of CIFAR does")
        return allowed[module, name]


def _dtype(kind: str | bytes, align: bool | int, copy: bool | int) -> np.dtype:
    """NumPy 2.4 warns of the integers that old pickles have for booleans; a copy, since unpickling writes to it."""
    del align, copy
    return np.dtype(kind, align=False, copy=True)


def read_idx_pairs(folder: pathlib.Path) -> list[Arrays]:
    """Reads train and test from the four idx files of MNIST or the like: (images uint8 [N, H, W], labels [N]) of each.

    Raises:
      FileNotFoundError: a file is missing, plain and gzipped.
      ValueError: a file is not such an idx file.
    """
    missing = [name for names in IDX_FILES for name in names if not _plain_or_gzipped(folder, name).exists()]
    if missing:
        raise FileNotFoundError(
            "Expected the four published idx files, with or without .gz, in --data_dir (Fashion-MNIST: "
            "github.com/zalandoresearch/fashion-mnist, MNIST: yann.lecun.com/exdb/mnist); without --data_dir they are "
            f"downloaded. Not found in {folder}: {', '.join(missing)}"
        )
    return [
        (read_idx(_plain_or_gzipped(folder, images), rank=3), read_idx(_plain_or_gzipped(folder, labels), rank=1))
        for images, labels in IDX_FILES
    ]


def _plain_or_gzipped(folder: pathlib.Path, name: str) -> pathlib.Path:
    return folder / name if (folder / name).exists() else folder / f"{name}.gz"


def read_idx(path: pathlib.Path, *, rank: int) -> np.ndarray:
    """Reads an idx file of unsigned bytes, plain or .gz: a magic number that ends in the rank, the shape, the values.

    Raises:
      ValueError: its magic number is another, or it holds more or fewer values than its shape says.
    """
    encoded = path.read_bytes()
    if path.suffix == ".gz":
        try:
            encoded = gzip.decompress(encoded)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"Expected a complete gzip file. Received: {path}: {error}") from error
    magic, header = bytes((0, 0, UNSIGNED_BYTES, rank)), 4 + 4 * rank
    if len(encoded) < header or encoded[:4] != magic:
        raise ValueError(
            f"Expected an idx file of {rank}-dimensional unsigned bytes, which starts with {magic.hex()}. "
            f"Received: {path}, which starts with {encoded[:4].hex()}"
        )
    shape = np.frombuffer(encoded, ">u4", count=rank, offset=4).tolist()
    values = np.frombuffer(encoded, np.uint8, offset=header)
    if len(values) != math.prod(shape):
        raise ValueError(f"Expected {shape} values, as the header says. Received: {path} with {len(values)}")
    return values.reshape(shape)
