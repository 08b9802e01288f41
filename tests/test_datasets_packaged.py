"""ELPV in miniature, laid out as its package has it: classes, splits by seed, its licence, and what is refused."""

import importlib.util
import types

import numpy as np
import pytest

from keras_lt import datasets
from tests.miniatures import ELPV_COUNTS, elpv


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cells")
    elpv(folder)
    return folder


def names(split):
    return set(split.examples.names)


def test_splits_are_stratified_and_the_licence_is_said(cells):
    data = datasets.load("elpv", str(cells))
    assert data.class_names == tuple(f"{cell} {defect}" for cell in ("mono", "poly") for defect in (0, 0.33, 0.67, 1))
    assert data.class_names == tuple(sorted(data.class_names))  # as folders of these names are read
    np.testing.assert_array_equal(data.class_counts, np.array(ELPV_COUNTS) - 30)
    assert np.bincount(data.val.labels).tolist() == [10] * 8
    assert np.bincount(data.test.labels).tolist() == [20] * 8
    assert len(names(data.train) | names(data.val) | names(data.test)) == sum(ELPV_COUNTS)
    assert any("CC-BY-NC-SA 4.0" in note for note in data.notes)
    said = dict(line.split(maxsplit=1) for line in (cells / "labels.csv").read_text().splitlines())
    for name, label in zip(data.test.names, data.test.labels, strict=True):
        probability, cell = said[f"images/{name.rpartition('/')[2]}"].split()
        assert data.class_names[label] == f"{cell} {float(probability):.2g}"


def test_the_splits_go_by_the_seed_and_lie_as_in_folders(cells):
    first, again, other = (datasets.load(f"elpv:seed={seed}", str(cells)) for seed in (0, 0, 1))
    assert first.test.names.tolist() == again.test.names.tolist()
    assert names(first.test) != names(other.test)
    for split in first.splits.values():
        order = list(zip(split.labels, split.names, strict=True))
        assert order == sorted(order)


def test_the_package_is_read_where_there_is_no_folder(cells, monkeypatch):
    (cells / "package").mkdir()
    (cells / "package/data").symlink_to(cells)
    spec = types.SimpleNamespace(origin=str(cells / "package/__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: {"elpv_dataset": spec}[name])
    assert datasets.load("elpv").sizes == {"train": sum(ELPV_COUNTS) - 240, "val": 80, "test": 160}


def test_without_the_package_its_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ModuleNotFoundError, match=r"--dataset=elpv reads .*elpv_dataset: pip install 'keras_lt\[elpv\]'"
    ):
        datasets.load("elpv")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("images/a.png 0.5", r"mono or poly in every line\. Received: .*labels\.csv:2: 'images/a\.png 0\.5'"),
        ("images/a.png 2.0 mono", "in every line"),
        ("images/a.png x mono", "in every line"),
        ("images/a.png 0.0 thin", "in every line"),
        ("images/a.png 1.0 poly", r"more than 30 images.*Received: .* with 1 of 'mono 0'"),
    ],
)
def test_a_list_of_something_else_is_refused(tmp_path, line, message):
    (tmp_path / "labels.csv").write_text(f"images/b.png 0.0 mono\n{line}\n")
    with pytest.raises(ValueError, match=message):
        datasets.load("elpv", str(tmp_path))


def test_a_folder_without_the_list_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"reads labels\.csv and images/.*Not found: .*labels\.csv"):
        datasets.load("elpv", str(tmp_path))


def test_the_same_photographs_in_folders_are_the_same_data(cells, tmp_path):
    """So flags/own_images.cfg gives the numbers of flags/elpv.cfg: draws and views go by positions, not by names."""
    data = datasets.load("elpv", str(cells))
    for name, split in data.splits.items():
        for row, label in enumerate(split.labels):
            path = tmp_path / name / data.class_names[label] / split.names[row].rpartition("/")[2]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(split.read(row))
    folders = datasets.load("folder", str(tmp_path))
    assert folders.class_names == data.class_names
    for ours, theirs in zip(folders.splits.values(), data.splits.values(), strict=True):
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        assert [ours.read(row) for row in range(len(ours))] == [theirs.read(row) for row in range(len(theirs))]
    for fact in ("mean", "std", "augmentation", "image_size", "crop_fraction", "many_above", "few_below"):
        assert getattr(folders, fact) == getattr(data, fact), fact
    np.testing.assert_array_equal(folders.listed_counts, data.listed_counts)
