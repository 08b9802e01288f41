"""What happens to an image between its file and the network."""

import dataclasses
import functools
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import tensorflow as tf

from keras_lt.arguments import checked
from keras_lt.labels import MixedLabels
from keras_lt.preprocessing.augmentations import (
    AUGMENTATIONS,
    JITTERED,
    MAX_MAGNITUDE,
    NO_AUGMENTATION,
    adjust_colours,
    drawn_jitter,
    erase,
    randaugment,
)
from keras_lt.preprocessing.decoding import bounded, cut_to_ratio, decode
from keras_lt.preprocessing.mixing import mix

CHANNEL_ORDERS = ("rgb", "bgr")
RESIZES = ("crop", "stretch")
MOST = {  # of settings
    "randaugment": 100,  # each operation is a part of the graph
    "randaugment_magnitude": MAX_MAGNITUDE,
    "random_erasing": 1.0,
    **dict.fromkeys(("mixup", "cutmix"), 1e6),  # every weight is a half long before
}
INTERPOLATIONS = ("bilinear", "bicubic", "lanczos3", "lanczos5")  # of `tf.image.resize`
KEPT_FUNCTIONS = 32  # traced


def traced_once(method: Callable) -> Callable:
    """A method of `Preprocessing` that graphs call as a function of its own, traced once for all of them.

    Otherwise every stream of a run traces it anew, of training, validation, features and more, and the SavedModel does.
    """

    @functools.lru_cache(KEPT_FUNCTIONS)
    def function(preprocessing, augmentation):
        del augmentation  # somebody may give its name to another one
        return tf.function(functools.partial(method, preprocessing), autograph=False)

    @functools.wraps(method)
    def call(self, *tensors):
        if tf.executing_eagerly():
            return method(self, *tensors)
        return function(self, AUGMENTATIONS[self.augmentation])(*map(tf.convert_to_tensor, tensors))

    return call


@checked
@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """From an image, encoded or decoded, to the float32 [S, S, 3] that a backbone takes.

    Attributes:
      image_size: side S of the result, pixels.
      mean, std: per RGB channel, on images in [0, 1].
      channel_order: "rgb", or "bgr" for networks whose weights come from Caffe.
      crop_fraction: evaluation resizes the shorter side to S / crop_fraction and crops the centre.
      resize: "crop" as above; "stretch" resizes all of the image to S x S, and `crop_fraction` is 1.
      interpolation: one of `INTERPOLATIONS`, in training and evaluation; evaluation smooths where it shrinks.
      augmentation: a name in `AUGMENTATIONS`; what `train` does first.
      randaugment: operations of RandAugment per image; 0 is without. They take the place of colour jitter.
      randaugment_magnitude: the largest strength of an operation, in 0..10.
      random_erasing: probability that a window of an image is erased, after normalising.
      mixup, cutmix: alpha of MixUp and CutMix in `mix`; 0 is without.
    """

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel_order: str = "rgb"
    crop_fraction: float = 1.0
    augmentation: str = NO_AUGMENTATION
    randaugment: int = 0
    randaugment_magnitude: float = 9.0
    random_erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    resize: str = "crop"
    interpolation: str = "bilinear"

    def __post_init__(self):
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            if len(getattr(self, name)) not in (1, 3):
                raise ValueError(f"{name} must be of three channels. Received: {name}={getattr(self, name)}")
        if not (np.isfinite([*self.mean, *self.std]).all() and min(self.std) > 0):
            raise ValueError(f"mean and std must be finite, and std above 0. Received: {self.mean}, {self.std}")
        if self.image_size < 1:
            raise ValueError(f"image_size must be at least 1 pixel. Received: image_size={self.image_size}")
        if not 0 < self.crop_fraction <= 1:
            raise ValueError(f"crop_fraction must lie in (0, 1]. Received: crop_fraction={self.crop_fraction}")
        if self.resize == "stretch" and self.crop_fraction != 1:
            raise ValueError(
                "resize=stretch takes all of an image: crop_fraction must be 1. "
                f"Received: crop_fraction={self.crop_fraction}"
            )
        for name, known in (("channel_order", CHANNEL_ORDERS), ("resize", RESIZES), ("interpolation", INTERPOLATIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {known}. Received: {getattr(self, name)!r}")
        if self.augmentation not in AUGMENTATIONS:
            raise ValueError(
                f"augmentation must be one of {tuple(AUGMENTATIONS)}. Received: augmentation={self.augmentation!r}"
            )
        for name, most in MOST.items():
            if not 0 <= (value := getattr(self, name)) <= most:
                raise ValueError(f"{name} must lie in [0, {most:g}]. Received: {name}={value}")

    @property
    def augments(self) -> bool:
        """Whether `train` differs from `evaluate`."""
        return self.augmentation != NO_AUGMENTATION or self.randaugment > 0 or self.random_erasing > 0

    @property
    def mixes(self) -> bool:
        """Whether batches are mixed."""
        return self.mixup > 0 or self.cutmix > 0

    def evaluation_settings(self) -> dict:
        """The fields that `evaluate` depends on, by name."""
        names = ["image_size", "mean", "std", "channel_order", "crop_fraction"]
        # Features on disk go by these settings: those of runs before there was a choice have the others not.
        names += [name for name in ("resize", "interpolation") if getattr(self, name) != getattr(Preprocessing, name)]
        return {name: getattr(self, name) for name in names}

    @traced_once
    def train(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Augments and normalises one image.

        Args:
          image: encoded bytes, a scalar string; or uint8 [H, W, 1 or 3].
          seed: int [2], all that the augmentation depends on.
        Returns: float32 [S, S, 3].
        """
        image = tf.convert_to_tensor(image)
        image = AUGMENTATIONS[self.augmentation](self, bounded(image) if image.dtype == tf.string else image, seed)
        if self.randaugment:
            image = randaugment(image, seed, operations=self.randaugment, magnitude=self.randaugment_magnitude)
        jitters = self.augmentation in JITTERED and not self.randaugment
        image = self.normalize(image, *(drawn_jitter(seed) if jitters else ()))
        return erase(image, seed, probability=self.random_erasing) if self.random_erasing else image

    def mix(self, images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, MixedLabels]:
        """MixUp or CutMix of a batch of trained-on images, as `mixing.mix`."""
        return mix(images, labels, seed, mixup=self.mixup, cutmix=self.cutmix)

    @traced_once
    def evaluate(self, image: tf.Tensor) -> tf.Tensor:
        """Resizes, crops the centre and normalises.

        Args:
          image: encoded bytes, a scalar string; or uint8 [..., H, W, 1 or 3], one image or a batch of one size.
        Returns: float32 [..., S, S, 3].
        """
        return self.normalize(self.resize_and_crop(image))

    def resize_and_crop(self, image: tf.Tensor) -> tf.Tensor:
        """The evaluated pixels before normalisation, float32 [..., S, S, 3] in 0..255."""
        size, resized_side = self.image_size, round(self.image_size / self.crop_fraction)
        image = tf.convert_to_tensor(image)
        image = decode(bounded(image) if image.dtype == tf.string else image)
        if self.resize == "stretch":
            return self.resized(image, (size, size), antialias=True)
        if image.shape[-3:-1] != (resized_side, resized_side):
            image = cut_to_ratio(image)
            shape = tf.cast(tf.shape(image)[-3:-1], tf.float64)
            sides = tf.cast(tf.round(shape * (resized_side / tf.reduce_min(shape))), tf.int32)
            image = self.resized(image, sides, antialias=True)
        image = tf.cast(image, tf.float32)
        top, left = tf.unstack((tf.shape(image)[-3:-1] - size) // 2)
        image = tf.image.crop_to_bounding_box(image, top, left, size, size)
        return tf.ensure_shape(image, (*image.shape[:-3], size, size, 3))

    def resized(self, image: tf.Tensor, sides: tuple[int, int] | tf.Tensor, *, antialias: bool = False) -> tf.Tensor:
        """Pixels [..., H, W, 3] in 0..255 with other sides, height and width: float32, still in 0..255."""
        # Of bytes, not of floats made of them: the same numbers, and of a large image a third of the memory.
        resized = tf.image.resize(image, sides, method=self.interpolation, antialias=antialias)
        image = tf.cast(resized, tf.float32)  # bytes still, where the sides were these
        # Cubic weights are partly negative; image libraries cut what leaves the range, as bytes must.
        return image if self.interpolation == "bilinear" else tf.clip_by_value(image, 0.0, 255.0)

    def normalize(self, images: tf.Tensor, *jitter: tf.Tensor) -> tf.Tensor:
        """(x / 255 - mean) / std in the network's channel order; images float32 [..., S, S, 3] RGB in 0..255.

        Args:
          *jitter: factors and order of `adjust_colours`, by which one image is jittered first, in the same loop.
        """
        mean, std = np.array(self.mean), np.array(self.std)
        scale, offset = (np.float32(x) for x in (1 / (255 * std), -mean / std))
        if jitter:
            normalized = adjust_colours(images, *jitter, scale, offset)
        else:  # row by row: TensorFlow is ten times slower with a vector of three values
            rows = tf.reshape(images, (-1, 3 * self.image_size))
            scale, offset = (np.resize(x, 3 * self.image_size) for x in (scale, offset))
            normalized = rows * scale + offset
        normalized = tf.ensure_shape(tf.reshape(normalized, tf.shape(images)), images.shape)
        return tf.reverse(normalized, [-1]) if self.channel_order == "bgr" else normalized


@dataclasses.dataclass(frozen=True)
class NoPreprocessing:
    """What stands for `Preprocessing` where examples are feature vectors: the network takes them as they are.

    Attributes:
      image_size: 0, as there is no image.
    """

    image_size: int = 0
    augments: ClassVar[bool] = False
    mixes: ClassVar[bool] = False

    def evaluation_settings(self) -> dict:
        """The fields, by name."""
        return dataclasses.asdict(self)

    def evaluate(self, vectors: tf.Tensor) -> tf.Tensor:
        """The vectors."""
        return vectors
