import io
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_lt.datasets.tfds import tfds_dataset

tfds.disable_progress_bar()


def png(value):
    """A grey image of its own: 300 and more compressed bytes, so that its length takes two bytes in a record."""
    noise = np.random.default_rng(value).integers(0, 256, (16, 16, 1), np.uint8)
    return tf.io.encode_png(noise).numpy()


class TinyAnimals(tfds.core.GeneratorBasedBuilder):
    """Images 0, 1, ... of each split, whose classes take turns: newt, owl, newt, ..."""

    VERSION = tfds.core.Version("1.0.0")
    SIZES = {"train": 40, "validation": 4, "test": 6}  # noqa: RUF012 - as in any builder
    FEATURES = {  # noqa: RUF012
        "caption": tfds.features.Text(),
        "image": tfds.features.Image(shape=(16, 16, 1)),
        "label": tfds.features.ClassLabel(names=["newt", "owl"]),
        "weight": np.float32,
    }
    UNLABELLED = ()

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(self.FEATURES))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split, size) for split, size in self.SIZES.items()}

    def _generate_examples(self, split, size):
        for number in range(size):
            label = -1 if split in self.UNLABELLED else number % 2
            values = {"caption": f"no. {number}", "image": io.BytesIO(png(number)), "label": label, "weight": 0.5}
            yield number, {name: values[name] for name in self.FEATURES}


class TinyUnlabelledTest(TinyAnimals):
    UNLABELLED = ("test",)


class TinyTrainAlone(TinyAnimals):
    SIZES = {"train": 4}  # noqa: RUF012


class TinyCaptions(TinyAnimals):
    FEATURES = {name: TinyAnimals.FEATURES[name] for name in ("caption", "image")}  # noqa: RUF012


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """(builder class, file format) -> the folder in which it is prepared."""
    folders = {}

    def prepare(builder=TinyAnimals, file_format="tfrecord"):
        if (builder, file_format) not in folders:
            folder = folders[builder, file_format] = tmp_path_factory.mktemp(file_format)
            builder(data_dir=folder, file_format=file_format).download_and_prepare()
        return str(folders[builder, file_format])

    return prepare


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_every_image_is_its_encoded_bytes_with_its_label(prepared, file_format):
    data = tfds_dataset("tiny_animals", prepared(file_format=file_format))
    assert data.class_names == ("newt", "owl")
    assert data.name == "tfds:tiny_animals"
    assert data.notes == ()
    for split, size in {"train": 40, "val": 4, "test": 6}.items():
        examples = data.splits[split]
        number_of = {png(number): number for number in range(size)}
        numbers = [number_of[examples.read(row)] for row in range(len(examples))]
        assert sorted(numbers) == list(range(size))
        assert examples.labels.tolist() == [number % 2 for number in numbers]


def test_rows_are_named_as_tfds_slices_them(prepared):
    data = tfds_dataset("tiny_animals", prepared())
    assert data.val.names.tolist() == ["validation[0]", "validation[1]", "validation[2]", "validation[3]"]
    builder = tfds.builder("tiny_animals", data_dir=prepared())
    (example,) = builder.as_dataset(split="train[7:8]", decoders={"image": tfds.decode.SkipDecoding()})
    assert example["image"].numpy() == data.train.read(7)


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_a_subset_keeps_its_images_and_is_read_from_threads(prepared, file_format):
    train = tfds_dataset("tiny_animals", prepared(file_format=file_format)).train
    rows = np.array([31, 2, 17])
    chosen = train.subset(rows)
    assert [chosen.read(row) for row in range(3)] == [train.read(row) for row in rows]
    assert chosen.names.tolist() == ["train[31]", "train[2]", "train[17]"]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(train.read, range(40))) == [train.read(row) for row in range(40)]


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_fingerprints_know_the_images_and_their_order(prepared, file_format):
    train = tfds_dataset("tiny_animals", prepared(file_format=file_format)).train.examples
    again = tfds_dataset("tiny_animals", prepared(file_format=file_format)).train.examples
    forwards, backwards = train.subset(np.array([0, 1])), train.subset(np.array([1, 0]))
    assert train.fingerprint() == again.fingerprint()
    assert len({records.fingerprint() for records in (train, forwards, backwards)}) == 3


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_files_that_are_written_anew_are_examined_again(prepared, tmp_path, file_format):
    shutil.copytree(prepared(file_format=file_format), tmp_path, dirs_exist_ok=True)
    examples = tfds_dataset("tiny_animals", str(tmp_path)).train.examples
    before = examples.stamps(slice(2, 5))
    assert before.shape == (3, 2)
    np.testing.assert_array_equal(examples.subset(np.array([2, 3, 4])).stamps(slice(None)), before)
    for path in tmp_path.rglob("*train*record*"):
        os.utime(path, ns=(0, 1))
    assert (examples.stamps(slice(2, 5)) != before).any(1).all()


def test_an_unlabelled_test_split_leaves_its_place_to_validation(prepared):
    data = tfds_dataset("tiny_unlabelled_test", prepared(TinyUnlabelledTest))
    assert len(data.test) == 4
    assert data.test.names[0] == "validation[0]"
    assert (data.class_counts + np.bincount(data.val.labels)).tolist() == [20, 20]
    assert "validation split is reported as test" in data.notes[0]
    assert f"{len(data.val)} of 40 training images were set aside" in data.notes[1]


def test_a_long_tail_is_imposed_on_train_alone(prepared):
    data = tfds_dataset("tiny_animals", prepared(), imbalance_ratio=10.0, seed=1)
    assert data.class_counts.tolist() == [20, 2]
    assert (len(data.val), len(data.test)) == (4, 6)
    other = tfds_dataset("tiny_animals", prepared(), imbalance_ratio=10.0, seed=2)
    assert set(data.train.names) != set(other.train.names)


def test_a_set_that_is_not_there_is_prepared_first_and_once(tmp_path, capsys):
    tfds_dataset("tiny_animals", str(tmp_path))
    assert f"prepares tiny_animals in {tmp_path}" in capsys.readouterr().out
    tfds_dataset("tiny_animals", str(tmp_path))
    assert "prepares" not in capsys.readouterr().out


def test_a_file_that_is_cut_short_is_named(prepared, tmp_path):
    shutil.copytree(prepared(), tmp_path, dirs_exist_ok=True)
    (path,) = tmp_path.rglob("*train.tfrecord*")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"complete TFRecords.*tiny_animals-train.tfrecord.*truncated"):
        tfds_dataset("tiny_animals", str(tmp_path))


def test_sets_that_do_not_fit_are_refused(prepared, tmp_path):
    with pytest.raises(ValueError, match=r"Received: tfds:tiny_unicorns: Dataset tiny_unicorns not found"):
        tfds_dataset("tiny_unicorns", str(tmp_path))
    with pytest.raises(ValueError, match=r"Received: tfds:mnist:9.9.9: .*version 9.9.9"):
        tfds_dataset("mnist:9.9.9", str(tmp_path))
    with pytest.raises(ValueError, match=r"`label`, a ClassLabel. Received: tfds:tiny_captions with caption, image"):
        tfds_dataset("tiny_captions", str(tmp_path))
    with pytest.raises(ValueError, match=r"labelled test or validation. Received: tfds:tiny_train_alone with train$"):
        tfds_dataset("tiny_train_alone", prepared(TinyTrainAlone))


def test_the_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'keras_lt\[tfds\]'"):
        tfds_dataset("cifar10")
