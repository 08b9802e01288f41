"""Small balanced data sets under an imposed tail: CIFAR-10-LT, CIFAR-100-LT, Fashion-MNIST-LT and MNIST-LT.

With a folder their published files are read; without one `keras.datasets` downloads them. None has a validation split,
so a tenth of the thinned training split becomes one. The test split is whole.
"""

import pathlib
from collections.abc import Sequence

import keras
import numpy as np

from keras_lt.datasets.long_tailed import LongTailed, Split
from keras_lt.datasets.own_arrays import FASHION_CLASSES, from_pixels
from keras_lt.datasets.profiles import impose
from keras_lt.datasets.small_image_files import Arrays, read_cifar, read_idx_pairs

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR100_CLASSES = tuple(
    """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm
    """.split()  # noqa: SIM905 - a hundred words read better than a hundred lines
)
# The statistics are those of the long-tailed CIFAR papers, for 10 and 100 classes alike (Cao et al., 2019): the input
# is the same as behind the published numbers, and at every imbalance ratio.
CIFAR_RECIPE = {"augmentation": "crop_flip", "mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)}


def cifar10_lt(
    data_dir: str = "", *, imbalance_ratio: float = 100.0, profile: str = "exponential", seed: int = 0
) -> LongTailed:
    """CIFAR-10-LT (Cui et al., 2019; Cao et al., 2019): 12,406 of 50,000 training images at ratio 100, 32x32 RGB.

    Args:
      data_dir: holds `cifar-10-batches-py`, the unpacked "python version"; empty: `keras.datasets` downloads it.
      imbalance_ratio: largest class over smallest.
      profile: a name in `profiles.PROFILES`.
      seed: of the choice of images and of the carved validation split.

    Raises:
      FileNotFoundError, ValueError: a file is missing or is not as published.
    """
    if data_dir:
        batches = [f"data_batch_{batch}" for batch in range(1, 6)], ["test_batch"]
        train, test = read_cifar(pathlib.Path(data_dir, "cifar-10-batches-py"), batches, labels_key=b"labels")
    else:
        train, test = keras.datasets.cifar10.load_data()
    tail = {"imbalance_ratio": imbalance_ratio, "profile": profile, "seed": seed}
    return _with_tail("cifar10_lt", train, test, CIFAR10_CLASSES, **tail, **CIFAR_RECIPE)


def cifar100_lt(
    data_dir: str = "", *, imbalance_ratio: float = 100.0, profile: str = "exponential", seed: int = 0
) -> LongTailed:
    """CIFAR-100-LT, the 100 fine classes: 10,847 of 50,000 training images at ratio 100, 32x32 RGB.

    `data_dir` holds `cifar-100-python`; the rest is as in `cifar10_lt`.
    """
    if data_dir:
        batches = ["train"], ["test"]
        train, test = read_cifar(pathlib.Path(data_dir, "cifar-100-python"), batches, labels_key=b"fine_labels")
    else:
        train, test = keras.datasets.cifar100.load_data()
    tail = {"imbalance_ratio": imbalance_ratio, "profile": profile, "seed": seed}
    return _with_tail("cifar100_lt", train, test, CIFAR100_CLASSES, **tail, **CIFAR_RECIPE)


def fashion_mnist_lt(
    data_dir: str = "", *, imbalance_ratio: float = 100.0, profile: str = "exponential", seed: int = 0
) -> LongTailed:
    """Fashion-MNIST (Xiao et al., 2017) under a tail: 14,886 of 60,000 training images at ratio 100, 28x28 grey.

    `data_dir` holds the four published idx files, gzipped or not; the rest is as in `cifar10_lt`.
    """
    train, test = read_idx_pairs(pathlib.Path(data_dir)) if data_dir else keras.datasets.fashion_mnist.load_data()
    tail = {"imbalance_ratio": imbalance_ratio, "profile": profile, "seed": seed}
    return _with_tail("fashion_mnist_lt", train, test, FASHION_CLASSES, **tail, augmentation="crop_flip")


def mnist_lt(
    data_dir: str = "", *, imbalance_ratio: float = 100.0, profile: str = "exponential", seed: int = 0
) -> LongTailed:
    """MNIST (LeCun et al., 1998) under a tail, 28x28 grey; digits are not mirrored.

    Its classes differ in size, from 5,421 to 6,742 images, so the zeros stay below the profile.
    `data_dir` holds the four published idx files, gzipped or not; the rest is as in `cifar10_lt`.
    """
    train, test = read_idx_pairs(pathlib.Path(data_dir)) if data_dir else keras.datasets.mnist.load_data()
    tail = {"imbalance_ratio": imbalance_ratio, "profile": profile, "seed": seed}
    return _with_tail("mnist_lt", train, test, range(10), **tail, augmentation="crop")


def _with_tail(
    name: str,
    train: Arrays,
    test: Arrays,
    class_names: Sequence,
    *,
    imbalance_ratio: float,
    profile: str,
    seed: int,
    **recipe,
) -> LongTailed:
    """Thins train, of which val is then carved; labels may be [N] or, as Keras gives CIFAR's, [N, 1]."""
    full, test = Split(*train), Split(*test)
    tail = impose(full, classes=len(class_names), imbalance_ratio=imbalance_ratio, profile=profile, seed=seed)
    counts = np.bincount(tail.labels)
    note = (
        f"The {profile} tail of ratio {imbalance_ratio:g} keeps {len(tail):,} of {len(full):,} training images, "
        f"{counts.max():,} to {counts.min():,} per class."
    )
    return from_pixels(name, {"train": tail, "test": test}, class_names, seed=seed, notes=(note,), **recipe)
