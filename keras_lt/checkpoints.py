"""Nothing is lost: files appear whole or not at all, and training goes on from its last finished epoch."""

import contextlib
import csv
import errno
import json
import os
import pathlib
import platform
import shutil
import time
import warnings
import zipfile

import keras
import numpy as np

KEPT = 2  # latest checkpoints on disk, beside the best one's
SCRATCH = ".unfinished~"  # what the names of half-written files and folders begin with
ABANDONED_AFTER = 24 * 3600  # seconds without a change to another host's
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # a full disk, a full quota, a limit on file sizes


@contextlib.contextmanager
def atomic(path: str | os.PathLike, *, size: int = 0):
    """Gives a scratch path beside `path` to write a file or folder at; it takes the place of `path` at the end.

    Where the body raises, `path` stays as it was and the scratch is removed.

    Args:
      size: bytes that will be written, where known; said where there is no room for them.
    Raises:
      OSError: the disk is full, with what to do about it.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch, old = _scratch(path), _scratch(path.with_name(f"old-{path.name}"))
    try:
        yield scratch
        _flush(scratch)
        if scratch.is_dir() and path.exists():  # only files are replaced in one go
            os.replace(path, old)
        os.replace(scratch, path)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise OSError(_no_room(path, scratch, size, error)) from error
        raise
    finally:
        _remove(scratch)
        _remove(old)


def sweep(folder: str | os.PathLike):
    """Removes what `atomic` left in a folder and below it when its process was killed.

    The scratch of a living process stays. Of another host's processes nothing is known: theirs goes when nothing in it
    has changed for a day.
    """
    for path in list(pathlib.Path(folder).rglob(f"{SCRATCH}*")):
        if path.exists() and _is_abandoned(path):  # one inside another is gone already
            _remove(path)


def _scratch(path: pathlib.Path) -> pathlib.Path:
    """Tells whose it is, and ends as `path` does: savers look at a suffix such as .keras."""
    return path.with_name(f"{SCRATCH}{platform.node()}~{os.getpid()}~{path.name}")


def _flush(path: pathlib.Path):
    """Waits until it is on the disk: else a machine that fails could leave the new name on an empty file."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            with file.open("r+b") as content:
                os.fsync(content.fileno())


def _remove(path: pathlib.Path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_abandoned(scratch: pathlib.Path) -> bool:
    _, host, process, _ = scratch.name.split("~", 3)
    if host != platform.node():
        return time.time() - max(file.st_mtime for file in _content(scratch)) > ABANDONED_AFTER
    if int(process) == os.getpid():  # a predecessor's: containers give the same number again
        return True
    try:
        os.kill(int(process), 0)  # signal 0 only asks
    except OSError as error:  # one that may not be asked lives
        return isinstance(error, ProcessLookupError)
    return False


def _content(path: pathlib.Path) -> list[os.stat_result]:
    return [file.stat() for file in (path, *path.rglob("*"))]


def _no_room(path: pathlib.Path, scratch: pathlib.Path, size: int, error: OSError) -> str:
    written = sum(stat.st_size for stat in _content(scratch)) if scratch.exists() else 0
    free = shutil.disk_usage(path.parent).free + written
    needs = f"{size / 1e6:.1f} MB" if size else f"more than {written / 1e6:.1f} MB"
    return (
        f"No room for {path} ({error.strerror}): it needs {needs}, {free / 1e6:.1f} MB are free. What was finished is "
        "as it was: make room and give the same command again, and it goes on from there"
    )


def write_json(path: str | os.PathLike, value):
    """Writes JSON, atomically; NaN is null, since JSON has no other word for it."""
    with atomic(path) as scratch:
        scratch.write_text(json.dumps(_without_nan(value), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: str | os.PathLike):
    """Reads what `write_json` wrote."""
    return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))


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


def _without_nan(value):
    if isinstance(value, dict):
        return {key: _without_nan(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    if isinstance(value, np.ndarray):
        return _without_nan(value.tolist())
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


class EpochCheckpoints(keras.callbacks.Callback):
    """Saves all training state after every epoch, and knows the best epoch.

    State is every variable of model and optimizer, random state included, and this callback's own history: what Keras's
    `BackupAndRestore` leaves out. The last two checkpoints and the best epoch's are kept.

    Args:
      folder: where checkpoints and `history.csv` go; None keeps the history and the best weights in memory only.
      monitor: the log whose largest value marks the best epoch; the earliest wins a tie.
      writes: of several processes that train together, one does; the others only restore.
    """

    def __init__(self, folder: str | os.PathLike | None, monitor: str, *, writes: bool = True):
        super().__init__()
        self.folder = None if folder is None else pathlib.Path(folder)
        self.monitor = monitor
        self.writes = writes and folder is not None
        self.history: list[dict[str, float]] = []
        self._best_state: dict[str, np.ndarray] = {}  # where nothing is written
        self._begun = 0.0

    @property
    def best_epoch(self) -> int:
        """The epoch, from 0, with the largest monitored value."""
        return int(np.argmax([row[self.monitor] for row in self.history]))

    def restore(self, model: keras.Model) -> int:
        """Puts the newest readable checkpoint into the compiled model; returns the epochs that it has behind it."""
        for path in reversed(self._saved()):
            try:
                with np.load(path) as state:
                    values = {name: state[name] for name in state.files}
            except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
                warnings.warn(f"Checkpoint {path} cannot be read ({error}); the one before it is used.", stacklevel=2)
                continue
            _restore(model, values)
            self.history = json.loads(str(values["history"]))
            if self.writes:
                self._tidy()
            return len(self.history)
        return 0

    def restore_best(self, model: keras.Model):
        """Puts the best epoch's weights into the model, their moving average where the optimizer has one."""
        if self._best_state or self.folder is None:
            _restore(model, self._best_state)
        else:
            with np.load(self._path(self.best_epoch)) as state:
                _restore(model, state)
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
        if not self.writes and self.best_epoch != epoch:
            return
        state = {f"model{i}": v for i, v in enumerate(self.model.variables)}
        state |= {f"optimizer{i}": v for i, v in enumerate(self.model.optimizer.variables)}
        state = {name: np.array(keras.ops.convert_to_numpy(variable)) for name, variable in state.items()}
        if not self.writes:
            self._best_state = state
            return
        size = sum(value.nbytes for value in state.values())
        with atomic(self._path(epoch), size=size) as scratch, scratch.open("wb") as file:
            np.savez(file, history=json.dumps(self.history), **state)
        self._tidy()

    def _tidy(self):
        """What follows from the newest checkpoint; also after `restore`, since a kill may have come in between."""
        write_history(self.folder / "history.csv", self.history)
        kept = {self._path(self.best_epoch), *self._saved()[-KEPT:]}
        for path in set(self._saved()) - kept:
            path.unlink()

    def _path(self, epoch: int) -> pathlib.Path:
        return self.folder / "checkpoints" / f"epoch-{epoch + 1:05d}.npz"

    def _saved(self) -> list[pathlib.Path]:
        return [] if self.folder is None else sorted(self.folder.glob("checkpoints/epoch-*.npz"))


def _restore(model: keras.Model, state):
    if not model.optimizer.built:  # one that scales the loss would make its variables twice
        model.optimizer.build(model.trainable_variables)
    for prefix, variables in (("model", model.variables), ("optimizer", model.optimizer.variables)):
        for i, variable in enumerate(variables):
            variable.assign(state[f"{prefix}{i}"])
