"""Crops, flips, colour jitter, RandAugment and erasing of one image.

`AUGMENTATIONS` maps a name to what is done before normalising: a function (preprocessing, image, seed int [2]) ->
float32 [S, S, 3] in 0..255, and one line there.
"""

import functools
import itertools
import math
from collections.abc import Callable

import keras
import tensorflow as tf

from keras_lt.compat import CountedSeeds, compute_on_tensorflow
from keras_lt.preprocessing.decoding import decode_window

fold_in = tf.random.experimental.stateless_fold_in

NO_AUGMENTATION = "none"
JITTER = 0.4  # brightness, contrast and saturation factors in [1 - JITTER, 1 + JITTER]
LUMA = (0.2989, 0.587, 0.114)  # of red, green and blue in grey
CROP_AREA, CROP_RATIO = (0.08, 1.0), (3 / 4, 4 / 3)  # of the image's area; width over height
ERASED_AREA, ERASED_RATIO = (0.02, 0.33), (0.3, 3.3)
MAX_MAGNITUDE = 10.0  # of RandAugment
PADDING = 4  # pixels around a small image before its random crop


def _no_augmentation(spec, image, seed):
    del seed
    return spec.resize_and_crop(image)


def _flip(image, seed):
    """Mirrors every second image, left to right."""
    return tf.image.stateless_random_flip_left_right(image, fold_in(seed, 1))


def _crop(spec, image, seed):
    """Small images: pad by four pixels of black, then crop at random (He et al., 2016, section 4.2)."""
    size = spec.image_size
    padded = tf.pad(spec.resize_and_crop(image), [[PADDING, PADDING], [PADDING, PADDING], [0, 0]])
    return tf.image.stateless_random_crop(padded, (size, size, 3), fold_in(seed, 2))


def _crop_flip(spec, image, seed):
    return _flip(_crop(spec, image, seed), seed)


def _resized_crop_flip(spec, image, seed):
    """A random window of the image, decoded alone where it is a JPEG, at the network's size; then a flip."""

    def window(shape):
        return random_window(shape, fold_in(seed, 3), area=CROP_AREA, ratio=CROP_RATIO)

    size = (spec.image_size, spec.image_size)
    pixels = _flip(decode_window(image, window), seed)  # while they are bytes
    return tf.ensure_shape(spec.resized(pixels, size), (*size, 3))


def random_window(
    shape: tf.Tensor, seed: tf.Tensor, *, area: tuple[float, float], ratio: tuple[float, float]
) -> tf.Tensor:
    """Inception's crop (Szegedy et al., 2015): [top, left, height, width], int [4], in an image of shape [H, W, 3].

    The area is uniform, the ratio log-uniform; of ten draws the first that fits, else the largest central window
    of a permitted ratio. `tf.image.sample_distorted_bounding_box` draws the height instead of the area, which gives
    smaller windows.

    Args:
      area: smallest and largest, of the image's.
      ratio: smallest and largest width over height.
    """
    size = tf.cast(shape[:2], tf.float32)[:, None]
    uniform = tf.random.stateless_uniform((4, 10), seed)
    areas = (area[0] + (area[1] - area[0]) * uniform[0]) * tf.reduce_prod(size)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    ratios = tf.exp(low + (high - low) * uniform[1])
    central_ratio = tf.clip_by_value(size[1] / size[0], *ratio)
    central = tf.minimum(size, tf.stack([size[1] / central_ratio, size[0] * central_ratio]))
    # Columns are windows, rows their height and width. The eleventh always fits: the central window.
    sides = tf.concat([tf.sqrt(tf.stack([areas / ratios, areas * ratios])), central], 1)
    sides = tf.maximum(tf.round(sides), 1.0)
    first = tf.argmax(tf.cast(tf.reduce_all(sides <= size, 0), tf.int32))
    free = size[:, 0] - sides[:, first]
    corner = tf.floor(tf.where(first == 10, free / 2, tf.concat([uniform[2:], central], 1)[:, first] * (free + 1)))
    return tf.cast(tf.concat([corner, sides[:, first]], 0), tf.int32)


def fill_window(images: tf.Tensor, window: tf.Tensor, content: tf.Tensor | float) -> tf.Tensor:
    """The images [..., S, S, 3] with a window [top, left, height, width] of the content, a number or as the images."""
    top, left, height, width = tf.unstack(window)
    rows, columns = tf.range(images.shape[-3])[:, None], tf.range(3 * images.shape[-2]) // 3
    inside = (rows >= top) & (rows < top + height) & (columns >= left) & (columns < left + width)

    def flat(pixels):  # a row's colours side by side: a mask of [S, S, 1] takes five times as long
        return tf.reshape(pixels, (*tf.unstack(tf.shape(pixels)[:-2]), 3 * pixels.shape[-2]))

    filled = tf.where(inside, content if isinstance(content, float) else flat(content), flat(images))
    return tf.ensure_shape(tf.reshape(filled, tf.shape(images)), images.shape)


def drawn_jitter(seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Factors of brightness, contrast and saturation and their order, as `adjust_colours` takes them."""
    uniform = tf.random.stateless_uniform((4,), fold_in(seed, 4))
    orders = tf.constant(list(itertools.permutations(range(3))))
    return 1 - JITTER + 2 * JITTER * uniform[:3], orders[tf.cast(6 * uniform[3], tf.int32)]


@tf.function(jit_compile=True, autograph=False)  # one loop over the pixels instead of twenty: three times faster
def adjust_colours(
    image: tf.Tensor, factors: tf.Tensor, order: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor
) -> tf.Tensor:
    """Blends an image with black, with its mean grey and with its own grey, in the given order; then normalises it.

    Args:
      image: float32 [S, S, 3] in 0..255.
      factors: of brightness, contrast and saturation, float32 [3]; 1 leaves the image, 0 only what it is blended with.
      order: int [3], a permutation of 0 brightness, 1 contrast, 2 saturation.
      scale, offset: of each channel, float32 [3].
    """
    colours = tf.transpose(tf.reshape(image, (-1, 3)))  # a row each: of neighbours a core computes sixteen at once
    for step in range(3):
        grey = sum(part * row for part, row in zip(LUMA, tf.unstack(colours), strict=True))
        other = tf.where(order[step] == 0, 0.0, tf.where(order[step] == 1, tf.reduce_mean(grey), grey))
        colours = tf.clip_by_value(other + factors[order[step]] * (colours - other), 0.0, 255.0)
    normalized = colours * scale[:, tf.newaxis] + offset[:, tf.newaxis]
    return tf.reshape(tf.transpose(normalized), tf.shape(image))


def erase(image: tf.Tensor, seed: tf.Tensor, *, probability: float) -> tf.Tensor:
    """Random erasing (Zhong et al., 2020): with that probability, zeros in a window of a normalised [S, S, 3]."""
    window = random_window(tf.shape(image), fold_in(seed, 5), area=ERASED_AREA, ratio=ERASED_RATIO)
    chosen = tf.random.stateless_uniform((), fold_in(seed, 6)) < probability
    return tf.cond(chosen, lambda: fill_window(image, window, 0.0), lambda: image)


def randaugment(image: tf.Tensor, seed: tf.Tensor, *, operations: int, magnitude: float) -> tf.Tensor:
    """Does so many operations, each drawn from all of them and with a strength of up to the magnitude.

    `keras.layers.RandAugment` computes every operation to keep one, draws the same for a whole batch, and draws it
    from a variable: slow, and another image after a resume. So here its layers are called one by one.

    Args:
      image: float32 [S, S, 3] in 0..255.
      seed: int [2].
      magnitude: in 0..10; 0 leaves only automatic contrast and equalization, which have no strength.
    Returns: as the image.
    """
    choices = list(_operations(magnitude).values())
    for step in range(operations):
        step_seed = fold_in(fold_in(seed, 8), step)
        drawn = tf.random.stateless_uniform((), fold_in(step_seed, 0), 0, len(choices), tf.int32)
        branches = [functools.partial(operation, image, fold_in(step_seed, 1)) for operation in choices]
        image = tf.ensure_shape(tf.switch_case(drawn, branches), image.shape)
    return image


@functools.cache
def _operations(magnitude: float) -> dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]]:
    """Name -> (image, seed) -> image; what is moved out of the picture leaves grey."""
    strength = magnitude / MAX_MAGNITUDE
    settings = {"seed": 0}  # never drawn from; without it a layer takes one from Python's global generator
    grey = {"fill_mode": "constant", "fill_value": 128.0, **settings}
    shear, shift, turn = 0.3 * strength, 0.3 * strength, 30 / 360 * strength
    bits = 8 - round(4 * strength)
    layers = {
        "shear": keras.layers.RandomShear(x_factor=shear, y_factor=shear, **grey),
        "translate": keras.layers.RandomTranslation(height_factor=shift, width_factor=shift, **grey),
        "rotate": keras.layers.RandomRotation(turn, **grey),
        "brightness": keras.layers.RandomBrightness(0.4 * strength, **settings),  # added, so less than the others
        "contrast": keras.layers.RandomContrast(0.9 * strength, **settings),
        "colour": keras.layers.RandomColorDegeneration((0.0, 0.9 * strength), **settings),
        "sharpness": keras.layers.RandomSharpness((0.5 - 0.45 * strength, 0.5 + 0.45 * strength), **settings),
        "posterize": keras.layers.RandomPosterization((bits, 8), **settings),
        "autocontrast": keras.layers.AutoContrast(),
        "equalize": keras.layers.Equalization(),
    }
    for layer in layers.values():
        compute_on_tensorflow(layer)
    return {
        **{name: functools.partial(_apply, layer) for name, layer in layers.items()},
        "solarize": functools.partial(_solarize, strength=strength),
    }


def _apply(layer, image, seed):
    batch = image[None]
    seeds = CountedSeeds(functools.partial(fold_in, seed))
    transformation = layer.get_random_transformation(batch, training=True, seed=seeds)
    return layer.transform_images(batch, transformation, training=True)[0]


def _solarize(image, seed, *, strength):
    """Inverts what is brighter than a threshold; that of `keras.layers.Solarization` cannot be bounded from below."""
    threshold = 255.0 * (1.0 - strength * tf.random.stateless_uniform((), seed))
    return tf.where(image > threshold, 255.0 - image, image)


AUGMENTATIONS = {
    "none": _no_augmentation,
    "crop": _crop,
    "crop_flip": _crop_flip,
    "resized_crop_flip": _resized_crop_flip,
    "imagenet": _resized_crop_flip,
}
JITTERED = ("imagenet",)  # then, as the reference does, colours by 0.4; but RandAugment takes the place of that
