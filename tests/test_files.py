import errno
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
import types

import filelock
import numpy as np
import pytest

from keras_lt.files import atomic, expanded, locked, new_memory_map, read_json, read_text, sweep, write_json, write_text


def test_atomic_leaves_the_old_file_where_writing_fails(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail():
        with atomic(path) as scratch:
            scratch.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_replaces_whole_folders(tmp_path):
    path = tmp_path / "deep" / "folder"
    for name in ("old", "new"):
        with atomic(path, replaces=("old",)) as scratch:
            scratch.mkdir()
            (scratch / name).touch()
    assert [child.name for child in path.iterdir()] == ["new"]
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(ValueError, match=r"holds what was not written by keras_lt: .*/new;"), atomic(path):
        pytest.fail("it would be lost")


@pytest.mark.parametrize(("size", "needs"), [(0, "more than 2.0 MB"), (3_500_000, "3.5 MB")])
@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_said_with_what_was_written_and_the_room_it_needs(tmp_path, monkeypatch, reason, size, needs):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: types.SimpleNamespace(free=500_000))

    def fill():
        with atomic(tmp_path / "folder", size=size) as scratch:
            scratch.mkdir()
            (scratch / "file").write_bytes(bytes(2_000_000))
            raise OSError(reason, "no more")

    with pytest.raises(
        OSError, match=rf"{tmp_path}/folder \(no more\): it needs {needs}, 2.5 MB are free.*same command"
    ):
        fill()
    assert not list(tmp_path.iterdir())


def test_a_memory_map_has_its_room_or_is_refused(tmp_path):
    """Without it the first value that finds none would end the process by SIGBUS."""
    path = tmp_path / "features.npy"
    array = new_memory_map(path, dtype=np.dtype("f4"), shape=(1000, 10))
    assert path.stat().st_blocks * 512 >= array.nbytes
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(OSError, match=rf"^No room for {path} .*needs 0\.\d MB.*same command again"):
            new_memory_map(path, dtype=np.dtype("f4"), shape=(1000, 10))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not path.exists()


def test_another_error_while_writing_is_left_as_it_is(tmp_path):
    def fail():
        with atomic(tmp_path / "file"):
            raise FileNotFoundError(errno.ENOENT, "No such file", "image.jpg")

    with pytest.raises(FileNotFoundError, match=r"image\.jpg"):
        fail()


def test_what_killed_processes_left_is_swept_and_what_may_still_be_written_is_not(tmp_path):
    """Goes: a dead process's, our own number's, another host's old one. Stays: a living one's, a fresh one there."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    here, now = platform.node(), time.time()
    for name in (f"{here}~{dead.pid}", f"{here}~{os.getpid()}", f"{here}~1", "elsewhere~5", "elsewhere~6"):
        scratch = tmp_path / "part" / f".unfinished~{name}~features"
        scratch.mkdir(parents=True)
        (scratch / f".unfinished~{name}~manifest.json").touch()
        os.utime(scratch / f".unfinished~{name}~manifest.json", (now - 2 * 86400 * name.endswith("~6"),) * 2)
        os.utime(scratch, (now - 2 * 86400,) * 2)  # the file in it counts too
    (tmp_path / "part" / "model.keras").touch()
    sweep(tmp_path)
    living = {f".unfinished~{name}~features" for name in (f"{here}~1", "elsewhere~5")}
    assert {path.name for path in (tmp_path / "part").iterdir()} == {"model.keras", *living}
    for name in ("mine.csv", "other.csv"):
        (tmp_path / f".unfinished~{here}~{dead.pid}~{name}").touch()
    write_text(tmp_path / "mine.csv", "a name, caf\udce9")
    assert (tmp_path / "mine.csv").read_text("utf-8") == "a name, caf\\udce9"
    left = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert left == {"mine.csv", f".unfinished~{here}~{dead.pid}~other.csv"}


def test_json_writes_nan_as_null_and_arrays_as_lists(tmp_path):
    value = {"few": float("nan"), "all": np.float32(0.5), "classes": np.array([1.0, np.nan]), "n": np.int64(3)}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == {"few": None, "all": 0.5, "classes": [1.0, None], "n": 3}


HOLD = """
import sys
from keras_lt.files import locked
with locked(sys.argv[1]):
    print("has it", flush=True)
    sys.stdin.read()
"""


def holder_of(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "has it\n"
    return process


@pytest.mark.versions
def test_a_folder_that_another_process_has_is_refused_with_its_number_until_that_ends(tmp_path):
    folder = tmp_path / "deep" / "run"
    with holder_of(folder) as process:
        for _ in range(2):  # asking does not forget who has it
            with (
                pytest.raises(ValueError, match=rf"{folder} is in use by process {process.pid} on {platform.node()}: "),
                locked(folder),
            ):
                pytest.fail("two have it")
        process.communicate("")
    with locked(folder), pytest.raises(ValueError, match=f"in use by process {os.getpid()} "), locked(folder):
        pytest.fail("twice")
    with locked(folder):
        pass


def test_the_lock_of_a_killed_process_is_taken_over_and_says_the_new_one(tmp_path):
    with holder_of(tmp_path) as process:
        process.kill()
    assert (tmp_path / ".lock").read_text().split() == [str(process.pid), platform.node()]
    with locked(tmp_path):
        assert (tmp_path / ".lock").read_text().split() == [str(os.getpid()), platform.node()]


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch):
    def refuse(self):
        raise NotImplementedError

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with pytest.warns(UserWarning, match=rf"The file system of {tmp_path} has no locks"), locked(tmp_path):
        pass


def test_a_tilde_is_the_home_folder_where_there_is_one(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert str(expanded("~/x")) == "/home/me/x"
    assert str(expanded("~nobody-of-that-name/x")) == "~nobody-of-that-name/x"
    assert str(expanded("runs/~x")) == "runs/~x"
    with pytest.raises(ValueError, match=r"must not be empty; .* a dot. Received: ''"):
        expanded("")  # a variable that was not set means no folder, not the current one


def test_a_folder_is_replaced_where_it_holds_what_is_known_and_nothing_else(tmp_path):
    folder = tmp_path / "1"
    folder.mkdir()
    (folder / "saved_model.pb").write_text("old")
    with atomic(folder, replaces=("saved_model.pb",)) as scratch:
        scratch.mkdir()
        (scratch / "saved_model.pb").write_text("new")
    assert (folder / "saved_model.pb").read_text() == "new"
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"notes\.txt"), atomic(folder, replaces=("saved_model.pb",)):
        pytest.fail("the body ran")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["1", "notes.txt", "saved_model.pb"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_of_a_user_is_read_in_its_usual_encodings(tmp_path, encoding):
    (tmp_path / "classes.txt").write_bytes("Ameise é\r\nbee\n".encode(encoding))
    assert read_text(tmp_path / "classes.txt") == "Ameise é\nbee\n"


@pytest.mark.parametrize("content", [b"\xe9", "ant".encode("utf-16-le"), b"\xff\xfea"])
def test_other_text_is_refused_by_the_name_of_its_file(tmp_path, content):
    (tmp_path / "classes.txt").write_bytes(content)
    with pytest.raises(ValueError, match=r"classes\.txt must be text in UTF-8"):
        read_text(tmp_path / "classes.txt")
