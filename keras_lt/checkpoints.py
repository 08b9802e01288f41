"""Training goes on from its last finished epoch, and gives back its best one, or its last."""

import csv
import json
import os
import pathlib
import time
import warnings
import zipfile
import zlib
from collections.abc import Mapping

import keras
import numpy as np

from keras_lt.compat import frozen_variables, versions, warn_of_versions
from keras_lt.files import atomic, reading, without_nan

LATEST = 2  # checkpoints on disk, beside the kept epoch's


class EpochCheckpoints(keras.callbacks.Callback):
    """Saves all training state after every epoch, and knows which epoch is kept.

    State is every variable of model and optimizer that can change, random state included, and this callback's own
    history, which Keras's `BackupAndRestore` leaves out. What is frozen is there before the fit; a checkpoint has a
    checksum of it, what the training was made of, and by which versions. The last two and the kept epoch's stay.

    Args:
      folder: where checkpoints and `history.csv` go; None keeps the history and the kept weights in memory only.
      monitor: the log whose largest value marks the kept epoch; the earliest wins a tie.
      keep: "best", or "last" for the last epoch whatever the log.
      writes: of several processes that train together, one does; the others only restore.
      made_of: by name, as JSON holds it, what the numbers of the training depend on, such as its recipe.
    """

    def __init__(
        self,
        folder: str | os.PathLike | None,
        monitor: str,
        *,
        keep: str = "best",
        writes: bool = True,
        made_of: Mapping[str, object] | None = None,
    ):
        super().__init__()
        self.folder = None if folder is None else pathlib.Path(folder)
        self.monitor = monitor
        self.keep = keep
        self.writes = writes and folder is not None
        self.made_of = json.loads(json.dumps(without_nan(made_of or {})))  # as it is read: tuples are lists
        self.history: list[dict[str, float]] = []
        self._kept_state: dict[str, np.ndarray] = {}  # where nothing is written
        self._frozen = 0  # a checksum
        self._begun = 0.0

    @property
    def kept_epoch(self) -> int:
        """The epoch, from 0, with the largest monitored value, or the last."""
        if self.keep == "last":
            return len(self.history) - 1
        return int(np.argmax([row[self.monitor] for row in self.history]))

    def restore(self, model: keras.Model) -> int:
        """Puts the newest readable checkpoint into the compiled model; returns the epochs that it has behind it.

        The optimizer has its variables afterwards, checkpoint or not: Keras would make them in the graph of the first
        step, and then trace that again.

        Raises:
          OSError: it is one of another model or optimizer, of other frozen weights, or of a training made otherwise.
        """
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        for path in reversed(self._saved()):
            try:
                with np.load(path) as state:
                    values = {name: state[name] for name in state.files}
            except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
                warnings.warn(f"Checkpoint {path} cannot be read ({error}); the one before it is used.", stacklevel=2)
                continue
            self._check_made_of(json.loads(str(values.get("made_of", "{}"))), path)
            warn_of_versions(json.loads(str(values.get("versions", "{}"))))
            _restore(model, values, of=path)
            self._frozen = _checksum(model)
            if int(values.get("frozen", self._frozen)) != self._frozen:
                raise OSError(
                    "What is frozen must be as it was when the training began. Received: other weights than "
                    f"{path} was written beside; without its folder this training starts over"
                )
            self.history = json.loads(str(values["history"]))
            if self.writes:
                self._tidy()
            return len(self.history)
        self._frozen = _checksum(model)
        return 0

    def _check_made_of(self, there: Mapping[str, object], path: pathlib.Path):
        """Raises OSError where a checkpoint is of another training; earlier versions did not write what it is of."""
        other = [
            f"{name}: {there[name]} there, {ours} now"
            for name, ours in self.made_of.items()
            if there.get(name, ours) != ours
        ]
        if other:
            raise OSError(
                f"A training goes on as it began. Received: {path}, of one with other {'; '.join(other)}; "
                "give another folder, or without it this training starts over"
            )

    def restore_kept(self, model: keras.Model):
        """Puts the kept epoch's weights into the model, their moving average where the optimizer has one."""
        if self._kept_state or self.folder is None:
            _restore(model, self._kept_state)
        else:
            path = self._path(self.kept_epoch)
            again = f"remove {path.parent}, and this training starts over"
            with reading(path, instead=again), np.load(path) as file:
                state = dict(file)
            _restore(model, state, of=path)
        model.optimizer.finalize_variable_values(model.trainable_variables)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None):
        """Keras's hook: starts the epoch's clock."""
        self._begun = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict | None = None):
        """Keras's hook: appends to the history and saves."""
        logs = {name: float(value) for name, value in (logs or {}).items()}
        self.history.append({"epoch": epoch + 1, **logs, "seconds": time.monotonic() - self._begun})
        if self.monitor not in self.history[-1]:
            raise ValueError(f"No log to choose the best epoch by: {self.monitor}. Received: {sorted(logs)}")
        if not self.writes and self.kept_epoch != epoch:
            return
        frozen = {id(variable) for variable in frozen_variables(self.model)}
        state = {f"model{i}": v for i, v in enumerate(self.model.variables) if id(v) not in frozen}
        state |= {f"optimizer{i}": v for i, v in enumerate(self.model.optimizer.variables)}
        state = {name: np.array(keras.ops.convert_to_numpy(variable)) for name, variable in state.items()}
        if not self.writes:
            self._kept_state = state
            return
        size = sum(value.nbytes for value in state.values())
        with atomic(self._path(epoch), size=size) as scratch, scratch.open("wb") as file:
            about = {"history": self.history, "made_of": self.made_of, "versions": versions()}
            about = {name: json.dumps(value) for name, value in about.items()}
            np.savez(file, **about, frozen=self._frozen, **state)
        self._tidy()

    def _tidy(self):
        """What follows from the newest checkpoint; also after `restore`, since a kill may have come in between."""
        write_history(self.folder / "history.csv", self.history)
        kept = {self._path(self.kept_epoch), *self._saved()[-LATEST:]}
        for path in set(self._saved()) - kept:
            path.unlink()

    def _path(self, epoch: int) -> pathlib.Path:
        return self.folder / "checkpoints" / f"epoch-{epoch + 1:05d}.npz"

    def _saved(self) -> list[pathlib.Path]:
        return [] if self.folder is None else sorted(self.folder.glob("checkpoints/epoch-*.npz"))


def _restore(model: keras.Model, state: Mapping[str, np.ndarray], *, of: object = "memory"):
    """Assigns a checkpoint's variables.

    Raises:
      OSError: they are not those of the model and its optimizer.
    """
    optimizer, frozen = model.optimizer, {id(variable) for variable in frozen_variables(model)}
    # Earlier versions wrote what is frozen as well.
    variables = [v for i, v in enumerate(model.variables) if f"model{i}" in state or id(v) not in frozen]
    variables += optimizer.variables
    values, own = _named(state, "model"), _named(state, "optimizer")
    if len(own) == len(optimizer.variables) + 1:  # of version 0.1, whose learning rate was a variable
        updates = getattr(optimizer, "inner_optimizer", optimizer)  # of one that scales the loss
        del own[len(optimizer.variables) - len(updates.variables) + 1]  # it stood behind the iterations
    values += own
    if [value.shape for value in values] != [tuple(variable.shape) for variable in variables]:
        raise OSError(
            f"A checkpoint must have the {len(variables)} variables of what is trained, in their shapes. "
            f"Received: {len(values)} others in {of}; without its folder this training starts over"
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _named(state: Mapping[str, np.ndarray], prefix: str) -> list[np.ndarray]:
    numbers = sorted(int(name.removeprefix(prefix)) for name in state if name.rstrip("0123456789") == prefix)
    return [state[f"{prefix}{number}"] for number in numbers]


def _checksum(model: keras.Model) -> int:
    """Of what is frozen."""
    checksum = 0
    for variable in frozen_variables(model):
        checksum = zlib.crc32(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)), checksum)
    return checksum


def write_history(path: str | os.PathLike, history: list[dict[str, float]]):
    """Writes a CSV file with a line per epoch, atomically."""
    with atomic(path) as scratch, scratch.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(history[0]) if history else [])
        writer.writeheader()
        writer.writerows(history)


def read_history(path: str | os.PathLike) -> list[dict[str, float]]:
    """Reads what `write_history` wrote."""
    with pathlib.Path(path).open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
