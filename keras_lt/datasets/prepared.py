"""A data set prepared for training: encoded images in a few large files, read in any order.

`keras_lt.prepare` writes such a folder:

    prepare.json                     what was asked for, written first
    train-00000-of-00062.tfrecord    `tf.train.Example`s, as any `TFRecordDataset` reads them one after the other:
                                     image/encoded, image/class/label, image/class/text, image/filename
    train-00000-of-00062.npz         where its images lie: label, offset, length, name, [N of the shard] each
    manifest.json                    data set, class names, statistics, shards with their sha256; written last

Samplers draw images in random order, which a TFRecord alone cannot give. ArrayRecord can, but is one more library,
without a build for every platform; TFDS's builders order the examples by a hash, in a layout of their own. With an
index beside the standard format, each read is one `pread` of exactly the image's bytes.

Measured on two busy cores, 27 kB images in the page cache, random order: 100,000 images/s by `ShardedRecords.read`,
28,000 by opening a file each, 9,000 by `tf.io.read_file`; ArrayRecord gave 14,000 to 26,000. Inside `tf.data` the call
into Python costs more than the read: 4,000 to 7,000 against the 9,000 to 16,000 of `tf.io.read_file`, which is still
ten times what the same cores decode. What a prepared folder saves is opening files on cold or shared disks, and
decoding pixels that a network never sees.
"""

import pathlib
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np

from keras_lt.datasets.long_tailed import LongTailed, Split
from keras_lt.datasets.records import ShardedRecords
from keras_lt.files import read_json, reading

SETTINGS, MANIFEST = "prepare.json", "manifest.json"
FORMAT = 1  # of the folder
INDEX_ARRAYS = ("label", "offset", "length", "name")


def is_prepared(data_dir: str) -> bool:
    """Whether `keras_lt.prepare` wrote, or began to write, that folder."""
    return (pathlib.Path(data_dir) / SETTINGS).is_file()


def read_prepared(data_dir: str, dataset: str, **options) -> LongTailed:
    """The data set in a prepared folder, its images as `ShardedRecords`.

    Args:
      data_dir: the folder.
      dataset: the name in `DATASETS` that it was prepared from.
      options: those of the data set's function; they were applied when the folder was prepared, so must be the same.

    Raises:
      ValueError: the folder is not finished, or of another data set, other options or another format.
      OSError: a file of it is missing or damaged.
    """
    folder = pathlib.Path(data_dir)
    with reading(folder / SETTINGS, instead="put back a copy, or prepare the folder again"):
        settings = read_json(folder / SETTINGS)
        made_format, made_from, made_with = (settings[name] for name in ("format", "dataset", "options"))
    if made_format != FORMAT:
        raise ValueError(f"A prepared folder has format {FORMAT}. Received: {folder} of format {made_format}")
    if made_from != dataset:
        raise ValueError(f"{folder} holds --dataset={made_from}, prepared. Received: --dataset={dataset}")
    other = [f"{o}={v}" for o, v in options.items() if v is not None and made_with.get(o) != v]
    if other:
        made = ", ".join(f"{option}={value}" for option, value in made_with.items()) or "no options"
        raise ValueError(f"{folder} was prepared with {made}; prepare another. Received: {', '.join(other)}")
    if not (folder / MANIFEST).exists():
        raise ValueError(f"{folder} is not finished: give the command again that prepares it. Not found: {MANIFEST}")
    return from_manifest(folder, read_json(folder / MANIFEST))


def from_manifest(folder: pathlib.Path, manifest: Mapping) -> LongTailed:
    """The data set that a manifest describes, its shards in `folder`."""
    description = {k: tuple(v) if isinstance(v, list) else v for k, v in manifest["description"].items()}
    splits = {name: _split(folder, [shard["file"] for shard in shards]) for name, shards in manifest["splits"].items()}
    return LongTailed(**splits, **description)


def read_index(shard: pathlib.Path) -> dict[str, np.ndarray]:
    """What the npz beside a shard holds.

    Raises:
      OSError: it is missing or damaged.
    """
    path = shard.with_suffix(".npz")
    try:
        with np.load(path) as index:
            return dict(index)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise OSError(f"The index of a shard cannot be read: {path}: {error}") from error


def _split(folder: pathlib.Path, shards: Sequence[str]) -> Split:
    indices = [read_index(folder / shard) for shard in shards]
    labels, offset, length, names = (np.concatenate([index[name] for index in indices]) for name in INDEX_ARRAYS)
    shard = np.repeat(np.arange(len(shards)), [len(index["label"]) for index in indices])
    return Split(ShardedRecords([str(folder / file) for file in shards], shard, offset, length, names), labels)
