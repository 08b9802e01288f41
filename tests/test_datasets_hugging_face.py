"""Sets of the `datasets` library: local Parquet, image folders and saved sets; nothing asks a network."""

import io
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL.Image
import pytest

import keras_lt
from keras_lt.datasets.examining import hash_of
from keras_lt.datasets.hub_sets import hugging_face
from keras_lt.files import read_json, write_json
from keras_lt.inspection import inspect, inspect_examples

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def png(number):
    buffer = io.BytesIO()
    noise = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
    PIL.Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


CLASSES = datasets.ClassLabel(names=["owl", "newt"])


def rows(labels, *, kind=CLASSES, first=0, paths=False, column="label", images="image"):
    """Images `first`, `first` + 1, ... with these labels."""
    encoded = [
        {"bytes": png(first + row), "path": f"{first + row}.png" if paths else None} for row in range(len(labels))
    ]
    features = datasets.Features({"caption": datasets.Value("string"), images: datasets.Image(), column: kind})
    table = {"caption": ["x"] * len(labels), images: encoded, column: labels}
    return datasets.Dataset.from_dict(table, features=features)


def parquet(folder, **splits):
    """A folder as the Hub has them; returns its path."""
    (folder / "data").mkdir()
    for split, given in splits.items():
        given.to_parquet(folder / f"data/{split}-00000-of-00001.parquet")
    return str(folder)


@pytest.fixture
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


def test_rows_are_the_encoded_bytes_with_their_labels(tmp_path, cache):
    splits = {"train": rows([0, 1] * 5), "validation": rows([1, 0], first=10), "test": rows([1, 1, 0], first=12)}
    name = parquet(tmp_path, **splits, extra=rows([0], first=90))
    data = keras_lt.load(f"hf:{name}", cache)
    assert data.class_names == ("owl", "newt")
    assert data.name == f"hf:{tmp_path.name}"  # whatever path leads there
    assert data.notes == (f"Splits of hf:{name} that are not train, val or test were ignored: extra.",)
    assert [data.train.read(row) for row in range(10)] == [png(number) for number in range(10)]
    assert data.train.labels.tolist() == [0, 1] * 5
    assert [data.val.read(row) for row in range(2)] == [png(10), png(11)]
    assert data.test.labels.tolist() == [1, 1, 0]
    assert data.train.names.tolist() == [f"train[{row}]" for row in range(10)]
    assert not inspect(data, cache_dir=tmp_path)["train"].problems

    train = data.train.examples
    chosen = train.subset(np.array([7, 2])).subset(np.array([1, 0]))
    assert [chosen.read(0), chosen.read(1), chosen.names.tolist()] == [png(2), png(7), ["train[2]", "train[7]"]]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(train.read, list(range(10)) * 20)) == [png(number) for number in range(10)] * 20
    assert train.reader()(np.int64(7)).numpy() == png(7)  # as a training reads it
    again = keras_lt.load(f"hf:{name}", cache).train.examples
    orders = [train.subset(np.array(order)) for order in ([0, 1], [1, 0])]
    assert again.fingerprint() == train.fingerprint()
    assert len({examples.fingerprint() for examples in (train, *orders, data.test.examples)}) == 4


def test_a_folder_of_image_files_is_read_where_they_lie(tmp_path, cache):
    photos = tmp_path / "photos"
    for number in range(40):
        path = photos / ("Käuzchen" if number % 4 else "owl") / f"no. {number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    data = hugging_face(str(photos), cache)
    assert data.class_names == ("Käuzchen", "owl")
    assert sum(data.sizes.values()) == 40
    assert "has no labelled test split: its images were split by their names" in data.notes[0]
    for split in data.splits.values():
        for row, name in enumerate(split.names):
            assert name.startswith(f"{data.class_names[split.labels[row]]}{os.sep}no. ")
            assert split.read(row) == (photos / name).read_bytes()
    before = set(data.test.names)
    (photos / "owl/a.png").write_bytes(png(99))  # goes first, and moves no other
    assert before <= set(hugging_face(str(photos), cache).test.names)
    gone = data.train.names[0]
    (photos / gone).unlink()
    with pytest.raises(FileNotFoundError):
        data.train.read(0)


@pytest.mark.parametrize("splits", [("train", "test"), ("",)])
def test_files_that_the_library_passes_over_are_named_and_no_class_is_dropped(tmp_path, cache, splits):
    """It takes images by their extensions: of newts whose names have none it would say nothing."""
    for number in range(30):
        for split in splits:
            path = tmp_path / split / ("newt", "owl", "ox")[number % 3] / f"{number}{'.png' if number % 2 else ''}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(number))
    data = hugging_face(str(tmp_path), cache)
    assert data.class_names == ("newt", "owl", "ox")
    assert any(f"{15 * len(splits)} files among the images are hidden or have another ext" in n for n in data.notes)
    for path in (tmp_path / splits[0] / "newt").glob("*.png"):
        path.rename(path.with_suffix(""))
    with pytest.raises(
        ValueError, match=r"Images must end in \.jpg.*: rename what is one\. .*newt, and 10 other files"
    ):
        hugging_face(str(tmp_path), cache)


def test_what_save_to_disk_wrote_is_read_as_it_is(tmp_path):
    splits = {"train": rows([0, 0, 1]).select([2, 0, 1]), "test": rows([1, 0], first=5)}
    datasets.DatasetDict(splits).save_to_disk(tmp_path)
    data = hugging_face(str(tmp_path), seed=1)
    assert data.val_is_carved
    everything = {data.train.read(row): int(label) for row, label in enumerate(data.train.labels)}
    everything |= {data.val.read(row): int(label) for row, label in enumerate(data.val.labels)}
    assert everything == {png(0): 0, png(1): 0, png(2): 1}


def test_saved_splits_without_rows_are_none(tmp_path):
    """Version 5 of the library writes no file of them, and then cannot read its own folder; 4 cannot write it."""
    for empty, splits in {"val": ("train", "val", "test"), "train": ("train", "test")}.items():
        datasets.DatasetDict({split: rows([0, 1] * 5) for split in splits}).save_to_disk(tmp_path / empty)
        (file,) = (tmp_path / empty / empty).glob("*.arrow")
        file.unlink()
        state = read_json(tmp_path / empty / empty / "state.json")
        write_json(tmp_path / empty / empty / "state.json", {**state, "_data_files": []})
    assert hugging_face(str(tmp_path / "val")).val_is_carved
    with pytest.raises(ValueError, match=r"needs a split train with images. Received: hf:.* with train, test$"):
        hugging_face(str(tmp_path / "train"))


def test_an_unlabelled_test_split_leaves_its_place_to_validation(tmp_path, cache):
    name = parquet(tmp_path, train=rows([0, 1] * 10), valid=rows([1, 0, 0], first=50), test=rows([-1, -1], first=70))
    data = hugging_face(name, cache)
    assert data.test.labels.tolist() == [1, 0, 0]
    assert len(data.train) + len(data.val) == 20
    assert "validation split is reported as test" in data.notes[0]


def test_columns_may_be_named_and_labels_may_be_strings_or_numbers(tmp_path, cache):
    strings, numbers = datasets.Value("string"), datasets.Value("int64")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    train = rows(["newt", "owl", "axolotl", "owl"], kind=strings, column="species")
    name = parquet(tmp_path / "a", train=train, test=rows(["owl"], kind=strings, first=9, column="species"))
    with pytest.raises(ValueError, match=r"hf:.*:label=<column> .*Received: hf:.* with caption, image, species$"):
        hugging_face(name, cache)
    data = keras_lt.load(f"hf:{name}:image=image:label=species", cache)
    assert data.class_names == ("axolotl", "newt", "owl")
    assert data.test.labels.tolist() == [2]
    assert data.notes[0] == f"Labels of hf:{name} are strings: the 3 that differ are the classes, sorted."
    name = parquet(tmp_path / "b", train=rows([10, 9, 10, 2], kind=numbers), test=rows([9], kind=numbers, first=9))
    data = hugging_face(name, cache)
    assert data.class_names == ("2", "9", "10")
    assert data.test.labels.tolist() == [1]


def test_a_long_tail_is_imposed_on_train_alone(tmp_path):
    datasets.DatasetDict(train=rows([0, 1] * 10), val=rows([0, 1]), test=rows([1])).save_to_disk(tmp_path)
    data = keras_lt.load(f"hf:{tmp_path}:imbalance_ratio=5")
    assert data.class_counts.tolist() == [10, 2]
    assert data.sizes == {"train": 12, "val": 2, "test": 1}


STRING = datasets.Value("string")


@pytest.mark.parametrize("kind", ["saved", "image files"])
def test_other_images_of_the_same_names_and_lengths_are_examined_again(tmp_path, cache, kind):
    """Noise of one size is of one length; a record of the data set goes by these hashes."""
    root, hashes = tmp_path / "set", []
    for first in (0, 50):
        if kind == "saved":
            shutil.rmtree(root, ignore_errors=True)
            datasets.DatasetDict(train=rows([0, 1] * 5, first=first), test=rows([1, 0])).save_to_disk(root)
        else:
            for number in range(20):
                path = root / "ab"[number % 2] / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(png(first + number))
        train = hugging_face(str(root), cache).train
        hashes.append(inspect_examples(train.examples, title="", cache_dir=tmp_path / "known").hashes.tolist())
        assert hashes[-1] == [hash_of(train.read(row)) for row in range(len(train))]
    assert not set(hashes[0]) & set(hashes[1])
    chosen = train.examples.subset(np.array([3, 1]))
    np.testing.assert_array_equal(chosen.stamps(slice(0, 1)), train.examples.stamps(slice(3, 4)))


@pytest.mark.parametrize(
    "test",
    [
        rows([0, 1, 1], kind=datasets.ClassLabel(names=["newt", "owl"])),
        rows([0, 2, 2], kind=datasets.ClassLabel(names=["newt", "ant", "owl"])),
        rows(["newt", "owl", "owl"], kind=STRING),
        rows([1, 0, 0], kind=datasets.Value("int64")),
    ],
    ids=["another order", "another number", "strings", "numbers"],
)
def test_labels_go_by_the_names_of_their_own_split(tmp_path, test):
    """A number is another class where a split counts its names in another order."""
    datasets.DatasetDict({"train": rows([0, 1] * 5), "test": test}).save_to_disk(tmp_path)
    data = hugging_face(str(tmp_path))
    assert data.class_names == ("owl", "newt")
    assert data.test.labels.tolist() == [1, 0, 0]


def test_a_class_that_train_has_not_is_named(tmp_path):
    kind = datasets.ClassLabel(names=["owl", "ant"])
    datasets.DatasetDict({"train": rows([0, 1]), "test": rows([0, 1], kind=kind)}).save_to_disk(tmp_path)
    with pytest.raises(ValueError, match=r"Labels must be classes of train\. Received: hf:.*, test with 'ant'$"):
        hugging_face(str(tmp_path))


def test_splits_are_called_as_folders_are(tmp_path):
    splits = {"Training": rows([0, 1] * 5), "dev": rows([1, 0]), "testing": rows([1, 1, 0]), "test_2": rows([0])}
    datasets.DatasetDict(splits).save_to_disk(tmp_path)
    data = hugging_face(str(tmp_path))
    assert data.sizes == {"train": 10, "val": 2, "test": 3}
    assert data.notes == (f"Splits of hf:{tmp_path} that are not train, val or test were ignored: test_2.",)


def test_one_split_alone_is_divided_whatever_it_is_called(tmp_path):
    datasets.DatasetDict({"full": rows([0, 1] * 20)}).save_to_disk(tmp_path)
    assert sum(hugging_face(str(tmp_path)).sizes.values()) == 40


def test_a_test_split_without_the_column_of_labels_has_none(tmp_path):
    splits = {"train": rows([0, 1] * 5), "validation": rows([1, 0]), "test": rows([1, 1], column="id")}
    datasets.DatasetDict(splits).save_to_disk(tmp_path)
    data = hugging_face(str(tmp_path))
    assert data.test.labels.tolist() == [1, 0]
    assert "no labelled test split: its validation split is reported as test" in data.notes[0]


@pytest.mark.parametrize(
    ("splits", "options", "message"),
    [
        ({"train": rows([0, -1, 1, -1])}, {}, r"Every image needs a label.*, train with 2 of 4 without, .* in row 1$"),
        ({"train": rows([None, "a"], kind=STRING)}, {}, r"train with 1 of 2 without, the first in row 0$"),
        ({"train": rows([0, 1]), "test": rows([1, -1])}, {}, r"test with 1 of 2 without, the first in row 1$"),
        (
            {"train": rows(["a", "b"], kind=STRING), "test": rows(["c"], kind=STRING)},
            {},
            r"classes of train.*test.*'c'",
        ),
        ({"train": rows(["a ", "a"], kind=STRING)}, {}, r"Class names must differ.*hf:.* with 'a' and 'a '$"),
        ({"test": rows([0, 1])}, {}, r"needs a split train with images\. Received: hf:.* with test$"),
        (
            {"train": rows([0]), "test": rows([0], images="img")},
            {},
            r"column image of images.*test with caption, img, label$",
        ),
        (
            {"train": rows([0]), "test_1": rows([0]), "test_2": rows([0])},
            {},
            r"test must be one split.*test_1, test_2$",
        ),
        ({"train": rows([0]), "val": rows([0]), "valid": rows([0])}, {}, r"val must be one split.*val, valid$"),
        ({"train": rows([0])}, {"label": "genus"}, r"label=genus, hf:.* with caption, image, label$"),
        ({"train": rows([0])}, {"image": "caption"}, r"one column of images.*Received: image=caption, hf:"),
        (
            {"train": rows([0.5], kind=datasets.Value("float32"))},
            {},
            r"one label per image.*with caption, image, label",
        ),
        ({"train": rows([[0]], kind=datasets.List(CLASSES))}, {}, r"one label per image: a ClassLabel, strings or"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, splits, options, message):
    datasets.DatasetDict(splits).save_to_disk(tmp_path)
    with pytest.raises(ValueError, match=message):
        hugging_face(str(tmp_path), **options)


def test_sets_that_are_not_there_are_named(tmp_path, cache):
    for name in (f"{tmp_path}/nowhere", "owner/set:1.0.0", "a/b/c", __file__):
        with pytest.raises(FileNotFoundError, match=rf"`owner/name` of the Hugging Face Hub.*Not found: hf:{name}$"):
            hugging_face(name, cache)
    with pytest.raises(ValueError, match=r"library can load: .*Received: hf:nobody/unicorns: ") as error:
        hugging_face("nobody/unicorns", cache)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"Received: hf:.*: \S"):
        hugging_face(str(tmp_path), cache)  # an empty folder


def test_the_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'keras_lt\[hf\]'"):
        hugging_face("mnist")
