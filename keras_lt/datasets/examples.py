"""Examples of a data set, whatever they are: pixels, image files, records in larger files, or feature vectors.

What anybody needs to know of a kind is a fact of its class, so that a new kind is one class and nothing else.
"""

import abc
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable

import numpy as np
import tensorflow as tf

from keras_lt.arguments import as_array
from keras_lt.datasets.examining import CHUNK, Examined, examine_encoded, hash_of, stamps_of
from keras_lt.preprocessing import decode

ENCODED_IMAGE_SIZE = 224  # pixels
Reader = Callable[[tf.Tensor], tf.Tensor]


class Examples(abc.ABC):
    """N examples without labels, in an order, of which any can be read at any time.

    Attributes:
      names: what messages call each example, str [N].
      content: what the examples are made of: pixels, paths, vectors; else they themselves.
      shape: of one example, (H, W, channels) or (D,); None for what differs.
      encoded: whether `read` gives an encoded image, which may be missing or damaged, rather than an array of `shape`.
      read_at_once: rows that `reader` is best asked for at a time where they are preprocessed one by one.
      image_size: side of the images that networks take by default, pixels; 0 where there are no images.
      features: floating [N, D], where the examples are features already; None where they are images.
      called: what several of them are called.
    """

    names: np.ndarray
    content: object
    shape: tuple[int | None, ...]
    encoded = False
    read_at_once = 1
    image_size = 0
    features: "np.ndarray | ArrayRows | None" = None
    called = "images"

    def __len__(self) -> int:
        return len(self.content)

    @abc.abstractmethod
    def read(self, row: int) -> bytes | np.ndarray:
        """The encoded image, the pixels or the vector of a row; called from several threads.

        Raises:
          OSError: it cannot be read.
        """

    @abc.abstractmethod
    def subset(self, rows: np.ndarray) -> "Examples":
        """The examples at `rows`, in that order."""

    @abc.abstractmethod
    def fingerprint(self) -> bytes | memoryview:
        """Bytes that change with the examples or their order, and not with where the data set lies."""

    def placed_fingerprint(self) -> bytes | memoryview:
        """Bytes that change also with where the data set lies; version 0.1 kept features by them."""
        return self.fingerprint()

    @abc.abstractmethod
    def reader(self) -> Reader:
        """For `tf.data`: row -> what `read` gives, as a tensor; but for files also rows [B] -> [B, ...]."""

    @abc.abstractmethod
    def examine(self, row: int) -> Examined:
        """What is known of a good image; a ValueError or OSError says what is wrong with a bad one."""

    @abc.abstractmethod
    def request(self, rows: range) -> dict[str, tf.Tensor]:
        """Neighbouring rows as a SavedModel is asked about them: {argument of its signature: batch}."""

    def keys(self) -> Iterable[bytes]:
        """Say which example each is, wherever the data set lies and whatever else is in it; N."""
        return (name.encode("utf-8", "surrogateescape") for name in self.names.tolist())

    def key_hashes(self, seed: int = 0) -> np.ndarray:
        """The key of every example as a number, evenly spread, uint64 [N]."""
        salt = int(seed).to_bytes(8, "little")
        digests = (hashlib.blake2b(key, digest_size=8, salt=salt).digest() for key in self.keys())
        return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)

    def stamps(self, rows: slice) -> np.ndarray:
        """Two numbers that change with an example that `fingerprint` does not look into, int64 [n, 2] of n rows."""
        return np.zeros((len(range(len(self))[rows]), 2), np.int64)


class Pixels(Examples):
    """Images in memory.

    Args:
      images: uint8 [N, H, W] or [N, H, W, 1 or 3].
    """

    def __init__(self, images: np.ndarray):
        images = as_array("images", images)
        if images.ndim == 3:
            images = images[..., np.newaxis]  # grey images without a channel axis
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3) or 0 in images.shape[1:]:
            raise ValueError(
                "Images must be uint8 [N, H, W], [N, H, W, 1 or 3], paths (str) [N], or Examples; features floating "
                f"[N, D]. Received: dtype={images.dtype}, shape={images.shape}"
            )
        self.content, self.shape, self.image_size = images, images.shape[1:], images.shape[1]

    @property
    def names(self) -> np.ndarray:
        """The numbers of the rows."""
        return np.arange(len(self)).astype(str)

    def read(self, row: int) -> np.ndarray:
        """The pixels of a row, uint8 [H, W, 1 or 3]."""
        return self.content[row]

    def subset(self, rows: np.ndarray) -> "Pixels":
        """The examples at `rows`, in that order."""
        return Pixels(self.content[rows])

    def fingerprint(self) -> memoryview:
        """The pixels themselves."""
        return np.ascontiguousarray(self.content).reshape(-1).data

    def reader(self) -> Reader:
        """Gathers pixels."""
        images = on_host(self.content)
        return lambda rows: tf.gather(images, rows)

    def examine(self, row: int) -> Examined:
        """Pixels are good as they are."""
        return self.shape[:2], 1, hash_of(np.ascontiguousarray(self.content[row]))

    def keys(self) -> Iterable[bytes]:
        """The pixels."""
        return (image.tobytes() for image in self.content)

    def request(self, rows: range) -> dict[str, tf.Tensor]:
        """RGB pixels."""
        return {"images": decode(self.content[rows.start : rows.stop])}


class Records(Examples):
    """Encoded images, read one by one. A kind of records has `names`, `read`, `subset` and `fingerprint`."""

    shape = (None, None, 3)
    encoded = True
    read_at_once = 16  # a call into Python takes many times as long as reading one from a disk's cache
    image_size = ENCODED_IMAGE_SIZE

    @property
    def content(self) -> "Records":
        """The records themselves."""
        return self

    def __len__(self) -> int:
        return len(self.names)

    def reader(self) -> Reader:
        """Calls `read`."""
        read = np.vectorize(self.read, otypes=[object])
        return lambda rows: tf.ensure_shape(tf.numpy_function(read, [rows], tf.string, stateful=False), rows.shape)

    def examine(self, row: int) -> Examined:
        """Decodes the image."""
        return examine_encoded(self.read(row))

    def request(self, rows: range) -> dict[str, tf.Tensor]:
        """Encoded images."""
        return {"image_bytes": tf.constant([self.read(row) for row in rows])}


class ImageFiles(Records):
    """Encoded images, a file each.

    Args:
      paths: str [N].
      root: the folder of the data set, which may move.
    """

    read_at_once = 1

    def __init__(self, paths: np.ndarray, *, root: str | os.PathLike = ""):
        self.names, self.root = np.asarray(paths), os.fspath(root)

    @property
    def content(self) -> np.ndarray:
        """The paths."""
        return self.names

    def read(self, row: int) -> bytes:
        """The file of a row."""
        path = self.names[row]
        if os.path.exists(path) and not os.path.isfile(path):  # such as a pipe, which would be waited for
            raise OSError("not a file")
        return pathlib.Path(path).read_bytes()

    def subset(self, rows: np.ndarray) -> "ImageFiles":
        """The files at `rows`, in that order."""
        return ImageFiles(self.names[rows], root=self.root)

    def keys(self) -> Iterable[bytes]:
        """The paths below the data set's folder."""
        above, separator = os.path.join(self.root, ""), os.sep.encode()
        for name in self.names.tolist():
            below = name.removeprefix(above)
            plain = len(below) < len(name) and below == os.path.normpath(below) and not below.startswith(os.sep)
            if not plain and self.root:
                below = os.path.relpath(name, self.root)  # five times as slow
            yield os.fsencode(below).replace(separator, b"/")

    def fingerprint(self) -> bytes:
        """The paths below the data set's folder, and the sizes of the files."""
        sizes = self.stamps(slice(None))[:, 0].tolist()
        return b"\0".join(b"%s\0%d" % pair for pair in zip(self.keys(), sizes, strict=True))

    def placed_fingerprint(self) -> memoryview:
        """The paths as they are."""
        return np.ascontiguousarray(self.names).view(np.uint8).data

    def reader(self) -> Reader:
        """Reads files without a call into Python."""
        try:
            paths = on_host(self.names)
        except ValueError:  # names that are not UTF-8, such as an old zip's
            paths = on_host(np.array([os.fsencode(name) for name in self.names], object))
        return lambda row: tf.io.read_file(paths[row])

    def stamps(self, rows: slice) -> np.ndarray:
        """Bytes and time of change of the files, int64 [n, 2]; zeros where there is none."""
        return stamps_of(self.names[rows].tolist())


class ArrayRows:
    """Some rows of an array that stays where it is, such as a memory map: only those asked for are read.

    Args:
      array: [M, ...], sliceable.
      rows: which of them, int64 [N], in that order.
    """

    def __init__(self, array: "np.ndarray | ArrayRows", rows: np.ndarray):
        nested = isinstance(array, ArrayRows)
        self.array, self.rows = (array.array, array.rows[rows]) if nested else (array, np.asarray(rows))
        self.dtype, self.ndim, self.shape = array.dtype, array.ndim, (len(self.rows), *array.shape[1:])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index) -> np.ndarray:
        first, *others = index if isinstance(index, tuple) else (index,)
        return self.array[(self.rows[first], *others)]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self.array[self.rows], dtype)  # a copy it is


class FeatureVectors(Examples):
    """Features that come from elsewhere, without images.

    Args:
      features: floating [N, D], in memory, memory-mapped or `ArrayRows` of these; never copied as a whole.
    """

    called = "feature vectors"

    def __init__(self, features: np.ndarray | ArrayRows):
        if features.ndim != 2 or not np.issubdtype(features.dtype, np.floating):
            received = f"dtype={features.dtype}, shape={features.shape}"
            raise ValueError(f"Features must be floating [N, D]. Received: {received}")
        self.content = self.features = features
        self.shape = features.shape[1:]

    @property
    def names(self) -> np.ndarray:
        """The numbers of the rows in the array that was given."""
        return getattr(self.features, "rows", np.arange(len(self))).astype(str)

    def read(self, row: int) -> np.ndarray:
        """The vector of a row, float32 [D]; of rows [B], [B, D]."""
        return np.asarray(self.features[row], np.float32)

    def subset(self, rows: np.ndarray) -> "FeatureVectors":
        """The examples at `rows`, by their numbers."""
        return FeatureVectors(ArrayRows(self.features, rows))

    def fingerprint(self) -> bytes:
        """A digest of the vectors, which are read in chunks."""
        digest = hashlib.sha256(f"{self.features.dtype}{self.shape}".encode())
        for start in range(0, len(self), CHUNK):
            digest.update(np.ascontiguousarray(self.features[start : start + CHUNK]).data)
        return digest.digest()

    def reader(self) -> Reader:
        """Calls `read`: NumPy reads a memory map without taking all of it into memory."""
        return lambda rows: tf.ensure_shape(
            tf.numpy_function(self.read, [rows], tf.float32, stateful=False), (*rows.shape, *self.shape)
        )

    def examine(self, row: int) -> Examined:
        """A vector is one pixel high."""
        return (1, *self.shape), 1, hash_of(self.read(row))

    def keys(self) -> Iterable[bytes]:
        """The vectors."""
        return (self.read(row).tobytes() for row in range(len(self)))

    def request(self, rows: range) -> dict[str, tf.Tensor]:
        """Vectors."""
        return {"features": tf.constant(self.read(slice(rows.start, rows.stop)))}


def examples_of(content: Examples | np.ndarray) -> Examples:
    """Examples as they are; an array of paths as `ImageFiles`, floating [N, D] as `FeatureVectors`, else `Pixels`."""
    if isinstance(content, Examples):
        return content
    array = as_array("images", content)
    if array.dtype.kind == "O" and array.ndim == 1 and all(isinstance(path, str | os.PathLike) for path in array):
        array = np.array([os.fspath(path) for path in array], dtype=str)  # a column of a table, or pathlib's
    kinds = {("f", 2): FeatureVectors, ("U", 1): ImageFiles}
    return kinds.get((array.dtype.kind, array.ndim), Pixels)(array)


def on_host(array: np.ndarray) -> tf.Tensor:
    """A tensor in the host's memory."""
    with tf.device("CPU:0"):  # a GPU has no place for the data set, nor for strings
        return tf.constant(array)
