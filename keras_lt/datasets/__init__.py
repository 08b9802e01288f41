"""Data sets: a name and a folder in, `LongTailed` out. A new one is a function and a line in `DATASETS`."""

import functools
import inspect
from collections.abc import Callable

from keras_lt.datasets.examples import Examples, FeatureVectors, ImageFiles, Pixels, Records
from keras_lt.datasets.long_tailed import LongTailed, Split, carve_validation
from keras_lt.datasets.own_images import csv, folder, lists
from keras_lt.datasets.pixel_arrays import arrays, fashion_lt
from keras_lt.datasets.prepared import is_prepared, read_prepared
from keras_lt.datasets.profiles import PROFILES
from keras_lt.datasets.published import imagenet_lt, inaturalist18, places_lt
from keras_lt.datasets.small_images import cifar10_lt, cifar100_lt, fashion_mnist_lt, mnist_lt
from keras_lt.datasets.tfds import tfds_dataset

__all__ = [
    "DATASETS",
    "PROFILES",
    "Examples",
    "FeatureVectors",
    "ImageFiles",
    "LongTailed",
    "Pixels",
    "Records",
    "Split",
    "carve_validation",
    "check",
    "load",
]

DATASETS: dict[str, Callable[..., LongTailed]] = {
    "fashion_lt": fashion_lt,
    "imagenet_lt": imagenet_lt,
    "places_lt": places_lt,
    "inaturalist18": inaturalist18,
    "cifar10_lt": cifar10_lt,
    "cifar100_lt": cifar100_lt,
    "fashion_mnist_lt": fashion_mnist_lt,
    "mnist_lt": mnist_lt,
    "folder": folder,
    "lists": lists,
    "csv": csv,
    "arrays": arrays,
}
TFDS_PREFIX = "tfds:"


def load(name: str, data_dir: str = "", **options) -> LongTailed:
    """The data set of that name.

    >>> keras_lt.load("fashion_lt").class_counts
    array([1000,  599,  359,  215,  129,   77,   46,   27,   16,   10])

    Args:
      name: a name in `DATASETS`, or "tfds:<name>" for one of `tensorflow_datasets`.
      data_dir: the folder that its function reads, or what `keras_lt.prepare` made of it.
      options: keyword arguments of that function.

    Raises:
      ValueError: as `check`, or what `data_dir` holds is not as it should be.
      FileNotFoundError: `data_dir` lacks a file.
    """
    function = check(name, **options)
    if data_dir and is_prepared(data_dir):
        return read_prepared(data_dir, name, **options)
    return function(data_dir, **options)


def check(name: str, **options) -> Callable[..., LongTailed]:
    """The function of a data set, (data_dir, **options) -> LongTailed.

    Raises:
      ValueError: there is no such data set, or it takes no such option.
    """
    if name.startswith(TFDS_PREFIX):
        function = functools.partial(tfds_dataset, name.removeprefix(TFDS_PREFIX))
    elif name in DATASETS:
        function = DATASETS[name]
    else:
        raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, or tfds:<name>. Received: dataset={name}")
    taken = inspect.signature(function).parameters
    unknown = [f"{option}={value}" for option, value in options.items() if option not in taken]
    if unknown:
        raise ValueError(f"The data set {name} takes no such option. Received: {', '.join(unknown)}")
    return function
