"""What readers of data are given by mistake: the line names what was expected, what there is, and what to do."""

import numpy as np
import pytest

from keras_lt import train
from keras_lt.config import RunConfig
from keras_lt.datasets import load
from keras_lt.datasets.own_images import csv, folder, labelled_images, lists
from tests.test_datasets_own_images import touch

ENDINGS = r"Images must end in \.jpg, .*\.webp"


@pytest.mark.parametrize("name", ["0", "0.txt", "0.jpe", "bees.zip"])
@pytest.mark.parametrize("place", ["", "train/"])
def test_a_class_whose_files_are_no_images_is_told_what_lies_there(tmp_path, place, name):
    """Of names no label counts from 0, in whatever class."""
    touch(tmp_path, f"{place}ant/{name}", f"{place}bee/a.png", f"{place}bee/b.png", *["test/ant/a.png"] * bool(place))
    found = rf"no image in {tmp_path}/{place}ant, and 1 other files such as {tmp_path}/{place}ant/{name}$"
    with pytest.raises(ValueError, match=rf"^{ENDINGS}: rename what is one\. Received: {found}"):
        folder(str(tmp_path))


def test_a_class_without_a_file_and_a_split_without_an_image_are_told_by_their_folders(tmp_path):
    touch(tmp_path, "ant/a.png", "ant/b.png")
    (tmp_path / "bee").mkdir()
    with pytest.raises(ValueError, match=rf"take the folder away\. Received: no image in {tmp_path}/bee$"):
        folder(str(tmp_path))
    touch(tmp_path, "split/train/ant/a.png", "split/train/bee/a.png", "split/test/ant/a", "split/test/bee/a")
    with pytest.raises(
        ValueError, match=rf"no image in {tmp_path}/split/test, and 2 other files such as .*test/ant/a$"
    ):
        folder(str(tmp_path / "split"))


def test_hidden_folders_of_classes_are_named_and_those_within_classes_counted(tmp_path, capsys):
    touch(tmp_path, *(f"{name}/{row}.png" for name in ("ant", "bee", ".cat", "bee/.old") for row in range(3)))
    notes = folder(str(tmp_path)).notes
    assert notes[1].startswith("1 files among the images are hidden or have another extension")
    assert notes[1].endswith(f"such as {tmp_path}/bee/.old.")
    assert notes[2] == f"Hidden folders are no classes and were ignored: {tmp_path}/.cat."
    assert len(labelled_images(str(tmp_path), ("ant", "bee"))) == 6
    assert capsys.readouterr().out.splitlines() == list(notes[1:])


def test_a_folder_of_files_alone_is_told_one_of_them(tmp_path):
    touch(tmp_path, "photos.zip")
    with pytest.raises(ValueError, match=rf"Received: {tmp_path} without folders, but with photos\.zip$"):
        folder(str(tmp_path))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_any_system_ends_them(tmp_path, end):
    rows = ["a.png 0", "b.png 1"]
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.txt").write_bytes(end.join(rows).encode())
        (tmp_path / f"{split}.csv").write_bytes(end.join(["path,label", "a.png,0", "b.png,1"]).encode())
    (tmp_path / "classes.txt").write_bytes(end.join(["ant", "bee"]).encode())
    for read in (lists, csv):
        data = read(str(tmp_path))
        assert data.sizes == {"train": 2, "val": 2, "test": 2}
        assert data.class_names == ("ant", "bee")


def test_a_column_of_splits_takes_the_names_that_folders_take(tmp_path):
    splits = ("Training", "valid", "TEST")
    rows = "".join(f"{name}{split}.png,{name},{split}\n" for split in splits for name in ("ant", "bee"))
    (tmp_path / "images.csv").write_text(f"path,label,split\n{rows}")
    assert csv(str(tmp_path)).sizes == {"train": 2, "val": 2, "test": 2}


@pytest.mark.parametrize(("dataset", "name"), [("arrays", "images"), ("features", "features")])
def test_an_npz_of_other_arrays_and_a_file_that_is_none_are_told_apart(tmp_path, dataset, name):
    np.savez(tmp_path / "train.npz", x_train=np.zeros(3), labels=np.zeros(3, int))
    expected = rf"Expected .*`{name}` and `labels`.*Received: {tmp_path}/train\.npz"
    with pytest.raises(ValueError, match=rf"{expected}: with x_train, labels in it$"):
        load(dataset, str(tmp_path))
    (tmp_path / "train.npz").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(ValueError, match=rf"{expected}: no npz, or one that was cut short$"):
        load(dataset, str(tmp_path))


def test_images_of_no_class_in_train_are_refused_before_any_is_set_aside(tmp_path):
    for split in ("train", "test"):
        np.savez(tmp_path / f"{split}.npz", images=np.zeros((4, 2, 2), np.uint8), labels=[0, 1, 1, -1])
    with pytest.raises(ValueError, match=r"class ids from 0; -1, no class, is of an open set\. Received: -1$"):
        load("arrays", str(tmp_path))


def test_flags_that_do_not_fit_are_refused_before_an_image_is_looked_at(tmp_path):
    """The images are none at all, which would be said first."""
    touch(tmp_path, *(f"data/{name}/{row}.png" for name in ("ant", "bee") for row in range(9)))
    (tmp_path / "prior.txt").write_text("0.5 0.3 0.2")
    asked = {"dataset": "folder", "data_dir": str(tmp_path / "data"), "workdir": str(tmp_path / "run"), "batch_size": 4}
    with pytest.raises(SystemExit, match=r"prior\.txt must be 2 probabilities"):
        train.run(RunConfig(**asked, target_prior=str(tmp_path / "prior.txt")))
    assert not (tmp_path / "run").exists()
