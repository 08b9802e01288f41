"""A data set of flat grey squares that a tiny backbone learns in an epoch or two."""

import contextlib
import dataclasses
import gc
import itertools
import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lt import backbones, train
from keras_lt.checkpoints import EpochCheckpoints
from keras_lt.datasets import LongTailed, Split
from tests.tiny_backbone import TINY

COUNTS = (120, 24, 6)  # many-, medium- and few-shot


def pytest_ignore_collect(collection_path, config):
    """`pytest -m versions` reads only the files that it runs: others import what its environments do not have."""
    if config.option.markexpr == "versions" and collection_path.match("test_*.py"):
        return None if "pytest.mark.versions" in collection_path.read_text() else True  # None: as without this hook
    return None


def pytest_configure(config):
    """Leaves out what costs time where small graphs are traced and run once; not so in `pytest -m versions`."""
    if config.option.markexpr != "versions":
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
        keras.config.disable_traceback_filtering()
        tf.debugging.disable_traceback_filtering()
    tf.zeros(())  # what TensorFlow says of the machine, it says before a test listens
    gc.collect()
    gc.freeze()  # what is imported stays
    gc.set_threshold(20_000, 20, 10)


def some_of(members, *examples):
    """Parameters of a test: the examples as they are, the other members for `pytest -m exhaustive`."""
    assert all(example in members for example in examples)
    marks = [() if member in examples else pytest.mark.exhaustive for member in members]
    rows = [member if isinstance(member, tuple) else (member,) for member in members]
    return [pytest.param(*row, marks=mark) for row, mark in zip(rows, marks, strict=True)]


def squares(counts, *, seed, size=8):
    """Images whose brightness says their class, with noise; and their labels, shuffled."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    images = 60 + 60 * labels[:, None, None] + rng.integers(-40, 41, (len(labels), size, size))
    return images.astype(np.uint8), labels


def save_squares(folder, *, val=(10,) * 3):
    """Three splits of them as the npz files of `--dataset=arrays` in a folder; the folder."""
    for seed, (split, counts) in enumerate({"train": COUNTS, "val": val, "test": (7,) * 3}.items()):
        images, labels = squares(counts, seed=seed)
        np.savez(folder / f"{split}.npz", images=images, labels=labels)
    return folder


def killed_in_write(monkeypatch, number):
    """Ends whatever writes its files atomically just before that file, from 0, takes its place."""
    replace, written = os.replace, itertools.count()

    def deadly_replace(source, target):
        if next(written) == number:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", deadly_replace)


@contextlib.contextmanager
def killed_in_second_epoch(monkeypatch):
    """Within it a fit dies after its second epoch, before that epoch's checkpoint is written."""
    saved = EpochCheckpoints.on_epoch_end

    def deadly_end(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt
        saved(self, epoch, logs)

    with monkeypatch.context() as patch:
        patch.setattr(EpochCheckpoints, "on_epoch_end", deadly_end)
        with pytest.raises(KeyboardInterrupt):
            yield


@pytest.fixture(scope="session")
def data():
    """120, 24 and 6 training images of three classes; 10 of each to validate, 7 to test."""
    train, val, test = (
        Split(*squares(counts, seed=seed)) for seed, counts in enumerate((COUNTS, (10, 10, 10), (7, 7, 7)))
    )
    statistics = {"mean": (0.4,) * 3, "std": (0.2,) * 3, "augmentation": "none", "crop_fraction": 1.0}
    return LongTailed("squares", train, val, test, class_names=("dark", "grey", "light"), **statistics)


@pytest.fixture(scope="session")
def two_classes(data):
    """The first two classes of the data set, of which val and test have the second alone."""
    parts = {name: split.subset(np.flatnonzero(split.labels == 1)) for name, split in data.splits.items()}
    parts["train"] = data.train.subset(np.flatnonzero(data.train.labels < 2))
    return dataclasses.replace(data, **parts, class_names=("dark", "grey"), listed_counts=None)


@pytest.fixture
def arrays_dir(tmp_path):
    """The same images as the npz files of `--dataset=arrays`."""
    folder = tmp_path / "squares"
    folder.mkdir()
    return save_squares(folder)


@pytest.fixture(scope="session", autouse=True)
def keras_home(tmp_path_factory):
    """What the package remembers of images is not written into the home of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
        yield


@pytest.fixture(scope="session", autouse=True)
def tiny_backbone():
    """Makes the tests' own backbone known by the name "tiny"."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backbones.BACKBONES, "tiny", TINY)
        yield "tiny"


@pytest.fixture
def bare(monkeypatch):
    """Runs are without report and SavedModel: they take seconds, and other tests look at them."""
    monkeypatch.setattr(train, "write_report", lambda *_: {})
    monkeypatch.setattr(train, "export", lambda *_: "none")


@pytest.fixture
def benchmark(capfd, monkeypatch):
    """What a benchmark prints: (the words of its command) -> text."""
    from tools import benchmark  # noqa: PLC0415

    for variable in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        monkeypatch.setenv(variable, "1")  # which some set; here it is undone

    def printed(arguments):
        benchmark.main(arguments.split())
        return capfd.readouterr().out

    yield printed
    keras.utils.enable_interactive_logging()  # which others leave out
