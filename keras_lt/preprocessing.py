"""Images into the network's input: one way for training, one for evaluation and serving alike.

Every random choice is a function of the example's seed, so that a resumed run sees the same pixels.
"""

import dataclasses
import math

import tensorflow as tf

fold_in = tf.random.experimental.stateless_fold_in

CHANNEL_ORDERS = ("rgb", "bgr")
NO_AUGMENTATION = "none"
JITTER = 0.4  # brightness, contrast and saturation factors in [1 - JITTER, 1 + JITTER]
WINDOW_AREA = (0.08, 1.0)  # of the image's
WINDOW_RATIO = (3 / 4, 4 / 3)  # width over height
PADDING = 4  # pixels around a small image before its random crop


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """From an image, encoded or decoded, to the float32 [S, S, 3] that a backbone takes.

    Attributes:
      image_size: side S of the result, pixels.
      mean, std: per RGB channel, on images in [0, 1].
      channel_order: "rgb", or "bgr" for networks whose weights come from Caffe.
      crop_fraction: evaluation resizes the shorter side to S / crop_fraction and crops the centre.
      augmentation: a name in `AUGMENTATIONS`; what `train` does before normalising.
    """

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel_order: str = "rgb"
    crop_fraction: float = 1.0
    augmentation: str = NO_AUGMENTATION

    def __post_init__(self):
        if self.image_size < 1:
            raise ValueError(f"image_size must be at least 1 pixel. Received: image_size={self.image_size}")
        if not 0 < self.crop_fraction <= 1:
            raise ValueError(f"crop_fraction must lie in (0, 1]. Received: crop_fraction={self.crop_fraction}")
        if self.channel_order not in CHANNEL_ORDERS:
            raise ValueError(f"channel_order must be one of {CHANNEL_ORDERS}. Received: {self.channel_order!r}")
        if self.augmentation not in AUGMENTATIONS:
            raise ValueError(
                f"augmentation must be one of {tuple(AUGMENTATIONS)}. Received: augmentation={self.augmentation!r}"
            )

    def train(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Augments and normalises one image.

        Args:
          image: encoded bytes, a scalar string; or uint8 [H, W, 1 or 3].
          seed: int [2], all that the augmentation depends on.
        Returns: float32 [S, S, 3].
        """
        return self.normalize(AUGMENTATIONS[self.augmentation](self, image, seed))

    def evaluate(self, image: tf.Tensor) -> tf.Tensor:
        """Resizes, crops the centre and normalises.

        Args:
          image: encoded bytes, a scalar string; or uint8 [..., H, W, 1 or 3], one image or a batch of one size.
        Returns: float32 [..., S, S, 3].
        """
        return self.normalize(self.resize_and_crop(image))

    def resize_and_crop(self, image: tf.Tensor) -> tf.Tensor:
        """The evaluated pixels before normalisation, float32 [..., S, S, 3] in 0..255."""
        image = tf.cast(decode(image), tf.float32)
        size, resized_side = self.image_size, round(self.image_size / self.crop_fraction)
        if image.shape[-3:-1] != (resized_side, resized_side):
            shape = tf.cast(tf.shape(image)[-3:-1], tf.float64)
            image = tf.image.resize(
                image,
                tf.cast(tf.round(shape * (resized_side / tf.reduce_min(shape))), tf.int32),
                antialias=True,
            )
        top, left = tf.unstack((tf.shape(image)[-3:-1] - size) // 2)
        image = tf.image.crop_to_bounding_box(image, top, left, size, size)
        return tf.ensure_shape(image, (*image.shape[:-3], size, size, 3))

    def normalize(self, images: tf.Tensor) -> tf.Tensor:
        """(x / 255 - mean) / std in the network's channel order; images float32 [..., 3] RGB in 0..255."""
        images = (images / 255.0 - tf.constant(self.mean, tf.float32)) / tf.constant(self.std, tf.float32)
        return tf.reverse(images, [-1]) if self.channel_order == "bgr" else images


def decode(image: tf.Tensor) -> tf.Tensor:
    """An encoded JPEG, PNG, BMP or GIF (first frame), or uint8 [..., H, W, 1 or 3], as uint8 [..., H, W, 3]."""
    image = tf.convert_to_tensor(image)
    if image.dtype == tf.string:
        image = tf.io.decode_image(image, channels=3, expand_animations=False)
        image.set_shape((None, None, 3))
        return image
    return tf.image.grayscale_to_rgb(image) if image.shape[-1] == 1 else image


def _no_augmentation(spec: Preprocessing, image, seed):
    del seed
    return spec.resize_and_crop(image)


def _flip(image, seed):
    """Mirrors every second image, left to right."""
    return tf.image.stateless_random_flip_left_right(image, fold_in(seed, 1))


def _crop(spec: Preprocessing, image, seed):
    """Small images: pad by four pixels of black, then crop at random (He et al., 2016, section 4.2)."""
    size = spec.image_size
    padded = tf.pad(spec.resize_and_crop(image), [[PADDING, PADDING], [PADDING, PADDING], [0, 0]])
    return tf.image.stateless_random_crop(padded, (size, size, 3), fold_in(seed, 2))


def _crop_flip(spec: Preprocessing, image, seed):
    return _flip(_crop(spec, image, seed), seed)


def _resized_crop_flip(spec: Preprocessing, image, seed):
    """A random window of the image, decoded alone where it is a JPEG, at the network's size; then a flip."""
    size = (spec.image_size, spec.image_size)

    def from_jpeg():
        window = _random_window(tf.image.extract_jpeg_shape(image), seed)
        return tf.image.decode_and_crop_jpeg(image, window, channels=3)

    def from_pixels():
        pixels = decode(image)
        return tf.image.crop_to_bounding_box(pixels, *tf.unstack(_random_window(tf.shape(pixels), seed)))

    if image.dtype == tf.string:
        cropped = tf.cond(tf.io.is_jpeg(image), from_jpeg, from_pixels)
    else:
        cropped = from_pixels()
    return _flip(tf.ensure_shape(tf.image.resize(cropped, size), (*size, 3)), seed)


def _random_window(shape, seed):
    """Inception's crop (Szegedy et al., 2015): [top, left, height, width] in an image of shape [H, W, 3].

    The area is uniform, the ratio log-uniform; of ten draws the first that fits, else the largest central window
    of a permitted ratio. `tf.image.sample_distorted_bounding_box` draws the height instead of the area, which gives
    smaller windows.
    """
    height, width = tf.unstack(tf.cast(shape[:2], tf.float32))
    uniform = tf.random.stateless_uniform((4, 10), fold_in(seed, 3))
    area = (WINDOW_AREA[0] + (WINDOW_AREA[1] - WINDOW_AREA[0]) * uniform[0]) * height * width
    low, high = (math.log(ratio) for ratio in WINDOW_RATIO)
    ratio = tf.exp(low + (high - low) * uniform[1])
    central_ratio = tf.clip_by_value(width / height, *WINDOW_RATIO)
    # The eleventh always fits: the central window.
    heights = tf.round(tf.concat([tf.sqrt(area / ratio), [tf.minimum(height, width / central_ratio)]], 0))
    widths = tf.round(tf.concat([tf.sqrt(area * ratio), [tf.minimum(width, height * central_ratio)]], 0))
    heights, widths = tf.maximum(heights, 1.0), tf.maximum(widths, 1.0)
    fits = (heights <= height) & (widths <= width)
    first = tf.argmax(tf.cast(fits, tf.int32))
    place = tf.concat([uniform[2:], [[0.5], [0.5]]], 1)
    top = tf.floor(place[0, first] * (height - heights[first] + 1))
    left = tf.floor(place[1, first] * (width - widths[first] + 1))
    return tf.cast(tf.stack([top, left, heights[first], widths[first]]), tf.int32)


def _jitter(image, seed):
    """Brightness, contrast and saturation, each by a random factor, in random order; image in 0..255."""
    factors = tf.random.stateless_uniform((3,), fold_in(seed, 4), 1 - JITTER, 1 + JITTER)
    order = tf.random.experimental.stateless_shuffle(tf.range(3), fold_in(seed, 5))

    def blend(image, other, factor):
        return tf.clip_by_value(other + factor * (image - other), 0.0, 255.0)

    def grey(image):
        return tf.image.rgb_to_grayscale(image)

    for step in range(3):
        image = tf.switch_case(
            order[step],
            [
                lambda image=image: blend(image, 0.0, factors[0]),
                lambda image=image: blend(image, tf.reduce_mean(grey(image)), factors[1]),
                lambda image=image: blend(image, grey(image), factors[2]),
            ],
        )
    return image


def _imagenet(spec: Preprocessing, image, seed):
    """The reference's: random resized crop, flip, colour jitter of 0.4."""
    return _jitter(_resized_crop_flip(spec, image, seed), seed)


AUGMENTATIONS = {
    NO_AUGMENTATION: _no_augmentation,
    "crop": _crop,
    "crop_flip": _crop_flip,
    "resized_crop_flip": _resized_crop_flip,
    "imagenet": _imagenet,
}
