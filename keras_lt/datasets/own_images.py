"""The user's own image files: folders of classes, lists of paths, or csv tables."""

import contextlib
import io
import os
import pathlib
from collections.abc import Iterable, Sequence
from csv import DictReader
from csv import Error as CsvError

import numpy as np

from keras_lt.datasets.examples import ImageFiles
from keras_lt.datasets.image_files import (
    EXTENSIONS,
    alike_note,
    beside_note,
    check_read,
    files_in,
    folders_in,
    has_extension,
    ignored_note,
    is_class_id,
    numbered_classes,
    read_class_names,
    read_list,
    read_open_list,
    split_folders,
    split_of,
)
from keras_lt.datasets.long_tailed import OPEN, VAL_NAMES, LongTailed, Split, divide, name_of_val, not_known
from keras_lt.files import expanded, read_text

SEPARATORS = ",;\t"
SHOWN_LETTERS = 200  # of a line that is another
VAL_FRACTION, TEST_FRACTION = 0.1, 0.2  # of each class, where we split; train has the rest
FOLDER_READS = "train/<class>/, test/<class>/ and optionally val/<class>/, or <class>/ alone,"


def folder(data_dir: str = "", *, seed: int = 0) -> LongTailed:
    """The user's own images in a folder per class: `train/<class>/`, `test/<class>/` and, if there is one, `val/`.

    Classes are the sorted names of train's folders; images may lie deeper inside them. Splits may also be called
    `training`, `valid`, `dev` and `testing`, in capitals, with a number or `set` behind. Without `val/` a tenth of
    train is carved off. Images at any depth in `open/`, if there is one beside `train/`, are the open set, of no class.
    Without `train/` and `test/` the folders in `data_dir` are the classes, and each is split 70 / 10 / 20 into train,
    val and test on average: by the names of the images, so that new ones move no other. Passed over are hidden files
    and folders, files without an image's extension and work folders of runs; photographs in formats that are not read,
    such as HEIC, and images that lie beside the classes are named in the notes.

    Args:
      seed: of the split and the carving.
    Raises:
      FileNotFoundError: there is no such folder, or only one of train and test.
      ValueError: val or test has a class that train has not, or a class has no photographs but such that are not read.
    """
    root = pathlib.Path(data_dir)
    if not root.is_dir():
        raise FileNotFoundError(f"--dataset=folder reads its images from the folder --data_dir. Not found: {root}")
    name, found = root.resolve().name, folders_in(root)
    places = split_folders(root)
    notes = beside_note(root, *(root / place for place in places.values()))
    if not places:
        if not found:
            files = sorted(path.name for path in root.iterdir())
            raise ValueError(
                f"--dataset=folder reads {FOLDER_READS} from --data_dir. Received: {root} without folders"
                + f", but with {files[0]}" * bool(files)
            )
        split, ignored = _read_folders(root, found)
        check_read(split.labels, [root / name for name in found], ignored)
        splits, more = train_val_test(split, name=name, seed=seed)
        notes = (*more, *alike_note(root, found), *ignored_note(ignored), *notes)
        return LongTailed(name, **splits, class_names=found, test_is_drawn=True, notes=notes)
    missing = [str(root / split) for split in ("train", "test") if split not in places]
    if missing:
        raise FileNotFoundError(f"--dataset=folder reads {FOLDER_READS} from --data_dir. Not found: {missing[0]}")
    class_names, splits, ignored = folders_in(root / places["train"]), {}, []
    for split in ("train", "val", "test"):
        if split not in places:
            continue
        if unknown := not_known(folders_in(root / places[split]), class_names):
            raise ValueError(f"Every class needs a folder in train/. Received: {places[split]}/ with {unknown}")
        splits[split], more = _read_folders(root / places[split], class_names)
        ignored += more
        folders = [root / places[split] / name for name in class_names] if split == "train" else [root / places[split]]
        check_read(splits[split].labels, folders, more)
    if "open" in places:
        splits["open_set"], more = _read_unlabelled(root / places["open"])
        ignored += more
    notes = (*ignored_note(ignored), *notes)
    if others := sorted(set(found) - set(places.values())):
        notes += (f"Folders beside train/ and test/ that are no split were ignored: {', '.join(others)}.",)
    return LongTailed.from_splits(name, splits, class_names=class_names, seed=seed, notes=notes)


def lists(data_dir: str = "", *, seed: int = 0) -> LongTailed:
    """The user's own lists: `train.txt`, `test.txt` and, if there is one, `val.txt`, of `relative/path label` lines.

    Paths are relative to `data_dir`, labels are class ids from 0. `classes.txt` names the classes, one per line;
    without it they are numbered. Without `val.txt` a tenth of each training class is carved off. The images of
    `open.txt`, if there is one, are the open set, of no class; its lines are `relative/path -1`.

    Args:
      seed: of the carving.
    Raises:
      FileNotFoundError, ValueError: a list is missing, or a line is not `path label`.
    """
    root = pathlib.Path(data_dir)
    entries = {split: read_list(path) for split, path in _split_files(root, "lists", "{}.txt").items()}
    path = root / "open.txt"
    open_set = read_open_list(path, images=root) if path.exists() else None
    return _listed(root, entries, read_class_names(root), seed=seed, open_set=open_set)


def csv(data_dir: str = "", *, seed: int = 0) -> LongTailed:
    """The user's own tables: `train.csv`, `test.csv` and, if there is one, `val.csv`, with the columns `path,label`.

    Values stand between commas, semicolons or tabs, and may be quoted; other columns are named in the notes.

    Instead of these there may be one `images.csv` with the columns `path,label,split`; a split is train, val or test.
    Paths are relative to `data_dir`. Labels are class ids from 0 where all are numbers, otherwise the names of classes,
    which then are sorted. `classes.txt` gives names, or their order, as in `lists`; so does carving. Names that are
    numbers, such as 0.5 or 001, must stand in it.

    Args:
      seed: of the carving.
    Raises:
      FileNotFoundError: a table is missing.
      ValueError: a table has other columns, a row is not complete, or a label is not one of train's.
    """
    root = pathlib.Path(data_dir)
    if (root / "images.csv").exists():
        rows, others = _read_table(root / "images.csv", ("path", "label", "split"))
        tables = {split: [row[:2] for row in rows if split_of(row[2]) == split] for split in ("train", "val", "test")}
        if unknown := sorted({split for *_, split in rows if split_of(split) not in tables}):
            raise ValueError(f"split must be train, val or test. Received: {root / 'images.csv'} with {unknown[0]!r}")
        if not tables["val"]:
            del tables["val"]
        beside = sorted(path.name for path in root.glob("*.csv") if path.stem in ("train", "test", *VAL_NAMES))
        notes = (f"images.csv is read, and not {', '.join(beside)} beside it.",) * bool(beside)
    else:
        notes = ()
        files = _split_files(root, "csv", "{}.csv")
        read = {split: _read_table(path, ("path", "label")) for split, path in files.items()}
        tables = {split: rows for split, (rows, _) in read.items()}
        others = [name for _, more in read.values() for name in more]
    names = read_class_names(root)
    labels = {label for table in tables.values() for _, label in table}
    are_ids = all(label.isascii() and label.isdecimal() for label in labels) and not labels <= set(names or ())
    if not are_ids and (names or not all(map(_is_number, labels))):
        names = names or sorted({label for _, label in tables["train"]})
        tables = _numbered(tables, names)
    for split, table in tables.items():
        if wrong := [str(label) for _, label in table if not is_class_id(str(label))]:
            raise ValueError(
                "Labels must be class ids from 0, or names; names that are numbers stand in classes.txt. "
                f"Received: {split} with {wrong[0]}"
            )
    entries = {split: ([path for path, _ in of], [int(label) for _, label in of]) for split, of in tables.items()}
    notes += (f"Columns beside path and label were ignored: {', '.join(dict.fromkeys(others))}.",) * bool(others)
    return _listed(root, entries, names, seed=seed, notes=notes)


def labelled_images(images_dir: str, class_names: Sequence[str]) -> Split:
    """A folder of images as a split: those in folders named as classes, or, where it has no folders, all as `OPEN`.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: a folder in it is not named as a class, or there is no image.
    """
    root = expanded(images_dir)
    if not root.is_dir():
        raise FileNotFoundError(f"--images must be a folder of images. Not found: {root}")
    found = folders_in(root)
    if unknown := not_known(found, class_names):
        raise ValueError(
            f"Folders of --images must be named as classes, such as {', '.join(class_names[:3])}. "
            f"Received: {root} with {unknown}"
        )
    split, ignored = _read_folders(root, class_names) if found else _read_unlabelled(root)
    return _not_empty(split, root, (*ignored_note(ignored), *beside_note(root) * bool(found)))


def unlabelled_images(images: str) -> Split:
    """An image, or the images at any depth of a folder, labelled `OPEN`.

    Raises:
      FileNotFoundError: there is nothing of that name.
      ValueError: there is no image.
    """
    path = expanded(images)
    if path.is_file():
        return Split(ImageFiles(np.array([str(path)]), root=path.parent), np.array([OPEN]))
    if not path.is_dir():
        raise FileNotFoundError(f"--images must be a folder of images, or one image. Not found: {path}")
    split, ignored = _read_unlabelled(path)
    return _not_empty(split, path, ignored_note(ignored))


def _not_empty(split: Split, images: pathlib.Path, notes: Sequence[str]) -> Split:
    """The split, once what there is to say of its folder is said and it is known to have an image."""
    for note in notes:
        print(note)
    if not len(split):
        raise ValueError(f"--images must hold images, {', '.join(EXTENSIONS)}. Received: {images} without any")
    return split


def _read_unlabelled(root: pathlib.Path) -> tuple[Split, list[str]]:
    """The images at any depth of a folder, labelled `OPEN`; and the other files that lie there."""
    split, ignored = _read_folders(root.parent, [root.name])
    return Split(split.examples, np.full(len(split), OPEN)), ignored


def _read_folders(root: pathlib.Path, class_names: Sequence[str]) -> tuple[Split, list[str]]:
    """The images of the classes that have a folder here, class by class and sorted; and the other files that lie there.

    The order is that of the names, whatever the file system's.
    """
    paths, counts, ignored = [], [], []
    for name in class_names:
        files = list(files_in(root / name)) if (root / name).is_dir() else []
        images = sorted(path for path in files if has_extension(path, EXTENSIONS))
        paths += images
        counts.append(len(images))
        if len(images) < len(files):
            ignored += sorted(set(files) - set(images))
    labels = np.repeat(np.arange(len(class_names)), np.array(counts, np.int64))
    return Split(ImageFiles(np.array(paths, dtype=str), root=root), labels), ignored


def train_val_test(split: Split, *, name: str, seed: int) -> tuple[dict[str, Split], tuple[str, ...]]:
    """Train, val and test, as `divide` draws them; and notes."""
    rows = divide(split, {"val": VAL_FRACTION, "test": TEST_FRACTION}, seed=seed)
    splits = {part: split.subset(rows[number]) for part, number in {"train": 0, "val": 1, "test": 2}.items()}
    sizes = " / ".join(str(len(part)) for part in splits.values())
    notes = (f"{name} has no labelled test split: its images were split by their names, {sizes} train / val / test.",)
    return splits, notes


def _split_files(root: pathlib.Path, dataset: str, pattern: str) -> dict[str, pathlib.Path]:
    """The files of train, test and, where there is one, val."""
    names = {"train": "train", "val": name_of_val(root, pattern), "test": "test"}
    files = {split: root / pattern.format(name) for split, name in names.items()}
    missing = [str(files[split]) for split in ("train", "test") if not files[split].exists()]
    if missing:
        train, val, test = (path.name for path in files.values())
        raise FileNotFoundError(
            f"--dataset={dataset} reads {train}, {test} and optionally {val} from --data_dir. "
            f"Not found: {', '.join(missing)}"
        )
    return {split: path for split, path in files.items() if path.exists()}


def _read_table(path: pathlib.Path, columns: tuple[str, ...]) -> tuple[list[tuple[str, ...]], list[str]]:
    """The rows of a csv file, their values in the order of `columns`; and its other columns.

    What separates values is that by which the first line has the columns: a comma, a semicolon or a tab.
    """
    text, rows = read_text(path), []
    try:
        for separator in SEPARATORS:
            reader = DictReader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
            found = reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
            if all(found.count(column) == 1 for column in columns):
                break
        else:
            first = text.partition("\n")[0][:SHOWN_LETTERS]
            raise ValueError(f"Expected the columns {','.join(columns)}. Received: {path} with {first or 'nothing'}")
        for row in reader:
            if not any(row.values()):
                continue  # of cells that spreadsheets left empty
            if None in row or None in row.values() or not all(row[column] for column in columns):
                values = f"{list(row.values())}"[:SHOWN_LETTERS]
                raise ValueError(
                    f"Expected {','.join(columns)} in every row. Received: {path}:{reader.line_num} with {values}"
                )
            rows.append(tuple(row[column] for column in columns))
    except CsvError as error:
        raise ValueError(f"Expected a csv file. Received: {path}:{reader.line_num}: {error}") from error
    return rows, [name for name in found if name and name not in columns]


def _is_number(label: str) -> bool:
    with contextlib.suppress(ValueError):
        float(label)
        return True
    return False


def _numbered(tables: dict[str, list[tuple[str, str]]], names: Iterable[str]) -> dict[str, list[tuple[str, int]]]:
    """The tables with class ids for names."""
    ids = {name: number for number, name in enumerate(names)}
    for split, table in tables.items():
        if unknown := not_known((label for _, label in table), ids):
            raise ValueError(
                f"Labels must be class names of train, or of classes.txt. Received: {split} with {unknown}"
            )
    return {split: [(path, ids[label]) for path, label in table] for split, table in tables.items()}


def _listed(root: pathlib.Path, entries: dict, class_names: list[str] | None, **attributes: object) -> LongTailed:
    """A data set of (paths [N], labels [N]) per split."""
    splits = {
        split: Split(ImageFiles(np.array([os.path.join(root, path) for path in paths], dtype=str), root=root), labels)
        for split, (paths, labels) in entries.items()
    }
    class_names = class_names or numbered_classes(splits.values())
    return LongTailed.from_splits(root.resolve().name, splits, class_names=class_names, **attributes)
