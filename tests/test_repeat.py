import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest
from absl import flags

from keras_lt import config, repeat, train
from keras_lt.comparison import runs as several_runs
from keras_lt.comparison.runs import check_folder_of_runs, train_all, train_apart
from keras_lt.config import RunConfig
from keras_lt.files import read_json, write_json, write_text
from keras_lt.metrics import ShotGroups
from keras_lt.repeat import best_on_val, compare, runs_of, summarize
from tests.programs import command

LABELS = np.array([0, 0, 1, 1])
GROUPS = ShotGroups([200, 5])  # one many-shot class, one few-shot, none between
JOINT = np.array([[0, 0, 0, 1], [0, 0, 0, 0]])  # all: 3/4 and 1/2
CRT = np.array([[0, 1, 1, 1], [0, 0, 1, 1]])  # all: 3/4 and 1


@pytest.fixture
def run_config(arrays_dir, tmp_path):
    return RunConfig(
        dataset="arrays",
        data_dir=str(arrays_dir),
        workdir=str(tmp_path / "runs"),
        backbone="tiny",
        epochs=2,
        batch_size=16,
        learning_rate=0.05,
        classifiers=("joint", "crt"),
        classifier_epochs=2,
        stage_two="images",
        batch_norm="update",  # cRT gets a backbone of its own, Joint has stage one's
    )


def not_again(run):
    pytest.fail(f"{run.folder} is trained again")


def test_means_deviations_and_intervals_by_hand():
    summary = summarize({"joint": JOINT, "crt": CRT}, LABELS, GROUPS, best="crt", resamples=500)
    everything = summary["classifiers"]["joint"]["all"]
    np.testing.assert_array_equal(everything["per_seed"], [0.75, 0.5])
    assert everything["mean"] == 0.625
    assert everything["deviation"] == pytest.approx(0.25 / math.sqrt(2))
    few = summary["classifiers"]["joint"]["few"]  # one of two images is drawn, right in none or in half of the runs
    np.testing.assert_array_equal(few["interval"], [0, 0.5])
    np.testing.assert_array_equal(summary["classifiers"]["joint"]["many"]["interval"], [1, 1])
    medium = summary["classifiers"]["joint"]["medium"]
    assert np.isnan([medium["mean"], medium["deviation"], *medium["interval"]]).all()
    assert (summary["test_images"], summary["resamples"], summary["best"]) == (4, 500, "crt")


def test_comparisons_by_hand():
    summary = summarize({"joint": JOINT, "crt": CRT}, LABELS, GROUPS, best="crt", resamples=500)
    assert {reference: list(others) for reference, others in summary["comparisons"].items()} == {
        "joint": ["crt"],
        "crt": ["joint"],
    }
    comparison = summary["comparisons"]["joint"]["crt"]
    difference = comparison["differences"]["all"]
    np.testing.assert_array_equal(difference["per_seed"], [0, 0.5])
    assert (difference["mean"], difference["deviation"]) == (0.25, pytest.approx(0.5 / math.sqrt(2)))
    np.testing.assert_array_equal(comparison["only_right"], [1, 2])
    np.testing.assert_array_equal(comparison["only_wrong"], [1, 0])
    assert comparison["p_values"] == [1, 0.5]
    # Drawn is right in 1 or 1/2 of cRT's runs on class 0, always on class 1: paired with Joint's 1, and 0 or 1/2.
    np.testing.assert_allclose(comparison["differences"]["many"]["interval"], [-0.5, 0])
    np.testing.assert_allclose(comparison["differences"]["few"]["interval"], [0.5, 1])


def test_equal_predictions_differ_by_nothing():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    same = rng.integers(0, 3, (2, 60))
    comparison = summarize({"joint": same, "ncm": same}, labels, ShotGroups([120, 24, 6]), best="joint", resamples=50)
    assert list(comparison["comparisons"]) == ["joint"]
    comparison = comparison["comparisons"]["joint"]["ncm"]
    assert comparison["p_values"] == [1, 1]
    for difference in comparison["differences"].values():
        np.testing.assert_array_equal([difference["mean"], difference["deviation"], *difference["interval"]], 0)


def test_pairing_tells_apart_what_two_intervals_do_not():
    """Two classifiers that err on the same images but for six, which one alone has right: 2 / 2 ** 6."""
    labels = np.repeat([0, 1], 50)
    joint = np.where(np.arange(100) % 5 < 3, labels, 1 - labels)[None]
    better = joint.copy()
    better[0, [3, 4, 8, 53, 54, 58]] = labels[[3, 4, 8, 53, 54, 58]]
    summary = summarize({"joint": joint, "lws": better}, labels, ShotGroups([500, 400]), best="lws", resamples=500)
    apart = [summary["classifiers"][name]["all"]["interval"] for name in ("joint", "lws")]
    assert apart[0][1] > apart[1][0]
    comparison = summary["comparisons"]["joint"]["lws"]
    assert comparison["differences"]["all"]["interval"][0] > 0
    assert comparison["p_values"] == [2 / 2**6]


def test_one_seed_has_no_deviation():
    summary = summarize({"joint": JOINT[:1]}, LABELS, GROUPS, best="joint", resamples=20)
    assert math.isnan(summary["classifiers"]["joint"]["all"]["deviation"])
    assert summary["comparisons"] == {"joint": {}}


@pytest.mark.exhaustive
def test_two_seeds_in_miniature(run_config):
    runs = runs_of(run_config, [3, 5])
    train_all(runs, train_one=train.run)
    train_all(runs, train_one=not_again)
    results = [read_json(f"{run_config.workdir}/seed-{seed}/results.json")["classifiers"] for seed in (3, 5)]
    summary = compare(runs)
    assert (summary["dataset"], summary["seeds"], summary["test_images"]) == (
        "squares",
        [3, 5],
        21,
    )  # named for its folder
    for name in ("joint", "crt"):
        for score, estimate in summary["classifiers"][name].items():
            np.testing.assert_allclose(estimate["per_seed"], [row[name]["test"][score] for row in results])
    on_val = {name: np.mean([row[name]["val"]["class_mean"] for row in results]) for name in ("joint", "crt")}
    assert summary["best"] == best_on_val(runs) == max(on_val, key=on_val.get)

    added = [runs[0], dataclasses.replace(runs[1], classifiers=("crt", "ncm"))]
    with pytest.raises(ValueError, match=r"1 of 2 runs are not finished: \S+seed-5\. "):
        train_all(added, train_one=lambda run: None)
    with pytest.raises(SystemExit, match=r"other flags: --epochs=2 there, --epochs=4 now"):
        train_all([dataclasses.replace(runs[0], epochs=4)], train_one=train.run)


@pytest.mark.parametrize("missing", ["report", "SavedModel"])
def test_a_run_killed_behind_its_results_goes_on_and_is_left_alone_when_it_is_complete(run_config, missing):
    """Its own command writes report and SavedModel after them, so that is given again; the numbers are there."""
    (run,) = runs_of(run_config, [0])
    run.save(run.folder / "flags.cfg")
    results = {"classifiers": {name: {} for name in run.systems}, "best": "crt"}
    model, report = run.folder / "export/crt/1/saved_model.pb", {"advice": []}
    write_json(run.folder / "results.json", results | (report if missing == "SavedModel" else {}))
    if missing == "report":
        write_text(model, "")

    def goes_on(config):
        write_json(config.folder / "results.json", results | report)
        write_text(model, "")

    train_all([run], train_one=lambda config: None)  # as where the data are gone: it is finished all the same
    done = []
    train_all([run], train_one=lambda config: done.append(goes_on(config)))
    assert len(done) == 1
    train_all([run], train_one=not_again)


def test_overwrite_does_a_finished_run_again(run_config, monkeypatch):
    done = []
    for asked in ("is_finished", "is_complete"):
        monkeypatch.setattr(several_runs, asked, lambda run: True)
    train_all(runs_of(run_config, [0]), train_one=not_again)
    train_all(runs_of(dataclasses.replace(run_config, overwrite=True), [0, 1]), train_one=done.append)
    assert [run.seed for run in done] == [0, 1]


def test_a_process_gets_the_whole_run(run_config, monkeypatch):
    """Its command line, parsed, is the run."""
    commands = []
    monkeypatch.setattr(subprocess, "run", lambda arguments, check: commands.append(arguments))
    (run,) = runs_of(dataclasses.replace(run_config, schedule="multistep", decay_epochs=(1, 2)), [7])
    train_apart(run)
    ((_, module_flag, module, *arguments),) = commands
    assert (module_flag, module) == ("-m", "keras_lt.train")
    flag_values = flags.FlagValues()
    config.define_flags(flag_values)
    flag_values(["train", *arguments])
    assert config.from_flags(flag_values) == run
    assert run.folder.parts[-2:] == ("runs", "seed-7")


def test_runs_without_a_work_folder_go_beside_the_single_run():
    assert [str(run.folder) for run in runs_of(RunConfig(dataset="fashion_lt"), [0, 12])] == [
        "runs/fashion_lt_seeds/seed-0",
        "runs/fashion_lt_seeds/seed-12",
    ]


def test_a_folder_that_is_a_run_itself_gets_no_others_unless_it_has_some(run_config):
    """As where a flag file names the folder of the single run; version 0.1 put seeds there."""
    runs = runs_of(run_config, [0, 1])
    folder = runs[0].folder.parent
    check_folder_of_runs(folder, runs)
    folder.mkdir(parents=True)
    (folder / "flags.cfg").touch()
    with pytest.raises(ValueError, match=rf"is one of keras_lt\.train itself.* Received: --workdir={folder}$"):
        check_folder_of_runs(folder, runs)
    runs[1].folder.mkdir()
    check_folder_of_runs(folder, runs)


def seeds_of(*words):
    flag_values = flags.FlagValues()
    config.define_repeat_flags(flag_values)
    flag_values(["repeat", *words])
    return config.seeds(flag_values)


def test_seeds_are_numbers_each_once():
    assert seeds_of() == [0, 1, 2]
    assert seeds_of("--seeds=0,12,3") == [0, 12, 3]
    for words in ("", "1,x", "-1", "1.5", "2,2", "2,02"):
        with pytest.raises(ValueError, match="--seeds must be whole numbers"):
            seeds_of(f"--seeds={words}")


@pytest.mark.exhaustive
def test_the_command_trains_apart_and_writes_the_summary(arrays_dir, tmp_path):
    arguments = ["--dataset=arrays", f"--data_dir={arrays_dir}", "--epochs=1", "--batch_size=16"]
    done = command("keras_lt.repeat", *arguments, "--classifiers=joint,ncm", "--seeds=4", f"--workdir={tmp_path}/runs")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {
        "seed-4",
        "summary.json",
        "summary.md",
        "differences.png",
    }
    assert "Points above Joint" in done.stdout
    assert read_json(tmp_path / "runs/summary.json")["classifiers"]["ncm"]["all"]["deviation"] is None


def test_a_mistake_is_answered_without_a_stack_trace(tmp_path):
    done = command("keras_lt.repeat", "--seeds=1,1", f"--workdir={tmp_path}")
    assert done.returncode == 1
    assert "each once. Received: '1,1'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_library_that_is_missing_is_said_before_an_image_is_looked_at(run_config, monkeypatch):
    wanted = dataclasses.replace(run_config, data_dir="nowhere", export_onnx=True)
    monkeypatch.setattr(config, "from_flags", lambda: wanted)
    monkeypatch.setattr(config, "seeds", lambda: (0, 1))
    monkeypatch.setitem(sys.modules, "tf2onnx.convert", None)
    with pytest.raises(SystemExit, match=r"Error: An ONNX model needs tf2onnx.*keras_lt\[onnx\]"):
        repeat.main()
