"""Data sources as a family: what each says of itself, and how one is written with its parameters."""

import numpy as np
import pytest

from keras_lt import datasets
from keras_lt.datasets import DATASETS, SourceEntry, Split, check, load, parse
from keras_lt.datasets.long_tailed import LongTailed
from keras_lt.registry import Entry


@pytest.mark.parametrize("name", DATASETS)
def test_a_source_says_what_it_reads_and_what_it_can_be_told(name):
    source = DATASETS[name]
    assert isinstance(source, Entry)
    assert source.reads
    assert all(isinstance(default, bool | int | float | str) for default in source.parameters.values())
    text = f"{name}:some" if source.takes_name else name
    for parameter, default in source.parameters.items():
        told = check(f"{text}:{parameter}={default}")
        assert told.parameters == source.parameters
    with pytest.raises(
        ValueError, match=f"{text} (has the parameters|has no parameters).*Received: dataset={text}:x=1"
    ):
        check(f"{text}:x=1")


@pytest.mark.parametrize("name", [name for name, source in DATASETS.items() if source.needs_folder])
def test_a_source_that_needs_a_folder_says_what_must_be_in_it(name):
    with pytest.raises(FileNotFoundError, match=r"reads .* from --data_dir. Received: no --data_dir"):
        load(name)


@pytest.mark.parametrize(
    ("text", "name", "given"),
    [
        ("cifar100_lt", "cifar100_lt", {}),
        ("cifar100_lt:imbalance_ratio=50:profile=step", "cifar100_lt", {"imbalance_ratio": 50.0, "profile": "step"}),
        ("places_lt:allow_modified_lists=true", "places_lt", {"allow_modified_lists": True}),
        ("tfds:imagenet_lt", "tfds:imagenet_lt", {}),
        ("hf:owner/some_set:image=img:label=fine label", "hf:owner/some_set", {"image": "img", "label": "fine label"}),
        ("tfds:wiki/en:1.0.0", "tfds:wiki/en:1.0.0", {}),
        ("tfds:wiki/en:1.0.0:imbalance_ratio=10:seed=3", "tfds:wiki/en:1.0.0", {"imbalance_ratio": 10.0, "seed": 3}),
    ],
)
def test_a_name_ends_where_its_parameters_begin(text, name, given):
    assert parse(DATASETS, text)[::2] == (name, given)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("cifar", {}, r"one of fashion_lt, .*features, tfds:<name>, hf:<name>. Received: dataset=cifar$"),
        (None, {}, r"must be a name, .*a keras_lt.LongTailed. Received: a NoneType$"),
        ("tfds", {}, r"must name one of the library's, tfds:<name>. Received: dataset=tfds$"),
        ("tfds::seed=1", {}, r"must name one of the library's"),
        ("tfds:seed=1", {}, r"must name one of the library's"),
        ("cifar10_lt:100", {}, r"name:parameter=value, each once. Received: 'cifar10_lt:100'"),
        ("tfds:cars:seed=1:3.0.0", {}, r"name:parameter=value, each once"),
        ("cifar10_lt:imbalance_ratio=ten", {}, r"imbalance_ratio must be a number. Received: dataset=cifar10_lt:imb"),
        ("folder:imbalance_ratio=10", {}, r"folder has the parameters seed=0. Received: dataset=folder:imb"),
        ("folder", {"imbalance_ratio": 10.0}, r"folder takes no such option. Received: imbalance_ratio=10.0"),
        ("cifar10_lt:seed=1", {"seed": 2}, r"An option is given once. Received: dataset=cifar10_lt:seed=1, seed=2"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_read(text, options, message):
    with pytest.raises(ValueError, match=message):
        check(text, **options)


def test_a_new_source_is_a_function_and_a_line(monkeypatch):
    def dots(data_dir="", *, classes: int = 2):
        """One black dot a class."""
        split = Split(np.zeros((classes, 1, 1), np.uint8), np.arange(classes))
        return LongTailed("dots", split, split, split, class_names=range(classes))

    monkeypatch.setitem(datasets.DATASETS, "dots", SourceEntry(dots, reads="nothing", needs_folder=False))
    assert load("dots").class_counts.tolist() == [1, 1]
    assert load("dots:classes=3").class_counts.tolist() == load("dots", classes=3).class_counts.tolist() == [1, 1, 1]
    assert check("dots:classes=4")("").class_names == ("0", "1", "2", "3")
