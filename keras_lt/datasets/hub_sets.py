"""Any labelled image set of the `datasets` library: of the Hugging Face Hub, or a folder of Parquet or image files.

The library keeps a set as Arrow files, which are memory-mapped; what is read is one row's encoded image at a time.
"""

import contextlib
import copy
import hashlib
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from keras_lt.datasets.examining import stamp_of_all, stamps_of
from keras_lt.datasets.examples import Records
from keras_lt.datasets.image_files import SPLITS, check_read, files_in, folders_in, ignored_note, split_of
from keras_lt.datasets.long_tailed import LongTailed, Split
from keras_lt.datasets.own_images import train_val_test
from keras_lt.datasets.profiles import impose
from keras_lt.extras import library
from keras_lt.files import expanded, read_json

OF_THE_HUB = re.compile(r"[\w.-]+(/[\w.-]+)?")  # name, or owner/name
SAVED = ("dataset_dict.json", "state.json")  # what `save_to_disk` leaves: of several splits, of one
LABELS = ("label", "labels", "class", "target", "fine_label")  # what a column of labels is called, of any type
BATCH = 1000  # rows looked at together
SHOWN_LETTERS = 200  # of what the library says


def hugging_face(
    name: str,
    data_dir: str = "",
    *,
    image: str = "",
    label: str = "",
    config: str = "",
    imbalance_ratio: float = 0.0,
    profile: str = "exponential",
    seed: int = 0,
) -> LongTailed:
    """A set of the Hugging Face Hub or a local folder: Parquet files, an `imagefolder`, or what `save_to_disk` wrote.

    Splits may be called as the folders of `own_images.folder`, such as `train`, `validation`, `dev` and `testing`. A
    test split without labels leaves its place to the validation split. Without a val a tenth of train is carved off;
    without both, or with one split of any other name, each class is split 70 / 10 / 20 by the names of the images.

    Args:
      name: "name" or "owner/name" of the Hub, or a folder.
      data_dir: where the library keeps what it downloads and converts; empty is its own cache.
      image: the column of the images; empty is the only one of images, or that called `image`.
      label: the column of the labels, whether a ClassLabel, strings or whole numbers; empty is the only ClassLabel, or
        one called `label`. Classes without names are the values that train has, sorted.
      config: the configuration, where the set has several.
      imbalance_ratio: of the long tail imposed on train, largest class over smallest; 0 leaves train as it is.
      profile: of that tail, a name in `profiles.PROFILES`.
      seed: of the images that are kept, and of the carving.
    Raises:
      ImportError: the library is not installed, or cannot be imported.
      FileNotFoundError: there is no such folder.
      ValueError: there is no such set, column or train split, a label is missing or of no class of train, or a folder
        beside those of classes has no image.
    """
    root = _folder(name)
    splits = _loaded(name, root, cache=data_dir, config=config, columns=(image, label))
    read, notes = _known_splits(splits, name)
    image, label = _columns(read["train"].features, name, image=image, label=label)
    labelled, class_names, more = _labelled(read, name, root, image=image, label=label)
    notes += (*more, *_left_out(labelled, root, class_names))
    if "test" not in labelled and "val" in labelled:
        labelled["test"] = labelled.pop("val")
        notes += (f"hf:{name} has no labelled test split: its validation split is reported as test.",)
    elif "test" not in labelled:
        labelled, more = train_val_test(labelled["train"], name=f"hf:{name}", seed=seed)
        notes += more
    if imbalance_ratio:
        labelled["train"] = impose(
            labelled["train"], classes=len(class_names), imbalance_ratio=imbalance_ratio, profile=profile, seed=seed
        )
    called = f"hf:{os.path.basename(root) or name}"  # a folder's own name, from wherever and however it is named
    return LongTailed.from_splits(called, labelled, class_names=class_names, seed=seed, notes=notes)


class ImageRows(Records):
    """Encoded images in the rows of a set of the `datasets` library.

    Args:
      rows: the set, with its column of images and others.
      column: that column.
      root: the folder of the set, which its paths may be relative to and which may move; empty for the Hub's.
      split: what messages call the set.
    """

    def __init__(self, rows, column: str, *, root: str, split: str):
        import datasets  # noqa: PLC0415 - an extra

        rows = rows.select_columns([column]).cast_column(column, datasets.Image(decode=False))
        self.source, self.column, self.root = rows, column, root
        self.rows = np.arange(len(rows))
        paths = _paths(rows, column)
        self.names = _names(paths, root=root, split=split)
        self.files = np.array([os.path.join(root, path) if path else "" for path in paths], dtype=str)

    def subset(self, rows: np.ndarray) -> "ImageRows":
        """The images at `rows`, in that order."""
        chosen = copy.copy(self)
        chosen.rows, chosen.names, chosen.files = self.rows[rows], self.names[rows], self.files[rows]
        return chosen

    @property
    def _of_library(self) -> list[str]:
        return [file["filename"] for file in self.source.cache_files]

    def read(self, row: int) -> bytes:
        """The encoded image of a row, from the set itself or from the file that it names.

        Raises:
          OSError: there is no such file, or the row has no image.
        """
        found = self.source[int(self.rows[row])][self.column] or {}
        if found.get("bytes") is not None:
            return found["bytes"]
        if not found.get("path"):
            raise OSError("a row without an image")
        with open(os.path.join(self.root, found["path"]), "rb") as file:
            return file.read()

    def stamps(self, rows: slice) -> np.ndarray:
        """Of the library's files and, where an image lies in one of its own, of that, int64 [n, 2]."""
        return stamps_of(self.files[rows].tolist()) + stamp_of_all(self._of_library)

    def fingerprint(self) -> bytes:
        """Changes with the lengths of the library's files and the images' own, and with names, places or order."""
        digest = hashlib.sha256(repr(stamps_of(self._of_library)[:, 0].tolist()).encode())
        for array in (self.rows, self.names, stamps_of(self.files.tolist())[:, 0]):
            digest.update(np.ascontiguousarray(array).view(np.uint8))
        return digest.digest()


def _paths(rows, column: str) -> list[str | None]:
    """The files that the images lie in, or were once."""
    chunks = (chunk for batch in rows.with_format("arrow").iter(BATCH) for chunk in batch.column(column).chunks)
    return [path for chunk in chunks for path in chunk.field("path").to_pylist()]


def _names(paths: list[str | None], *, root: str, split: str) -> np.ndarray:
    """What messages call the images, and carving goes by: their files where these are known and differ, or rows."""
    if None not in paths:
        inside = f"{root}{os.sep}" if root else ""
        names = [p.removeprefix(inside) if root and p.startswith(inside) else os.path.basename(p) for p in paths]
        if len(set(names)) == len(names):
            return np.array(names, dtype=str)
    return np.array([f"{split}[{row}]" for row in range(len(paths))], dtype=str)


def _folder(name: str) -> str:
    """The folder that a name is, absolute; empty for a name of the Hub.

    Raises:
      FileNotFoundError: it can be no name of the Hub, and is no folder.
    """
    path = expanded(name)
    if path.is_dir():
        return str(path.resolve())
    if path.exists() or not OF_THE_HUB.fullmatch(name):
        raise FileNotFoundError(
            "hf:<name> must be `name` or `owner/name` of the Hugging Face Hub, or a folder of Parquet or image files; "
            f"parameters follow as `:image=...:label=...`. Not found: hf:{name}"
        )
    return ""


def _loaded(name: str, root: str, *, cache: str, config: str, columns: tuple[str, str]) -> Mapping:
    """The set's splits by name; its columns are looked at before anything is fetched, where they are known."""
    datasets = library("datasets", extra="hf", needed_by=f"--dataset=hf:{name}")
    with _loading(name):
        if root and any(os.path.exists(os.path.join(root, file)) for file in SAVED):
            return _saved(root)
        builder = datasets.load_dataset_builder(root or name, config or None, cache_dir=cache or None)
        known = builder.info.features
    if known:
        _columns(known, name, image=columns[0], label=columns[1])
    with _loading(name):
        builder.download_and_prepare()
        return builder.as_dataset()


@contextlib.contextmanager
def _loading(name: str) -> Iterator[None]:
    """Says in one line what goes wrong in the library, the Hub, or whatever reads the files."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error.__cause__ or error).split())[:SHOWN_LETTERS] or type(error).__name__
        raise ValueError(
            "hf:<name> must be a set that the `datasets` library can load: one of the Hugging Face Hub, or a folder of "
            f"Parquet or image files. Received: hf:{name}: {reason}"
        ) from error


def _saved(root: str) -> dict:
    """What `save_to_disk` wrote, by split; one without rows, which the library writes but cannot read, is ()."""
    import datasets  # noqa: PLC0415 - an extra

    of_several, of_one = SAVED
    if not os.path.exists(os.path.join(root, of_several)):
        folders = {"train": root}
    else:
        folders = {name: os.path.join(root, name) for name in read_json(os.path.join(root, of_several))["splits"]}
    files = {name: read_json(os.path.join(folder, of_one))["_data_files"] for name, folder in folders.items()}
    return {name: datasets.load_from_disk(folder) if files[name] else () for name, folder in folders.items()}


def _columns(features: Mapping, name: str, *, image: str, label: str) -> tuple[str, str]:
    """The columns of the images and of the labels."""
    import datasets  # noqa: PLC0415 - an extra

    def holds_images(column):
        kind = features[column]
        if isinstance(kind, dict):
            return "bytes" in kind
        return isinstance(kind, datasets.Image) or getattr(kind, "dtype", "") in ("binary", "large_binary")

    def holds_classes(column):
        return isinstance(features[column], datasets.ClassLabel)

    def holds_labels(column):
        kind = getattr(features[column], "dtype", "") if isinstance(features[column], datasets.Value) else ""
        return holds_classes(column) or kind in ("string", "large_string", "bool") or "int" in kind

    images = [image] if image else [column for column in features if holds_images(column)]
    labels = [label] if label else [column for column in features if holds_classes(column)]
    labels = labels or [column for column in LABELS if column in features and holds_labels(column)][:1]
    images, labels = (["image"] if "image" in images else images), (["label"] if "label" in labels else labels)
    for what, columns, is_it in (("image", images, holds_images), ("label", labels, holds_labels)):
        if len(columns) != 1 or columns[0] not in features or not is_it(columns[0]):
            expected = "images" if what == "image" else "one label per image: a ClassLabel, strings or whole numbers"
            raise ValueError(
                f"The set needs one column of {expected}, named by hf:{name}:{what}=<column> where it is not clear "
                f"which. Received: {f'{what}={columns[0]}, ' if columns and (image, label)[what == 'label'] else ''}"
                f"hf:{name} with {', '.join(features)}"
            )
    return images[0], labels[0]


def _labelled(
    read: Mapping, name: str, root: str, *, image: str, label: str
) -> tuple[dict[str, Split], list[str], tuple[str, ...]]:
    """The splits whose images have labels, the names of the classes, and notes."""
    for split, rows in read.items():
        if image not in rows.features:
            raise ValueError(
                f"Every split needs the column {image} of images. Received: hf:{name}, {split} with "
                f"{', '.join(rows.features)}"
            )
    names = getattr(read["train"].features[label], "names", None)
    values = {split: _values(rows, label, names) for split, rows in read.items()}
    classes, notes = _classes(names, values["train"], name)
    ids = {
        split: _ids(given, classes, f"hf:{name}, {split}")
        for split, given in values.items()
        if split == "train" or set(given) != {None}
    }
    labelled = {split: Split(ImageRows(read[split], image, root=root, split=split), ids[split]) for split in ids}
    return labelled, list(classes.values()), notes


def _left_out(labelled: Mapping[str, Split], root: str, class_names: Sequence[str]) -> tuple[str, ...]:
    """Notes of files that the library passed over, where classes are folders.

    Raises:
      ValueError: a folder beside those of the classes of train has no image that was read.
    """
    ignored = []
    for split, images in labelled.items():
        read = {os.path.join(root, name) for name in images.names}
        folders = {folder for folder in map(os.path.dirname, read) if root and folder != root}
        parents = {os.path.dirname(folder) for folder in folders if os.path.basename(folder) in class_names}
        beside = [pathlib.Path(parent, name) for parent in sorted(parents) for name in folders_in(parent)]
        files = [set(files_in(folder)) for folder in beside]
        left = sorted(set().union(*files) - read)
        if split == "train":
            check_read(np.repeat(np.arange(len(files)), [len(inside & read) for inside in files]), beside, left)
        ignored += left
    return ignored_note(ignored)


def _known_splits(splits: Mapping, name: str) -> tuple[dict, tuple[str, ...]]:
    """The splits that are read, by what they are here; and a note of others."""
    if len(splits) == 1 and not {*map(split_of, splits)} & {"val", "test"}:
        splits = {"train": next(iter(splits.values()))}  # whatever it is called
    places = {}
    for split in ("train", "val", "test"):
        found = [place for place in splits if split_of(place) == split]
        found = [place for place in found if place.lower() in SPLITS[split]] or found  # before those with a number
        if len(found) > 1:
            raise ValueError(f"{split} must be one split. Received: hf:{name} with {', '.join(found)}")
        if found and len(splits[found[0]]):
            places[split] = found[0]
    if "train" not in places:
        raise ValueError(f"The set needs a split train with images. Received: hf:{name} with {', '.join(splits)}")
    read = {split: splits[place] for split, place in places.items()}
    others = sorted(place for place in set(splits) - set(places.values()) if len(splits[place]))
    note = f"Splits of hf:{name} that are not train, val or test were ignored: {', '.join(others)}."
    return read, (note,) * bool(others)


def _values(rows, label: str, names: Sequence[str] | None) -> list:
    """The labels, None where one is missing; those of a ClassLabel by name, as each split may have its own order.

    Args:
      names: of the classes of train, where it has a ClassLabel; a split of plain numbers goes by them.
    """
    if label not in rows.features:
        return [None] * len(rows)
    names = getattr(rows.features[label], "names", None) or names
    batches = rows.select_columns([label]).with_format("arrow").iter(BATCH)
    values = [value for batch in batches for value in batch.column(label).to_pylist()]
    values = [None if value in ("", -1) else value for value in values]
    if names is None:
        return values
    return [names[value] if isinstance(value, int) and value < len(names) else value for value in values]


def _classes(names: Sequence[str] | None, values: list, name: str) -> tuple[dict[object, str], tuple[str, ...]]:
    """Value -> name of every class, in their order; and a note where the set does not say them."""
    if names is not None:
        classes = {name: name for name in names}
    else:
        classes = {value: str(value) for value in sorted({value for value in values if value is not None})}
    of_strings = names is None and any(isinstance(value, str) for value in classes)
    note = f"Labels of hf:{name} are strings: the {len(classes)} that differ are the classes, sorted."
    return classes, (note,) * of_strings


def _ids(values: list, classes: dict, where: str) -> np.ndarray:
    """Class ids, int64 [N]."""
    missing = [row for row, value in enumerate(values) if value is None]
    if missing:
        raise ValueError(
            "Every image needs a label; take those without one (None, -1 or empty) out. "
            f"Received: {where} with {len(missing)} of {len(values)} without, the first in row {missing[0]}"
        )
    ids = {value: number for number, value in enumerate(classes)}
    unknown = [value for value in values if value not in ids]
    if unknown:
        raise ValueError(f"Labels must be classes of train. Received: {where} with {unknown[0]!r}")
    return np.array([ids[value] for value in values], np.int64)
