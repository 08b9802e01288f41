"""Data sets held as arrays: the embedded `fashion_lt`, and the user's own npz files."""

import importlib.resources
import pathlib
import zipfile
from collections.abc import Iterable

import numpy as np

from keras_lt.datasets.image_lists import numbered_classes, read_class_names
from keras_lt.datasets.long_tailed import OPEN, LongTailed, Split, image_statistics, name_of_val

ARRAYS_READS = "train.npz, test.npz and optionally val.npz, each with `images` and `labels`,"
FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def fashion_lt(data_dir: str = "") -> LongTailed:
    """A long-tailed Fashion-MNIST that ships with the package: 2,478 / 1,000 / 5,000 images, 28x28 grey.

    Exponential profile from 1,000 training images down to 10 (imbalance ratio 100); val and test are balanced.
    Made by `tools/make_fashion_lt.py` from Fashion-MNIST (Xiao et al., 2017; MIT licence).

    Args:
      data_dir: none, as there is nothing to read.
    Raises:
      ValueError: there is one, which is meant for another data set.
    """
    if data_dir:
        raise ValueError(
            "fashion_lt comes with the package and reads no --data_dir; images of your own are --dataset=folder, or "
            f"lists, csv, arrays, features, hf. Received: --data_dir={data_dir}"
        )
    with (importlib.resources.files("keras_lt") / "data/fashion_lt.npz").open("rb") as file, np.load(file) as arrays:
        splits = {
            split: Split(arrays[f"{split}_images"], arrays[f"{split}_labels"]) for split in ("train", "val", "test")
        }
    return from_pixels("fashion_lt", splits, FASHION_CLASSES, augmentation="crop_flip")


def arrays(data_dir: str, *, seed: int = 0) -> LongTailed:
    """The user's own arrays: `train.npz`, `test.npz` and, if there is one, `val.npz` in `data_dir`.

    Each file has `images`, uint8 [N, H, W] or [N, H, W, 1 or 3], and `labels`, integers [N]. `classes.txt` names the
    classes, one per line; without it they are numbered. Without `val.npz` a tenth of each training class is carved off.
    The `images` of `open.npz`, if there is one, are the open set, of no class.

    Raises:
      FileNotFoundError, ValueError: a file is missing or is not such an npz.
    """
    folder = pathlib.Path(data_dir)
    splits = {split: _read_npz(folder / f"{split}.npz") for split in ("train", "test")}
    val = folder / f"{name_of_val(folder, '{}.npz')}.npz"
    if val.exists():
        splits["val"] = _read_npz(val)
    class_names = read_class_names(folder) or numbered_classes(splits.values())
    path = folder / "open.npz"
    open_set = _read_npz(path, open_set=True) if path.exists() else None
    return from_pixels(folder.resolve().name, splits, class_names, seed=seed, open_set=open_set)


def _read_npz(path: pathlib.Path, *, open_set: bool = False) -> Split:
    if not path.exists():
        raise FileNotFoundError(f"--dataset=arrays reads {ARRAYS_READS} from --data_dir. Not found: {path}")
    try:
        images, *labels = arrays_in(path, "images", *(["labels"] * (not open_set)))
        return Split(images, labels[0] if labels else np.full(len(images), OPEN))
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"Expected an npz with `images` and `labels`. Received: {path}: {error}") from error


def arrays_in(path: pathlib.Path, *names: str) -> list[np.ndarray]:
    """The arrays of those names in an npz.

    Raises:
      ValueError: it is no npz, or has others.
    """
    if not zipfile.is_zipfile(path):  # of which NumPy would speak of pickled data
        raise ValueError("no npz, or one that was cut short")
    with np.load(path) as arrays:
        if set(names) - set(arrays):
            raise ValueError(f"with {', '.join(arrays) or 'nothing'} in it")
        return [arrays[name] for name in names]


def from_pixels(name: str, splits: dict[str, Split], class_names: Iterable, **recipe) -> LongTailed:
    """Small pictures that fill their frame: their own statistics, no central crop, no augmentation unless named."""
    mean, std = image_statistics(splits["train"].images)
    recipe = {"mean": mean, "std": std, "augmentation": "none", "crop_fraction": 1.0, **recipe}
    return LongTailed.from_splits(name, splits, class_names=class_names, **recipe)
