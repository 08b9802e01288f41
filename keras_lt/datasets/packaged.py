"""Photographs that come inside of other packages."""

import importlib.util
import pathlib

import numpy as np

from keras_lt.datasets.examples import ImageFiles
from keras_lt.datasets.long_tailed import LongTailed, Split
from keras_lt.files import read_text

ELPV_READS = "labels.csv and images/; without --data_dir those of the package elpv-dataset"
ELPV_CELLS = ("mono", "poly")  # mono- and polycrystalline silicon
ELPV_DEFECTS = ("0", "0.33", "0.67", "1")  # how probably experts said there is a defect
ELPV_NOTE = (
    "The photographs of elpv (Buerhop-Lutz, Deitsch et al.) are licensed CC-BY-NC-SA 4.0: name their authors, no "
    "commercial use, share alike."
)
VAL_IMAGES, TEST_IMAGES = 10, 20  # of each class


def elpv(data_dir: str = "", *, seed: int = 0) -> LongTailed:
    """Photographs of solar cells that glow under current (ELPV; Deitsch et al., arXiv:1807.02894), 300x300 grey.

    2,624 of eight classes, 920 down to 50: the kind of silicon and the probability of a defect. Test has 20 images of
    each class and val 10, drawn by the seed; train has the rest. Within a split they lie class by class in the order of
    their names, as in folders. CC-BY-NC-SA 4.0, which the notes say.

    Args:
      data_dir: the folder of `labels.csv` and `images/`; empty is that of the installed package.
      seed: of the splits.
    Raises:
      ModuleNotFoundError: the package is not installed, and there is no `data_dir`.
      FileNotFoundError: there is no list in `data_dir`.
      ValueError: a line is not `path probability kind`, or a class has too few images to be split.
    """
    root = pathlib.Path(data_dir) if data_dir else _package_folder("elpv_dataset", extra="elpv") / "data"
    names, labels = _read_list(root / "labels.csv")
    rows = {"train": [], "val": [], "test": []}
    class_names = [f"{cell} {defect}" for cell in ELPV_CELLS for defect in ELPV_DEFECTS]
    for label, class_name in enumerate(class_names):
        of_class = np.flatnonzero(labels == label)
        if len(of_class) <= VAL_IMAGES + TEST_IMAGES:
            raise ValueError(
                f"Every class needs more than {VAL_IMAGES + TEST_IMAGES} images, of which {TEST_IMAGES} are test and "
                f"{VAL_IMAGES} val. Received: {root} with {len(of_class)} of '{class_name}'"
            )
        drawn = np.random.default_rng([seed, label]).permutation(of_class)
        for split, part in zip(rows, np.split(drawn, [-VAL_IMAGES - TEST_IMAGES, -TEST_IMAGES]), strict=True):
            rows[split].append(np.sort(part))
    files = ImageFiles(np.array([str(root / name) for name in names]), root=root)
    splits = {split: Split(files, labels).subset(np.concatenate(parts)) for split, parts in rows.items()}
    return LongTailed("elpv", **splits, class_names=class_names, notes=(ELPV_NOTE,))


def _read_list(path: pathlib.Path) -> tuple[list[str], np.ndarray]:
    """Relative paths, sorted, and labels."""
    if not path.is_file():
        raise FileNotFoundError(f"--dataset=elpv reads {ELPV_READS}. Not found: {path}")
    found = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        try:
            name, probability, cell = line.split()
            defect = round((len(ELPV_DEFECTS) - 1) * float(probability))
            found[name] = ELPV_CELLS.index(cell) * len(ELPV_DEFECTS) + range(len(ELPV_DEFECTS)).index(defect)
        except ValueError as error:
            raise ValueError(
                "Expected a path, the probability of a defect and mono or poly in every line. "
                f"Received: {path}:{number}: {line[:80]!r}"
            ) from error
    names = sorted(found)
    return names, np.array([found[name] for name in names], np.int64)


def _package_folder(package: str, *, extra: str) -> pathlib.Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            f"--dataset={extra} reads the photographs in {package}: pip install 'keras_lt[{extra}]'. "
            "Received: it is not installed"
        )
    return pathlib.Path(spec.origin).parent
