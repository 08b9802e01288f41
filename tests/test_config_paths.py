"""A run is gone on with from whatever folder: paths of its flags mean the same everywhere."""

import dataclasses
import os

import numpy as np
import pytest

import keras_lt
from keras_lt import config
from keras_lt.config import RunConfig
from keras_lt.config.paths import differences, placed_flags, whole_paths
from keras_lt.datasets import LongTailed, Split
from keras_lt.datasets.data_record import record_of
from tests.test_config import parse


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with what flags may name, and another one in it."""
    for name in ("photos", "k=v/photos", "preset", "imagenet", "uniform", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("x.weights.h5", "prior.txt"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("flag", "given", "whole"),
    [
        ("data_dir", "photos", "{}/photos"),
        ("data_dir", "elsewhere/../gone", "{}/gone"),
        ("dataset", "hf:photos", "hf:{}/photos"),
        ("dataset", "hf:./photos:image=img:seed=1", "hf:{}/photos:image=img:seed=1"),
        ("backbone", "keras_hub/./preset", "keras_hub/{}/preset"),
        ("backbone", "keras_cv/preset", "keras_cv/{}/preset"),
        ("pretrained", "x.weights.h5", "{}/x.weights.h5"),
        ("target_prior", "prior.txt", "{}/prior.txt"),
    ],
)
def test_a_path_is_kept_as_it_is_from_every_folder(here, flag, given, whole):
    begun = RunConfig(**{"workdir": "run", flag: given})
    assert whole_paths(begun)[flag] == whole.format(here)
    run = keras_lt.Run.of(begun)
    dataclasses.replace(begun, **whole_paths(begun)).save(run.flags_file)
    os.chdir("elsewhere")
    kept = config.read_flag_file(here / "run/flags.cfg")
    assert getattr(kept, flag) == whole.format(here)
    there = given.replace("photos", "../photos") if flag == "dataset" else f"../{given}"
    if flag == "backbone":
        there = given.replace("preset", "../preset")
    assert differences(kept, dataclasses.replace(kept, **{flag: there})) == []


@pytest.mark.parametrize(
    ("flag", "given"),
    [
        ("dataset", "hf:owner/name"),
        ("dataset", "tfds:photos"),
        ("dataset", "fashion_lt"),
        ("backbone", "keras_hub/vit_base"),
        ("pretrained", "imagenet"),
        ("pretrained", ""),
        ("target_prior", "uniform"),
        ("target_prior", "forward:ratio=25"),
    ],
)
def test_what_is_no_path_stays_as_it_is(here, flag, given):
    fits = {"backbone": "keras_applications/ResNet50"} if given == "imagenet" else {}
    assert placed_flags(RunConfig(**{**fits, flag: given}))[flag] == given


def test_the_kept_flags_replay_a_run_of_the_default_folder(here):
    begun = RunConfig(dataset="hf:photos")
    run = keras_lt.Run.of(begun)
    run.current_data = record_of(LongTailed("toy", *[Split(np.zeros((2, 4, 4), np.uint8), [0, 1])] * 3, "ab"), {})
    run.save_config()
    again = config.from_flags(parse(f"--flagfile={run.flags_file}"))
    assert again.folder == begun.folder
    assert run.differences(again) == []


def test_the_name_of_what_was_prepared_stays_as_it_is(here):
    (here / "photos/prepare.json").touch()
    assert placed_flags(RunConfig(dataset="hf:photos", data_dir="photos"))["dataset"] == "hf:photos"


def test_a_folder_that_would_be_read_as_a_parameter_stays_relative(here, monkeypatch):
    monkeypatch.chdir("k=v")
    assert placed_flags(RunConfig(dataset="hf:photos"))["dataset"] == "hf:photos"
