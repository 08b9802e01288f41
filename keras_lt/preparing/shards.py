"""One shard of a prepared folder: a TFRecord of examples, and beside it the index of where their images lie."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from keras_lt.datasets.prepared import read_index
from keras_lt.datasets.records import RECORD_HEAD, RECORD_TAIL, ShardedRecords
from keras_lt.files import atomic


@dataclasses.dataclass(frozen=True)
class Example:
    """A labelled image on its way into a shard.

    Attributes:
      name: path of the image's file, or what else tells it from the others.
      label: class id.
      text: name of the class.
      image: encoded; empty for a damaged one.
      damage: what is wrong with the image.
    """

    name: str
    label: int
    text: str
    image: bytes
    damage: str = ""


def write_shard(path: pathlib.Path, examples: Iterable[Example], *, made_of: str):
    """Writes a shard without its damaged images, which the index names; the index comes last.

    Args:
      made_of: changes with the images, and stands in the index.
    Raises:
      OSError: it cannot be written, because the disk is full for one. Nothing half-written stays.
    """
    entries, bad, position = [], [], 0
    try:
        with atomic(path) as scratch:
            with tf.io.TFRecordWriter(str(scratch)) as writer:
                for example in examples:
                    if example.damage:
                        bad.append(f"{example.name}\t{example.damage}")
                        continue
                    record = _serialize(example)
                    offset = position + RECORD_HEAD + record.index(example.image)
                    entries.append((example.label, offset, len(example.image), example.name))
                    position += RECORD_HEAD + len(record) + RECORD_TAIL
                    writer.write(record)
            with scratch.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        label, offset, length, name = zip(*entries, strict=True) if entries else ((), (), (), ())
        with atomic(path.with_suffix(".npz")) as scratch, scratch.open("wb") as file:
            np.savez_compressed(
                file,
                label=np.array(label, np.int64),
                offset=np.array(offset, np.int64),
                length=np.array(length, np.int64),
                name=np.array(name, str),
                bad=np.array(bad, str),
                bytes=position,
                sha256=sha256,
                made_of=made_of,
            )
    except (OSError, tf.errors.OpError) as error:
        raise OSError(
            f"{path} cannot be written: {error}. Finished shards are kept, and the same command goes on from there"
        ) from error


def is_finished(path: pathlib.Path, made_of: str) -> bool:
    """Whether a shard is there, whole, with its index, and of the images that it is to be made of."""
    try:
        index = read_index(path)
        return path.stat().st_size == index["bytes"] and str(index.get("made_of", made_of)) == made_of
    except OSError:
        return False


def bad_images(path: pathlib.Path) -> list[str]:
    """The images that a finished shard lacks, "name, tab, what is wrong" each."""
    return read_index(path)["bad"].tolist()


def describe_shard(path: pathlib.Path) -> dict:
    """A finished shard's entry in the manifest."""
    index = read_index(path)
    return {
        "file": path.name,
        "records": len(index["label"]),
        "bytes": int(index["bytes"]),
        "sha256": str(index["sha256"]),
    }


def check_shard(path: pathlib.Path, sha256: str):
    """Reads a shard through, checksums included, and every image once more by its index.

    Raises:
      OSError: it is damaged; the message names the first record that is.
    """
    index, row = read_index(path), 0
    label, name = index["label"], index["name"]
    records = ShardedRecords((str(path),), np.zeros(len(label)), index["offset"], index["length"], name)
    try:
        for record in tf.data.TFRecordDataset(str(path)):
            if row == len(label):
                raise OSError(f"{path.name} holds more than the {row} records of its index")
            if _deserialize(record.numpy()) != Example(name[row], label[row], "", records.read(row)):
                raise OSError(f"{path.name}, record {row} ({name[row]}) is another than its index says")
            row += 1
    except tf.errors.OpError as error:
        raise OSError(
            f"{path.name}, record {row} ({name[row]}) is damaged, later ones were not read: {error.message}"
        ) from error
    if row < len(label):
        raise OSError(f"{path.name} ends before record {row} ({name[row]})")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise OSError(f"{path.name} is whole, but another than the one in the manifest")


def _serialize(example: Example) -> bytes:
    features = {
        "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[example.image])),
        "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[example.label])),
        "image/class/text": tf.train.Feature(bytes_list=tf.train.BytesList(value=[example.text.encode()])),
        "image/filename": tf.train.Feature(
            bytes_list=tf.train.BytesList(value=[example.name.encode("utf-8", "surrogateescape")])
        ),
    }
    # The same bytes on every run, so that shards can be compared by their sha256.
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)


def _deserialize(record: bytes) -> Example:
    """Without the class's name, which the index lacks."""
    feature = tf.train.Example.FromString(record).features.feature
    image, name = (feature[key].bytes_list.value[0] for key in ("image/encoded", "image/filename"))
    return Example(name.decode("utf-8", "surrogateescape"), feature["image/class/label"].int64_list.value[0], "", image)
