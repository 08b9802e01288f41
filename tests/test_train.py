"""The commands as a user gives them, on a data set that takes seconds."""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from keras_lt import train
from keras_lt.classifiers import CLASSIFIERS
from keras_lt.config import RunConfig, read_flag_file
from keras_lt.files import read_json
from keras_lt.run import Run
from tests.conftest import save_squares, some_of
from tests.programs import ROOT, command

SMALL = {"backbone": "tiny", "epochs": 2, "batch_size": 16, "learning_rate": 0.05, "classifier_epochs": 2}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run, its results, and what it said; for tests that change none of its files."""
    folder = tmp_path_factory.mktemp("finished")
    save_squares(folder)
    flags = {"dataset": "arrays", "data_dir": str(folder), "workdir": str(folder / "run"), **SMALL}
    config = RunConfig(**flags, augmentation="crop_flip")
    with contextlib.redirect_stdout(io.StringIO()) as said:
        results = train.run(config)
    return config, results, said.getvalue()


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of that run with other flags."""
    folder = shutil.copytree(finished[0].folder, tmp_path / "run")
    return lambda **changes: dataclasses.replace(finished[0], workdir=str(folder), **changes)


@pytest.fixture
def run_config(arrays_dir, tmp_path):
    return lambda **changes: RunConfig(
        **{"dataset": "arrays", "data_dir": str(arrays_dir), "workdir": str(tmp_path / "run"), **SMALL, **changes}
    )


def accuracies(results):
    return {name: {split: row[split] for split in ("val", "test")} for name, row in results["classifiers"].items()}


@pytest.mark.versions
def test_a_run_leaves_what_the_design_says(finished):
    config, results, said = finished
    folder = config.folder
    written = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {
        "flags.cfg",
        "train.log",
        "results.json",
        "results.md",
        "report.html",
        "representation/model.keras",
        "representation/history.csv",
        "features/test/features.npy",
        "classifiers/lws/model.keras",
        "classifiers/lws/history.csv",
        "classifiers/lws/scores.json",
        f"export/{results['best']}/1/saved_model.pb",
    } <= written
    assert list((folder / "representation/events/val").glob("events.out.tfevents.*"))
    assert {path for path in written if pathlib.Path(path).name.startswith(".")} == {".lock", "export/.lock"}
    assert (results["classes"], results["train_images"]) == (3, 150)
    assert results["groups"] == {"many": 1, "medium": 1, "few": 1}
    assert list(results["classifiers"]) == ["joint", "ncm", "crt", "tau_norm", "lws"]
    assert read_json(folder / "results.json") == json.loads(json.dumps(results))
    for row in results["classifiers"].values():
        for split, images in (("val", 30), ("test", 21)):
            assert set(row[split]) >= {"many", "medium", "few", "all", "class_mean"}
            assert (row[split]["all"] * images) == pytest.approx(round(row[split]["all"] * images))
    best = max(row["val"]["class_mean"] for row in results["classifiers"].values())
    assert results["classifiers"][results["best"]]["val"]["class_mean"] == best
    assert "150 training, 30 validation and 21 test images of 3 classes, 120 down to 6" in said
    assert str(folder / "report.html") in said


@pytest.mark.usefixtures("bare")
def test_the_same_command_again_skips_what_is_finished_and_adds_what_is_new(finished, copied):
    _, first, _ = finished
    config = copied(classifiers=("logit_adjusted",))
    folder = config.folder
    kept = [folder / "representation/model.keras", folder / "features/train/features.npy"]
    kept += [folder / "classifiers/lws/model.keras"]
    times = [path.stat().st_mtime_ns for path in kept]
    second = train.run(config)
    assert [path.stat().st_mtime_ns for path in kept] == times
    assert set(second["classifiers"]) == {*first["classifiers"], "logit_adjusted"}
    assert list(second["classifiers"]) == [name for name in CLASSIFIERS if name in second["classifiers"]]
    assert accuracies(second)["lws"] == accuracies(first)["lws"]


@pytest.mark.exhaustive
@pytest.mark.usefixtures("bare")
def test_the_same_seed_gives_the_same_numbers(finished, tmp_path):
    config, results, _ = finished
    again = train.run(dataclasses.replace(config, workdir=str(tmp_path / "again")))
    assert accuracies(again) == accuracies(results)
    tf.random.set_seed(None)
    assert tf.random.normal(()).shape == ()  # what is TensorFlow's own setting is so again: no seed is asked for


@pytest.mark.usefixtures("bare")
def test_a_folder_of_other_flags_is_refused_by_name_unless_overwritten(copied):
    with pytest.raises(SystemExit, match=r"--seed=0 there, --seed=1 now.*--overwrite"):
        train.run(copied(classifiers=("joint",), seed=1))
    config = copied(classifiers=("ncm",), seed=1, epochs=1, overwrite=True)
    assert (config.folder / "classifiers/joint").exists()
    train.run(config)
    assert not (config.folder / "classifiers/joint").exists()
    assert not read_flag_file(config.folder / "flags.cfg").overwrite  # a replay must not empty the folder


@pytest.mark.exhaustive
def test_stage_two_on_images_with_updated_batch_norm(run_config):
    config = run_config(stage_two="images", batch_norm="update", classifiers=("joint", "crt"), export_classifier="crt")
    results = train.run(config)
    assert (config.folder / "classifiers/crt/backbone.keras").exists()
    assert not (config.folder / "classifiers/joint/backbone.keras").exists()
    with np.load(pathlib.Path(config.data_dir) / "test.npz") as test:
        served = tf.saved_model.load(config.folder / "export/crt/1").signatures["images"]
        logits = served(images=tf.constant(np.repeat(test["images"][..., None], 3, -1)))["logits"]
        hits = np.argmax(logits, 1) == test["labels"]
    assert results["classifiers"]["crt"]["test"]["all"] == pytest.approx(hits.mean())


def test_an_unwritable_work_folder_is_said(run_config, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match=r"Error: --workdir must be a folder that can be .*/file/run"):
        train.run(run_config(workdir=str(tmp_path / "file" / "run")))


def test_a_batch_larger_than_the_training_set_is_refused_before_a_folder_is_made(run_config):
    config = run_config(batch_size=151)
    with pytest.raises(SystemExit, match=r"Error: An epoch needs at least one full batch.*batch_size=151, 150"):
        train.run(config)
    assert not config.folder.exists()


def test_views_that_would_all_be_the_same_are_refused_before_a_folder_is_made(run_config):
    config = run_config(feature_views=2, augmentation="none")
    with pytest.raises(SystemExit, match=r"Error: --feature_views would all be the same.*--augmentation=none"):
        train.run(config)
    assert not config.folder.exists()


def test_places_lt_without_data_fails_at_once_and_says_what_it_needs(tmp_path):
    done = command(
        "keras_lt.train", "--flagfile=flags/places_lt.cfg", f"--data_dir={tmp_path}", f"--workdir={tmp_path}/run"
    )
    assert done.returncode == 1
    assert "Places_LT_train.txt" in done.stderr
    assert "Places365" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_evaluate_and_export_work_on_a_finished_run(finished, tmp_path):
    config, results, _ = finished
    folder = shutil.copytree(config.folder, tmp_path / "run")
    done = command("keras_lt.evaluate", f"--workdir={folder}")
    assert done.returncode == 0, done.stderr
    assert "Joint" in done.stdout
    done = command("keras_lt.export", f"--workdir={folder}", "--export_classifier=lws")
    assert done.returncode == 0, done.stderr
    version = "2" if results["best"] == "lws" else "1"
    assert (folder / "export" / "lws" / version / "saved_model.pb").exists()


def test_evaluate_without_a_run_says_so(tmp_path):
    done = command("keras_lt.evaluate", f"--workdir={tmp_path}")
    assert done.returncode == 1
    assert f"Expected the work folder of a run, as python -m keras_lt.train --workdir={tmp_path}" in done.stderr


@pytest.mark.parametrize("module", some_of(["train", "evaluate", "export"], "train"))
def test_help_lists_the_flags_and_nothing_of_tensorflow(module):
    words = [sys.executable, "-m", f"keras_lt.{module}", "--help"]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "0"}
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False, env=environment)
    assert "--classifiers" in done.stdout
    assert "square_root" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("argument", "message"),
    some_of(
        [("--epoch=3", "epochs"), ("--seed=x", "'x'"), ("--classifiers=lsw", "lws"), ("stray", "stray")],
        ("--epoch=3", "epochs"),
    ),
)
def test_a_typo_is_answered_without_a_stack_trace(argument, message):
    done = command("keras_lt.train", argument)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_export_that_fails_leaves_a_finished_run(finished, copied, monkeypatch, capsys):
    def fail(*_, **__):
        raise RuntimeError("no such op\nin ONNX")

    config, best = copied(), finished[1]["best"]
    shutil.rmtree(config.folder / "export")
    monkeypatch.setattr(Run, "export", fail)
    command = rf"python -m keras_lt.export --workdir={config.folder} --export_classifier={best}"
    with pytest.raises(SystemExit, match=f"^Error: .*RuntimeError: no such op in ONNX. {command} tries again$"):
        train.run(config)
    assert f"Best on val: {best}" in capsys.readouterr().out
    assert (config.folder / "report.html").exists()
    assert read_json(config.folder / "results.json")["best"] == best
    monkeypatch.undo()
    train.run(config)
    assert Run(config.folder).exported == [best]


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (
            {"learning_rate": 1e30, "epochs": 1, "steps_per_epoch": 1, "classifiers": ("ncm",)},
            "Features must be finite",
        ),
        ({"classifiers": ("crt:steps_per_epoch=1:epochs=1:learning_rate=1e38",)}, "Logits must be numbers"),
    ],
    ids=["net", "head"],
)
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_what_the_last_step_has_broken_ends_the_command_in_a_line(run_config, broken, words):
    """The loss of that step was still a number."""
    with pytest.raises(SystemExit, match=f"^Error: {words}.*Received: "):
        train.run(run_config(**broken))
