"""Lists of image files, `relative/path label` per line."""

import os
import pathlib
from collections.abc import Callable, Iterable

import numpy as np

from keras_lt.datasets.long_tailed import OPEN, Split
from keras_lt.files import read_text
from keras_lt.labels import MOST_CLASSES


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
