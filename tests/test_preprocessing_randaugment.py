import random

import numpy as np
import pytest
import tensorflow as tf

from keras_lt.preprocessing import Preprocessing
from keras_lt.preprocessing.augmentations import _operations, randaugment

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
STRENGTHLESS = {"autocontrast", "equalize"}


def noise(low=40, high=200):
    return tf.constant(np.random.default_rng(0).integers(low, high, (16, 16, 3)).astype(np.float32))


def test_without_magnitude_an_even_histogram_stays():
    # Every level once per channel: contrast and histogram are automatic ones' result, the others have no strength.
    levels = tf.constant(np.stack([np.random.default_rng(c).permutation(256).reshape(16, 16) for c in range(3)], -1))
    image = tf.cast(levels, tf.float32)
    for name, operation in _operations(0.0).items():
        np.testing.assert_allclose(operation(image, tf.constant([1, 2])), image, atol=2e-3, err_msg=name)


@pytest.mark.versions
@pytest.mark.parametrize("name", _operations(9.0))
def test_each_operation_changes_the_image_and_keeps_its_range(name):
    operation = _operations(9.0)[name]
    results = [np.asarray(operation(noise(), tf.constant([0, step]))) for step in range(6)]
    assert any(not np.allclose(result, noise()) for result in results)
    assert all(result.min() >= 0 and result.max() <= 255 for result in results)
    assert all(np.array_equal(result, results[0]) for result in results) == (name in STRENGTHLESS)


@pytest.mark.parametrize("name", sorted(set(_operations(9.0)) - STRENGTHLESS - {"posterize"}))
def test_a_larger_magnitude_changes_more(name):
    def change(magnitude):
        operation = _operations(magnitude)[name]
        results = [operation(noise(0, 256), tf.constant([0, step])) for step in range(12)]
        return np.mean([np.abs(result - noise(0, 256)).mean() for result in results])

    assert 0 < change(1.0) < change(10.0)


def test_posterize_at_full_magnitude_keeps_four_to_seven_bits():
    image = tf.constant(np.arange(256, dtype=np.float32).reshape(16, 16, 1).repeat(3, -1))
    operation = _operations(10.0)["posterize"]
    levels = {len(np.unique(operation(image, tf.constant([0, step])))) for step in range(40)}
    assert levels == {2**4, 2**5, 2**6, 2**7}


def test_operations_are_drawn_from_all_of_them():
    apply = tf.function(lambda seed: randaugment(noise(), seed, operations=1, magnitude=5.0))
    images = [np.asarray(apply(tf.constant([3, step]))) for step in range(200)]
    alone = [np.asarray(_operations(5.0)[name](noise(), tf.constant([3, 0]))) for name in STRENGTHLESS]  # by any seed
    drawn = [sum(np.allclose(image, other, atol=1e-2) for image in images) for other in alone]
    assert all(abs(count - 200 / len(_operations(5.0))) < 4 * 4.1 for count in drawn)  # binomial, deviation 4.1
    assert min(drawn) > 0


def test_a_parallel_map_gives_every_position_its_own_pixels_again_and_again():
    spec = Preprocessing(16, augmentation="crop_flip", randaugment=2, random_erasing=0.5, **PLAIN)
    image = tf.cast(noise(), tf.uint8)

    def stream(start):
        positions = tf.data.Dataset.range(start, 24)
        return positions.map(lambda at: spec.train(image, tf.stack([7, tf.cast(at, tf.int32)])), num_parallel_calls=4)

    def shown(seeded):
        return np.stack(list(seeded.as_numpy_iterator()))

    once = stream(0)
    whole = shown(once)
    np.testing.assert_array_equal(shown(once), whole)
    np.testing.assert_array_equal(shown(stream(11)), whole[11:])
    assert len(np.unique(whole.reshape(24, -1), axis=0)) == 24


@pytest.mark.versions
def test_global_random_states_are_left_alone():
    _operations.cache_clear()
    random.seed(1)
    randaugment(noise(), tf.constant([0, 0]), operations=2, magnitude=9.0)
    drawn = random.random()
    random.seed(1)
    assert drawn == random.random()


def test_imagenet_with_randaugment_leaves_colour_jitter_out():
    # Of one grey, jitter changes the brightness nearly always; no geometry changes it without leaving 128 at an edge.
    grey = tf.constant(np.full((16, 16, 3), 128, np.uint8))
    spec = Preprocessing(16, augmentation="imagenet", randaugment=1, randaugment_magnitude=0.0, **PLAIN)
    for step in range(20):
        np.testing.assert_allclose(spec.train(grey, tf.constant([0, step])) * 255, grey, atol=0.02)
