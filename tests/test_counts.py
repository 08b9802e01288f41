"""Images per class: every door takes the same forms of them, and refuses the same."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from keras_lt import losses, metrics, samplers
from keras_lt.classifiers import adjust_logits
from keras_lt.counts import check_counts, effective_numbers, number_per_class
from keras_lt.methods import balpoe, ride, sade
from keras_lt.metrics import long_tailed_shares
from keras_lt.resampling import balance, rejection_resample

LABELS, LOGITS = np.array([0, 1, 2]), np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
OF_COUNTS = {
    name: lambda counts, name=name: losses.LOSSES[name](counts)(LABELS, LOGITS)
    for name in ("balanced_softmax", "logit_adjustment", "ldam", "label_aware_smoothing", "lade")
}
OF_COUNTS |= {
    "binary": lambda counts: losses.balanced_binary_cross_entropy(LABELS, LOGITS, counts),
    "weights": lambda counts: losses.power_weights(counts, 1.0),
    "sampler": lambda counts: samplers.probability_table("class_balanced", counts, 2),
    "groups": metrics.ShotGroups,
    "metric": metrics.ShotAccuracy,
    "adjusted": lambda counts: adjust_logits(LOGITS, counts, tau=1.0),
    "shares": long_tailed_shares,
    "balance": lambda counts: balance((np.arange(9), np.repeat(LABELS, [5, 3, 1])), class_counts=counts),
    "balpoe": lambda counts: balpoe.loss(LABELS, LOGITS[None], counts, taus=[1.0]),
    "sade": lambda counts: sade.loss(LABELS, np.stack([LOGITS] * 3), counts, tau=1.0),
    "ride": lambda counts: ride.loss(LABELS, LOGITS[None], counts, diversity=0.2),
}
OF_LOGITS = ("balanced_softmax", "logit_adjustment", "ldam", "label_aware_smoothing", "lade", "binary", "adjusted")
OF_LOGITS += ("balpoe", "sade", "ride")


class Series(np.ndarray):
    """As pandas has it: numbers with an index."""


every_door = pytest.mark.parametrize("door", OF_COUNTS)


@every_door
@pytest.mark.parametrize(
    "counts",
    [{0: 5, 1: 3, 2: 1}, collections.Counter("aab"), ["5", "3", "1"], 5, [[5, 3, 1]], [5, 3, -1], [0.6, 0.3, 0.1]],
    ids=["dict", "counter", "words", "one", "matrix", "negative", "shares"],
)
def test_what_is_no_number_per_class_is_refused(door, counts):
    with pytest.raises(ValueError, match=r"(class_counts|counts) must be .*Received: "):
        OF_COUNTS[door](counts)


@every_door
@pytest.mark.parametrize("index", [np.array([2, 0, 1]), np.array(["cat", "ant", "bee"], object)], ids=["ids", "names"])
def test_counts_in_another_order_than_the_classes_are_refused(door, index):
    """Such as `value_counts` of pandas, which sorts by frequency."""
    counts = np.array([5, 3, 1]).view(Series)
    counts.index = index
    with pytest.raises(
        ValueError, match=rf"in the order of the class ids.*Received: a Series by .*{index[0]}.*{index[2]}"
    ):
        OF_COUNTS[door](counts)


@pytest.mark.parametrize("door", OF_LOGITS)
@pytest.mark.parametrize("counts", [[5], [5, 3, 2, 1]], ids=["one", "four"])
def test_counts_of_other_classes_than_the_logits_are_refused(door, counts):
    """One count alone would be broadcast, and say nothing."""
    with pytest.raises(ValueError, match=r"class_counts must be .*\[3\].*Received: shape"):
        OF_COUNTS[door](counts)


@every_door
def test_counts_are_numbers_in_any_array(door):
    series = np.array([5, 3, 1]).view(Series)
    series.index = np.arange(3)
    for counts in ((5, 3, 1), np.array([5, 3, 1], np.uint8), tf.constant([5.0, 3.0, 1.0]), series):
        OF_COUNTS[door](counts)


def test_counts_are_checked_by_hand():
    np.testing.assert_array_equal(check_counts([3, 0, 2]), [3.0, 0.0, 2.0])
    assert number_per_class("counts", np.array([1, 2], np.int32)).dtype == np.int32
    for counts, message in (([0, 0], "at least one image"), ([1, np.nan], "nan for class 1"), ([], "not empty")):
        with pytest.raises(ValueError, match=message):
            check_counts(counts)
    with pytest.raises(ValueError, match=r"\[C\] and >= 0|Received: 0 of class|must be"):
        rejection_resample(
            tf.data.Dataset.from_tensor_slices((LOGITS, LABELS)),
            class_counts={0: 1},
            probabilities=[1 / 3] * 3,
            seed=0,
        )


def test_effective_numbers_by_hand():
    np.testing.assert_allclose(effective_numbers(np.array([0, 1, 2, 3]), 0.5), [1, 1, 1.5, 1.75])
    np.testing.assert_allclose(effective_numbers(np.array([1, 900]), 0.0), [1, 1])
    # 1 + beta + beta^2 + ...: nearly n where beta is nearly 1, of which a plain difference has no digits left.
    np.testing.assert_allclose(effective_numbers(np.array([1, 10, 1000]), 1 - 2**-52), [1, 10, 1000], rtol=1e-12)
