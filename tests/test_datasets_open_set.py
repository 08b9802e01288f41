"""Images of no class beside the splits: where they are found, and what is done with them."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from keras_lt.datasets import LongTailed, Split, load
from keras_lt.inspection import inspect, screen
from tests import miniatures
from tests.test_datasets_own_images import touch


def beside(data, open_set):
    return dataclasses.replace(data, open_set=open_set)


@pytest.fixture
def strangers(data):
    """An open set of five black squares."""
    return Split(np.zeros((5, *data.train.images.shape[1:]), np.uint8), np.full(5, -1))


def test_the_open_set_is_one_of_all_splits_and_of_no_class(data, strangers):
    opened = beside(data, strangers)
    assert list(opened.splits) == list(data.splits) == ["train", "val", "test"]
    assert list(opened.all_splits) == ["train", "val", "test", "open_set"]
    assert data.all_splits.keys() == data.splits.keys()
    np.testing.assert_array_equal(opened.class_counts, data.class_counts)


@pytest.mark.parametrize(("labels", "received"), [([0] * 5, "0..0"), ([-1, -1, -1, -1, 2], r"-1\.\.2")])
def test_labels_of_an_open_set_are_checked(data, strangers, labels, received):
    with pytest.raises(ValueError, match=rf"or be -1 in an open set.*'open_set' with labels {received}"):
        beside(data, Split(strangers.images, np.array(labels)))


def test_the_other_splits_have_no_open_images(data, strangers):
    with pytest.raises(ValueError, match=r"'test' with labels -1\.\.-1"):
        dataclasses.replace(data, test=strangers)


def test_an_empty_open_set_is_refused(data, strangers):
    with pytest.raises(ValueError, match="'open_set' of size 0"):
        beside(data, strangers.subset(np.zeros(0, np.int64)))


def test_carving_val_keeps_the_open_set(data, strangers):
    splits = {"train": data.train, "test": data.test, "open_set": strangers}
    carved = LongTailed.from_splits("squares", splits, class_names=data.class_names)
    assert carved.open_set is strangers
    assert carved.val_is_carved


@pytest.mark.parametrize(
    ("name", "lay_out", "prefix"),
    [
        ("places_lt", miniatures.places_lt, "Places_LT_open"),
        ("imagenet_lt", miniatures.imagenet_lt, "ImageNet_LT_open"),
    ],
)
def test_published_open_lists_name_images_of_a_folder_beside_them(tmp_path, name, lay_out, prefix):
    lay_out(tmp_path)
    with pytest.warns(UserWarning, match="not those published"):
        assert load(name, str(tmp_path), allow_modified_lists=True).open_set is None
    (tmp_path / f"{prefix}.txt").write_text("7_extra_test_00000008.jpg -1\nILSVRC2010_val_00017130.JPEG -1\n")
    with pytest.warns(UserWarning, match="not those published"):
        data = load(name, str(tmp_path), allow_modified_lists=True)
    assert data.open_set.images.tolist() == [
        f"{tmp_path}/{prefix}/7_extra_test_00000008.jpg",
        f"{tmp_path}/{prefix}/ILSVRC2010_val_00017130.JPEG",
    ]
    assert data.open_set.labels.tolist() == [-1, -1]


def test_a_folder_open_beside_train_is_the_open_set(tmp_path):
    touch(tmp_path, "train/owl/a.jpg", "train/owl/b.jpg", "test/owl/a.jpg", "open/z.jpg", "open/deep/y.png")
    touch(tmp_path, "open/notes.txt")
    data = load("folder", str(tmp_path))
    assert data.open_set.images.tolist() == [f"{tmp_path}/open/deep/y.png", f"{tmp_path}/open/z.jpg"]
    assert data.open_set.labels.tolist() == [-1, -1]
    assert data.class_names == ("owl",)
    assert any(note.startswith("1 files ") for note in data.notes)


def test_a_folder_open_among_folders_of_classes_is_a_class(tmp_path):
    touch(tmp_path, *(f"{name}/{i}.jpg" for name in ("open", "shut") for i in range(3)))
    data = load("folder", str(tmp_path))
    assert data.class_names == ("open", "shut")
    assert data.open_set is None


def test_own_lists_and_arrays(tmp_path, arrays_dir):
    np.savez(arrays_dir / "open.npz", images=np.zeros((4, 8, 8), np.uint8))
    data = load("arrays", str(arrays_dir))
    assert data.open_set.images.shape == (4, 8, 8, 1)
    assert data.open_set.labels.tolist() == [-1] * 4
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.txt").write_text(f"{split}/a b.jpg 0\n")
    (tmp_path / "open.txt").write_text("open/a b.jpg -1\n")
    assert load("lists", str(tmp_path)).open_set.images.tolist() == [f"{tmp_path}/open/a b.jpg"]


@pytest.mark.parametrize("line", ["open/a.jpg 0", "open/a.jpg", "-1"])
def test_a_line_that_is_no_open_image_is_named(tmp_path, line):
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.txt").write_text("a.jpg 0\n")
    (tmp_path / "open.txt").write_text(f"open/b.jpg -1\n{line}\n")
    with pytest.raises(ValueError, match=r"Expected `relative/path -1` on every line.*open.txt:2"):
        load("lists", str(tmp_path))


def test_bad_open_images_are_found_and_skipped_as_any_other(tmp_path):
    for split in ("train", "val", "test"):
        miniatures.write_jpeg(tmp_path / split / "owl/a.jpg", 0, seed=1)
    miniatures.write_jpeg(tmp_path / "open/a.jpg", 0, seed=2)
    (tmp_path / "open/b.jpg").write_bytes(tf.io.encode_jpeg(np.zeros((8, 8, 3), np.uint8)).numpy()[:40])
    data = load("folder", str(tmp_path))
    assert list(inspect(data)["open_set"].problems) == [1]
    with pytest.raises(ValueError, match="1 of 2 in open_set"):
        screen(data, report=tmp_path / "bad.txt")
    screened = screen(data, report=tmp_path / "bad.txt", on_bad_image="skip")
    assert screened.open_set.images.tolist() == [f"{tmp_path}/open/a.jpg"]
