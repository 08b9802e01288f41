"""Data sets published as lists of image files, `relative/path label` per line."""

import pathlib

import numpy as np

from keras_lt.datasets.long_tailed import LongTailed, Split

PLACES_LT_SOURCE = (
    "the three lists come from the OLTR project (github.com/zhmiao/OpenLongTailRecognition-OLTR), the images are the "
    "'easy directory' train and val archives of Places365-Standard (places2.csail.mit.edu), unpacked there"
)


def places_lt(data_dir: str) -> LongTailed:
    """Places-LT (Liu et al., 2019): 62,500 / 7,300 / 36,500 images of 365 scenes, 4,980 down to 5 per class.

    `data_dir` holds `Places_LT_{train,val,test}.txt` and the images they name. Both published path layouts are read
    (`train/airfield/x.jpg` and `data_256/a/airfield/x.jpg`).

    Raises:
      FileNotFoundError: a list is missing.
      ValueError: a line is not `path label`.
    """
    folder = pathlib.Path(data_dir)
    lists = {split: folder / f"Places_LT_{split}.txt" for split in ("train", "val", "test")}
    missing = [str(path) for path in lists.values() if not path.exists()]
    if missing:
        raise FileNotFoundError(
            f"places_lt reads its lists and images from --data_dir: {PLACES_LT_SOURCE}. Not found: {', '.join(missing)}"
        )
    entries = {split: read_list(path) for split, path in lists.items()}
    splits = {split: Split(np.char.add(f"{folder}/", paths), labels) for split, (paths, labels) in entries.items()}
    return LongTailed(
        "places_lt", **splits, class_names=_names_from_folders(*entries["train"]), source=PLACES_LT_SOURCE
    )


def read_list(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads `relative/path label` lines: (paths str [N], labels int64 [N]). Paths may hold spaces."""
    paths, labels = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        name, _, label = line.rpartition(" ")
        if not name or not label.isdecimal():
            raise ValueError(f"Expected `relative/path label` on every line. Received: {path}:{number}: {line!r}")
        paths.append(name)
        labels.append(int(label))
    return np.array(paths, dtype=str), np.array(labels, np.int64)


def _names_from_folders(paths: np.ndarray, labels: np.ndarray) -> list[str]:
    """Each class's folder below the split's own: `train/airfield` and `data_256/a/airfield` are both `airfield`."""
    classes, first = np.unique(labels, return_index=True)
    names = [str(label) for label in range(int(labels.max(initial=-1)) + 1)]
    for label, row in zip(classes, first, strict=True):
        folders = paths[row].split("/")[1:-1]
        if len(folders) > 1 and len(folders[0]) == 1:
            folders = folders[1:]  # the letter that the original archive groups classes by
        names[label] = "-".join(folders) or str(label)
    return names
