"""Data sets held as arrays: the embedded `fashion_lt`, and the user's own pixels or features."""

import importlib.resources
import pathlib
import zipfile
from collections.abc import Iterable

import numpy as np

from keras_lt.datasets.examining import first_not_finite
from keras_lt.datasets.examples import FeatureVectors
from keras_lt.datasets.image_files import numbered_classes, read_class_names
from keras_lt.datasets.long_tailed import OPEN, LongTailed, Split, image_statistics, name_of_val

ARRAYS_READS = "train.npz, test.npz and optionally val.npz, each with `images` and `labels`,"
FEATURES_READ = (
    "train.npz, test.npz and optionally val.npz, each with `features` [N, D] and `labels` [N], or in place of an npz "
    "<split>_features.npy and <split>_labels.npy,"
)
SPLIT_FILES = ("{}.npz", "{}_features.npy")
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
    splits = {
        split: _read_npz(folder / f"{name}.npz", open_set=split == "open")
        for split, name in _names_of_splits(folder, "{}.npz").items()
    }
    open_set = splits.pop("open", None)
    class_names = read_class_names(folder) or numbered_classes(splits.values())
    return from_pixels(folder.resolve().name, splits, class_names, seed=seed, open_set=open_set)


def _names_of_splits(folder: pathlib.Path, *patterns: str) -> dict[str, str]:
    """Split -> what its files are called: train, test and, where there are any, val and the open set."""
    names = {"train": "train", "val": name_of_val(folder, *patterns), "test": "test", "open": "open"}
    there = {split for split, name in names.items() if any((folder / one.format(name)).exists() for one in patterns)}
    return {split: name for split, name in names.items() if split in {"train", "test", *there}}


def _read_npz(path: pathlib.Path, *, open_set: bool) -> Split:
    if not path.exists():
        raise FileNotFoundError(f"--dataset=arrays reads {ARRAYS_READS} from --data_dir. Not found: {path}")
    try:
        return Split(*_arrays_in(path, "images", open_set=open_set))
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"Expected an npz with `images` and `labels`. Received: {path}: {error}") from error


def _arrays_in(path: pathlib.Path, name: str, *, open_set: bool) -> tuple[np.ndarray, np.ndarray]:
    """The array of that name in an npz, and the labels, `OPEN` for an open set, which has none there.

    Raises:
      ValueError: it is no npz, or has others.
    """
    if not zipfile.is_zipfile(path):  # of which NumPy would speak of pickled data
        raise ValueError("no npz, or one that was cut short")
    wanted = {name} if open_set else {name, "labels"}
    with np.load(path) as arrays:
        if wanted - set(arrays):
            raise ValueError(f"with {', '.join(arrays) or 'nothing'} in it")
        content = arrays[name]
        return content, np.full(content.shape[:1], OPEN) if open_set else arrays["labels"]


def from_pixels(name: str, splits: dict[str, Split], class_names: Iterable, **recipe) -> LongTailed:
    """Small pictures that fill their frame: their own statistics, no central crop, no augmentation unless named."""
    mean, std = image_statistics(splits["train"].images)
    recipe = {"mean": mean, "std": std, "augmentation": "none", "crop_fraction": 1.0, **recipe}
    return LongTailed.from_splits(name, splits, class_names=class_names, **recipe)


def features(data_dir: str = "", *, seed: int = 0) -> LongTailed:
    """The user's own features: an npz per split, or two npy files, of which the features stay on disk, memory-mapped.

    `train.npz`, `test.npz` and, if there is one, `val.npz` hold `features`, floating [N, D], and `labels`, integers
    [N]; `train_features.npy` with `train_labels.npy`, and so on, are the same. `classes.txt` names the classes, one per
    line; without it they are numbered. Without a val a tenth of each training class is carved off. The features of
    `open.npz` or `open_features.npy`, if there is one, are the open set, of no class.

    Args:
      seed: of the carving.
    Raises:
      FileNotFoundError: a file is missing.
      ValueError: features are not finite numbers [N, D] of one width, or labels not integers that name a class each.
    """
    folder = pathlib.Path(data_dir)
    class_names = read_class_names(folder)
    splits = {
        split: _read_split(folder, name, classes=len(class_names or ()))
        for split, name in _names_of_splits(folder, *SPLIT_FILES).items()
    }
    width = splits["train"].examples.shape
    for split, examples in splits.items():
        if examples.examples.shape != width:
            raise ValueError(
                f"Features of all splits must have one width, train's {width[0]}. "
                f"Received: {examples.examples.shape[0]} in {split} of {folder}"
            )
    open_set = splits.pop("open", None)
    names = class_names or numbered_classes(splits.values())
    return LongTailed.from_splits(
        folder.resolve().name, splits, class_names=names, seed=seed, augmentation="none", open_set=open_set
    )


def _read_split(folder: pathlib.Path, split: str, *, classes: int) -> Split:
    """One split, once all of it is known to be as it should; classes: how many have names, 0 where none has."""
    npz, of_vectors, of_labels = (folder / f"{split}{end}" for end in (".npz", "_features.npy", "_labels.npy"))
    open_set = split == "open"
    if npz.exists() and of_vectors.exists():
        raise ValueError(
            f"Expected `features` and `labels` as npz or npy. Received: {npz}, and {of_vectors.name} beside it"
        )
    path = of_vectors
    try:
        if npz.exists():
            path = of_vectors = of_labels = npz
            vectors, labels = _arrays_in(npz, "features", open_set=open_set)
        else:
            vectors = np.load(path, mmap_mode="r")
            path = of_labels  # what an error is about from here on
            labels = np.full(vectors.shape[:1], OPEN) if open_set else np.load(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"--dataset=features reads {FEATURES_READ} from --data_dir. Not found: {error.filename}"
        ) from error
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"Expected `features` and `labels` as npz or npy. Received: {path}: {error}") from error
    _check_vectors(of_vectors, vectors)
    _check_labels(of_labels, labels, examples=len(vectors), classes=classes, lowest=OPEN if open_set else 0)
    return Split(FeatureVectors(vectors), labels)


def _check_vectors(path: pathlib.Path, vectors: np.ndarray):
    """Raises ValueError unless they are finite numbers [N, D]; they are read in chunks."""
    if vectors.ndim != 2 or not vectors.shape[1] or not np.issubdtype(vectors.dtype, np.floating):
        raise ValueError(
            f"Features must be floating [N, D]. Received: {path} with dtype={vectors.dtype}, shape={vectors.shape}"
        )
    bad = first_not_finite(vectors)
    if bad is not None:
        raise ValueError(f"Features must be finite. Received: {path} with another in row {bad}")


def _check_labels(path: pathlib.Path, labels: np.ndarray, *, examples: int, classes: int, lowest: int):
    if labels.shape not in ((examples,), (examples, 1)) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"Labels must be integers [{examples}], one per row of features; names stand in classes.txt. "
            f"Received: {path} with dtype={labels.dtype}, shape={labels.shape}"
        )
    low, high = labels.min(initial=lowest), labels.max(initial=lowest)
    if low < lowest or (classes and high >= classes):
        known = f"{lowest}..{classes - 1}, the classes of classes.txt" if classes else f"{lowest} and above"
        raise ValueError(f"Labels must be {known}. Received: {path} with labels {low}..{high}")
