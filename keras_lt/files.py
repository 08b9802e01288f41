"""Files that appear whole or not at all, folders that one process has for itself, JSON and histories."""

import codecs
import contextlib
import errno
import glob
import json
import os
import pathlib
import platform
import shutil
import time
import warnings
from collections.abc import Iterator, Sequence

import filelock
import numpy as np

from keras_lt.arguments import check_kind

SCRATCH = ".unfinished~"  # what the names of half-written files and folders begin with
LOCK = ".lock"  # in a folder that one process has for itself; it stays when the folder is emptied
ABANDONED_AFTER = 24 * 3600  # seconds without a change to another host's
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # a full disk, a full quota, a limit on file sizes


class DamagedError(OSError, ValueError):
    """A file that was written by keras_lt cannot be read."""


@contextlib.contextmanager
def reading(path: str | os.PathLike, *, instead: str = "put back a copy, or remove it") -> Iterator[None]:
    """Names the file that a library cannot read, and the way out, whatever the library says.

    Args:
      instead: what to do about it.
    Raises:
      DamagedError: the body raised anything but a refusal of memory or permission.
    """
    try:
        yield
    except (MemoryError, PermissionError):
        raise
    except Exception as error:
        cause = error.__cause__ if isinstance(error, DamagedError) else error  # who reads it knows the way out better
        reason = " ".join(f"{type(cause).__name__}: {cause}".split())[:300]
        raise DamagedError(f"{path} is damaged: {instead}. {reason}") from cause


@contextlib.contextmanager
def atomic(path: str | os.PathLike, *, size: int = 0, replaces: Sequence[str] = ()):
    """Gives a scratch path beside `path` to write a file or folder at; it takes the place of `path` at the end.

    Where the body raises, `path` stays as it was and the scratch is removed; a killed process's goes the next time.

    Args:
      size: bytes that will be written, where known; said where there is no room for them.
      replaces: patterns of all that a folder may hold that is to be replaced, as `unknown_in`.
    Raises:
      ValueError: `path` is a folder with something else in it, which would be lost.
      OSError: the disk is full, with what to do about it.
    """
    path = expanded(path)
    check_replaceable(path, replaces)
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent, f"{SCRATCH}*~{glob.escape(path.name)}")
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
        if SCRATCH in str(error.filename):
            raise OSError(error.errno, error.strerror, str(path)) from error  # the name that the caller knows
        raise
    finally:
        remove(scratch)
        remove(old)


def expanded(path: str | os.PathLike) -> pathlib.Path:
    """A path as a user gives it: `~` is the home folder, which no shell has put in its place in `--workdir=~/x`.

    Raises:
      ValueError: it is empty, as a variable is that was not set: the current folder was not meant.
    """
    check_kind("path", path, str | os.PathLike)
    if not os.fspath(path):
        raise ValueError(f"A path must not be empty; the current folder is written as a dot. Received: {path!r}")
    return pathlib.Path(os.path.expanduser(path))  # as absl reads flag files; a home that is not there stays as it is


def check_loadable(path: str | os.PathLike):
    """Raises ValueError for a path that TensorFlow takes for a pattern: it writes SavedModels there and reads none."""
    if wild := sorted(set("*?[\\") & set(os.path.abspath(expanded(path)))):
        raise ValueError(
            f"TensorFlow reads no SavedModel from a path with {' '.join(wild)}: rename it. Received: {path}"
        )


@contextlib.contextmanager
def locked(folder: str | os.PathLike) -> Iterator[None]:
    """Has a folder, made where it is missing, for this process alone, until the block or the process ends.

    Raises:
      ValueError: another process has it.
    """
    path = pathlib.Path(folder, LOCK)
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = _holder(path)  # first: the oldest versions of filelock empty the file by asking
    lock = filelock.FileLock(path, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        if not _holder(path):
            path.write_text("".join(f"{line}\n" for line in holder), "utf-8")  # or the next that asks would not know
        who = f"process {holder[0]} on {holder[1]}" if len(holder) > 1 else "another process"
        raise ValueError(f"{folder} is in use by {who}: wait for its end, or take another folder") from error
    except NotImplementedError:
        warnings.warn(f"The file system of {folder} has no locks: only one process may use it.", stacklevel=3)
    try:
        if _holder(path)[:1] != [str(os.getpid())]:  # where filelock itself wrote it, it must stay as it is
            path.write_text(f"{os.getpid()}\n{platform.node()}\n", "utf-8")
        yield
    finally:
        lock.release()


def _holder(path: pathlib.Path) -> list[str]:
    """Process and host in a lock file; none where it is new."""
    return path.read_text("utf-8").split() if path.exists() else []


def sweep(folder: str | os.PathLike, pattern: str = f"**/{SCRATCH}*"):
    """Removes what `atomic` left in a folder, by default also below it, when its process was killed.

    The scratch of a living process stays, and that of another host's until nothing in it has changed for a day.
    """
    for path in list(pathlib.Path(folder).glob(pattern)):
        if path.exists() and _is_abandoned(path):  # one inside another is gone already
            remove(path)


def _scratch(path: pathlib.Path) -> pathlib.Path:
    """Tells whose it is, and ends as `path` does: savers look at a suffix such as .keras."""
    return path.with_name(f"{SCRATCH}{platform.node()}~{os.getpid()}~{path.name}")


def _flush(path: pathlib.Path):
    """Waits until it is on the disk: else a machine that fails could leave the new name on an empty file."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            with file.open("r+b") as content:
                os.fsync(content.fileno())


def remove(path: pathlib.Path):
    """Removes a file or a folder with all that is in it; what is not there is no error."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def unknown_in(folder: pathlib.Path, known: Sequence[str]) -> list[pathlib.Path]:
    """Files below a folder that fit none of the patterns, "plots/*.png" say, and are no lock or scratch of ours."""
    own = (LOCK, *known)
    return [path for path in sorted(folder.rglob("*")) if not _is_folder(path) and not _is_ours(path, folder, own)]


def holds_anything(folder: pathlib.Path) -> bool:
    """Whether there is such a folder with anything in it but a lock and what a kill left."""
    return folder.is_dir() and not all(path.name == LOCK or path.name.startswith(SCRATCH) for path in folder.iterdir())


def check_replaceable(path: pathlib.Path, known: Sequence[str]):
    """Raises ValueError where a path is a folder that holds anything but known files, as `unknown_in`."""
    if path.is_dir() and (unknown := unknown_in(path, known)):
        raise ValueError(
            f"{path} is to be replaced, but holds what was not written by keras_lt: {unknown[0]}; "
            "move that away, or write to another folder"
        )


def check_own(path: str | os.PathLike, begins: str, *, beside: Sequence[str] = ()) -> pathlib.Path:
    """The path of a file that is about to be written, `~` expanded; whatever is there already must be ours.

    Args:
      begins: how the file begins where keras_lt has written it.
      beside: names of files that are written into its folder with it, and are ours where it is.
    Raises:
      ValueError: one of them is there and not ours, or the path is or lies in what is no place for a file.
    """
    path = expanded(path)
    above = next((place for place in path.parents if place.exists()), None)
    if path.is_dir() or (above and not above.is_dir()):
        raise ValueError(f"A file is to be written. Received: {path}, which is no place for one")
    if above and not os.access(above, os.W_OK):
        raise ValueError(f"A file is to be written. Received: {path}, and {above.absolute()} may not be written to")
    ours = False
    if path.is_file():
        with path.open("rb") as file:
            ours = file.read(len(begins)) in (begins.encode(), b"")
    taken = [place for place in (path, *map(path.with_name, beside)) if os.path.lexists(place)]
    if taken and not ours:
        raise ValueError(f"{taken[0]} was not written by this command: move it away, or write to another place")
    return path


def remove_known(folder: pathlib.Path, known: Sequence[str]):
    """Removes the files of a folder that fit the patterns and what `atomic` left, and folders that this empties."""
    folders, emptied = [os.path.dirname(name) for name in known], set()
    for path in sorted(folder.rglob("*"), reverse=True):  # what lies in a folder before the folder
        if _is_folder(path):
            if (path in emptied or _is_ours(path, folder, folders)) and not any(path.iterdir()):
                path.rmdir()
                emptied.add(path.parent)
        elif _is_ours(path, folder, known):
            path.unlink()
            emptied.add(path.parent)


def lies_in(path: str | os.PathLike, folder: str | os.PathLike) -> bool:
    """Whether a path is a folder or lies below it, however both are written."""
    path, folder = (pathlib.Path(os.path.realpath(expanded(place))) for place in (path, folder))
    return path.is_relative_to(folder)


def _is_folder(path: pathlib.Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _is_ours(path: pathlib.Path, folder: pathlib.Path, patterns: Sequence[str]) -> bool:
    """Whether it fits a pattern, in which a star is a name and no path of several, or is what a kill left."""
    rooted = pathlib.PurePosixPath("/", *path.relative_to(folder).parts)  # of such a path the whole has to match
    return f"/{SCRATCH}" in str(rooted) or any(rooted.match(f"/{pattern}") for pattern in patterns)


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
        "kept: free some space and give the same command again, and it resumes from there"
    )


def new_memory_map(path: pathlib.Path, *, dtype: np.dtype, shape: Sequence[int]) -> np.memmap:
    """An npy file to be filled, its room taken: a memory map that finds none later ends the process without a word.

    Raises:
      OSError: the disk is full, with what to do about it.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=tuple(shape))
        with path.open("r+b") as file, contextlib.suppress(AttributeError):  # macOS has no such call
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        if error.errno in NO_ROOM:
            said = _no_room(path, path, int(np.prod(shape)) * dtype.itemsize, error)
            remove(path)
            raise OSError(said) from error
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that promises no room
            raise
    return array


def printable(text: str) -> str:
    """Text with escapes for the bytes of a file's name that are no UTF-8, which no stream takes."""
    return text.encode(errors="backslashreplace").decode()


def write_text(path: str | os.PathLike, text: str):
    """Writes UTF-8, atomically; of a file's name that is none the bytes stand as escapes, so that all can be read."""
    with atomic(path) as scratch:
        scratch.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | os.PathLike, value):
    """Writes JSON, atomically; NaN is null, since JSON has no other word for it."""
    write_text(path, json.dumps(without_nan(value), indent=1, allow_nan=False) + "\n")


def read_text(path: str | os.PathLike) -> str:
    """The text of a file that a user wrote: UTF-8 or, with a byte order mark, UTF-16, which editors of Windows write.

    Raises:
      ValueError: it is neither.
    """
    content = pathlib.Path(path).read_bytes()
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be text in UTF-8: save it as that. Received: {error}") from error
    if "\0" in text:
        raise ValueError(f"{path} must be text in UTF-8: save it as that. Received: bytes of zero in it")
    return text.replace("\r\n", "\n").replace("\r", "\n")  # Excel on a Mac writes the second


def read_json(path: str | os.PathLike, *, needs: Sequence[str] = ()):
    """Reads what `write_json` wrote.

    Args:
      needs: keys that it must have.
    Raises:
      FileNotFoundError: it is not there.
      DamagedError: it is no JSON, or not that which is asked for.
    """
    content = pathlib.Path(path).read_bytes()
    with reading(path):
        value = json.loads(content.decode("utf-8"))
        if missing := [key for key in needs if key not in value]:
            raise ValueError(f"without {', '.join(missing)}")
        return value


def without_nan(value):
    """A value as JSON gives it back: plain numbers, lists and dicts, null for NaN."""
    if isinstance(value, dict):
        return {key: without_nan(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(v) for v in value]
    if isinstance(value, np.ndarray):
        return without_nan(value.tolist())
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
