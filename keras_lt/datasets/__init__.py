"""Data sets: a name and a folder in, `LongTailed` out. A new one is a function and a line in `DATASETS`."""

import os
import pathlib

from keras_lt.arguments import checked
from keras_lt.datasets.examples import Examples, FeatureVectors, ImageFiles, Pixels, Records
from keras_lt.datasets.hub_sets import hugging_face
from keras_lt.datasets.image_files import split_folders
from keras_lt.datasets.long_tailed import LongTailed, Split, carve_validation
from keras_lt.datasets.own_arrays import ARRAYS_READS, FEATURES_READ, arrays, fashion_lt, features
from keras_lt.datasets.own_images import FOLDER_READS, csv, folder, lists
from keras_lt.datasets.packaged import ELPV_READS, elpv
from keras_lt.datasets.prepared import is_prepared, read_prepared
from keras_lt.datasets.published import IMAGENET_LT, INATURALIST18, PLACES_LT, imagenet_lt, inaturalist18, places_lt
from keras_lt.datasets.small_images import cifar10_lt, cifar100_lt, fashion_mnist_lt, mnist_lt
from keras_lt.datasets.sources import SourceEntry, parse
from keras_lt.datasets.tfds import tfds_dataset
from keras_lt.files import expanded, lies_in

__all__ = [
    "DATASETS",
    "Examples",
    "FeatureVectors",
    "ImageFiles",
    "LongTailed",
    "Pixels",
    "Records",
    "SourceEntry",
    "Split",
    "carve_validation",
    "check",
    "check_outside",
    "folder_of",
    "load",
    "parse",
]

DATASETS: dict[str, SourceEntry] = {
    "fashion_lt": SourceEntry(fashion_lt, reads="nothing: it comes with the package", needs_folder=False),
    "imagenet_lt": SourceEntry(imagenet_lt, label="ImageNet-LT", reads=f"its lists and images: {IMAGENET_LT.source}"),
    "places_lt": SourceEntry(places_lt, label="Places-LT", reads=f"its lists and images: {PLACES_LT.source}"),
    "inaturalist18": SourceEntry(
        inaturalist18, label="iNaturalist 2018", reads=f"its lists and images: {INATURALIST18.source}"
    ),
    "cifar10_lt": SourceEntry(cifar10_lt, label="CIFAR-10-LT", reads="cifar-10-batches-py/", needs_folder=False),
    "cifar100_lt": SourceEntry(cifar100_lt, label="CIFAR-100-LT", reads="cifar-100-python/", needs_folder=False),
    "fashion_mnist_lt": SourceEntry(
        fashion_mnist_lt, label="Fashion-MNIST-LT", reads="the four idx files", needs_folder=False
    ),
    "mnist_lt": SourceEntry(mnist_lt, label="MNIST-LT", reads="the four idx files", needs_folder=False),
    "elpv": SourceEntry(elpv, label="ELPV", reads=ELPV_READS, needs_folder=False),
    "folder": SourceEntry(folder, reads=FOLDER_READS, reads_all=True),
    "lists": SourceEntry(lists, reads="train.txt, test.txt and optionally val.txt, of `relative/path label` lines,"),
    "csv": SourceEntry(csv, reads="train.csv, test.csv and optionally val.csv, of `path,label`, or one images.csv"),
    "arrays": SourceEntry(arrays, reads=ARRAYS_READS),
    "features": SourceEntry(features, reads=FEATURES_READ),
    "tfds": SourceEntry(
        tfds_dataset, reads="what TensorFlow Datasets prepared there", needs_folder=False, takes_name=True
    ),
    "hf": SourceEntry(
        hugging_face,
        reads="what the `datasets` library downloaded there",
        needs_folder=False,
        takes_name=True,
        reads_all=True,
    ),
}


@checked
def load(name: str, data_dir: str = "", **options) -> LongTailed:
    """The data set of that name.

    >>> keras_lt.load("fashion_lt").class_counts
    array([1000,  599,  359,  215,  129,   77,   46,   27,   16,   10])

    Args:
      name: a name in `DATASETS`, with parameters where wanted, such as "cifar100_lt:imbalance_ratio=50"; of a library
        with the data set's own, such as "tfds:imagenet_lt".
      data_dir: the folder that its function reads, or what `keras_lt.prepare` made of it.
      options: keyword arguments of that function, in place of parameters.

    Raises:
      ValueError: as `check`, or what `data_dir` holds is not as it should be.
      FileNotFoundError: `data_dir` lacks a file.
    """
    name, source, options = parse(DATASETS, name, **options)
    data_dir = str(expanded(data_dir)) if data_dir else ""
    if data_dir and is_prepared(data_dir):
        return read_prepared(data_dir, name, **options)
    return source(data_dir, **options)


def check(name: str, **options) -> SourceEntry:
    """The source of a data set with its options, data_dir -> LongTailed.

    Raises:
      ValueError: there is no such data set, or it takes no such option.
    """
    _, source, options = parse(DATASETS, name, **options)
    return source.with_parameters(**options)


def folder_of(name: str, data_dir: str = "", **options) -> pathlib.Path | None:
    """The folder that a data set is read from, whether it is given or named, as in "hf:photos"; None without one."""
    name, source, _ = parse(DATASETS, name, **options)
    place = name.partition(":")[2] if source.takes_name else data_dir
    return expanded(place) if place and expanded(place).is_dir() else None


def check_outside(place: str | os.PathLike, flag: str, name: str, data_dir: str = "", **options):
    """Raises ValueError where what a command writes would be read as images of its data set the next time.

    Args:
      place: where it writes.
      flag: what says so.
      name, data_dir, options: of the data set, as of `load`.
    """
    root = folder_of(name, data_dir, **options)
    if root is None or not check(name, **options).reads_all:
        return
    splits = [root / split for split in split_folders(root).values()]
    for read in [*splits, root]:
        # A folder of its own beside the splits is no image of any of them.
        if lies_in(place, read) and (read != root or not splits or lies_in(root, place)):
            raise ValueError(
                "What is written must lie outside of the images that are read. "
                f"Received: --{flag}={place}, in {read} of the data set {name}"
            )
