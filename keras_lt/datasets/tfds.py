"""Any labelled image set of TensorFlow Datasets, its images still encoded and read in any order.

Sets prepared as TFRecord are read where they lie, by one `pread` per image; those prepared as ArrayRecord through its
own reader. Either way a look at every record comes first, for labels and places.
"""

import hashlib
import os
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from keras_lt.datasets.examining import stamp_of_all
from keras_lt.datasets.examples import Records
from keras_lt.datasets.long_tailed import LongTailed, Split
from keras_lt.datasets.profiles import impose
from keras_lt.datasets.records import RECORD_HEAD, RECORD_TAIL, ShardedRecords
from keras_lt.extras import library

SMALL = 96  # pixels; STL-10 has the largest of the customary small pictures


def tfds_dataset(
    name: str, data_dir: str = "", *, imbalance_ratio: float = 0.0, profile: str = "exponential", seed: int = 0
) -> LongTailed:
    """A set of TensorFlow Datasets with the features `image` and `label`, such as "imagenet_lt" or "cifar100".

    TensorFlow Datasets downloads and prepares it where it is not yet, below `data_dir` or in its own default folder.
    The split `test` is the test split and `validation` is val. Where `test` is missing or has no labels, `validation`
    is the test split; without a val a tenth of each training class is carved off.

    Args:
      name: as `tfds.builder` takes it, with its config and version where wanted: "name/config:1.0.0".
      imbalance_ratio: of the long tail imposed on train, largest class over smallest; 0 leaves train as it is.
      profile: of that tail, a name in `profiles.PROFILES`.
      seed: of the images that are kept, and of the carving.
    Raises:
      ImportError: TensorFlow Datasets is not installed, or cannot be imported.
      ValueError: it has no such set, or the set is not one of labelled images with train and test.
    """
    builder = _prepared_builder(name, data_dir)
    filled = [split for split, info in builder.info.splits.items() if info.num_examples > 0]
    splits = {split: _read_split(builder, split) for split in ("train", "validation", "test") if split in filled}
    labelled = {split: examples for split, examples in splits.items() if examples.labels.min() >= 0}
    if "train" not in labelled or len(labelled) < 2:
        raise ValueError(
            "The set needs a labelled train, and a labelled test or validation. Received: "
            f"tfds:{name} with {', '.join(labelled) or 'none of them'}"
        )
    notes = ()
    if "test" not in labelled:
        labelled["test"] = labelled.pop("validation")
        notes = (f"tfds:{name} has no labelled test split: its validation split is reported as test.",)
    elif "validation" in labelled:
        labelled["val"] = labelled.pop("validation")
    class_names = builder.info.features["label"].names
    if imbalance_ratio:
        labelled["train"] = impose(
            labelled["train"], classes=len(class_names), imbalance_ratio=imbalance_ratio, profile=profile, seed=seed
        )
    side = builder.info.features["image"].shape[0]  # small pictures of one size fill their frame, and stay as they are
    recipe = {"image_size": side, "crop_fraction": 1.0, "augmentation": "none"} if side and side <= SMALL else {}
    return LongTailed.from_splits(f"tfds:{name}", labelled, class_names=class_names, seed=seed, notes=notes, **recipe)


def _prepared_builder(name: str, data_dir: str):
    """TensorFlow Datasets' builder of the set, which is on disk."""
    tensorflow_datasets = library(
        "tensorflow_datasets", extra="tfds", needed_by=f"--dataset=tfds:{name}", has="builder"
    )
    try:
        builder = tensorflow_datasets.builder(name, data_dir=data_dir or None)
    except (ValueError, AssertionError) as error:  # for a name, config or version that it does not know
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"tfds:<name> must be a set of TensorFlow Datasets. Received: tfds:{name}: {reason}"
        ) from error
    types = {"image": tensorflow_datasets.features.Image, "label": tensorflow_datasets.features.ClassLabel}
    features = builder.info.features
    if not all(name in features and isinstance(features[name], kind) for name, kind in types.items()):
        raise ValueError(
            f"The set needs the features `image`, an Image, and `label`, a ClassLabel. Received: tfds:{name} with "
            f"{', '.join(features)}"
        )
    if not builder.is_prepared():
        print(f"TensorFlow Datasets prepares {name} in {builder.data_dir}", flush=True)
        builder.download_and_prepare()
    return builder


def _read_split(builder, split: str) -> Split:
    file_format = builder.info.file_format.value
    if file_format not in READERS:
        raise ValueError(
            f"The set must be prepared as {' or '.join(READERS)}. Received: {builder.data_dir} in {file_format}"
        )
    return READERS[file_format](split, [os.fspath(path) for path in builder.info.splits[split].filepaths])


def _read_tfrecord(split: str, files: list[str]) -> Split:
    places = ((shard, *place) for shard, path in enumerate(files) for place in _places(path))
    shard, offset, length, labels = np.fromiter(places, np.dtype((np.int64, 4))).T
    return Split(ShardedRecords(tuple(files), shard, offset, length, _row_names(split, len(labels))), labels)


def _places(path: str) -> Iterator[tuple[int, int, int]]:
    """(offset and length in the file, label) of every image of a TFRecord."""
    position = 0
    try:
        for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
            image, label = _image_and_label(record)
            yield position + RECORD_HEAD + record.index(image), len(image), label
            position += RECORD_HEAD + len(record) + RECORD_TAIL
    except tf.errors.DataLossError as error:
        raise ValueError(
            f"Expected complete TFRecords. Received: {path}, truncated in the one at {position}"
        ) from error


def _read_array_record(split: str, files: list[str]) -> Split:
    from array_record.python import array_record_data_source  # noqa: PLC0415 - comes with TensorFlow Datasets

    source = array_record_data_source.ArrayRecordDataSource(files)
    labels = np.array([_image_and_label(record)[1] for record in source], np.int64)
    return Split(ArrayRecords(source, files, np.arange(len(labels)), _row_names(split, len(labels))), labels)


READERS: dict[str, Callable[[str, list[str]], Split]] = {"tfrecord": _read_tfrecord, "array_record": _read_array_record}


def _row_names(split: str, examples: int) -> np.ndarray:
    return np.array([f"{split}[{row}]" for row in range(examples)], dtype=str)


class ArrayRecords(Records):
    """Encoded images in ArrayRecord files, which are compressed: the image is found anew in each record that is read.

    Args:
      source: the records, as bytes.
      files: the files they are in.
      rows: position in `source` of each image, [N].
      names: what messages call it, str [N].
    """

    def __init__(self, source, files: list[str], rows: np.ndarray, names: np.ndarray):
        self.source, self.files, self.rows, self.names = source, files, rows, names

    def subset(self, rows: np.ndarray) -> "ArrayRecords":
        """The images at `rows`, in that order."""
        return ArrayRecords(self.source, self.files, self.rows[rows], self.names[rows])

    def read(self, row: int) -> bytes:
        """The encoded image of a row."""
        return _image_and_label(self.source[self.rows[row]])[0]

    def stamps(self, rows: slice) -> np.ndarray:
        """Of all files for each image, int64 [n, 2]: which of them it is in the library keeps to itself."""
        return np.tile(stamp_of_all(self.files), (len(self.rows[rows]), 1))

    def fingerprint(self) -> bytes:
        """Changes with the files' names and lengths, and with the images' places or order."""
        files = [(os.path.basename(path), os.path.getsize(path)) for path in self.files]
        return hashlib.sha256(repr(files).encode() + self.rows.tobytes()).digest()

    def placed_fingerprint(self) -> bytes:
        """Changes with the files' paths."""
        return hashlib.sha256("\0".join(self.files).encode() + self.rows.tobytes()).digest()


def _image_and_label(record: bytes) -> tuple[bytes, int]:
    """The encoded image and the label of a serialized `tf.train.Example`."""
    feature = tf.train.Example.FromString(record).features.feature
    return feature["image"].bytes_list.value[0], feature["label"].int64_list.value[0]
