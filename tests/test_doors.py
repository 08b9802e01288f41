"""What a user's folders hold beside the data: nothing of it is lost, taken for something else, or written over."""

import dataclasses
import os
import shutil
import sys
import tempfile

import numpy as np
import pytest
from absl import flags

import keras_lt
from keras_lt import backbones, compare, config, describe, evaluate, inspection, prepare, repeat, train
from keras_lt.command import open_streams
from keras_lt.config import RunConfig
from keras_lt.datasets import check_outside
from keras_lt.datasets.own_images import folder
from keras_lt.features import extract_features
from keras_lt.files import check_own, read_json
from tests.conftest import squares
from tests.miniatures import write_jpeg
from tests.test_evaluate import asked

SMALL = {"backbone": "tiny", "image_size": 8, "epochs": 1, "batch_size": 8, "learning_rate": 0.05}
SMALL |= {"classifier_epochs": 1}


def photos(place, *folders, images=4):
    """Folders of JPEGs, brighter by the number of the folder."""
    for label, name in enumerate(folders):
        for i in range(images):
            write_jpeg(place / name / f"{i}.jpg", label % 3, seed=i)
    return place


def with_flags(monkeypatch, module, define, *arguments):
    """Runs a command's main with these arguments."""
    flag_values = flags.FlagValues()
    define(flag_values)
    flag_values(["command", *arguments])
    for name in ("from_flags", "said", "of_a_run", "output_dir", "seeds"):
        read = getattr(config, name)
        monkeypatch.setattr(config, name, lambda *given, read=read: read(*given, flag_values))
    module.main()


@pytest.fixture(scope="module", autouse=True)
def no_export():
    """It takes seconds, and other tests look at it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "export", lambda *_: "none")
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run on photographs, with LWS of one epoch."""
    data = photos(tmp_path_factory.mktemp("doors"), *(f"{s}/{c}" for s in ("train", "val", "test") for c in "abc"))
    run_config = RunConfig(
        dataset="folder", data_dir=str(data), workdir=str(data / "run"), classifiers=("joint", "lws"), **SMALL
    )
    train.run(run_config)
    return keras_lt.Run(data / "run")


@pytest.mark.parametrize(
    "names", [("Train", "Val", "Test"), ("training", "dev", "testing"), ("train2017", "val2017", "TEST-1")]
)
def test_splits_are_known_by_the_names_that_are_usual(tmp_path, names):
    photos(tmp_path, *(f"{name}/{kind}" for name in names for kind in ("ant", "bee")))
    (tmp_path / names[0] / "stray.jpg").touch()
    data = folder(str(tmp_path))
    assert (data.class_names, data.sizes) == (("ant", "bee"), {"train": 8, "val": 8, "test": 8})
    assert data.notes == (
        f"1 images lie in no folder of a class and were ignored, such as {tmp_path / names[0]}/stray.jpg.",
    )


def test_what_is_no_class_is_none(tmp_path):
    """What macOS and servers leave, a link without end, an archive that holds a folder too many."""
    photos(tmp_path / "photos", "ant", "bee", "valid", "__MACOSX/ant", "bee/@eaDir/0.jpg", images=9)
    os.symlink(tmp_path / "photos", tmp_path / "photos/ant/all")
    data = folder(str(tmp_path / "photos"))
    assert data.class_names == ("ant", "bee", "valid")
    assert sum(data.sizes.values()) == 27
    with pytest.raises(SystemExit, match=r"two classes or more; of folders, --data_dir is .* with photos$"):
        train.run(RunConfig(dataset="folder", data_dir=str(tmp_path), workdir=str(tmp_path.parent / "run"), **SMALL))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("cat", "cat "), r"must differ.* with 'cat' and 'cat '$"),
        (("f\u00fcr", "fu\u0308r"), r"must differ"),
        (("a\nb", "c"), r"one line"),
        (("", "c"), r"one line"),
    ],
)
def test_class_names_can_be_told_apart_and_written(data, names, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(data, class_names=(*names, "third"))


@pytest.mark.parametrize("source", ["csv", "lists", "arrays", "features"])
def test_val_has_its_usual_names_in_every_source(tmp_path, source):
    images, labels = squares((4, 4), seed=0)
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.csv").write_text("path,label\na.jpg,0\nb.jpg,1\n")
        (tmp_path / f"{split}.txt").write_text("a.jpg 0\nb.jpg 1\n")
        arrays = {"images": images, "features": images.reshape(8, -1).astype("f")}
        np.savez(tmp_path / split, labels=labels, **arrays)
    data = keras_lt.load(source, str(tmp_path))
    assert len(data.val) == len(data.train)
    assert not data.val_is_carved
    for suffix in ("csv", "txt", "npz"):
        shutil.copy(tmp_path / f"valid.{suffix}", tmp_path / f"val.{suffix}")
    with pytest.raises(ValueError, match=r"val must be one file.* of val, valid$"):
        keras_lt.load(source, str(tmp_path))


def test_a_file_is_written_over_where_it_is_ours(tmp_path):
    (tmp_path / "notes.csv").write_text("my own")
    for path in (tmp_path / "notes.csv", tmp_path, tmp_path / "notes.csv/predictions.csv"):
        with pytest.raises(ValueError, match=r"not written by this command|no place for one"):
            check_own(path, "model,image")
    (tmp_path / "ours.csv").write_text("model,image\n1")
    assert check_own(tmp_path / "ours.csv", "model,image", beside=["notes.csv"]) == tmp_path / "ours.csv"
    with pytest.raises(ValueError, match=r"notes\.csv was not written"):
        check_own(tmp_path / "new.csv", "model,image", beside=["notes.csv"])


def test_commands_write_over_nothing_that_they_did_not_write(run, tmp_path, monkeypatch):
    names = ("predictions.csv", "describe.json", "compare.md", "summary.json")
    for name in names:
        (tmp_path / name).write_text("my own")
    of_run = [f"--{name}={value}" for name, value in run.config.as_flags().items() if name != "workdir"]
    for command in (
        lambda: evaluate.run(asked(f"--workdir={run.folder}", f"--predictions={tmp_path}/predictions.csv")),
        lambda: with_flags(monkeypatch, describe, config.define_describe_flags, *of_run, f"--output_dir={tmp_path}"),
        lambda: compare.main([str(run.folder), f"--output_dir={tmp_path}"]),
        lambda: with_flags(monkeypatch, repeat, config.define_repeat_flags, *of_run, f"--workdir={tmp_path}"),
    ):
        with pytest.raises(SystemExit, match=r"^Error: .* was not written by this command"):
            command()
        monkeypatch.undo()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(names, "my own")


@pytest.mark.parametrize("dataset", ["folder", "hf"])
def test_nothing_is_written_where_images_are_read(tmp_path, dataset):
    place = photos(tmp_path / "photos", "ant", "bee")
    name, data_dir = (f"hf:{place}", "") if dataset == "hf" else (dataset, str(place))
    with pytest.raises(ValueError, match=r"must lie outside of the images.* --output_dir=.*small, in .*photos of"):
        check_outside(place / "small", "output_dir", name, data_dir)
    check_outside(tmp_path / "small", "output_dir", name, data_dir)
    in_splits = photos(tmp_path / "splits", *(f"{split}/{kind}" for split in ("train", "test") for kind in "ab"))
    check_outside(in_splits / "run", "workdir", "folder", str(in_splits))
    for inside in ("", "test/run", "run/.."):
        with pytest.raises(ValueError, match=r"--workdir=.*splits.*, in .*splits.* of the data set folder"):
            check_outside(in_splits / inside, "workdir", "folder", str(in_splits))
    with pytest.raises(SystemExit, match="must lie outside"):
        prepare.main([f"--dataset={name}", f"--data_dir={data_dir}", f"--output_dir={place}/small"])
    run_config = RunConfig(dataset=name, data_dir=data_dir, workdir=str(tmp_path), overwrite=True, **SMALL)
    with pytest.raises(SystemExit, match="the data set is or lies in"):
        train.run(run_config)
    assert sorted(path.name for path in place.iterdir()) == ["ant", "bee"]


def test_a_run_begins_where_it_would_replace_nothing_that_is_not_its_own(run, tmp_path):
    for name in ("data.json", "results.md", "plots/class_counts.png", "export/models.config"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("my own")
        with pytest.raises(SystemExit, match=rf"^Error: A run would replace {path}, .* no flags\.cfg: move it away"):
            train.run(dataclasses.replace(run.config, workdir=str(tmp_path)))
        assert path.read_text() == "my own"
        path.unlink()
    for name in ("notes.txt", "train.log", "bad_images.txt", "describe/describe.json", "representation/model.keras"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    keras_lt.Run(tmp_path).check_free()
    keras_lt.Run(run.folder).check_free()


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_in_the_way_of_a_part_is_named_before_the_training(run, tmp_path, overwrite):
    begun = dataclasses.replace(run.config, workdir=str(tmp_path / "run"), overwrite=overwrite)
    parts = ("representation", "classifiers", "features", "plots", "export", "representation/checkpoints")
    for name in (*parts, "features/train/notes.txt"):
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text("my own")
        (tmp_path / "run/flags.cfg").touch()
        with pytest.raises(SystemExit, match=rf"^Error: .*{tmp_path}/run/{name}\b.*move (it|that) away"):
            train.run(begun)
        assert (tmp_path / "run" / name).read_text() == "my own"
        shutil.rmtree(tmp_path / "run")
    shutil.copytree(run.folder, tmp_path / "run")
    (tmp_path / "run/features/train/notes.txt").write_text("of features that are there")
    keras_lt.Run(tmp_path / "run").check_unobstructed(anew=False)


def test_a_run_that_was_stopped_while_it_began_is_gone_on_with(run, tmp_path, monkeypatch):
    begun = dataclasses.replace(run.config, workdir=str(tmp_path / "run"))
    monkeypatch.setattr("keras_lt.datasets.data_record.DataRecord.save", stopped)
    with pytest.raises(KeyboardInterrupt):
        keras_lt.Run.of(begun).save_config()
    keras_lt.Run.of(begun).check_free()
    assert keras_lt.Run.of(begun).data.sizes == run.data.sizes


def stopped(*_, **__):
    raise KeyboardInterrupt


def test_a_flag_is_what_can_be_read_again(run):
    for value in ("a\nb", "caf\udce9", "photos "):
        with pytest.raises(ValueError, match=r"--data_dir must be one line of UTF-8 without a blank at its end"):
            dataclasses.replace(run.config, data_dir=value)


def test_a_part_behind_a_link_is_not_taken_for_finished(run, tmp_path):
    shutil.copytree(run.folder, tmp_path / "run")
    shutil.move(tmp_path / "run/classifiers", tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", tmp_path / "run/classifiers")
    again = dataclasses.replace(run.config, workdir=str(tmp_path / "run"), overwrite=True, seed=1)
    with pytest.raises(SystemExit, match=r"does not follow links.*classifiers, a link to .*elsewhere: remove it"):
        train.run(again)


def test_features_are_found_again_where_the_data_have_moved_and_not_where_files_have_other_sizes(run, tmp_path):
    data = shutil.copytree(run.config.data_dir, tmp_path / "moved", ignore=shutil.ignore_patterns("run"))
    kept = run.folder / "features/test/features.npy"
    before = kept.stat().st_mtime_ns
    moved = keras_lt.Run(run.folder, data_dir=str(data))
    moved.features("test")
    assert kept.stat().st_mtime_ns == before
    learned, test = moved.representation, moved.data.test
    first = np.array(extract_features(learned.backbone, test, learned.preprocessing, folder=tmp_path / "f").features)
    write_jpeg(data / "test/a/0.jpg", 2, seed=99)
    now = extract_features(learned.backbone, test, learned.preprocessing, folder=tmp_path / "f").features
    assert (first[0] != now[0]).any()
    np.testing.assert_allclose(first[1:], now[1:], rtol=1e-5)
    with pytest.raises(SystemExit, match=r"^Error: .* a run of other data: test: images 1 of other content"):
        repeat.compare([dataclasses.replace(run.config, data_dir=str(data))])


def test_weights_that_were_replaced_are_another_run_and_are_not_needed_later(run, tmp_path):
    weights = tmp_path / "x.weights.h5"
    run.representation.backbone.save_weights(weights)
    begun = dataclasses.replace(run.config, pretrained=str(weights), workdir=str(tmp_path / "run"))
    shutil.copytree(run.folder, tmp_path / "run")
    keras_lt.Run.of(begun).save_config()
    content = weights.read_bytes()
    weights.write_bytes(content + b"more")
    with pytest.raises(SystemExit, match=r"other flags: --pretrained=.* is another file now"):
        train.run(begun)
    weights.unlink()
    assert list(evaluate.run(asked(f"--workdir={tmp_path}/run", "--classifiers=lws"))) == ["lws"]
    with pytest.raises(ValueError, match=r"weights file\. Not found"):
        dataclasses.replace(begun, overwrite=True)


@pytest.mark.parametrize("content", ["another net", "cut short", "no weights"])
def test_weights_that_do_not_fit_are_refused_in_a_line_and_leave_nothing_behind(run, tmp_path, content):
    weights, net = tmp_path / "x.weights.h5", backbones.build("tiny" if content == "cut short" else "resnet8")
    net.save_weights(weights)
    if content != "another net":
        weights.write_bytes(weights.read_bytes()[:5000] if content == "cut short" else b"no weights")
    with pytest.raises(SystemExit, match=r"^Error: pretrained must .*Received: .*x\.weights\.h5"):
        train.run(dataclasses.replace(run.config, pretrained=str(weights), workdir=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()


def test_runs_of_other_data_of_the_same_name_are_not_taken_for_seeds(run, tmp_path, capsys):
    shutil.copytree(run.folder, tmp_path / "run")
    other = read_json(tmp_path / "run/data.json")
    (tmp_path / "run/data.json").write_text((tmp_path / "run/data.json").read_text().replace(other["digest"], "0"))
    for name in ("data.npz",):
        with np.load(tmp_path / "run" / name) as found:
            arrays = {split: array + (split == "train") for split, array in found.items()}
        np.savez(tmp_path / "run" / name, **arrays)
    flags_file = tmp_path / "run/flags.cfg"
    flags_file.write_text(flags_file.read_text().replace("--seed=0", "--seed=1"))
    compare.main([str(run.folder), str(tmp_path / "run"), f"--output_dir={tmp_path}/compared"])
    page = (tmp_path / "compared/compare.md").read_text()
    assert "| examples |" in page
    assert "±" not in page.partition("\n\n| ")[2]


def test_what_goes_wrong_in_the_report_leaves_a_finished_run(run, tmp_path):
    shutil.copytree(run.folder, tmp_path / "run")
    (tmp_path / "run/results.json").unlink()
    (tmp_path / "run/report.html").unlink()
    (tmp_path / "run/report.html").mkdir()
    again = dataclasses.replace(run.config, workdir=str(tmp_path / "run"))
    with pytest.raises(SystemExit, match=r"is finished, but not its report: IsADirectoryError: .* tries again$"):
        train.run(again)
    assert keras_lt.Run(tmp_path / "run").results["best"] in ("joint", "lws")


def test_flags_of_version_01_that_did_nothing_do_not_close_its_runs_and_lws_keeps_its_epochs(run, tmp_path):
    shutil.copytree(run.folder, tmp_path / "run")
    old = ["--focal_gamma=1.0", "--label_smoothing=0.0", "--classifier_epochs_for=lws:1,crt:3"]
    old.append("--export_classifier=lws")
    with (tmp_path / "run/flags.cfg").open("a") as file:
        file.write("\n".join(old))
    with pytest.warns(UserWarning, match="classifier_epochs_for"):
        assert keras_lt.Run(tmp_path / "run").config.classifiers == ("joint", "lws:epochs=1")
    opened = keras_lt.Run(tmp_path / "run")
    with pytest.warns(UserWarning, match="classifier_epochs_for"):
        assert opened.exported_classifier == "lws"  # as long as it is called so there
    learned = opened.outcome_file("lws").stat().st_mtime_ns
    flag_values = flags.FlagValues()
    config.define_flags(flag_values)
    of_run = [f"--{name}={value}" for name, value in run.config.as_flags().items() if name != "workdir"]
    flag_values(["train", *of_run, f"--workdir={tmp_path}/run", *old])
    with pytest.warns(UserWarning, match="classifier_epochs_for"):
        train.run(config.from_flags(flag_values))
    assert keras_lt.Run(tmp_path / "run").classifiers == ["joint", "lws:epochs=1"]
    assert keras_lt.Run(tmp_path / "run").exported_classifier == "lws:epochs=1"
    assert opened.outcome_file("lws:epochs=1").stat().st_mtime_ns == learned


def test_a_run_is_opened_from_any_folder_and_what_is_damaged_in_it_is_named(run, tmp_path, monkeypatch):
    shutil.copytree(run.folder, tmp_path / "run")
    monkeypatch.chdir(run.config.data_dir)
    keras_lt.Run.of(dataclasses.replace(run.config, data_dir="./", workdir=str(tmp_path / "run"))).save_config()
    monkeypatch.chdir(tmp_path)
    assert keras_lt.Run("run").config.data_dir == run.config.data_dir
    for name, content in {"flags.cfg": "--epoch", "results.json": '{"best": ', "data.json": ""}.items():
        (tmp_path / "run" / name).write_text(content)
    (tmp_path / "other.cfg").write_text("epochs=3")
    for read in (
        lambda: keras_lt.Run("run").config,
        lambda: keras_lt.Run("run").results,
        lambda: keras_lt.Run("run").recorded_data,
        lambda: config.read_flag_file("other.cfg"),
    ):
        with pytest.raises(
            ValueError, match=r"(flags\.cfg|results\.json|data\.json|other\.cfg) (is damaged|must hold)"
        ):
            read()


def test_a_place_that_tensorflow_reads_no_model_from_is_refused_first(run, tmp_path):
    for name in ("run[1]", "what?"):
        with pytest.raises(SystemExit, match=r"reads no SavedModel from a path with [\[?]: rename it"):
            train.run(dataclasses.replace(run.config, workdir=str(tmp_path / name)))
    assert not list(tmp_path.iterdir())


def test_the_environment_may_lack_a_home_and_standard_streams(tmp_path, monkeypatch):
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setattr(os.path, "expanduser", str)  # no HOME, and a user that the system does not know
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    assert inspection._keras_home() == tmp_path / ".keras"
    monkeypatch.undo()
    monkeypatch.setattr(sys, "stdout", None)
    open_streams()
    print("nowhere", file=sys.stdout)
    assert sys.stdout.fileno() == 1
