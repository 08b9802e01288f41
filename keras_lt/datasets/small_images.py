"""Small balanced data sets under an imposed tail: CIFAR-10-LT, CIFAR-100-LT, Fashion-MNIST-LT and MNIST-LT.

With a folder their published files are read; without one `keras.datasets` downloads them. None has a validation split,
so a tenth of the thinned training split becomes one. The test split is whole.
"""

import functools
import pathlib
import types
from collections.abc import Callable, Sequence

import keras
import numpy as np

from keras_lt.datasets.long_tailed import LongTailed, Split
from keras_lt.datasets.own_arrays import FASHION_CLASSES, from_pixels
from keras_lt.datasets.profiles import impose
from keras_lt.datasets.small_image_files import Arrays, read_cifar, read_idx_pairs

CIFAR10_BATCHES = [f"data_batch_{batch}" for batch in range(1, 6)], ["test_batch"]
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


def _under_tail(
    name: str,
    published: types.ModuleType,
    read: Callable[[pathlib.Path], Sequence[Arrays]],
    class_names: Sequence,
    data_dir: str = "",
    *,
    imbalance_ratio: float = 100.0,
    profile: str = "exponential",
    seed: int = 0,
    **recipe,
) -> LongTailed:
    """A balanced data set whose train is thinned, of which val is then carved.

    Args:
      published: its module in `keras.datasets`.
      read: folder -> train and test from the published files.
      data_dir: holds these files, unpacked; empty: `keras.datasets` downloads them.
      imbalance_ratio: largest class over smallest.
      profile: a name in `profiles.PROFILES`.
      seed: of the choice of images and of the carved validation split.
      **recipe: as of `from_pixels`.
    Raises:
      FileNotFoundError, ValueError: a file is missing or is not as published.
    """
    full, test = (Split(*arrays) for arrays in (read(pathlib.Path(data_dir)) if data_dir else published.load_data()))
    tail = impose(full, classes=len(class_names), imbalance_ratio=imbalance_ratio, profile=profile, seed=seed)
    counts = np.bincount(tail.labels)
    note = (
        f"The {profile} tail of ratio {imbalance_ratio:g} keeps {len(tail):,} of {len(full):,} training images, "
        f"{counts.max():,} to {counts.min():,} per class."
    )
    return from_pixels(name, {"train": tail, "test": test}, class_names, seed=seed, notes=(note,), **recipe)


# Cui et al. (2019), Cao et al. (2019): 12,406 of 50,000 training images at ratio 100, 32x32 RGB.
cifar10_lt = functools.partial(
    _under_tail,
    "cifar10_lt",
    keras.datasets.cifar10,
    functools.partial(read_cifar, "cifar-10-batches-py", CIFAR10_BATCHES, labels_key=b"labels"),
    CIFAR10_CLASSES,
    **CIFAR_RECIPE,
)
# The 100 fine classes: 10,847 of 50,000 training images at ratio 100, 32x32 RGB.
cifar100_lt = functools.partial(
    _under_tail,
    "cifar100_lt",
    keras.datasets.cifar100,
    functools.partial(read_cifar, "cifar-100-python", (["train"], ["test"]), labels_key=b"fine_labels"),
    CIFAR100_CLASSES,
    **CIFAR_RECIPE,
)
# Xiao et al. (2017): 14,886 of 60,000 training images at ratio 100, 28x28 grey.
fashion_mnist_lt = functools.partial(
    _under_tail,
    "fashion_mnist_lt",
    keras.datasets.fashion_mnist,
    read_idx_pairs,
    FASHION_CLASSES,
    augmentation="crop_flip",
)
# LeCun et al. (1998), 28x28 grey; digits are not mirrored. Classes have 5,421 to 6,742 images, so the zeros stay below.
mnist_lt = functools.partial(
    _under_tail, "mnist_lt", keras.datasets.mnist, read_idx_pairs, range(10), augmentation="crop"
)
