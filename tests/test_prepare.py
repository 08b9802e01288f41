import dataclasses
import hashlib
import os
import pathlib
import platform
import signal
import time

import numpy as np
import pytest
import tensorflow as tf

from keras_lt import datasets
from keras_lt import prepare as command
from keras_lt.datasets import LongTailed, SourceEntry, Split
from keras_lt.datasets.prepared import is_prepared, read_prepared
from keras_lt.files import SCRATCH
from keras_lt.input_pipeline import Stream, training_batches
from keras_lt.optimization import Recipe
from keras_lt.prepare import prepare, verify
from keras_lt.preparing import shards
from keras_lt.preprocessing import Preprocessing
from tests.pictures import encoded, noise, opened
from tests.programs import Program

AS_IT_IS = {"dataset": "toy", "options": {}, "convert": {"shorter_side": 0, "quality": 90, "lossless": False}}


def toy(folder, per_split=(9, 4, 4)):
    """The JPEGs in `folder`, of two classes; it makes those that are not there, each of its own size."""
    splits = {}
    for name, number in zip(("train", "val", "test"), per_split, strict=True):
        paths = [pathlib.Path(folder, name, f"{i}.jpg") for i in range(number)]
        for i, path in enumerate(paths):
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                path.write_bytes(encoded(noise(24 + i % 50, 20, seed=i), quality=80))
        splits[name] = Split(np.array(paths, str), np.arange(number) % 2)
    return LongTailed("toy", **splits, class_names=("odd", "even"), mean=(0.1, 0.2, 0.3), source="made", notes=("a",))


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(pathlib.Path(folder).iterdir())}


@pytest.fixture
def source(tmp_path):
    return tmp_path / "source"


@pytest.fixture
def output(tmp_path):
    return tmp_path / "prepared"


@pytest.fixture
def known_toy(monkeypatch):
    """Makes the toy data set known by its name."""
    monkeypatch.setitem(datasets.DATASETS, "toy", SourceEntry(lambda data_dir="", *, seed=0: toy(data_dir), reads="it"))


def test_jpegs_make_the_round_trip_byte_for_byte(source, output):
    data = toy(source)
    assert prepare(data, output, settings=AS_IT_IS, data_dir=source, images_per_shard=4, workers=2) == 17
    prepared = read_prepared(output, "toy")
    for name, split in data.splits.items():
        found = prepared.splits[name]
        assert [found.read(row) for row in range(len(found))] == [split.read(row) for row in range(len(split))]
        assert found.labels.tolist() == split.labels.tolist()
        assert found.names.tolist() == [os.path.relpath(path, source) for path in split.names]
    for attribute in ("name", "class_names", "mean", "std", "augmentation", "crop_fraction", "source", "notes"):
        assert getattr(prepared, attribute) == getattr(data, attribute)
    assert prepared.groups == data.groups
    assert len(list(output.glob("train-*-of-00003.tfrecord"))) == 3  # 4 + 4 + 1 images


def test_an_open_set_is_prepared_too(source, output):
    data = toy(source)
    data = dataclasses.replace(data, open_set=Split(data.test.images[:2], np.array([-1, -1])))
    assert prepare(data, output, settings=AS_IT_IS, data_dir=source) == 19
    open_set = read_prepared(output, "toy").open_set
    assert [open_set.read(row) for row in range(2)] == [data.test.read(row) for row in range(2)]
    assert open_set.labels.tolist() == [-1, -1]
    (record,) = tf.data.TFRecordDataset(sorted(output.glob("open_set-*.tfrecord"))).take(1)
    assert tf.train.Example.FromString(record.numpy()).features.feature["image/class/text"].bytes_list.value == [b""]


def test_training_sees_the_same_batches(source, output):
    data = toy(source)
    prepare(data, output, settings=AS_IT_IS, images_per_shard=4)
    recipe = Recipe(epochs=1, batch_size=4, learning_rate=0.1, weight_decay=0.0, sampler="class_balanced")
    preprocessing = Preprocessing(image_size=16, mean=data.mean, std=data.std, augmentation="resized_crop_flip")
    batches = [
        list(training_batches(split, preprocessing, Stream(recipe, data.class_counts, 3)))
        for split in (data.train, read_prepared(output, "toy").train)
    ]
    assert len(batches[0]) == len(batches[1]) == 2
    for (images, labels), (same_images, same_labels) in zip(*batches, strict=True):
        np.testing.assert_array_equal(images, same_images)
        np.testing.assert_array_equal(labels, same_labels)


def test_any_reader_of_tfrecords_finds_the_same_in_order(source, output):
    prepare(toy(source), output, settings=AS_IT_IS, data_dir=source, images_per_shard=4)
    split, row = read_prepared(output, "toy").train, 0
    features = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "image/class/label": tf.io.FixedLenFeature([], tf.int64),
        "image/class/text": tf.io.FixedLenFeature([], tf.string),
        "image/filename": tf.io.FixedLenFeature([], tf.string),
    }
    for record in tf.data.TFRecordDataset(sorted(map(str, output.glob("train-*.tfrecord")))):
        example = tf.io.parse_single_example(record, features)
        assert example["image/encoded"].numpy() == split.read(row)
        assert example["image/class/label"].numpy() == split.labels[row] == row % 2
        assert example["image/class/text"].numpy() == (b"odd", b"even")[row % 2]
        assert example["image/filename"].numpy().decode() == split.names[row] == f"train/{row}.jpg"
        row += 1
    assert row == 9


def damaged(source):
    data = toy(source)
    (source / "train/2.jpg").write_bytes(b"no image")
    whole = (source / "val/1.jpg").read_bytes()
    (source / "val/1.jpg").write_bytes(whole[: len(whole) // 2])
    return data


def test_damaged_images_are_all_named_and_refused(source, output):
    data = damaged(source)
    with pytest.raises(
        ValueError, match=r"2 images are missing or damaged, all named in .*bad_images.txt.*train/2.jpg"
    ):
        prepare(data, output, settings=AS_IT_IS, data_dir=source, images_per_shard=4)
    named = [line.split("\t")[:2] for line in (output / "bad_images.txt").read_text().splitlines()]
    assert named == [["train", "train/2.jpg"], ["val", "val/1.jpg"]]
    assert is_prepared(output)
    with pytest.raises(ValueError, match="is not finished"):
        read_prepared(output, "toy")

    for name in ("train/2.jpg", "val/1.jpg"):
        (source / name).write_bytes(encoded(noise(32, 16)))
    # Mended, only their two shards of four images are written once more.
    assert prepare(data, output, settings=AS_IT_IS, data_dir=source, images_per_shard=4) == 8
    assert not (output / "bad_images.txt").exists()
    assert len(read_prepared(output, "toy").train) == 9


def test_damaged_images_can_be_left_out(source, output):
    prepare(damaged(source), output, settings=AS_IT_IS, data_dir=source, skip_bad_images=True)
    prepared = read_prepared(output, "toy")
    assert prepared.train.names.tolist() == [f"train/{i}.jpg" for i in (0, 1, 3, 4, 5, 6, 7, 8)]
    assert prepared.train.labels.tolist() == [0, 1, 1, 0, 1, 0, 1, 0]
    assert prepared.notes == ("a", "2 missing or damaged images were left out when the data set was prepared.")
    assert verify(output) == []


def test_killed_in_the_middle_it_goes_on_to_the_same_shards(source, tmp_path):
    data = toy(source, per_split=(150, 2, 2))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    arguments = {"settings": AS_IT_IS, "data_dir": str(source), "images_per_shard": 2}
    code = (
        "from tests.test_prepare import toy; from keras_lt.prepare import prepare; "
        f"prepare(toy({str(source)!r}, (150, 2, 2)), {str(killed)!r}, **{arguments!r})"
    )
    process = Program(code)
    while process.poll() is None and len(list(killed.glob("train*.npz"))) < 2:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    left = f"{SCRATCH}{platform.node()}~{process.pid}~train-00070-of-00075.tfrecord"
    (killed / left).write_bytes(b"what a kill leaves")

    finished = {path: path.stat().st_mtime_ns for path in killed.glob("train*.npz")}
    assert 2 <= len(finished) < 75
    assert not (killed / "manifest.json").exists()
    converted = prepare(data, killed, **arguments)
    assert converted == 154 - 2 * len(finished)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    prepare(data, whole, **arguments, workers=2)
    assert hashes(killed) == hashes(whole)


def test_killed_in_its_first_write_it_begins_again(source, output):
    output.mkdir(exist_ok=True)
    (output / f"{SCRATCH}{platform.node()}~{os.getpid()}~prepare.json").write_bytes(b"{")
    assert prepare(toy(source), output, settings=AS_IT_IS) == 17
    assert not list(output.glob(f"{SCRATCH}*"))
    (output / "prepare.json").unlink()
    with pytest.raises(ValueError, match="must be a new or empty folder"):
        prepare(toy(source), output, settings=AS_IT_IS)


def test_a_shard_cut_short_is_written_again(source, output):
    prepare(toy(source), output, settings=AS_IT_IS, images_per_shard=4)
    before = hashes(output)
    shard = output / "train-00001-of-00003.tfrecord"
    os.truncate(shard, shard.stat().st_size - 1)
    assert prepare(toy(source), output, settings=AS_IT_IS, images_per_shard=4) == 4
    assert hashes(output) == before


def test_an_image_that_was_replaced_is_converted_again(source, output):
    prepare(toy(source), output, settings=AS_IT_IS, data_dir=source, images_per_shard=4)
    other = encoded(noise(32, 16))
    (source / "train/5.jpg").write_bytes(other)
    assert prepare(toy(source), output, settings=AS_IT_IS, data_dir=source, images_per_shard=4) == 4
    assert read_prepared(output, "toy").train.read(5) == other
    assert verify(output) == []


def test_one_flipped_byte_is_reported_by_shard_and_record(source, output, known_toy, capsys):
    command.main([f"--data_dir={source}", f"--output_dir={output}", "--dataset=toy"])
    command.main([f"--output_dir={output}", "--verify"])
    train = read_prepared(output, "toy").train
    [shard] = output.glob("train-*.tfrecord")
    content = bytearray(shard.read_bytes())
    content[train.images.offset[5] + 100] ^= 1
    shard.write_bytes(content)
    with pytest.raises(SystemExit, match=r"train-00000-of-00001.tfrecord, record 5 \(train/5.jpg\) is damaged") as end:
        command.main([f"--output_dir={output}", "--verify"])
    assert "1 shards" in str(end.value)  # sys.exit with a message: exit code 1


def test_the_command_says_how_to_train_on_it(source, output, known_toy, capsys):
    command.main([f"--data_dir={source}", f"--output_dir={output}", "--dataset=toy", "--seed=3", "--shorter_side=10"])
    assert f"python -m keras_lt.train --dataset=toy --data_dir={output} --seed=3" in capsys.readouterr().out
    prepared = read_prepared(output, "toy", seed=3)
    assert prepared.notes == ("a", "Images were prepared with a shorter side of at most 10 pixels.")
    assert min(opened(prepared.val.read(0)).size) == 10
    with pytest.raises(ValueError, match=r"was prepared with seed=3; prepare another. Received: seed=4"):
        read_prepared(output, "toy", seed=4)
    with pytest.raises(ValueError, match=r"holds --dataset=toy, prepared. Received: --dataset=places_lt"):
        read_prepared(output, "places_lt")


def test_other_settings_do_not_go_into_the_same_folder(source, output, known_toy):
    flags = [f"--data_dir={source}", f"--output_dir={output}", "--dataset=toy"]
    command.main(flags)
    with pytest.raises(SystemExit, match="was begun with other settings"):
        command.main([*flags, "--quality=80"])
    with pytest.raises(SystemExit, match="must be a new or empty folder"):
        command.main([*flags, f"--output_dir={source}"])
    (source / "file").touch()
    for place in ("file", "file/deeper"):
        with pytest.raises(SystemExit, match=rf"Received: {source}/{place}/prepare\.json, which is no place for one"):
            command.main([*flags, f"--output_dir={source}/{place}"])
    with pytest.raises(SystemExit, match=r"^Error: --verify reads what .* has finished\. Not found: .*manifest\.json"):
        command.main([f"--output_dir={source}", "--verify"])


def test_other_images_do_not_go_into_the_same_folder(tmp_path, output):
    prepare(toy(tmp_path / "a"), output, settings=AS_IT_IS)
    with pytest.raises(ValueError, match=r"other settings.* Received: other images, names or labels$"):
        prepare(toy(tmp_path / "b", per_split=(8, 4, 4)), output, settings=AS_IT_IS)


def test_pixels_are_refused(data, output):
    with pytest.raises(ValueError, match=r"pixels are in memory, which is faster than any file.*'squares'"):
        prepare(data, output, settings=AS_IT_IS)
    assert not output.exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's device that is always full")
def test_a_full_disk_is_said_and_leaves_nothing_half_written(source, output, monkeypatch):
    writer = tf.io.TFRecordWriter
    monkeypatch.setattr(
        shards.tf.io, "TFRecordWriter", lambda path: (pathlib.Path(path).touch(), writer("/dev/full"))[1]
    )
    with pytest.raises(OSError, match=r"train-00000-of-00001.tfrecord cannot be written: .*No space left on device"):
        prepare(toy(source), output, settings=AS_IT_IS)
    assert sorted(path.name for path in output.iterdir()) == ["prepare.json"]
