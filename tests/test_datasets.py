import dataclasses
import pathlib

import numpy as np
import pytest

from keras_lt.datasets import DATASETS, LongTailed, Split, carve_validation, load
from keras_lt.metrics import ShotGroups


def split_of(counts, size=4):
    labels = np.repeat(np.arange(len(counts)), counts)
    return Split(np.zeros((len(labels), size, size), np.uint8), labels)


def data_of(train_counts, **changes):
    splits = {"train": split_of(train_counts), "val": split_of([1, 1]), "test": split_of([1, 1])}
    return LongTailed("toy", **{**splits, **changes}, class_names=("a", "b"))


def test_fashion_lt_has_an_exponential_tail_and_balanced_evaluation_splits():
    data = DATASETS["fashion_lt"]("")
    # n_i = floor(1000 * 100 ** (-i / 9)), worked on paper: 10 ** (3 - 2 i / 9)
    assert data.class_counts.tolist() == [1000, 599, 359, 215, 129, 77, 46, 27, 16, 10]
    assert np.bincount(data.val.labels).tolist() == [100] * 10
    assert np.bincount(data.test.labels).tolist() == [500] * 10
    assert data.train.images.shape == (2478, 28, 28, 1)
    assert data.image_size == 28


def test_fashion_lt_does_not_train_in_the_place_of_images_that_were_meant(tmp_path):
    with pytest.raises(ValueError, match=rf"reads no --data_dir; .*--dataset=folder.* Received: --data_dir={tmp_path}"):
        load("fashion_lt", str(tmp_path))


def test_fashion_lt_splits_share_no_image():
    data = DATASETS["fashion_lt"]("")
    seen = {name: {image.tobytes() for image in split.images} for name, split in data.splits.items()}
    assert not seen["train"] & seen["val"]
    assert not seen["train"] & seen["test"]
    assert not seen["val"] & seen["test"]


def test_image_statistics_are_those_of_the_training_pixels(tmp_path):
    images = np.zeros((2, 4, 4), np.uint8)
    images[1] = 255  # half the pixels are 0, half are 1: mean 1/2, deviation 1/2
    for name in ("train", "val", "test"):
        np.savez(tmp_path / name, images=images, labels=[0, 1])
    data = DATASETS["arrays"](str(tmp_path))
    np.testing.assert_allclose([data.mean, data.std], np.full((2, 3), 0.5))


def test_arrays_reads_class_names_and_carves_validation(tmp_path):
    for name, counts in {"train": [800, 200, 1], "test": [2, 2, 2]}.items():
        labels = np.repeat([0, 1, 2], counts)
        images = np.random.default_rng(len(labels)).integers(0, 256, (len(labels), 4, 4, 3), np.uint8)
        np.savez(tmp_path / name, images=images, labels=labels)
    (tmp_path / "classes.txt").write_text("cat\n \ndog\n")
    data = DATASETS["arrays"](str(tmp_path))
    assert data.class_names == ("cat", " ", "dog")
    carved = np.bincount(data.val.labels, minlength=3)
    np.testing.assert_allclose(carved, [80, 20, 0], atol=42)  # five standard deviations; never a class's only image
    assert (data.class_counts + carved).tolist() == [800, 200, 1]
    note = f"{tmp_path.name} has no val: {carved.sum()} of 1001 training images were set aside for it."
    assert data.notes == (note,)
    assert data.listed_counts.tolist() == [800, 200, 1]  # shot groups go by the list that val was carved from
    assert data.groups == ShotGroups([800, 200, 1])


def test_carving_is_seeded_and_loses_nothing():
    labels = np.repeat([0, 1], [30, 10])
    images = np.arange(40, dtype=np.uint8).reshape(40, 1, 1, 1)
    train, val = carve_validation(Split(images, labels), seed=3)
    again, _ = carve_validation(Split(images, labels), seed=3)
    other, _ = carve_validation(Split(images, labels), seed=4)
    assert sorted([*train.images.ravel(), *val.images.ravel()]) == list(range(40))
    np.testing.assert_array_equal(train.images, again.images)
    assert not np.array_equal(train.images, other.images)


def test_a_data_set_is_shown_by_the_size_of_its_splits():
    assert "train=Split(2,478 images), val=Split(1,000 images)" in repr(load("fashion_lt"))


def test_arrays_says_which_files_it_expects(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train.npz, test.npz and optionally val.npz"):
        DATASETS["arrays"](str(tmp_path))
    (tmp_path / "train.npz").write_bytes(b"<html>")
    with pytest.raises(ValueError, match="Expected an npz with `images` and `labels`"):
        DATASETS["arrays"](str(tmp_path))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: data_of([3, 0]), r"Every class needs a training image.*1 \('b'\)"),
        (lambda: data_of([3, 1], val=split_of([0, 0])), "'val' of size 0"),
        (
            lambda: LongTailed.from_splits("toy", {"train": split_of([0]), "test": split_of([1])}, class_names="a"),
            "size 0",
        ),
        (lambda: data_of([3, 1, 2]), r"Labels must lie in 0\.\.1.*'train' with labels 0\.\.2"),
        (lambda: Split(np.zeros((2, 4, 4), np.uint8), np.array([0])), "one label per example.*2 examples"),
        (lambda: Split(np.zeros((2, 0, 4), np.uint8), np.array([0, 1])), r"uint8.*shape=\(2, 0, 4, 1\)"),
        (lambda: Split(np.zeros((2, 4, 4), np.float32), np.array([0, 1])), "uint8.*float32"),
        (lambda: Split(np.zeros((2, 4, 4), np.uint8), np.array([0.0, 1.0])), "whole numbers.*float64"),
    ],
)
def test_bad_data_is_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_class_with_a_single_image_is_accepted():
    assert data_of([3, 1]).class_counts.tolist() == [3, 1]


def test_paths_are_strings_a_column_of_a_table_or_pathlibs():
    for paths in (["a.png", "b.png"], np.array(["a.png", "b.png"], object), [pathlib.Path("a.png"), "b.png"]):
        assert Split(paths, [[0], [1]]).names.tolist() == ["a.png", "b.png"]
    with pytest.raises(ValueError, match="dtype=object"):
        Split(np.array(["a.png", None]), [0, 1])


def test_a_subset_keeps_images_with_their_labels():
    data = DATASETS["fashion_lt"]("")
    rows = np.array([7, 3])
    subset = data.train.subset(rows)
    np.testing.assert_array_equal(subset.images, data.train.images[rows])
    np.testing.assert_array_equal(subset.labels, data.train.labels[rows])


def test_groups_stay_where_the_training_list_changes():
    data = dataclasses.replace(data_of([30, 3]), many_above=29, few_below=4)
    assert data.groups == data.resampled("undersampling").groups == ShotGroups([30, 3], 29, 4)
    fewer = dataclasses.replace(data, train=data.train.subset(np.array([0, 30])))
    assert fewer.class_counts.tolist() == [1, 1]
    assert fewer.groups == data.groups
    with pytest.raises(ValueError, match="few_below must not exceed many_above"):
        dataclasses.replace(data, few_below=30)
    with pytest.raises(ValueError, match=r"listed_counts must be \[2\], one per class. Received: shape \(3,\)"):
        dataclasses.replace(data, listed_counts=np.ones(3))
