import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf

from keras_lt.datasets import Split
from keras_lt.input_pipeline import Stream, training_batches
from keras_lt.optimization import Recipe
from keras_lt.preprocessing import Preprocessing
from keras_lt.preprocessing.augmentations import fill_window
from keras_lt.preprocessing.mixing import blend, cut_window, mix, mixed_labels

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def flat(values, size=10):
    """Images of one value each, [B, S, S, 3]."""
    return tf.constant(np.broadcast_to(np.float32(values)[:, None, None, None], (len(values), size, size, 3)))


def test_mixup_of_two_flat_images_by_hand():
    mixed = blend(flat([1.0, 5.0]), flat([5.0, 1.0]), 0.75)
    np.testing.assert_allclose(mixed[0], 0.75 * 1 + 0.25 * 5)
    np.testing.assert_allclose(mixed[1], 0.75 * 5 + 0.25 * 1)


def test_the_larger_part_comes_first():
    np.testing.assert_array_equal(mixed_labels([4, 7], [7, 2], 0.75), [[4, 7], [7, 2], [0.75, 0.75]])
    np.testing.assert_array_equal(mixed_labels([4, 7], [7, 2], 0.25), [[7, 2], [4, 7], [0.75, 0.75]])


def test_a_cut_window_is_centred_and_clipped():
    # 1 - .84 = .16 of the area is .4 of each side: 4 of 10 rows and 8 of 20 columns where the image has room.
    sizes = set()
    for step in range(200):
        top, left, height, width = cut_window((10, 20), tf.constant(0.84), tf.constant([0, step])).numpy()
        assert min(top, left) >= 0
        assert top + height <= 10
        assert left + width <= 20
        sizes.add((int(height), int(width)))
    # Centres 0..9: from 0, two rows are left; from 9, three.
    assert {height for height, _ in sizes} == {2, 3, 4}
    assert {width for _, width in sizes} == {4, 5, 6, 7, 8}


def test_a_window_is_filled_and_nothing_else():
    filled = np.asarray(fill_window(flat([1.0, 2.0], 6), tf.constant([1, 2, 3, 4]), flat([2.0, 1.0], 6)))
    expected = np.array([np.full((6, 6, 3), 1.0), np.full((6, 6, 3), 2.0)])
    expected[0, 1:4, 2:6], expected[1, 1:4, 2:6] = 2.0, 1.0
    np.testing.assert_array_equal(filled, expected)


@pytest.mark.parametrize("alphas", [{"mixup": 0.0, "cutmix": 1.0}, {"mixup": 1.0, "cutmix": 0.0}])
def test_label_weights_are_the_parts_of_the_pixels(alphas):
    values = np.float32([1.0, 10.0, 100.0])
    for step in range(30):
        images, labels = mix(flat(values), tf.range(3), tf.constant([1, step]), **alphas)
        larger, smaller, weight = map(np.asarray, labels)
        # Of flat images the mean tells the parts: exactly the pasted area's for CutMix.
        parts = weight * values[larger.astype(int)] + (1 - weight) * values[smaller.astype(int)]
        np.testing.assert_allclose(np.asarray(images).mean((1, 2, 3)), parts, rtol=1e-5)
        assert (weight >= 0.5).all()
        assert len(set(weight)) == 1
        pasted = [np.unique(image) for image in np.asarray(images)]
        assert all(set(levels) <= set(values) for levels in pasted) or not alphas["cutmix"]


def test_weights_follow_the_beta_distribution():
    def weights_of(number, *, seed, mixup):
        weight = tf.function(
            lambda seed: mix(flat([0.0], 2), tf.constant([0]), seed, mixup=mixup, cutmix=0.0)[1].weight[0]
        )
        return [weight(tf.constant([seed, i])) for i in range(number)]

    weights = weights_of(300, seed=2, mixup=1.0)
    # Beta(1, 1) is uniform; the larger of the two parts then has mean 3/4, deviation 1/sqrt(48).
    assert abs(np.mean(weights) - 0.75) < 4 / math.sqrt(48 * 300)
    # Beta(.2, .2): the mean of (weight - 1/2)^2 is its variance, 1 / (4 (2 * .2 + 1)) = .1786.
    weights = weights_of(300, seed=5, mixup=0.2)
    assert abs(np.mean((np.array(weights) - 0.5) ** 2) - 1 / 5.6) < 4 * 0.09 / math.sqrt(300)
    np.testing.assert_allclose(weights_of(20, seed=2, mixup=1e-4), 1.0, atol=1e-3)  # one image or the other, never NaN


def test_with_both_each_batch_is_of_one_kind():
    kinds = []
    for step in range(60):
        images, _ = mix(flat([0.0, 1.0, 3.0, 9.0]), tf.range(4), tf.constant([3, step]), mixup=1.0, cutmix=1.0)
        kinds.append(all(len(np.unique(image)) == 1 for image in np.asarray(images)))  # blends of flat are flat
    assert 15 < sum(kinds) < 45


@pytest.mark.exhaustive
def test_a_stream_of_mixed_batches_is_the_same_again_and_after_a_resume():
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (12, 8, 8, 3), np.uint8), np.repeat(np.arange(3), 4))
    spec = Preprocessing(8, augmentation="crop_flip", mixup=0.4, cutmix=1.0, **PLAIN)
    recipe = Recipe(epochs=3, batch_size=6)

    def stream(preprocessing, start_step=0):
        batches = training_batches(split, preprocessing, Stream(recipe, np.array([4, 4, 4]), 3, start_step))
        return [(images.numpy(), np.array(labels)) for images, labels in batches]

    for preprocessing in (spec, dataclasses.replace(spec, augmentation="none")):
        whole = stream(preprocessing)
        assert len(whole) == 6
        assert all(labels.shape == (3, 6) for _, labels in whole)
        assert len({float(labels[2, 0]) for _, labels in whole}) == 6  # every batch has its own weight
        for start in (1, 4):
            for batch, expected in zip(stream(preprocessing, start), whole[start:], strict=True):
                np.testing.assert_array_equal(batch[0], expected[0])
                np.testing.assert_array_equal(batch[1], expected[1])


def test_erased_windows_keep_the_papers_bounds():
    image = tf.constant(np.full((100, 100, 3), 255, np.uint8))
    spec = Preprocessing(100, random_erasing=0.5, **PLAIN)
    train = tf.function(spec.train)
    windows = []
    for step in range(200):
        erased = np.asarray(train(image, tf.constant([4, step]))).max(-1) == 0
        if erased.any():
            rows, columns = np.flatnonzero(erased.any(1)), np.flatnonzero(erased.any(0))
            windows.append((len(rows), len(columns)))
            assert erased.sum() == len(rows) * len(columns) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    assert abs(len(windows) - 100) < 29  # four standard deviations of 200 fair coins
    height, width = np.array(windows).T
    areas, ratios = height * width / 1e4, width / height
    assert 0.015 < areas.min() < 0.05  # 2 % of sides that are whole pixels
    assert 0.27 < areas.max() < 0.34
    assert 0.27 < ratios.min() < 0.5
    assert 2 < ratios.max() < 3.6
