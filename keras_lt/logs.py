"""What a run leaves to be read beside its results: a log file, and event files for TensorBoard."""

import contextlib
import os
import pathlib
import re
import shlex
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import TextIO

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_lt.classifiers import fold
from keras_lt.metrics import ShotGroups

BINS = 30  # of the histogram of weight norms: what TensorBoard draws
TERMINAL_CODES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")  # colours, moves, controls but tab

NO_MATTER = contextlib.suppress(OSError, tf.errors.OpError)  # a full disk must not end a run by its log


@contextlib.contextmanager
def log_file(path: str | os.PathLike) -> Iterator[None]:
    """Appends what Python prints to a file, every line with date and time; the terminal stays as it is.

    Of a line that is drawn over and over, such as a progress bar, the file gets the last state. It begins with the
    command, and ends with the exception where one ends the body. What TensorFlow's C++ writes goes to the terminal
    alone: turning that aside would lose the last words of a crash.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:

        def append(line: str):
            line = TERMINAL_CODES.sub("", line.rstrip("\r").rpartition("\r")[2]).rstrip()
            if line:
                with NO_MATTER:
                    file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n".encode(errors="backslashreplace"))

        append(f"$ {shlex.join(sys.orig_argv)}")
        with _copied(sys.stdout, append), _copied(sys.stderr, append):
            try:
                yield
            except BaseException as error:  # Python shows it to the terminal, once the file is closed
                for line in "".join(_told(error)).splitlines():
                    append(line)
                raise


@contextlib.contextmanager
def _copied(stream: TextIO, append: Callable[[str], None]) -> Iterator[None]:
    """Gives every finished line that is written to the stream to `append` too.

    It is the stream's method that is replaced, not `sys.stdout`: loggers hold the stream since they were made.
    """
    write, line = stream.write, ""
    lock = threading.RLock()  # a signal's handler may print in the middle of a print

    def copying_write(text: str) -> int:
        nonlocal line
        with lock:
            *finished, line = (line + text).split("\n")
            line = line[line.rstrip("\r").rfind("\r") + 1 :]  # hours of a progress bar are not kept
            for each in finished:
                append(each)
        return write(text)

    stream.write = copying_write
    try:
        yield
    finally:
        stream.write = write
        append(line)


def _told(error: BaseException) -> list[str]:
    """An exception with its stack; Ctrl-C and `sys.exit` are no mistakes of the program and go without."""
    return traceback.format_exception(error) if isinstance(error, Exception) else [f"ended by {error!r}"]


class EventLog(keras.callbacks.Callback):
    """Writes event files that `tensorboard --logdir=<folder>` draws; the package `tensorboard` is not needed to write.

    The step is the epoch, counted from 1. The files lie under `train` and `val`, so that each plot has both curves:
    `loss` and `accuracy/many` to `accuracy/class_mean`. Under `train` there are also

    - `learning_rate`;
    - `sampler/many`, `medium`, `few`: the share of the epoch's images that is drawn from those classes;
    - `sampler/classes`: the same by class, from the most to the least frequent, as a histogram over their ranks;
    - `classifier/weight_norms`: a histogram of the norm of every class's weights, where the classifier is linear.

    A run that goes on from an earlier epoch says so to TensorBoard, which then forgets what it had of the later ones.

    Args:
      probabilities: of drawing each class in each epoch, [E, C].
      groups: of the classes, which are ranked by the same training images.
    """

    def __init__(self, folder: str | os.PathLike, *, probabilities: npt.ArrayLike, groups: ShotGroups):
        super().__init__()
        self.folder = pathlib.Path(folder)
        self.probabilities = np.asarray(probabilities, np.float64)
        self.groups = groups
        self.ranking = np.argsort(-groups.class_counts, kind="stable")
        self._writers: dict[str, tf.io.TFRecordWriter] = {}

    def on_epoch_begin(self, epoch: int, logs: dict | None = None):
        """Keras's hook: opens the files."""
        if not self._writers:
            self._writers = {split: _open(self.folder / split, epoch + 1) for split in ("train", "val")}

    def on_epoch_end(self, epoch: int, logs: dict | None = None):
        """Keras's hook: writes the epoch's values."""
        of_split = {"train": [], "val": []}
        for name, value in (logs or {}).items():
            split = "val" if name.startswith("val_") else "train"
            if np.isfinite(value):  # a group without a class has no accuracy
                of_split[split].append(_scalar(self._tag(name.removeprefix("val_")), value))
        of_split["train"] += [*self._of_sampler(epoch), *self._of_classifier()]
        for split, values in of_split.items():
            _write(self._writers[split], step=epoch + 1, summary=tf.compat.v1.Summary(value=values))

    def on_train_end(self, logs: dict | None = None):
        """Keras's hook: closes the files."""
        for writer in self._writers.values():
            with NO_MATTER:
                writer.close()
        self._writers = {}

    def _tag(self, name: str) -> str:
        return f"accuracy/{name}" if name in (*self.groups, "all", "class_mean") else name

    def _of_sampler(self, epoch: int) -> Iterator[tf.compat.v1.Summary.Value]:
        row = self.probabilities[epoch]
        for group, members in self.groups.items():
            yield _scalar(f"sampler/{group}", row[members].sum())
        yield _histogram("sampler/classes", row[self.ranking], np.arange(len(row) + 1))

    def _of_classifier(self) -> Iterator[tf.compat.v1.Summary.Value]:
        layer = self.model.layers[-1]
        while isinstance(layer, keras.Model):  # what is trained may be wrapped
            layer = layer.layers[-1]
        dense = fold(layer)
        if dense is not None:
            # float64 has room for 30 bins between the norms of a cosine classifier, which differ by rounding alone.
            norms = np.linalg.norm(np.asarray(dense[0], np.float64), axis=0)
            yield _histogram("classifier/weight_norms", *np.histogram(norms, BINS))


def _open(folder: pathlib.Path, step: int) -> tf.io.TFRecordWriter:
    """A new event file: TensorBoard reads them in the order of their names, and drops what it has from `step` on."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = tf.io.TFRecordWriter(str(folder / f"events.out.tfevents.{time.time_ns()}"))
    _write(writer, file_version="brain.Event:2")
    _write(writer, step=step, session_log=tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START))
    return writer


def _write(writer: tf.io.TFRecordWriter, **content):
    with NO_MATTER:
        writer.write(tf.compat.v1.Event(wall_time=time.time(), **content).SerializeToString())
        writer.flush()


def _scalar(tag: str, value: float) -> tf.compat.v1.Summary.Value:
    return tf.compat.v1.Summary.Value(tag=tag, simple_value=value)


def _histogram(tag: str, heights: np.ndarray, edges: np.ndarray) -> tf.compat.v1.Summary.Value:
    """Bars [K] between edges [K + 1]; the first edge is the proto's `min`."""
    histogram = tf.compat.v1.HistogramProto(
        min=edges[0], max=edges[-1], num=heights.sum(), bucket_limit=edges[1:], bucket=heights
    )
    return tf.compat.v1.Summary.Value(tag=tag, histo=histogram)
