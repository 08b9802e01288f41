"""What the machine and damage do to a command: one line that names the file and the way out, and a plain exit code."""

import contextlib
import importlib
import io
import os
import pathlib
import re
import signal
import sys
import time
import warnings

import keras
import numpy as np
import pytest
import rich.console

from keras_lt import command, config
from keras_lt.__main__ import COMMANDS
from keras_lt.checkpoints import EpochCheckpoints
from keras_lt.command import begin_in_utf8, launch, plain_errors, quietly, unread, with_flag_files
from keras_lt.datasets.data_record import DataRecord
from keras_lt.datasets.prepared import read_prepared
from keras_lt.evaluation import Scores, load_model
from keras_lt.features import extract_features
from keras_lt.files import DamagedError, check_own, read_json, reading
from keras_lt.preprocessing import Preprocessing
from keras_lt.run import Run
from keras_lt.stages import Representation, load_classifier
from tests.tiny_backbone import tiny

PREPROCESSING = Preprocessing(8, (0.5,) * 3, (0.25,) * 3)


@pytest.fixture
def representation(tmp_path):
    """One of four features and three classes, in a folder."""
    images, backbone = keras.Input((8, 8, 3)), tiny()
    backbone.name = "backbone"
    model = keras.Model(images, keras.layers.Dense(3, name="classifier")(backbone(images)))
    Representation(model, PREPROCESSING, [{"epoch": 1.0}]).save(tmp_path / "representation")
    return tmp_path / "representation"


def test_a_damaged_file_is_named_with_the_way_out_and_ends_a_command_in_one_line(tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(b"PK\x03\x04, and no more")
    said = r"x\.npz is damaged: remove it\. BadZipFile: "
    with pytest.raises(DamagedError, match=said) as found, reading(path, instead="remove it"), np.load(path):
        pass
    assert isinstance(found.value, OSError)  # which `launch` ends in one line, however deep in a training it is found
    assert isinstance(found.value, ValueError)  # which `plain_errors` does
    for error in (MemoryError, PermissionError):  # no reason to remove a file
        with pytest.raises(error), reading(path):
            raise error
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")


@pytest.mark.parametrize("name", ["model.keras", "preprocessing.json", "history.csv"])
@pytest.mark.parametrize("content", [b"", b"\x00\xffjunk"])
def test_a_damaged_representation_is_named_with_what_makes_it_again(representation, name, content):
    if (name, content) == ("history.csv", b""):
        content = b"epoch,loss\n1\n"  # an empty one is that of an imported representation
    (representation / name).write_bytes(content)
    with pytest.raises(DamagedError, match=rf"{re.escape(name)} is damaged: .* remove {representation}/model\.keras, "):
        Representation.load(representation)


def test_a_damaged_classifier_and_model_are_named(representation, tmp_path):
    folder, loaded = tmp_path / "classifiers/crt", Representation.load(representation)
    folder.mkdir(parents=True)
    for name in ("model.keras", "backbone.keras"):
        (folder / name).write_bytes(b"junk")
        with pytest.raises(DamagedError, match=rf"{name} is damaged: .* remove {folder}, "):
            load_classifier(folder, loaded)
    (folder / "saved_model.pb").write_bytes(b"\xffjunk")
    with pytest.raises(DamagedError, match=rf"{folder} is damaged: remove it, and python -m keras_lt\.export"):
        load_model(folder)


@pytest.mark.parametrize("content", [b"", b"junk"])
def test_damaged_scores_records_and_prepared_folders_are_named(tmp_path, content):
    for name in ("predictions.npz", "prepare.json"):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DamagedError, match=r"predictions\.npz is damaged: remove it, and it is made again"):
        Scores.load(tmp_path / "predictions.npz")
    with pytest.raises(DamagedError, match=r"prepare\.json is damaged"):
        read_prepared(str(tmp_path), "folder")
    (tmp_path / "prepare.json").write_text("{}")  # of another program
    with pytest.raises(DamagedError, match=r"prepare\.json is damaged: .* prepare the folder again\. KeyError"):
        read_prepared(str(tmp_path), "folder")
    facts = tmp_path / "data.json"
    for known in ("{}", '{"name": 1', "[]"):
        facts.write_text(known)
        with pytest.raises(DamagedError, match=r"data\.json is damaged"):
            DataRecord.load(facts=facts, images=tmp_path / "predictions.npz")


@pytest.mark.parametrize("content", ["[]", "{}", "null", "3", '"best"'])
def test_json_of_something_else_is_damage_too(tmp_path, content):
    run = Run(tmp_path)
    for path in (run.results_file, run.outcome_file("crt"), run.data_file, run.flags_file):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    for read, name in (
        (lambda: run.results, "results"),
        (lambda: run.outcome("crt"), "scores"),
        (lambda: run.recorded_data, "data"),
        (lambda: run.begun_by, "data"),
    ):
        with pytest.raises(DamagedError, match=rf"{name}\.json is damaged: "):
            read()


def test_a_run_without_a_line_in_its_flags_is_not_one_of_all_defaults(tmp_path):
    (tmp_path / "flags.cfg").touch()
    with pytest.raises(ValueError, match=r"flags\.cfg must hold flags, .*Received: no line"):
        config.read_flag_file(tmp_path / "flags.cfg")
    (tmp_path / "flags.cfg").write_text("--batch_size=-8")
    with pytest.raises(ValueError, match=r"^In .*flags\.cfg: --batch_size must be at least 0"):
        config.read_flag_file(tmp_path / "flags.cfg")


def test_features_that_were_cut_short_are_extracted_again(data, tmp_path):
    backbone = tiny()
    whole = np.array(extract_features(backbone, data.test, PREPROCESSING, folder=tmp_path / "f").features)
    path = tmp_path / "f/features.npy"
    path.write_bytes(path.read_bytes()[:-1])
    again = extract_features(backbone, data.test, PREPROCESSING, folder=tmp_path / "f")
    np.testing.assert_array_equal(again.features, whole)


def test_a_kept_epoch_that_is_damaged_is_named(tmp_path):
    checkpoints = EpochCheckpoints(tmp_path, "loss")
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.zeros((1, 1)), np.zeros(1), callbacks=[checkpoints], verbose=0)
    (kept,) = (tmp_path / "checkpoints").iterdir()
    kept.write_bytes(b"junk")
    with pytest.raises(DamagedError, match=rf"{kept.name} is damaged: remove {kept.parent}, and this training starts"):
        checkpoints.restore_kept(model)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_starts_by_launch(name):
    source = pathlib.Path(importlib.import_module(f"keras_lt.{name}").__file__).read_text()
    assert source.endswith('\n\nif __name__ == "__main__":\n    launch(main)\n')


@pytest.fixture
def signals():
    """Gives signals, and what Python does with what nobody can catch, their own meaning back after the test."""
    numbers, hook = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM), sys.unraisablehook
    before = [signal.getsignal(number) for number in numbers]
    yield
    command._leaving.clear()
    sys.unraisablehook = hook
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def stopped():
    raise KeyboardInterrupt


SAID_OF_THE_STOP = "Stopped. The same command resumes from the last finished part or epoch."


def test_a_command_that_is_stopped_says_so_in_one_line_and_has_the_exit_code_of_it(signals, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train"])
    with pytest.raises(SystemExit) as end:
        launch(stopped)
    with pytest.raises(SystemExit) as loading, quietly("__main__"):
        stopped()  # the ten seconds in which libraries are loaded
    assert (end.value.code, loading.value.code) == (130, 130)
    said = capsys.readouterr().err.strip().splitlines()[::2]  # not what TensorFlow's own code writes
    assert said == [SAID_OF_THE_STOP] * 2
    with pytest.raises(KeyboardInterrupt), quietly("a.module"):
        stopped()


def passed_over():
    """As by Keras where it traces a model."""
    with contextlib.suppress(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
    time.sleep(10)


def in_garbage():
    """As in a finalizer of JAX's, where nothing that is raised goes further."""

    class Garbage:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)

    Garbage()
    time.sleep(10)


def something_else():
    """As by Python 3.11 where a class is made."""
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
    except KeyboardInterrupt as error:
        raise RuntimeError("Error calling __set_name__") from error


@pytest.mark.parametrize("lost", [passed_over, in_garbage, something_else])
def test_a_request_to_leave_that_a_library_passes_over_ends_the_command(lost, signals, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train"])
    monkeypatch.setattr(command, "LEAVES_AGAIN_AFTER", 0.05)
    with pytest.raises(SystemExit, match=r"^130$"):
        launch(lost)
    with pytest.raises(SystemExit, match=r"^130$"), quietly("__main__"):
        lost()
    said = capsys.readouterr().err
    assert said.count(SAID_OF_THE_STOP) == 2
    assert "Traceback" not in said


def test_ctrl_c_that_the_caller_has_turned_off_stays_so(signals):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # by `command &` in a shell's script
    command.heed_signals()
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL


def test_warnings_of_libraries_end_no_command(signals, monkeypatch):
    monkeypatch.setattr(sys, "warnoptions", ["error"])
    monkeypatch.setattr(sys, "argv", ["train"])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("error")
        with pytest.raises(SystemExit) as end:
            launch(lambda: warnings.warn("old", DeprecationWarning, stacklevel=1))
    assert end.value.code is None
    assert [str(each.message) for each in said] == ["old"]


@pytest.mark.parametrize("buffered", [True, False])  # PYTHONUNBUFFERED=1, as in many containers
@pytest.mark.parametrize(
    "how", [print, lambda said: print(said, flush=True), lambda said: rich.console.Console().print(said)]
)
def test_a_command_whose_output_nobody_reads_ends_without_a_word(monkeypatch, how, buffered):
    reader, writer = os.pipe()
    os.close(reader)
    with written_to(writer, buffered) as nowhere:
        monkeypatch.setattr(sys, "stdout", nowhere)
        with pytest.raises(SystemExit) as end, unread(), plain_errors():
            how("a table")
    assert end.value.code == 141
    monkeypatch.undo()
    with pytest.raises(SystemExit, match=r"^Error: expected$"), unread():
        sys.exit("Error: expected")


def written_to(number, buffered):
    return io.TextIOWrapper(os.fdopen(number, "wb", -1 if buffered else 0), write_through=not buffered)


@pytest.mark.parametrize("buffered", [True, False])
def test_a_command_whose_output_has_no_room_ends_in_one_line(monkeypatch, buffered):
    with written_to(os.open("/dev/full", os.O_WRONLY), buffered) as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit, match=r"^Error: standard output cannot be written: No space left"), unread():
            print("a table")
        monkeypatch.undo()


def test_a_backend_that_there_is_not_is_refused_in_one_line():
    said = r"see KERAS_BACKEND and keras.json too: Unable to import backend : theano$"
    with pytest.raises(SystemExit, match=said), quietly("__main__"):
        raise ValueError("Unable to import backend : theano")  # as Keras does


@pytest.mark.parametrize("error", [AssertionError(), AttributeError("'list' object has no attribute 'get'")])
def test_a_keras_json_that_is_no_good_is_refused_in_one_line(error):
    with pytest.raises(SystemExit, match=r"see KERAS_BACKEND and keras.json too: \S+"), quietly("__main__"):
        raise error  # as Keras does of an unknown floatx, and of a list


def test_a_program_begins_again_in_utf8_where_names_of_files_are_read_otherwise(monkeypatch):
    begun = []
    monkeypatch.setattr(os, "execv", lambda *arguments: begun.append(arguments))
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "keras_lt.train", "--workdir=Läufe"])
    begin_in_utf8()
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    begin_in_utf8()
    assert begun == [
        (sys.executable, [sys.executable, "-X", "utf8", "-m", "keras_lt.train", "--workdir=Läufe"]),
    ]


@pytest.mark.parametrize("arguments", [["--flagfile="], ["--flagfile"], ["--flagfile", " "]])
def test_a_flag_file_without_a_name_is_no_run_by_the_defaults(arguments):
    with pytest.raises(ValueError, match=r"^--flagfile must name a file; .*Received: --flagfile="):
        with_flag_files(["--seed=1", *arguments])


def test_a_place_that_may_not_be_written_to_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "access", lambda place, mode: not pathlib.Path(place).samefile(tmp_path))
    for path in ("predictions.csv", tmp_path / "new/folder/describe.json"):
        with pytest.raises(ValueError, match=rf"A file is to be written\. .*{tmp_path} may not be written to$"):
            check_own(path, "model")
