"""Flags that nobody said follow from the data set: one recipe fits no folder of 50 images and of 50,000."""

from collections.abc import Callable, Collection

import numpy as np

from keras_lt import backbones
from keras_lt.config.run_config import RunConfig
from keras_lt.datasets import LongTailed
from keras_lt.optimization import OPTIMIZERS

FITTED = ("image_size", "batch_size", "epochs", "learning_rate", "classifier_epochs")
COUNTED_IN_EPOCHS = ("decay_epochs", "warmup_epochs", "class_weights_from")
SMALLEST_IMAGE, SIDES = 32, 16  # pixels; sides of images are multiples of the second
SMALLEST_BATCH, LARGEST_BATCH = 8, 512
PIXELS_PER_BATCH = 64 * 224**2  # a small net's activations for them are four gigabytes
IMAGES_SEEN, FEWEST_EPOCHS, MOST_EPOCHS = 1_000_000, 30, 90


def fitted(
    config: RunConfig, data: LongTailed, image_sizes: Callable[[], np.ndarray], *, said: Collection[str]
) -> dict[str, object]:
    """The flags of `FITTED` that nobody said, with values that fit the data set; flag -> value.

    A batch is twice the root of the number of examples, rounded down to a power of two, as far as memory goes: 64
    images of 224 pixels. Of small ones that is 512 for as many as ImageNet-LT has, 256 for Places-LT, 128 for CIFAR-LT
    and 64 for `fashion_lt`, as in their flag files.

    Args:
      data: the data set.
      image_sizes: gives height and width of training images, [N, 2]; it is asked only where a net takes images of any
        size and all of them have to be looked at.
      said: the flags that have been said, which stay.
    """
    examples, values = len(data.train.labels), {}

    def follows(name: str, *others: str) -> bool:
        return not {name, *others}.intersection(said)

    def value(name: str):
        return values.get(name, getattr(config, name))

    takes_any = data.train.examples.encoded and config.backbone in backbones.BACKBONES
    if takes_any and follows("image_size", "pretrained") and len(sizes := image_sizes()):
        side = int(np.median(sizes.min(1))) // SIDES * SIDES
        values["image_size"] = min(max(side, SMALLEST_IMAGE), data.image_size)
    if follows("batch_size"):
        room = PIXELS_PER_BATCH // max(value("image_size") or data.image_size, 1) ** 2
        most = max(min(LARGEST_BATCH, examples, room), 1)
        values["batch_size"] = 2 ** int(np.log2(min(max(2 * examples**0.5, SMALLEST_BATCH), most)))
    if follows("epochs", *COUNTED_IN_EPOCHS):
        values["epochs"] = min(max(IMAGES_SEEN // examples // 10 * 10, FEWEST_EPOCHS), MOST_EPOCHS)
    if follows("learning_rate", "base_batch_size"):
        values["learning_rate"] = OPTIMIZERS[config.optimizer].rate(value("batch_size"))
    if follows("classifier_epochs", *(f"classifier_{name}" for name in COUNTED_IN_EPOCHS)):
        values["classifier_epochs"] = max(value("epochs") // 3, 1)
    return values
