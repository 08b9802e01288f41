"""Which data a run was made from, and which it may go on with."""

import dataclasses
import shutil

import numpy as np
import pytest

import keras_lt
from keras_lt import compat, train
from keras_lt.config import RunConfig
from keras_lt.files import locked, read_json, write_json
from tests.conftest import COUNTS, save_squares, squares
from tests.test_doors import SMALL


@pytest.fixture(scope="module")
def run_config(tmp_path_factory):
    """A finished run on arrays, exported."""
    folder = tmp_path_factory.mktemp("squares")
    save_squares(folder)
    small = {**SMALL, "classifiers": ("joint",)}
    run_config = RunConfig(dataset="arrays", data_dir=str(folder), workdir=str(folder / "run"), **small)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "write_report", lambda *_: {})  # it takes seconds, and other tests look at it
        train.run(run_config)
    return run_config


def contents(folder):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_a_run_is_not_gone_on_with_by_other_data(run_config, tmp_path):
    folder, before = tmp_path / "grown", contents(run_config.folder)
    shutil.copytree(run_config.data_dir, folder, ignore=shutil.ignore_patterns("run"))
    images, labels = squares(COUNTS, seed=0)
    other = dataclasses.replace(run_config, data_dir=str(folder))
    np.savez(folder / "train.npz", images=np.append(images, images[:1] // 2, 0), labels=np.append(labels, labels[0]))
    with pytest.raises(SystemExit, match=r"only added .* train: images 1 new.*--overwrite trains again"):
        train.run(other)
    np.savez(folder / "train.npz", images=images // 2, labels=labels)
    with pytest.raises(SystemExit, match=r"run of other data: train: images 150 new, 150 gone.*--workdir"):
        train.run(other)
    with pytest.raises(ValueError, match="run of other data"):
        keras_lt.Run(run_config.folder, data_dir=str(folder)).features("test")
    np.savez(folder / "train.npz", images=images, labels=labels)
    (folder / "classes.txt").write_text("dark\ngrey\nwhite\n")
    with pytest.raises(SystemExit, match=r"classes new, 3 in all: dark, grey, white"):
        train.run(other)
    assert contents(run_config.folder) == before


@pytest.mark.parametrize("name", [" run", "läufe $x ~y", "~"])
def test_a_path_is_read_back_as_it_was_written(run_config, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run_config.folder, tmp_path / name)
    assert keras_lt.Run(f"./{name}").config.epochs == keras_lt.Run(tmp_path / name).config.epochs == 1
    assert keras_lt.Run(name if name != "~" else "./~").config.backbone == "tiny"


def test_a_folder_of_version_01_has_its_data_written_down(run_config, tmp_path):
    run = keras_lt.Run(shutil.copytree(run_config.folder, tmp_path / "run"))
    run.data_file.unlink()
    assert run.recorded_data is None
    assert len(run.data.train) == 150
    run.save_config()
    assert run.recorded_data.differences(run.current_data) == []


def test_a_run_of_version_01_is_not_gone_on_with_where_it_set_other_images_aside(run_config, tmp_path):
    run = keras_lt.Run(shutil.copytree(run_config.folder, tmp_path / "run"))
    run.data_file.unlink()
    with run.flags_file.open("a") as flags:
        flags.write("--focal_gamma=2.0\n")
    data = shutil.copytree(run_config.data_dir, tmp_path / "data", ignore=shutil.ignore_patterns("run"))
    assert len(keras_lt.Run(run.folder, data_dir=str(data)).data.val) == 30  # its own val is what it was
    (data / "val.npz").unlink()
    before = contents(run.folder)
    with pytest.raises(
        SystemExit, match=r"version 0\.1, which set other images .* aside .*--overwrite.*keras_lt\.export"
    ):
        train.run(dataclasses.replace(run_config, workdir=str(run.folder), data_dir=str(data)))
    assert contents(run.folder) == before
    opened = keras_lt.Run(run.folder, data_dir=str(data))
    with pytest.raises(ValueError, match="aside"):
        opened.features("val")
    assert len(opened.features("test").labels) == len(opened.data.test)  # nobody has drawn it
    assert opened.export("joint").name == "2"


@pytest.mark.usefixtures("bare")
def test_what_another_version_made_is_gone_on_with_and_said_once(run_config, tmp_path, monkeypatch):
    folder, now = shutil.copytree(run_config.folder, tmp_path / "run"), compat.versions()
    written = [folder / "data.json", folder / "classifiers/joint/scores.json", folder / "features/train/manifest.json"]
    assert [read_json(path)["versions"] for path in written] == [now] * 3
    monkeypatch.setattr(compat, "__version__", "9.9")
    with pytest.warns(UserWarning, match=f"made by keras_lt {now['keras_lt']}, and .* by keras_lt 9.9;") as said:
        results = train.run(dataclasses.replace(run_config, workdir=str(folder), classifiers=("joint", "ncm")))
    texts = [str(warning.message) for warning in said if "found finished" in str(warning.message)]
    assert len(texts) > 1  # the run, and the features of three splits
    assert len(set(texts)) == 1
    assert results["classifiers"].keys() == {"joint", "ncm"}
    assert keras_lt.Run(folder).begun_by == now  # the representation is still of that version
    assert read_json(folder / "classifiers/ncm/scores.json")["versions"] == {**now, "keras_lt": "9.9"}


def test_an_export_of_another_training_is_named(run_config, tmp_path):
    run = keras_lt.Run(shutil.copytree(run_config.folder, tmp_path / "run"))
    latest = run.latest_export("joint")
    assert run.other_in_export(latest, "joint") == []
    made_by = latest / "made_by.json"
    write_json(made_by, {**read_json(made_by), "data": "of others", "calibrate": "temperature"})
    assert run.other_in_export(latest, "joint") == ["data"]  # calibrated or not, it is of the run
    made_by.unlink()  # as version 0.1 left it
    assert run.other_in_export(latest, "joint") == []


def test_an_export_needs_no_image_and_is_written_anew_where_flags_came_later(run_config, tmp_path):
    folder = shutil.copytree(run_config.folder, tmp_path / "run")
    run = keras_lt.Run(folder, data_dir="/gone")
    assert run.current_export("joint") == run.latest_export("joint") == folder / "export/joint/1"
    run = keras_lt.Run(folder, data_dir="/gone", on_bad_request="nan")
    assert run.current_export("joint") is None
    with locked(folder / "export"), pytest.raises(ValueError, match=r"export is in use by process \d+ "):
        run.export("joint")
    assert run.export("joint") == run.current_export("joint") == folder / "export/joint/2"
