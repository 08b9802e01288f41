import re

import numpy as np
import pytest

from keras_lt.datasets import Split
from keras_lt.datasets.profiles import class_sizes, impose, thin


def numbered(counts):
    """A split whose pixels number its images; the classes alternate as long as they last."""
    labels = np.concatenate([np.flatnonzero(np.asarray(counts) > turn) for turn in range(max(counts))])
    return Split(np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1), labels)


def numbers(split):
    return split.images.ravel().tolist()


@pytest.mark.parametrize(
    ("classes", "largest", "imbalance_ratio", "total", "smallest"),
    [
        (10, 5000, 10, 20_431, 500),  # CIFAR-10-LT, as published; the smallest class is 5000 / ratio
        (10, 5000, 50, 13_996, 100),
        (10, 5000, 100, 12_406, 50),
        (10, 5000, 200, 11_203, 25),
        (100, 500, 10, 19_573, 50),  # CIFAR-100-LT
        (100, 500, 50, 12_608, 10),
        (100, 500, 100, 10_847, 5),
        (100, 500, 200, 9_502, 2),
    ],
)
def test_exponential_sizes_are_those_of_the_published_long_tailed_cifar(
    classes, largest, imbalance_ratio, total, smallest
):
    sizes = class_sizes("exponential", largest=largest, classes=classes, imbalance_ratio=imbalance_ratio)
    assert (sizes.sum(), sizes[0], sizes[-1]) == (total, largest, smallest)
    assert (np.diff(sizes) <= 0).all()


def test_cifar_100_lt_has_35_many_35_medium_and_30_few_shot_classes():
    sizes = class_sizes("exponential", largest=500, classes=100, imbalance_ratio=100)
    assert [(sizes > 100).sum(), ((sizes >= 20) & (sizes <= 100)).sum(), (sizes < 20).sum()] == [35, 35, 30]


def test_whole_sizes_are_not_rounded_down_by_floating_point():
    # Halving: in floating point 32 * 32 ** (-2 / 5) and (-4 / 5) fall just short of 8 and 2.
    sizes = class_sizes("exponential", largest=32, classes=6, imbalance_ratio=32)
    assert sizes.tolist() == [32, 16, 8, 4, 2, 1]


@pytest.mark.parametrize(("classes", "sizes"), [(4, [60, 60, 20, 20]), (5, [60, 60, 20, 20, 20])])
def test_step_has_the_whole_size_in_the_first_half_and_the_ratio_in_the_second(classes, sizes):
    assert class_sizes("step", largest=60, classes=classes, imbalance_ratio=3).tolist() == sizes


@pytest.mark.parametrize("profile", ["exponential", "step"])
def test_ratio_one_is_balanced(profile):
    assert class_sizes(profile, largest=7, classes=3, imbalance_ratio=1).tolist() == [7, 7, 7]


@pytest.mark.parametrize(
    ("profile", "imbalance_ratio", "message"),
    [
        ("linear", 10, "profile must be one of exponential, step. Received: profile='linear'"),
        ("step", 0.5, "imbalance_ratio must lie in 1..100, the images of the largest class. Received: .*=0.5"),
        ("exponential", 101, "Received: imbalance_ratio=101"),  # its last class would be empty
        ("exponential", float("nan"), "Received: imbalance_ratio=nan"),
    ],
)
def test_unknown_profiles_and_impossible_ratios_are_refused(profile, imbalance_ratio, message):
    with pytest.raises(ValueError, match=message):
        class_sizes(profile, largest=100, classes=10, imbalance_ratio=imbalance_ratio)


def test_thinning_keeps_the_asked_sizes_in_order_and_each_image_with_its_label():
    split = numbered([20, 20, 20])
    kept = thin(split, np.array([20, 5, 1]), seed=0)
    assert np.bincount(kept.labels).tolist() == [20, 5, 1]
    assert numbers(kept) == sorted(set(numbers(kept)))
    np.testing.assert_array_equal(kept.labels, split.labels[numbers(kept)])


def test_thinning_is_seeded():
    split, sizes = numbered([20, 20, 20]), np.array([10, 10, 10])
    assert numbers(thin(split, sizes, seed=3)) == numbers(thin(split, sizes, seed=3))
    assert numbers(thin(split, sizes, seed=3)) != numbers(thin(split, sizes, seed=4))


def test_thinning_does_not_simply_keep_the_first_or_the_same_places_of_every_class():
    kept = thin(numbered([20, 20]), np.array([10, 10]), seed=0)
    places = [[number // 2 for number in numbers(kept) if number % 2 == label] for label in range(2)]
    assert places[0] != places[1]
    assert list(range(10)) not in places


def test_a_higher_ratio_keeps_a_part_of_what_a_lower_one_keeps():
    options = {"classes": 3, "profile": "exponential", "seed": 0}
    split = numbered([36, 36, 36])
    high, low = (set(numbers(impose(split, imbalance_ratio=ratio, **options))) for ratio in (36, 4))
    assert len(high) == 36 + 6 + 1
    assert len(low) == 36 + 18 + 9
    assert high < low


def test_a_class_that_is_too_small_is_named():
    with pytest.raises(ValueError, match=re.escape("as many images as it is to keep. Received: 2 of 3 in class 1")):
        thin(numbered([5, 2]), np.array([5, 3]), seed=0)


def test_a_label_without_a_size_is_refused():
    with pytest.raises(ValueError, match=r"Labels must lie in 0\.\.1, one size each. Received: 2"):
        thin(numbered([5, 5, 5]), np.array([5, 3]), seed=0)


def test_imposing_starts_at_the_largest_class_and_keeps_all_of_those_below_the_profile():
    # From 16 down to 4 over three classes: 16, 8, 4. The first has 10, the third only 3.
    kept = impose(numbered([10, 16, 3]), classes=3, imbalance_ratio=4, profile="exponential", seed=0)
    assert np.bincount(kept.labels).tolist() == [10, 8, 3]
