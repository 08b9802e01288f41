"""What a run leaves to be read: its log file line by line, its event files value by value."""

import io
import logging
import os
import re
import resource
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lt.classifiers import LearnableWeightScaling, NearestClassMean
from keras_lt.logs import EventLog, log_file
from keras_lt.metrics import ShotGroups
from keras_lt.samplers import probability_table
from keras_lt.stages import OnMixedLabels

COUNTS = (10, 150, 40)  # few-, many- and medium-shot


def lines(path):
    """The lines of a log without their time stamps, each of which must be there; the commands are left out."""
    stamped = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (.+)")
    texts = [stamped.fullmatch(line)[1] for line in path.read_text(encoding="utf-8").splitlines()]
    return [text for text in texts if not text.startswith("$ ")]


def test_what_is_printed_goes_to_the_terminal_and_with_the_time_to_the_file(tmp_path, capsys):
    path = tmp_path / "new" / "train.log"
    with log_file(path):
        print("== part", "one\n")
        print("trouble", file=sys.stderr)
        print("no end of line", end="")
    print("afterwards")
    assert lines(path) == ["== part one", "trouble", "no end of line"]
    assert capsys.readouterr() == ("== part one\n\nno end of lineafterwards\n", "trouble\n")


def test_a_log_goes_on_where_the_last_run_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["python", "train.py", "--seed=3"])
    for text in ("killed", "resumed"):
        with log_file(tmp_path / "log"):
            print(text)
    assert lines(tmp_path / "log") == ["killed", "resumed"]
    commands = [line for line in (tmp_path / "log").open() if " $ " in line]
    assert len(commands) == 2
    assert "train.py --seed=3" in commands[0]


def test_a_full_disk_does_not_end_a_run_by_its_events(tmp_path):
    events = EventLog(tmp_path, probabilities=[[0.2, 0.5, 0.3]], groups=ShotGroups(COUNTS))
    events.set_model(keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        events.on_epoch_begin(0)
        events.on_epoch_end(0, {"loss": 1.0})
        events.on_train_end()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert {path.stat().st_size for path in tmp_path.rglob("events.*")} == {100}


def test_a_progress_bar_leaves_its_last_state(tmp_path, capsys):
    with log_file(tmp_path / "log"):
        for done in range(1, 1001):
            print(f"\r\x1b[1m{done}/1000\x1b[0m \x1b[32m━━\x1b[0m", end="")
        print("\r\nnext\r")
    assert lines(tmp_path / "log") == ["1000/1000 ━━", "next"]
    assert capsys.readouterr().out.count("\x1b[32m") == 1000


def test_the_bar_of_keras_on_a_terminal_is_one_line(tmp_path, monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", terminal)
    with log_file(tmp_path / "log"):
        bar = keras.utils.Progbar(3, interval=0)
        for done in (1, 2, 3):
            bar.update(done, [("loss", 2.0)], finalize=done == 3)
    assert terminal.getvalue().count("\r") == 3
    (line,) = lines(tmp_path / "log")
    assert re.fullmatch(r"3/3 ━+ .* - loss: 2\.0000", line)


def test_a_logger_made_before_is_heard(tmp_path):
    logger = logging.getLogger("made before")
    logger.addHandler(logging.StreamHandler())
    with log_file(tmp_path / "log"):
        logger.warning("retracing")
    assert "retracing" in lines(tmp_path / "log")


def test_what_ends_a_run_is_the_end_of_its_log(tmp_path):
    with pytest.raises(FloatingPointError), log_file(tmp_path / "log"):
        raise FloatingPointError("The loss is nan\nin epoch 3")
    assert lines(tmp_path / "log")[0].startswith("Traceback")
    assert lines(tmp_path / "log")[-2:] == ["FloatingPointError: The loss is nan", "in epoch 3"]
    with pytest.raises(SystemExit), log_file(tmp_path / "exit"):
        sys.exit("Error: no such data")
    assert lines(tmp_path / "exit") == ["ended by SystemExit('Error: no such data')"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is always full")
def test_a_full_disk_does_not_end_a_run_by_its_log(capsys):
    with log_file("/dev/full"):
        print("still here")
    assert capsys.readouterr().out == "still here\n"


@pytest.fixture
def classifier():
    """A linear classifier whose classes have weights of norms 5, 0 and 13."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    model.layers[-1].set_weights([np.array([[3, 0, 5], [4, 0, 12]]), np.zeros(3)])
    return model


def write(folder, model, *, epochs, sampler="progressive", **logs):
    """Lets epochs pass that log the same values; the sampler's table is of three."""
    log = EventLog(folder, probabilities=probability_table(sampler, COUNTS, 3), groups=ShotGroups(COUNTS))
    log.set_model(model)
    for epoch in epochs:
        log.on_epoch_begin(epoch)
        log.on_epoch_end(epoch, logs)
    log.on_train_end()


def events(folder):
    """All events of a folder, in the order in which TensorBoard reads its files."""
    records = tf.data.TFRecordDataset(sorted(map(str, folder.iterdir())))
    return [tf.compat.v1.Event.FromString(record) for record in records.as_numpy_iterator()]


def values(folder):
    """(step, tag) -> value."""
    return {(event.step, value.tag): value for event in events(folder) for value in event.summary.value}


def test_each_epoch_writes_its_scalars_under_train_and_val(tmp_path, classifier):
    logs = {"loss": 2.0, "all": 0.5, "many": 0.25, "val_loss": 3.0, "val_class_mean": 0.125, "learning_rate": 0.1}
    write(tmp_path, classifier, epochs=[0, 1], **logs, few=float("nan"), val_few=float("nan"))
    train, val = values(tmp_path / "train"), values(tmp_path / "val")
    assert {key: value.simple_value for key, value in val.items()} == {
        (step, tag): value for step in (1, 2) for tag, value in {"loss": 3.0, "accuracy/class_mean": 0.125}.items()
    }
    expected = {"loss": 2.0, "accuracy/all": 0.5, "accuracy/many": 0.25, "learning_rate": pytest.approx(0.1)}
    for step in (1, 2):
        assert {tag: train[step, tag].simple_value for tag in expected} == expected
    tags = {tag for _, tag in train} - set(expected)
    assert tags == {"sampler/many", "sampler/medium", "sampler/few", "sampler/classes", "classifier/weight_norms"}


def test_the_sampler_moves_from_the_long_tail_to_balance(tmp_path, classifier):
    write(tmp_path, classifier, epochs=range(3))
    train = values(tmp_path / "train")
    shares = [
        [train[step, f"sampler/{group}"].simple_value for group in ("many", "medium", "few")] for step in (1, 2, 3)
    ]
    ends = [0.75, 0.2, 0.05], [1 / 3] * 3
    np.testing.assert_allclose(shares, [ends[0], np.mean(ends, 0), ends[1]], rtol=1e-6)
    by_rank = train[1, "sampler/classes"].histo
    assert list(by_rank.bucket) == pytest.approx([0.75, 0.2, 0.05])
    assert [by_rank.min, *by_rank.bucket_limit] == [0, 1, 2, 3]


def test_the_weight_norms_are_counted_between_the_least_and_the_largest(tmp_path, classifier):
    write(tmp_path, classifier, epochs=[0])
    norms = values(tmp_path / "train")[1, "classifier/weight_norms"].histo
    assert (norms.min, norms.max, norms.num) == (0, 13, 3)
    edges = np.array([norms.min, *norms.bucket_limit])
    held = [(left, right) for left, right, count in zip(edges[:-1], edges[1:], norms.bucket, strict=True) if count]
    assert [left <= norm <= right for norm, (left, right) in zip((0, 5, 13), held, strict=True)] == [True] * 3


def test_scaled_weights_have_scaled_norms_and_class_means_have_none(tmp_path):
    scaled = LearnableWeightScaling.from_dense(np.eye(3, dtype="float32"), np.zeros(3, "float32"))
    scaled.scales.assign([1.0, 2.0, 4.0])
    for name, layer in {"lws": scaled, "ncm": NearestClassMean(3)}.items():
        write(tmp_path / name, keras.Sequential([keras.Input((3,)), layer]), epochs=[0])
    histogram = values(tmp_path / "lws" / "train")[1, "classifier/weight_norms"].histo
    assert (histogram.min, histogram.max) == (1, 4)
    assert (1, "classifier/weight_norms") not in values(tmp_path / "ncm" / "train")


def test_norms_that_differ_by_rounding_alone_are_counted(tmp_path):
    """As MaxNorm leaves them: 30 bins between two neighbours of float32."""
    scaled = LearnableWeightScaling.from_dense(np.eye(3, dtype="float32"), np.zeros(3, "float32"))
    scaled.scales.assign([1.0, np.nextafter(np.float32(1), np.float32(2)), 1.0])
    write(tmp_path, keras.Sequential([keras.Input((3,)), scaled]), epochs=[0])
    assert values(tmp_path / "train")[1, "classifier/weight_norms"].histo.num == 3


def test_a_resumed_run_tells_tensorboard_from_which_step_to_forget(tmp_path, classifier):
    write(tmp_path, classifier, epochs=[0, 1], loss=2.0)
    write(tmp_path, classifier, epochs=[1, 2], loss=1.0)  # killed after its second epoch, before the checkpoint
    assert len(list((tmp_path / "train").iterdir())) == 2
    told, shown = [], {}
    for event in events(tmp_path / "train"):
        if event.WhichOneof("what") == "session_log":  # what follows is TensorBoard's rule
            assert event.session_log.status == tf.compat.v1.SessionLog.START
            told.append(event.step)
            shown = {step: loss for step, loss in shown.items() if step < event.step}
        for value in event.summary.value:
            if value.tag == "loss":
                assert event.step not in shown
                shown[event.step] = value.simple_value
    assert told == [1, 2]
    assert shown == {1: 2.0, 2: 1.0, 3: 1.0}


def test_the_weights_of_a_wrapped_model_are_logged(tmp_path, classifier):
    write(tmp_path, OnMixedLabels(classifier), epochs=[0])
    assert (1, "classifier/weight_norms") in values(tmp_path / "train")


def test_an_epoch_is_on_disk_when_it_ends(tmp_path, classifier):
    log = EventLog(tmp_path, probabilities=[[0.5, 0.25, 0.25]] * 2, groups=ShotGroups(COUNTS))
    log.set_model(classifier)
    for epoch in range(2):
        log.on_epoch_begin(epoch)
        log.on_epoch_end(epoch, {"loss": 1.0})
        assert max(step for step, _ in values(tmp_path / "train")) == epoch + 1  # a kill takes nothing back
