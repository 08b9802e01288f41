import numpy as np
import pytest

from keras_lt.datasets import DATASETS, FeatureVectors, load
from keras_lt.inspection import screen

COUNTS = {"train": (20, 5, 1), "val": (2, 2, 2), "test": (2, 2, 2)}


def vectors(split, width=3):
    """Labels of a split, and vectors that begin with their row's number."""
    labels = np.repeat([0, 1, 2], COUNTS[split])
    made = np.random.default_rng(0).standard_normal((len(labels), width)).astype(np.float32)
    made[:, 0] = np.arange(len(labels))
    return made, labels


def write(folder, split, features=None, labels=None, *, mapped=False):
    own, of = vectors(split)
    features, labels = own if features is None else features, of if labels is None else labels
    if mapped:
        np.save(folder / f"{split}_features.npy", features)
        np.save(folder / f"{split}_labels.npy", labels)
    else:
        np.savez(folder / f"{split}.npz", features=features, labels=labels)


@pytest.mark.parametrize("mapped", [False, True], ids=["npz", "npy"])
def test_features_and_labels_of_every_split_are_read(tmp_path, mapped):
    for split in COUNTS:
        write(tmp_path, split, mapped=mapped)
    data = load("features", str(tmp_path))
    for split, examples in data.splits.items():
        features, labels = vectors(split)
        np.testing.assert_array_equal(examples.images, features)
        np.testing.assert_array_equal(examples.labels, labels)
        assert isinstance(examples.examples, FeatureVectors)
        assert isinstance(examples.examples.features, np.memmap) == mapped
    write(tmp_path, "test", labels=vectors("test")[1][:, np.newaxis], mapped=mapped)  # a column
    np.testing.assert_array_equal(load("features", str(tmp_path)).test.labels, vectors("test")[1])
    assert data.class_names == ("0", "1", "2")
    assert (data.name, data.image_size, data.notes) == (tmp_path.name, 0, ())
    assert screen(data, report=tmp_path / "bad.txt") is data


def test_val_is_carved_by_row_numbers_and_classes_have_names(tmp_path):
    for split in ("train", "test"):
        write(tmp_path, split, mapped=True)
    (tmp_path / "classes.txt").write_text("owl\nnewt\nyak\n")
    np.save(tmp_path / "open_features.npy", np.zeros((4, 3), np.float16))
    data = DATASETS["features"](str(tmp_path))
    assert data.class_names == ("owl", "newt", "yak")
    assert (data.class_counts + np.bincount(data.val.labels, minlength=3)).tolist() == [20, 5, 1]
    assert data.class_counts[2] == 1  # never the only one
    assert 0 < len(data.val) < 10  # a tenth of 26, by chance
    assert data.notes[-1].endswith(f"has no val: {len(data.val)} of 26 training feature vectors were set aside for it.")
    assert data.listed_counts.tolist() == [20, 5, 1]
    assert data.train.examples.features.array is data.val.examples.features.array
    kept = np.concatenate([data.train.images[:, 0], data.val.images[:, 0]])
    assert sorted(kept.tolist()) == list(range(26))
    assert data.open_set.labels.tolist() == [-1] * 4
    resampled = data.resampled("undersampling").train
    assert resampled.labels.tolist() == [0, 1, 2]
    assert resampled.examples.features.array is data.train.examples.features.array


FEATURES = vectors("train")[0]
BROKEN = FEATURES.copy()
BROKEN[17, 2] = np.inf


@pytest.mark.parametrize("mapped", [False, True], ids=["npz", "npy"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": FEATURES[:, 0]}, r"floating \[N, D\]. Received: .*/train\S+ with dtype=float32, shape=\(26,\)"),
        ({"features": FEATURES.astype(int)}, r"floating \[N, D\]. Received: .*/train\S+ with dtype=int64"),
        ({"features": FEATURES[:, :2]}, r"one width, train's 2. Received: 3 in test"),
        ({"features": BROKEN}, r"finite. Received: .*/train\S+ with another in row 17"),
        ({"labels": np.zeros(25, int)}, r"integers \[26\], one per row .*/train\S+ with dtype=int64, shape=\(25,\)"),
        ({"labels": np.zeros(26)}, r"integers \[26\].*/train\S+ with dtype=float64"),
        ({"labels": np.arange(26) - 1}, r"0..2, the classes of classes.txt. Received: .*/train\S+ with labels -1..24"),
        ({"labels": np.arange(26) % 4}, r"0..2, the classes of classes.txt. Received: .*/train\S+ with labels 0..3"),
    ],
)
def test_what_is_not_features_or_labels_is_named_with_its_file(tmp_path, changes, message, mapped):
    write(tmp_path, "train", **changes, mapped=mapped)
    write(tmp_path, "test", mapped=mapped)
    (tmp_path / "classes.txt").write_text("owl\nnewt\nyak\n")
    with pytest.raises(ValueError, match=message):
        load("features", str(tmp_path))


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"train.npz, test.npz .* Not found: {tmp_path}/train_features.npy"):
        load("features", str(tmp_path))
    np.save(tmp_path / "train_features.npy", FEATURES)
    with pytest.raises(FileNotFoundError, match=rf"Not found: {tmp_path}/train_labels.npy"):
        load("features", str(tmp_path))
    np.save(tmp_path / "train_labels.npy", np.array(["owl", None]))
    with pytest.raises(ValueError, match=rf"Received: {tmp_path}/train_labels.npy: Object arrays"):
        load("features", str(tmp_path))
    np.savez(tmp_path / "train.npz", images=FEATURES)
    with pytest.raises(
        ValueError, match=rf"npz or npy\. Received: {tmp_path}/train\.npz, and train_features.npy beside"
    ):
        load("features", str(tmp_path))
    (tmp_path / "train_features.npy").unlink()
    with pytest.raises(ValueError, match=rf"Expected `features` and `labels`.* Received: {tmp_path}/train.npz"):
        load("features", str(tmp_path))
