"""Image files as folders and lists name them: what is an image, of which split, and what is none of theirs."""

import os
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from keras_lt.datasets.long_tailed import OPEN, VAL_NAMES, Split
from keras_lt.files import read_text
from keras_lt.labels import MOST_CLASSES

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


def beside_note(*folders: pathlib.Path) -> tuple[str, ...]:
    """Notes of images that lie beside the folders of classes, or of splits, and of hidden folders there."""
    beside = [path for folder in folders for path in sorted(folder.iterdir())]
    stray = [str(path) for path in beside if has_extension(str(path), EXTENSIONS) and path.is_file()]
    hidden = [str(path) for path in beside if path.name.startswith(".") and path.is_dir()]
    notes = (f"{len(stray)} images lie in no folder of a class and were ignored, such as {stray[0]}.",) if stray else ()
    return notes + (f"Hidden folders are no classes and were ignored: {', '.join(hidden)}.",) * bool(hidden)


def check_read(labels: np.ndarray, folders: Sequence[pathlib.Path], ignored: Sequence[str]):
    """Raises ValueError where a folder has no image, which says what of the ignored files lies there instead.

    Args:
      labels: of the images that were read, [N]; which of the folders each is from, unless there is one.
    """
    found = [len(labels)] if len(folders) == 1 else np.bincount(labels, minlength=len(folders))
    for folder in (folder for folder, images in zip(folders, found, strict=True) if not images):
        others = [path for path in ignored if pathlib.Path(path).is_relative_to(folder)]
        unread = [path for path in others if has_extension(path, UNREAD_EXTENSIONS)]
        what_to_do = CONVERT if unread else "rename what is one" if others else "add some, or take the folder away"
        instead = f", and {len(unread or others)} other files such as {(unread or others)[0]}" if others else ""
        raise ValueError(
            f"Images must end in {', '.join(EXTENSIONS)}: {what_to_do}. Received: no image in {folder}{instead}"
        )


def ignored_note(ignored: Sequence[str]) -> tuple[str, ...]:
    """Says which files were passed over among images."""
    unread = [path for path in ignored if has_extension(path, UNREAD_EXTENSIONS)]
    others, notes = [path for path in ignored if not has_extension(path, UNREAD_EXTENSIONS)], ()
    if others:
        few = f"{len(others)} files among the images are hidden or have another extension and were ignored"
        notes = (f"{few}, such as {others[0]}.",)
    if unread:
        kinds = ", ".join(sorted({os.path.splitext(path)[1].lower() for path in unread}))
        shown = ", ".join(unread[:3]) + ", ..." * (len(unread) > 3)
        notes += (f"{len(unread)} photographs were left out, as {kinds} is not read: {CONVERT}. They are {shown}",)
    return notes


def read_list(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads `relative/path label` lines: (paths str [N], labels int64 [N]). Paths may hold spaces; a tab is a space.

    Raises:
      ValueError: a line is not `path label`.
    """
    return _read_lines(path, "class id", is_class_id)


def read_open_list(path: pathlib.Path, *, images: str | os.PathLike) -> Split:
    """Reads `relative/path -1` lines: images of no class, in the folder `images`.

    Raises:
      ValueError: a line is not `path -1`.
    """
    paths, labels = _read_lines(path, str(OPEN), lambda label: label == str(OPEN))
    return Split(np.array([os.path.join(images, name) for name in paths], dtype=str), labels)


def _read_lines(path: pathlib.Path, expected: str, fits: Callable[[str], bool]) -> tuple[np.ndarray, np.ndarray]:
    """The paths [N] and labels [N] of a list, once every label fits."""
    paths, labels, text = [], [], read_text(path).rstrip()
    for number, line in enumerate(text.split("\n") if text else (), start=1):
        words = line.rsplit(maxsplit=1)
        if len(words) < 2 or not fits(words[1]):
            raise ValueError(f"Expected `relative/path {expected}` on every line. Received: {path}:{number}: {line!r}")
        paths.append(words[0])
        labels.append(int(words[1]))
    return np.array(paths, dtype=str), np.array(labels, np.int64)


def read_class_names(folder: pathlib.Path) -> list[str] | None:
    """The lines of `classes.txt` in the folder, where there is one."""
    path = folder / "classes.txt"
    return read_text(path).rstrip().split("\n") if path.exists() else None


def is_class_id(text: str) -> bool:
    """Whether a word is a class id; one of more digits than there are classes anywhere is a mistake."""
    return text.isascii() and text.isdecimal() and len(text) <= len(str(MOST_CLASSES)) and int(text) < MOST_CLASSES


def numbered_classes(splits: Iterable[Split]) -> range:
    """Numbers for names, as many as the labels of the splits ask for."""
    return range(max(int(split.labels.max(initial=-1)) for split in splits) + 1)


def names_from_folders(paths: np.ndarray, labels: np.ndarray) -> list[str]:
    """Each class's folder below the split's own: `train/airfield` and `data_256/a/airfield` are both `airfield`."""
    classes, first = np.unique(labels, return_index=True)
    names = [str(label) for label in range(int(labels.max(initial=-1)) + 1)]
    for label, row in zip(classes, first, strict=True):
        folders = paths[row].split("/")[1:-1]
        if len(folders) > 1 and len(folders[0]) == 1:
            folders = folders[1:]  # the letter that the original archive groups classes by
        names[label] = "-".join(folders) or str(label)
    return names
