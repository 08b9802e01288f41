"""Encoded images inside larger files, each read by one call wherever it lies."""

import copy
import functools
import hashlib
import os
from collections.abc import Iterable

import numpy as np

from keras_lt.datasets.examining import stamps_of
from keras_lt.datasets.examples import Records

RECORD_HEAD, RECORD_TAIL = 12, 4  # bytes that TFRecord puts around an example: its length, and a checksum of each
MOST_OPEN = 128  # files at once: macOS lets a process have 256, Linux 1024


class ShardedRecords(Records):
    """Encoded images that are stretches of bytes in a few files.

    Any container that stores its images unpacked can be read so, once it is known where they lie: TFRecord, tar.
    Each read is one `pread`, which has no position to share, so threads need no lock.

    Args:
      files: paths of the files.
      shard: the file of each image, a position in `files`, [N].
      offset, length: where its bytes lie in that file, [N].
      names: what messages call it, str [N].
    """

    def __init__(
        self, files: tuple[str, ...], shard: np.ndarray, offset: np.ndarray, length: np.ndarray, names: np.ndarray
    ):
        self.files = tuple(map(str, files))
        self.shard = np.asarray(shard, np.int32)
        self.offset, self.length = np.asarray(offset, np.int64), np.asarray(length, np.int64)
        self.names = np.asarray(names, str)
        shapes = {array.shape for array in (self.shard, self.offset, self.length, self.names)}
        if len(shapes) > 1 or self.names.ndim != 1:
            raise ValueError(f"Every record needs a shard, an offset, a length and a name. Received: shapes {shapes}")
        if self.shard.size and not 0 <= self.shard.min() <= self.shard.max() < len(self.files):
            raise ValueError(
                f"shard must lie in 0..{len(self.files) - 1}, one of the files. "
                f"Received: {self.shard.min()}..{self.shard.max()}"
            )
        self._open = functools.lru_cache(MOST_OPEN)(_OpenFile)

    def subset(self, rows: np.ndarray) -> "ShardedRecords":
        """The images at `rows`, in that order; open files are shared."""
        chosen = copy.copy(self)
        for array in ("shard", "offset", "length", "names"):
            setattr(chosen, array, getattr(self, array)[rows])
        return chosen

    def read(self, row: int) -> bytes:
        """The encoded image of a row.

        Raises:
          OSError: its file cannot be opened or read, or ends too early.
        """
        path, offset, length = self.files[self.shard[row]], int(self.offset[row]), int(self.length[row])
        file = self._open(path)  # held until read: another thread may push it out of the cache meanwhile
        image = os.pread(file.descriptor, length, offset)
        if len(image) != length:
            raise OSError(
                f"{path} ends before the image {self.names[row]}: expected {length} bytes at {offset}. "
                f"Received: {len(image)}"
            )
        return image

    def fingerprint(self) -> bytes:
        """Changes with the files' names, and with the images' places, names or order."""
        return self._fingerprint(map(os.path.basename, self.files))

    def placed_fingerprint(self) -> bytes:
        """Changes also with the files' paths."""
        return self._fingerprint(self.files)

    def stamps(self, rows: slice) -> np.ndarray:
        """Bytes and time of change of the file that each image is in, int64 [n, 2]."""
        shards, of_row = np.unique(self.shard[rows], return_inverse=True)
        return stamps_of([self.files[shard] for shard in shards])[of_row]

    def _fingerprint(self, files: Iterable[str]) -> bytes:
        digest = hashlib.sha256("\0".join(files).encode())
        for array in (self.shard, self.offset, self.length, self.names):
            digest.update(np.ascontiguousarray(array).view(np.uint8))
        return digest.digest()


class _OpenFile:
    """Closed once nothing refers to it."""

    def __init__(self, path: str):
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self):
        if hasattr(self, "descriptor"):  # not where opening failed
            os.close(self.descriptor)
