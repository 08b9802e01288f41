"""A finished run in one line, and what belongs together in it."""

import dataclasses
import os
import platform
import shutil
import warnings

import numpy as np
import pytest

import keras_lt
from keras_lt import evaluate, repeat, train
from keras_lt.checkpoints import read_history
from keras_lt.config import RunConfig
from keras_lt.evaluation import evaluate_classifier
from keras_lt.features import extract_features
from keras_lt.files import read_json
from keras_lt.run import source_prior
from keras_lt.serving import MODEL_CARD
from keras_lt.work_folder import WorkFolder
from tests.conftest import COUNTS, save_squares
from tests.test_evaluate import asked as command_line
from tests.test_files import holder_of
from tools.serving import models_config

GROUPS = ("many", "medium", "few", "all", "class_mean")


@pytest.fixture(scope="module")
def run_config(tmp_path_factory):
    """Half-precision features in two views; cRT on them, for one epoch too, and cRT with a last block of its own."""
    folder = tmp_path_factory.mktemp("squares")
    save_squares(folder)
    run_config = RunConfig(
        dataset="arrays",
        data_dir=str(folder),
        workdir=str(folder / "run"),
        backbone="tiny",
        augmentation="crop_flip",
        epochs=2,
        batch_size=16,
        learning_rate=0.05,
        classifier_epochs=2,
        feature_dtype="float16",
        feature_views=2,
        classifiers=("joint", "crt", "crt:epochs=1", "crt_last_block"),
    )
    train.run(run_config)
    return run_config


@pytest.fixture
def run(run_config):
    return keras_lt.Run(run_config.folder)


def contents(folder):
    """Every file with its bytes and the time that it was written at."""
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_a_finished_run_is_had_in_one_line(run, run_config):
    assert run.results == read_json(run_config.folder / "results.json")
    assert repr(run) == f"Run('{run_config.folder}')"
    assert run.classifiers == ["joint", "crt", "crt:epochs=1", "crt_last_block"]
    assert run.config == run_config
    assert len(run.data.train) == 150
    assert len(run.representation.history) == 2
    assert run.preprocessing == run.representation.preprocessing


def test_a_classifier_comes_with_the_backbone_that_it_belongs_to(run):
    assert run.classifier("crt").backbone is run.classifier("joint").backbone is run.representation.backbone
    own = run.classifier("crt_last_block").backbone
    assert own is not run.representation.backbone
    pairs = zip(own.get_weights(), run.representation.backbone.get_weights(), strict=True)
    assert any((ours != theirs).any() for ours, theirs in pairs)
    assert run.classifier("crt") is run.classifier("crt")  # loading is dear
    assert run.classifier("crt").candidates == run.outcome("crt")["candidates"]


def test_features_are_those_of_the_backbone_as_the_run_stores_them(run, run_config):
    before = contents(run_config.folder)
    shared, train_features = run.features("test"), run.features("train", "crt")
    own = run.features("test", "crt_last_block")
    assert contents(run_config.folder) == before
    assert (shared.features.dtype, train_features.views.dtype, own.features.dtype) == ("float16", "float16", "float32")
    assert train_features.views.shape == (150, 2, 4)
    afresh = extract_features(run.representation.backbone, run.data.test, run.preprocessing).features
    np.testing.assert_allclose(shared.features, afresh, rtol=2**-10, atol=1e-6)
    backbone = run.classifier("crt_last_block").backbone
    np.testing.assert_array_equal(own.features, extract_features(backbone, run.data.test, run.preprocessing).features)


@pytest.mark.parametrize("name", ["joint", "crt", "crt:epochs=1", "crt_last_block"])
def test_scores_are_those_of_the_results(run, name):
    row = run.results["classifiers"][name]
    for split in ("val", "test"):
        found = run.scores(name, split).summary
        assert [found[group] for group in GROUPS] == pytest.approx([row[split][group] for group in GROUPS])
    afresh = evaluate_classifier(run.classifier(name).model, run.features("test", name), run.data.listed_counts)
    np.testing.assert_array_equal(run.scores(name).predictions, afresh.predictions)


def test_an_export_is_the_next_version(run, run_config):
    latest = run.latest_export("crt")
    written = run.export("crt", target_prior="train")
    version = int(latest.name) + 1 if latest else 1
    assert written == run.latest_export("crt") == run_config.folder / f"export/crt/{version}"
    assert "crt" in run.exported
    assert "--target_prior=train" in (written / MODEL_CARD).read_text()


def test_parameters_of_a_classifier_are_part_of_its_name_everywhere(run, run_config, tmp_path):
    name, folder = "crt:epochs=1", run_config.folder
    assert len(read_history(folder / "classifiers/crt-epochs=1/history.csv")) == 1
    assert len(read_history(folder / "classifiers/crt/history.csv")) == 2
    assert list(run.results["classifiers"]) == run.classifiers
    assert ">cRT, epochs 1<" in (folder / "report.html").read_text()
    assert "| cRT, epochs 1 |" in (folder / "results.md").read_text().replace("**", "")
    scores = evaluate.run(command_line(f"--workdir={folder}", f"--classifiers={name}", f"--predictions={tmp_path}/p"))
    assert scores[name].accuracies["all"] == pytest.approx(run.results["classifiers"][name]["test"]["all"])
    assert f"{name},0," in (tmp_path / "p").read_text()
    written = run.export(name)
    assert written.parent == folder / "export/crt-epochs=1"
    assert (written / MODEL_CARD).read_text().startswith(f"# {name} on ")
    assert name in run.exported
    models_config.main([f"--workdir={folder}"])
    assert 'name: "crt-epochs=1" base_path: "/models/crt-epochs=1"' in (folder / "export/models.config").read_text()


def test_repeating_a_run_of_half_precision_leaves_its_features_as_they_are_and_so_does_training_again(run_config):
    features = contents(run_config.folder / "features")
    summary = repeat.compare([run_config])
    assert contents(run_config.folder / "features") == features
    results = train.run(run_config)
    assert contents(run_config.folder / "features") == features
    for name, row in results["classifiers"].items():
        for group in GROUPS:
            assert summary["classifiers"][name][group]["mean"] == pytest.approx(row["test"][group])


def test_a_second_training_is_refused_in_one_line_and_changes_nothing(run_config):
    before = contents(run_config.folder)
    with holder_of(run_config.folder) as process:
        for changes in ({}, {"overwrite": True}, {"seed": 5}):
            message = rf"^Error: \S+ is in use by process {process.pid} on [^\n]+$"
            with pytest.raises(SystemExit, match=message):
                train.run(dataclasses.replace(run_config, **changes))
        process.communicate("")
    lock = run_config.folder / ".lock"
    assert {path: found for path, found in contents(run_config.folder).items() if path != lock} == {
        path: found for path, found in before.items() if path != lock
    }


def test_an_emptied_folder_keeps_its_lock(tmp_path):
    run = keras_lt.Run(tmp_path / "run")
    with run.locked():
        (run.folder / "features/test").mkdir(parents=True)
        (run.folder / "features/test/features.npy").touch()
        (run.folder / "flags.cfg").write_text("--seed=1\n")
        run.empty()
        assert [path.name for path in run.folder.iterdir()] == [".lock"]
        with pytest.raises(ValueError, match="in use"), run.locked():
            pytest.fail("two have it")


def test_a_run_is_opened_with_data_that_moved_and_with_no_other_numbers(run_config):
    assert keras_lt.Run(run_config.folder, data_dir="/elsewhere").config.data_dir == "/elsewhere"
    with pytest.raises(ValueError, match=r"opened with other data_dir, .*Received: seed, nonsense"):
        keras_lt.Run(run_config.folder, data_dir="/elsewhere", seed=3, nonsense=1)


@pytest.mark.parametrize(
    ("ask", "missing"),
    [
        (lambda run: run.config, "a run, .*flags.cfg"),
        (lambda run: run.results, "a finished run, .*results.json"),
        (lambda run: run.representation, "a run with a representation, .*model.keras"),
        (lambda run: run.preprocessing, "a run with a representation, .*preprocessing.json"),
    ],
)
def test_a_folder_that_is_no_run_is_told_what_was_expected(tmp_path, ask, missing):
    with pytest.raises(FileNotFoundError, match=f"Expected the work folder of {missing}"):
        ask(keras_lt.Run(tmp_path / "nothing"))
    assert not (tmp_path / "nothing").exists()


def test_a_classifier_that_is_not_there_is_named_with_those_that_are(run):
    with pytest.raises(
        ValueError, match=r"no finished classifier 'lws', it has joint, crt, crt:epochs=1, crt_last_block; train it"
    ):
        run.classifier("lws")
    for ask in (run.features, lambda split: run.scores("joint", split)):
        with pytest.raises(ValueError, match=r"split must be one of train, val, test\. Received: split='tst'"):
            ask("tst")


def test_the_home_folder_is_read_in_one_way(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert RunConfig(workdir="~/x").folder == keras_lt.Run("~/x").folder == tmp_path / "x"
    run = keras_lt.Run.of(RunConfig(workdir="~/x"))
    run.save_config()
    assert (tmp_path / "x/flags.cfg").exists()
    assert keras_lt.Run("~/x").config.folder == tmp_path / "x"


@pytest.mark.parametrize("name", ["lws", "disalign:rho=1.2", "x:rate=1e-4:k=-2"])
def test_parameters_are_part_of_a_classifiers_name_and_of_its_folder(tmp_path, name):
    folder = WorkFolder(tmp_path)
    folder.outcome_file(name).parent.mkdir(parents=True)
    folder.outcome_file(name).touch()
    (folder.versions_folder(name) / "3").mkdir(parents=True)
    (folder.versions_folder(name) / "3/saved_model.pb").touch()
    assert folder.finished_classifiers == folder.exported == [name]
    assert ":" not in folder.classifier_folder(name).name
    assert folder.latest_export(name).name == "3"
    (folder.versions_folder(name) / "7").mkdir()  # without a SavedModel, as somebody emptied it
    assert (folder.latest_export(name).name, folder.next_export(name).name) == ("3", "8")


THEIRS = ("images/cat/1.jpg", "notes.txt", "plots/mine.png", "export/notes.md", "features/test/mine.npy", "empty")
THEIRS += ("export/export/lws/1/saved_model.pb", "classifiers/crt/best/events/train/events.out.tfevents.1")  # deeper
OURS = ("flags.cfg", "plots/reliability.png", "export/lws/1/saved_model.pb", "features/val.part/features.npy")


def write_all(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_what_a_kill_left_is_removed_where_a_run_writes_and_nowhere_else(tmp_path):
    """A work folder may hold a million photographs, or another run that is being written."""
    scratch = f".unfinished~{platform.node()}~{os.getpid()}~x"  # of our own number, which no write of ours has now
    ours = [tmp_path / place / scratch for place in (".", "features", "classifiers/crt", "export/crt", "plots")]
    theirs = [tmp_path / place / scratch for place in ("photos", "other/features")]
    for path in (*ours, *theirs):
        path.mkdir(parents=True)
    WorkFolder(tmp_path).sweep()
    assert [path.exists() for path in (*ours, *theirs)] == [False] * len(ours) + [True] * len(theirs)


def test_what_a_run_did_not_write_stays_when_its_folder_is_emptied(tmp_path):
    write_all(tmp_path, (*THEIRS, *OURS, "representation/.unfinished~host~1~model.keras"))
    WorkFolder(tmp_path).empty()
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == sorted(THEIRS)
    assert not (tmp_path / "representation").exists()


def test_all_that_a_run_writes_goes_when_its_folder_is_emptied(run_config, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(run_config.folder, folder)
    WorkFolder(folder).empty()
    assert [path.relative_to(folder).as_posix() for path in folder.rglob("*")] == [".lock"]


@pytest.mark.parametrize(
    ("names", "places", "message"),
    [
        (("images/cat/1.jpg",), ("", "images"), "the data set is or lies in"),
        (("images/cat/1.jpg", "flags.cfg"), ("", "images"), "the data set is or lies in"),
        (("flags.cfg",), ("", ""), "the data set is or lies in"),
        (("notes.txt",), ("", "/elsewhere"), "has a flags.cfg"),
        (("flags.cfg", "deep/x"), ("deep", "/elsewhere"), "the current folder is or lies in"),
    ],
)
def test_overwrite_refuses_a_folder_that_may_be_somebody_elses(tmp_path, monkeypatch, names, places, message):
    (place, data), folder = places, tmp_path / "proj"
    write_all(folder, names)
    monkeypatch.chdir(folder / place if place else tmp_path)
    before = contents(folder)
    config = RunConfig(dataset="folder", data_dir=str(folder / data), workdir=str(folder), overwrite=True)
    with pytest.raises(SystemExit, match=message):
        train.run(config)
    assert contents(folder) == before


# What version 0.1 wrote of a run with defaults, but for the sizes; since renamed: focal_gamma, label_smoothing,
# class_weights_beta, classifier_epochs_for.
FLAGS_01 = """
--dataset=arrays --data_dir={data_dir} --imbalance_ratio=0.0 --profile=auto --allow_modified_lists=false
--on_bad_image=error --workdir={workdir} --overwrite=false --seed=0 --backbone=tiny --pretrained= --image_size=0
--train_parts=all --backbone_lr_multiplier=1.0 --augmentation=crop_flip --randaugment=0 --randaugment_magnitude=9.0
--random_erasing=0.0 --mixup=0.0 --cutmix=0.0 --method=decoupling --sampler=instance_balanced --engine=auto
--head=auto --loss=cross_entropy --focal_gamma=2.0 --feature_loss= --feature_loss_weight=1.0 --class_weights=none
--class_weights_from=0 --class_weights_beta=0.9999 --resampling=none --label_smoothing=0.0 --epochs=2
--steps_per_epoch=0 --batch_size=16 --accumulate_steps=1 --base_batch_size=0 --learning_rate=0.05 --schedule=cosine
--warmup_epochs=0 --decay_epochs= --decay_factor=0.1 --weight_decay=0.0005 --clip_norm=0.0 --ema_momentum=0.0
--classifiers=joint,crt,crt_last_block --stage_two=features --classifier_epochs=2 --classifier_epochs_for=
--classifier_sampler=class_balanced --classifier_class_weights=none --classifier_resampling=none
--classifier_learning_rate=0.0 --classifier_schedule=cosine --classifier_decay_epochs= --tau_split=val
--i_know_this_is_test=false --feature_views=2 --feature_dtype=float16 --batch_norm=frozen --precision=float32
--jit_compile=auto --steps_per_execution=1 --strategy=auto --devices= --export_classifier= --target_prior=
--on_bad_request=error --export_onnx=false
"""


@pytest.fixture
def folder_01(run_config, tmp_path):
    """(**other flags) -> the run's folder as version 0.1 left it: without a lock, its predictions without cuts."""

    def make(**flags):
        folder = shutil.copytree(run_config.folder, tmp_path / "of_0.1", ignore=shutil.ignore_patterns(".lock"))
        lines = FLAGS_01.format(data_dir=run_config.data_dir, workdir=folder).split()
        lines += [f"--{flag}={value}" for flag, value in flags.items()]
        (folder / "flags.cfg").write_text("\n".join(lines))
        for path in folder.glob("classifiers/*/predictions.npz"):
            with np.load(path) as file:
                arrays = {name: file[name] for name in file.files if name != "cuts"}
            np.savez(path, **arrays)
        return folder

    return make


def test_a_work_folder_of_version_01_is_opened_evaluated_and_exported(folder_01, run_config):
    folder = folder_01()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        old = keras_lt.Run(folder)
        assert old.differences(dataclasses.replace(run_config, workdir=str(folder))) == []
    features = contents(folder / "features")
    scores = evaluate.run(command_line(f"--workdir={folder}"))
    for name, row in old.results["classifiers"].items():
        assert old.scores(name).accuracies["all"] == pytest.approx(row["test"]["all"])
        assert scores[name].accuracies["all"] == pytest.approx(row["test"]["all"])
    assert contents(folder / "features") == features  # found, not extracted anew
    assert (old.export("crt_last_block") / "saved_model.pb").exists()


def test_a_flag_that_does_nothing_is_kept_by_a_run_that_was_begun_with_it(folder_01):
    """Version 0.1 refused none, and a classifier that is added later need not take what an earlier one took."""
    folder = folder_01(tau_split="test", i_know_this_is_test=True)
    config = keras_lt.Run(folder).config
    more = dataclasses.replace(config, classifiers=("ncm",))
    assert keras_lt.Run(folder).differences(more) == []
    with pytest.raises(ValueError, match="--tau_split would do nothing in this run"):
        dataclasses.replace(more, overwrite=True)
    with pytest.raises(ValueError, match="--tau_split would do nothing in this run"):
        dataclasses.replace(more, workdir=str(folder / "other"))


def test_what_was_not_default_in_version_01_is_told_by_its_new_name(folder_01):
    folder = folder_01(loss="focal", focal_gamma=1.0, classifier_epochs_for="crt:5", method="oltr_frozen")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        old = keras_lt.Run(folder).config
    assert [str(warning.message).split(" ")[0] for warning in caught] == [
        "--focal_gamma=1.0",
        "--classifier_epochs_for=crt:5",
        "--method=oltr_frozen",
    ]
    assert old.loss == "focal:gamma=1.0"
    assert old.classifiers == ("joint", "crt:epochs=5", "crt_last_block")
    assert old.method == "oltr:train_backbone=false:backbone_rate=0.01:centroids_rate=1"
    np.testing.assert_allclose(source_prior("oltr_frozen", old, COUNTS), [1 / 3] * 3)  # of class-balanced draws
