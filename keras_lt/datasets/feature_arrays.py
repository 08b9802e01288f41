"""Features that come from elsewhere, as data: no image anywhere."""

import pathlib
import zipfile

import numpy as np

from keras_lt.datasets.examining import first_not_finite
from keras_lt.datasets.examples import FeatureVectors
from keras_lt.datasets.image_lists import numbered_classes, read_class_names
from keras_lt.datasets.long_tailed import OPEN, LongTailed, Split, name_of_val
from keras_lt.datasets.pixel_arrays import arrays_in

FEATURES_READ = (
    "train.npz, test.npz and optionally val.npz, each with `features` [N, D] and `labels` [N], or in place of an npz "
    "<split>_features.npy and <split>_labels.npy,"
)
SPLIT_FILES = ("{}.npz", "{}_features.npy")


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
    val = name_of_val(folder, *SPLIT_FILES)
    splits = {
        split: _read_split(folder, name, classes=len(class_names or ()))
        for split, name in {"train": "train", "val": val, "test": "test", "open": "open"}.items()
        if split in ("train", "test") or any((folder / pattern.format(name)).exists() for pattern in SPLIT_FILES)
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
    npz, of_vectors = folder / f"{split}.npz", folder / f"{split}_features.npy"
    path = of_vectors
    of_labels = folder / f"{split}_labels.npy"
    labelled = split != "open"
    if npz.exists() and path.exists():
        raise ValueError(f"Expected `features` and `labels` as npz or npy. Received: {npz}, and {path.name} beside it")
    try:
        if npz.exists():
            path = of_labels = npz
            vectors, *others = arrays_in(npz, "features", *(["labels"] * labelled))
            labels = others[0] if labelled else None
        else:
            vectors = np.load(path, mmap_mode="r")
            path = of_labels  # what an error is about from here on
            labels = np.load(of_labels) if labelled else None
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"--dataset=features reads {FEATURES_READ} from --data_dir. Not found: {error.filename}"
        ) from error
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"Expected `features` and `labels` as npz or npy. Received: {path}: {error}") from error
    _check_vectors(npz if npz.exists() else of_vectors, vectors)
    labels = np.full(len(vectors), OPEN) if labels is None else labels
    _check_labels(of_labels, labels, examples=len(vectors), classes=classes, lowest=0 if labelled else OPEN)
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
