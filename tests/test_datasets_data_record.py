"""What is known of the data set that a run was trained on."""

import dataclasses

import numpy as np
import pytest

from keras_lt.datasets import LongTailed, Split
from keras_lt.datasets.data_record import DataRecord, record_of
from keras_lt.datasets.examples import ImageFiles
from keras_lt.train import describe, describe_repeats

LABELS = np.array([0, 0, 0, 1, 1])


def files_in(root, *, names="pqrst", labels=LABELS, classes=("ant", "bee"), content=b"0123456789abcdef", **changes):
    """A data set of files below a folder, and the record of it."""
    paths = np.array([f"{root}/{name}.jpg" for name in names])
    train = Split(ImageFiles(paths, root=root), np.array(labels))
    others = {split: Split(ImageFiles(paths[-2:], root=root), np.array(labels)[-2:]) for split in ("val", "test")}
    data = LongTailed("x", train, **others, class_names=classes, **changes)
    return record_of(data, {split: np.full(len(part), content, "S16") for split, part in data.splits.items()})


RECORD = files_in("/a")
ALONE = [(split, np.array([[1, 0, 1], [2, 1, 2]], np.uint64)) for split in ("train", "val", "test")]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        (
            {"names": "pqrsx"},
            ["train: images 1 new, 1 gone", "val: images 1 new, 1 gone", "test: images 1 new, 1 gone"],
        ),
        ({"classes": ("ant", "bee", "cow"), "labels": [0, 0, 2, 1, 1]}, ["classes new, 1 in all: cow"]),
        ({"classes": ("ant", "cow")}, ["classes new, 1 in all: cow", "classes gone, 1 in all: bee"]),
        ({"classes": ("bee", "ant")}, ["the classes are in another order"]),
        ({"labels": [1, 0, 0, 1, 1]}, ["train: images 1 of another class"]),
        ({"names": "qprst"}, ["train: images in another order or number"]),
    ],
)
def test_what_differs_is_named(changes, found):
    assert RECORD.differences(files_in("/moved", **changes)) == found


def test_other_pictures_of_the_same_names_are_told():
    found = RECORD.differences(files_in("/a", content=b"another 16 bytes"))
    assert found == [f"{split}: images {n} of other content" for split, n in {"train": 5, "val": 2, "test": 2}.items()]


def test_images_that_were_only_added_are_told():
    grown = files_in("/a", names="npqrst", labels=[0, 0, 0, 0, 1, 1])
    assert RECORD.only_grew(grown)
    assert not grown.only_grew(RECORD)
    assert RECORD.differences(grown) == ["train: images 1 new"]


def test_a_record_is_read_as_it_was_written_and_stands_for_the_data(tmp_path):
    places = {"facts": tmp_path / "data.json", "images": tmp_path / "data.npz"}
    record = files_in("/a", notes=("a note",), many_above=2, few_below=1)
    record.save(**places)
    found = DataRecord.load(**places)
    assert found.differences(record) == []
    assert found.digest == record.digest != files_in("/a", names="pqrsx").digest
    for field in dataclasses.fields(DataRecord):
        if field.name != "images":
            np.testing.assert_equal(getattr(found, field.name), getattr(record, field.name))
    assert found.groups.sizes == {"many": 1, "medium": 1, "few": 0}


def test_contents_under_two_labels_are_counted_and_what_repeats_is_said(capsys):
    contents = np.array([f"{content:016}" for content in (1, 2, 2, 2, 3)], "S16")
    train = Split(np.arange(5 * 64, dtype=np.uint8).reshape(5, 8, 8), LABELS)
    data = LongTailed("x", train, train, train, class_names=("ant", "bee"))
    record = record_of(data, dict.fromkeys(data.splits, contents))
    assert record.of_two_labels() == 1  # the twos, of ant and of bee, in three splits
    describe_repeats(record)
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("Splits share examples, byte for byte: 5 of val also in train, 5 of test also in train")
    assert said[1].startswith("1 examples stand under two labels")
    apart = dataclasses.replace(
        record, images={split: images + np.uint64(10 * i) for i, (split, images) in enumerate(ALONE)}
    )
    describe_repeats(apart)
    assert capsys.readouterr().out == ""


def test_classes_without_a_test_image_are_said(two_classes, capsys):
    describe(two_classes)
    assert capsys.readouterr().out.endswith(
        "\nClasses without a test image, and so without a score: 1, such as dark.\n"
    )
