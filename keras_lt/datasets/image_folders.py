"""Folders of images, walked: what in them is an image, and what is none of theirs."""

import os
import pathlib
import re
from collections.abc import Iterator

from keras_lt.datasets.long_tailed import VAL_NAMES

EXTENSIONS = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp")
# Photographs that TensorFlow does not decode: phones' own, and those of cameras and scanners.
UNREAD_EXTENSIONS = (".heic", ".heif", ".avif", ".jxl", ".tif", ".tiff", ".dng", ".cr2", ".nef", ".arw")
CONVERT = "convert them to JPEG (on a Mac `sips -s format jpeg`; HEIC anywhere by Python's pillow-heif)"
# What archives and servers keep beside files, such as macOS's copies and Synology's thumbnails.
NOT_OURS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information")
SPLITS = {"train": ("train", "training"), "val": (*VAL_NAMES, "dev"), "test": ("test", "testing"), "open": ("open",)}
RUN_FLAGS = "flags.cfg"  # in the work folder of a run


def folders_in(root: pathlib.Path) -> list[str]:
    """The names of the folders that are read, sorted."""
    with os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if _is_read(entry))


def split_of(name: str) -> str:
    """The split that a folder, or a split of another library, is called after; "" without one."""
    plain = re.sub(r"([\W_]*(set|data|images))?[\W\d_]*$", "", name.lower())  # COCO's train2017, Kaggle's training_set
    return next((split for split, names in SPLITS.items() if plain in names), "")


def split_folders(root: pathlib.Path) -> dict[str, str]:
    """Split -> its folder's name; none where the folders are classes, as they are without a train or test.

    Raises:
      ValueError: there are two folders of one split.
    """
    found = {}
    for name in folders_in(root):
        if split := split_of(name):
            found.setdefault(split, []).append(name)
    names = {name for folders in found.values() for name in folders}
    if not names & {"train", "test"} and not ("train" in found and found.keys() & {"val", "test"}):
        return {}
    for split, folders in found.items():
        if len(folders) > 1:
            raise ValueError(f"{split} must be one folder. Received: {root} with {', '.join(folders)}")
    return {split: folders[0] for split, folders in found.items()}


def alike_note(root: pathlib.Path, names: list[str]) -> tuple[str, ...]:
    """What to say where all classes hold the same folders, of which they may be splits by names that are not known."""
    first, *others = [folders_in(root / name) for name in names]
    if len(first) < 2 or not others or any(other != first for other in others):
        return ()
    return (
        f"{names[0]}, {names[1]}, ... were taken for classes, though each holds {first[0]}, {first[1]}, ...: if these "
        "are the classes, name the folders around them train, val and test.",
    )


def _is_read(folder: os.DirEntry) -> bool:
    """Whether it is a folder that is neither hidden nor a run, nor holds runs alone: plots are no examples."""
    if not folder.is_dir() or folder.name.startswith(".") or folder.name in NOT_OURS:
        return False
    if folder.is_symlink() and os.path.realpath(folder.path) in map(
        os.path.realpath, pathlib.Path(folder.path).parents
    ):
        return False  # a link to where it lies in has no end
    if _is_run(folder):
        return False
    with os.scandir(folder) as inside:  # one look where the first is an image, however many there are
        first = next(inside, None)
        return first is None or not (_is_run(first) and all(map(_is_run, inside)))


def _is_run(folder: os.DirEntry) -> bool:
    return os.path.exists(os.path.join(folder, RUN_FLAGS))


def files_in(root: str | os.PathLike) -> Iterator[str]:
    """Paths of the files at any depth; of a hidden folder its own, as of a hidden file."""
    with os.scandir(root) as entries:
        for entry in entries:
            if not entry.is_dir() or entry.name.startswith("."):
                yield entry.path
            elif _is_read(entry):
                yield from files_in(entry.path)


def has_extension(path: str, extensions: tuple[str, ...]) -> bool:
    """Whether it is no hidden file, and ends so."""
    return path.lower().endswith(extensions) and not os.path.basename(path).startswith(".")
