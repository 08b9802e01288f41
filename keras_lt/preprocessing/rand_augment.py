"""RandAugment (Cubuk et al., 2020) of Keras's image layers, as a function of an example's seed."""

import functools
from collections.abc import Callable

import keras
import tensorflow as tf

from keras_lt.compat import CountedSeeds, compute_on_tensorflow

fold_in = tf.random.experimental.stateless_fold_in

MAX_MAGNITUDE = 10.0
MOST_OPERATIONS = 100  # each is a part of the graph


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
