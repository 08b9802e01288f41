"""The benchmarks that are published as lists over image archives, each checked against what its paper says of it."""

import dataclasses
import json
import pathlib
import warnings

import numpy as np

from keras_lt.datasets.examples import ImageFiles
from keras_lt.datasets.image_files import names_from_folders, read_class_names, read_list, read_open_list
from keras_lt.datasets.long_tailed import LongTailed, Split
from keras_lt.files import read_json
from keras_lt.metrics import ShotGroups


@dataclasses.dataclass(frozen=True)
class Published:
    """What is published of a data set.

    Attributes:
      name: as in `datasets.DATASETS`.
      source: where lists and images come from.
      facts: what its lists must show, by the name a message gives it.
    """

    name: str
    source: str
    facts: dict[str, int]


_OLTR_LISTS = "the three lists come from the OLTR project (github.com/zhmiao/OpenLongTailRecognition-OLTR)"
PLACES_LT = Published(
    "places_lt",
    f"{_OLTR_LISTS}, the images are the 'easy directory' train and val archives of Places365-Standard "
    "(places2.csail.mit.edu), unpacked there",
    {
        "train images": 62_500,
        "val images": 7_300,
        "test images": 36_500,
        "classes": 365,
        "images of the largest class": 4980,
        "images of the smallest class": 5,
        "many-shot classes": 131,
        "medium-shot classes": 163,
        "few-shot classes": 71,
    },
)
IMAGENET_LT = Published(
    "imagenet_lt",
    f"{_OLTR_LISTS}, the images are the train and val archives of ILSVRC2012 (image-net.org), unpacked as "
    "train/<wnid>/ and val/<wnid>/; --dataset=tfds:imagenet_lt prepares the same from the two archives",
    {
        "train images": 115_846,
        "val images": 20_000,
        "test images": 50_000,
        "classes": 1000,
        "images of the largest class": 1280,
        "images of the smallest class": 5,
        "many-shot classes": 385,
        "medium-shot classes": 479,
        "few-shot classes": 136,
    },
)
INATURALIST18 = Published(
    "inaturalist18",
    "train_val2018.tar.gz, train2018.json and val2018.json come from the iNaturalist 2018 competition "
    "(github.com/visipedia/inat_comp), unpacked there",
    {
        "train images": 437_513,
        "test images": 24_426,
        "classes": 8142,
        "images of the largest class": 1000,
        "images of the smallest class": 2,
        "many-shot classes": 842,
        "medium-shot classes": 3701,
        "few-shot classes": 3599,
    },
)
INATURALIST18_MEAN = (0.466, 0.471, 0.380)
INATURALIST18_STD = (0.195, 0.194, 0.192)


def places_lt(data_dir: str = "", *, allow_modified_lists: bool = False) -> LongTailed:
    """Places-LT (Liu et al., 2019): 62,500 / 7,300 / 36,500 images of 365 scenes, 4,980 down to 5 per class.

    `data_dir` holds `Places_LT_{train,val,test}.txt` and the images they name. Both published path layouts are read
    (`train/airfield/x.jpg` and `data_256/a/airfield/x.jpg`). Classes are called as their folders, or as the lines of a
    `classes.txt` beside the lists. Where there is a `Places_LT_open.txt`, the images that this names in
    `Places_LT_open/`, of scenes of Places-Extra69, are the open set.

    Args:
      allow_modified_lists: warn, rather than raise, where the lists are not those published.
    Raises:
      FileNotFoundError: a list is missing.
      ValueError: a line is not `path label`, or the lists are not those published.
    """
    return _of_oltr(PLACES_LT, "Places_LT", data_dir, allow_modified_lists)


def imagenet_lt(data_dir: str = "", *, allow_modified_lists: bool = False) -> LongTailed:
    """ImageNet-LT (Liu et al., 2019): 115,846 / 20,000 / 50,000 images of 1,000 classes, 1,280 down to 5 per class.

    `data_dir` holds `ImageNet_LT_{train,val,test}.txt` and ILSVRC2012's folders; val is carved from ILSVRC2012's train,
    test is its val. Where it also holds `ImageNet_LT_open.txt`, the images that this names in `ImageNet_LT_open/`, of
    ILSVRC2010's other classes, are the open set. Arguments and errors as for `places_lt`.
    """
    return _of_oltr(IMAGENET_LT, "ImageNet_LT", data_dir, allow_modified_lists)


def inaturalist18(data_dir: str = "", *, allow_modified_lists: bool = False, seed: int = 0) -> LongTailed:
    """iNaturalist 2018 (Van Horn et al., 2018): 437,513 / 24,426 images of 8,142 species, 1,000 down to 2 per class.

    `data_dir` holds `iNaturalist18_{train,val}.txt` or else the competition's `train2018.json` and `val2018.json`
    (with `categories.json`, the species' names, where it is), and `train_val2018/`. Results are reported on the
    published val, as papers do; the val to choose on is carved from train.

    Args:
      allow_modified_lists: warn, rather than raise, where the lists are not those published.
      seed: of the carving.
    Raises:
      FileNotFoundError, ValueError: as for `places_lt`.
    """
    folder = pathlib.Path(data_dir)
    if (folder / "train2018.json").exists() and not (folder / "iNaturalist18_train.txt").exists():
        lists, names = _read_competition(folder)
    else:
        lists, names = _read_lists(INATURALIST18, data_dir, "iNaturalist18_{}.txt", ("train", "val")), None
    lists["test"] = lists.pop("val")
    return _checked(
        INATURALIST18,
        lists,
        data_dir,
        allow_modified_lists,
        class_names=names,
        notes=("inaturalist18 has no test list: its published val is reported as test.",),
        seed=seed,
        mean=INATURALIST18_MEAN,
        std=INATURALIST18_STD,
        augmentation="resized_crop_flip",
    )


Lists = dict[str, tuple[np.ndarray, np.ndarray]]  # split -> paths below data_dir [N], labels [N]


def _read_lists(published: Published, data_dir: str, pattern: str, splits: tuple[str, ...]) -> Lists:
    folder = pathlib.Path(data_dir)
    files = {split: folder / pattern.format(split) for split in splits}
    missing = [str(path) for path in files.values() if not path.exists()]
    if missing:
        raise FileNotFoundError(
            f"{published.name} reads its lists and images from --data_dir: {published.source}. "
            f"Not found: {', '.join(missing)}"
        )
    return {split: read_list(path) for split, path in files.items()}


def _of_oltr(published: Published, name: str, data_dir: str, allow_modified_lists: bool) -> LongTailed:
    """Lists of a name, and the open set where there is one: a list more, and a folder that it names images of."""
    lists = _read_lists(published, data_dir, f"{name}_{{}}.txt", ("train", "val", "test"))
    path = pathlib.Path(data_dir, f"{name}_open.txt")
    open_set = read_open_list(path, images=path.with_suffix("")) if path.exists() else None
    return _checked(published, lists, data_dir, allow_modified_lists, open_set=open_set)


def _read_competition(folder: pathlib.Path) -> tuple[Lists, list[str]]:
    """The annotations of the iNaturalist 2018 competition: the lists, and the species' names."""
    lists = {}
    for split in ("train", "val"):
        path = folder / f"{split}2018.json"
        if not path.exists():
            raise FileNotFoundError(f"inaturalist18 reads its lists from --data_dir. Not found: {path}")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            labels = {row["image_id"]: row["category_id"] for row in content["annotations"]}
            paths = np.array([row["file_name"] for row in content["images"]], dtype=str)
            lists[split] = paths, np.array([labels[row["id"]] for row in content["images"]], np.int64)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                "Expected the competition's annotations: images with id and file_name, annotations with image_id and "
                f"category_id. Received: {path}: {error!r}"
            ) from error
        categories = content["categories"]
    if (folder / "categories.json").exists():
        categories = read_json(folder / "categories.json")
    return lists, [row["name"] for row in sorted(categories, key=lambda row: row["id"])]


def _checked(
    published: Published,
    lists: Lists,
    data_dir: str,
    allow_modified_lists: bool,
    *,
    class_names: list[str] | None = None,
    notes: tuple[str, ...] = (),
    **options,
) -> LongTailed:
    """The lists as a data set, once they agree with what is published."""
    differences = _differences(published.facts, lists)
    if differences:
        message = f"The lists of {published.name} are not those published: {'; '.join(differences)}."
        if not allow_modified_lists:
            raise ValueError(f"{message} --allow_modified_lists takes them as they are")
        warnings.warn(message, stacklevel=3)
        notes += (message,)
    return LongTailed.from_splits(
        published.name,
        {
            split: Split(ImageFiles(np.char.add(f"{pathlib.Path(data_dir)}/", paths), root=data_dir), labels)
            for split, (paths, labels) in lists.items()
        },
        class_names=class_names or read_class_names(pathlib.Path(data_dir)) or names_from_folders(*lists["train"]),
        source=published.source,
        notes=notes,
        **options,
    )


def _differences(facts: dict[str, int], lists: Lists) -> list[str]:
    """What is not as published: "62,499 train images instead of 62,500"."""
    counts = np.bincount(lists["train"][1], minlength=1)
    found = {f"{split} images": len(labels) for split, (_, labels) in lists.items()}
    found |= {
        "classes": len(counts),
        "images of the largest class": counts.max(),
        "images of the smallest class": counts.min(),
    }
    found |= {f"{group}-shot classes": size for group, size in ShotGroups(counts).sizes.items()}
    return [f"{found[what]:,} {what} instead of {value:,}" for what, value in facts.items() if found[what] != value]
