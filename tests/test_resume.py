"""The same command finishes an interrupted run with the numbers of an uninterrupted one, to the last bit."""

import dataclasses
import os
import pathlib
import signal
import sys
import time

import keras
import numpy as np
import pytest

from keras_lt.checkpoints import read_history
from keras_lt.command import launch
from keras_lt.config import RunConfig
from keras_lt.files import SCRATCH, read_json
from tests.programs import KNOW_TINY, Program

# `python -m keras_lt.train`, where the tests' backbone is known, the CPU may be two devices, a file can be too large,
# and lightning may strike just before a finished file or folder takes its place.
TRAIN = (
    KNOW_TINY
    + """
import os, resource, runpy, signal
import tensorflow as tf

devices, largest_file, deadly_write = (int(os.environ[name]) for name in ("DEVICES", "LARGEST_FILE", "DEADLY_WRITE"))
cpu, replace = tf.config.list_physical_devices("CPU")[0], os.replace
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
if largest_file:
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

def deadly_replace(source, target):
    global deadly_write
    deadly_write -= 1
    if not deadly_write:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

os.replace = deadly_replace
runpy.run_module("keras_lt.train", run_name="__main__", alter_sys=True)
"""
)


class Run:
    """A run in a work folder, started as often as it takes."""

    def __init__(self, config: RunConfig, folder: pathlib.Path, *, devices=1):
        strategy = {"strategy": "mirrored", "devices": "CPU:0,CPU:1"} if devices > 1 else {}
        flags = config.as_flags() | {"workdir": folder} | strategy
        self.arguments = [f"--{name}={value}" for name, value in flags.items()]
        self.folder = folder
        self.devices = devices

    def start(self, *, largest_file=0, deadly_write=0):
        """A process of the run."""
        hindrances = {"DEVICES": self.devices, "LARGEST_FILE": largest_file, "DEADLY_WRITE": deadly_write}
        environment = {name: str(value) for name, value in hindrances.items()}
        return Program(TRAIN, *self.arguments, environment=environment)

    def finish(self):
        """Lets the run end; returns what it said."""
        process = self.start()
        said, complaints = process.communicate()
        assert process.returncode == 0, complaints
        return said

    def stop(self, number, part, seconds):
        """Sends a signal, `seconds` after a part has begun; returns the exit code, and the last words."""
        process = self.start()
        next((line for line in process.stdout if line.startswith(f"== {part}")), None)  # None: it broke, see its words
        time.sleep(seconds)
        process.send_signal(number)
        _, complaints = process.communicate()
        return process.returncode, complaints

    def kill(self, part, seconds):
        """Kills, `seconds` after a part has begun; gives False where that is so late that the run is over."""
        code, complaints = self.stop(signal.SIGKILL, part, seconds)
        assert code in (-signal.SIGKILL, 0), complaints
        return code != 0

    def kill_in_write(self, number):
        """Kills while the file of that number is written, if there are so many; what there is of it is left behind."""
        process = self.start(deadly_write=number)
        _, complaints = process.communicate()
        assert process.returncode in (-signal.SIGKILL, 0), complaints
        assert bool(list(self.folder.rglob(".unfinished*"))) == (process.returncode != 0)
        return process.returncode != 0

    def files(self):
        """Every file and what is in it, but for the lock, the log and the events: each start changes them.

        Nor for what a kill leaves of a file that was being written, which the next start removes.
        """
        files = [path for path in self.folder.rglob("*") if path.is_file() and SCRATCH not in str(path)]
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in files
            if path.name not in (".lock", "train.log") and "events" not in path.parts
        }

    def outcome(self):
        """Which files there are, and every number in them but the seconds that things took."""
        files = self.files()
        histories = {name: read_history(self.folder / name) for name in files if name.endswith("history.csv")}
        models = {
            name: keras.saving.load_model(self.folder / name, compile=False)
            for name in files
            if name.endswith(".keras")
        }
        results = read_json(self.folder / "results.json")
        return {
            "files": sorted(files),
            "histories": {n: [{**row, "seconds": 0} for row in rows] for n, rows in histories.items()},
            "weights": {n: [w.tobytes() for w in model.get_weights()] for n, model in models.items()},
            "features": {n: content for n, content in files.items() if n.endswith(".npy")},
            "results": {n: {**row, "seconds": 0} for n, row in results["classifiers"].items()} | {"": results["best"]},
        }


@pytest.fixture
def small(arrays_dir):
    """With everything that a checkpoint could forget: momentum, moving average, batch norm, draws by epoch, mixing."""
    return RunConfig(
        dataset="arrays",
        data_dir=str(arrays_dir),
        backbone="tiny",
        epochs=4,
        classifier_epochs=3,
        batch_size=16,
        learning_rate=0.02,
        sampler="progressive",
        augmentation="crop_flip",
        mixup=0.2,
        ema_momentum=0.9,
        classifiers=("joint", "crt", "lws"),
    )


def moments(said, number, rng):
    """So many moments of a run that has said what it did, in order: (part, seconds since it began)."""
    begun = [line.removeprefix("== ") for line in said.splitlines() if line.startswith("== ")]
    parts = [(title, float(done.split()[2])) for title, done in zip(begun[::2], begun[1::2], strict=True)]
    ends = np.cumsum([seconds for _, seconds in parts])
    for moment in np.sort(rng.uniform(0, 0.9 * ends[-1], number)):
        title, seconds = parts[np.searchsorted(ends, moment)]
        yield title, moment - ends[np.searchsorted(ends, moment)] + seconds


def test_a_run_killed_three_times_and_once_out_of_room_ends_with_the_numbers_of_an_uninterrupted_one(small, tmp_path):
    rng = np.random.default_rng(0)
    whole, broken = Run(small, tmp_path / "whole"), Run(small, tmp_path / "broken")
    early, late = moments(whole.finish(), 2, rng)

    assert broken.kill(*early)

    before = broken.files()
    process = broken.start(largest_file=6000)  # bytes; a checkpoint of "tiny" has more
    _, complaints = process.communicate()
    assert process.returncode == 1
    assert f"Error: No room for {broken.folder}" in complaints
    assert "Traceback" not in complaints
    assert before.items() <= broken.files().items()

    assert broken.kill_in_write(rng.integers(2, 11))
    broken.kill(*late)
    broken.finish()
    assert broken.outcome() == whole.outcome()


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_ten_kills_and_a_request_to_leave_change_no_number(small, tmp_path, devices):
    rng = np.random.default_rng(devices)
    config = dataclasses.replace(small, backbone="resnet8", stage_two="images", batch_norm="update")
    whole, broken = (Run(config, tmp_path / name, devices=devices) for name in ("whole", "broken"))
    first, *rest = moments(whole.finish(), 6, rng)
    code, complaints = broken.stop(signal.SIGTERM, *first)
    assert code == 130, complaints
    assert "The same command resumes" in complaints
    assert "Traceback" not in complaints
    for moment in rest:
        broken.kill(*moment)
        broken.kill_in_write(rng.integers(2, 11))
    broken.finish()
    assert broken.outcome() == whole.outcome()


@pytest.fixture
def sigterm():
    """Gives the signal its own meaning back after the test."""
    before = signal.getsignal(signal.SIGTERM)
    yield signal.SIGTERM
    signal.signal(signal.SIGTERM, before)


def test_a_request_to_leave_and_a_full_disk_end_a_command_in_one_line(sigterm, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train"])
    with pytest.raises(SystemExit, match=r"^130$"):
        launch(lambda: os.kill(os.getpid(), sigterm))
    assert "The same command resumes from the last finished part or epoch" in capsys.readouterr().err

    def full():
        raise OSError("No room for runs/x/model.keras")

    with pytest.raises(SystemExit, match=r"^Error: No room for runs/x/model\.keras$"):
        launch(full)
