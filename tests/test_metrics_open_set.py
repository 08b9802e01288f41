import math

import numpy as np
import pytest
import scipy.stats

from keras_lt.metrics import Reliability, auroc, open_f_measure


def test_f_measure_worked_by_hand():
    # Known: right; right but below .1; wrong; wrong and below. Open: below; twice taken for a class.
    hits = np.array([True, True, False, False])
    confidences, open_confidences = np.array([0.9, 0.05, 0.8, 0.02]), np.array([0.09, 0.1, 0.7])
    precision, recall = 1 / 4, 1 / (1 + 2)
    expected = 2 * precision * recall / (precision + recall)
    assert open_f_measure(hits, confidences, open_confidences) == pytest.approx(expected)


def test_a_higher_threshold_rejects_open_and_known_images():
    hits, confidences, open_confidences = np.array([True, True]), np.array([0.9, 0.4]), np.array([0.3, 0.6])
    of = {t: open_f_measure(hits, confidences, open_confidences, threshold=t) for t in (0.1, 0.35, 0.65, 0.95)}
    # TP, FP, FN: 2 0 2, 2 0 1, 1 1 0, 0 2 0
    assert of == pytest.approx({0.1: 4 / 6, 0.35: 4 / 5, 0.65: 2 / 3, 0.95: 0})


def test_auroc_worked_by_hand():
    # .9 is above all three, .5 above one and equal to another.
    assert auroc(np.array([0.9, 0.5]), np.array([0.5, 0.7, 0.2])) == pytest.approx((3 + 1 + 0.5) / 6)
    assert auroc(np.array([0.9, 0.8]), np.array([0.1, 0.2])) == 1
    assert auroc(np.array([0.1]), np.array([0.2])) == 0
    assert auroc(np.full(3, 0.5), np.full(2, 0.5)) == 0.5


def test_auroc_is_mann_whitney_s_statistic_over_the_number_of_pairs():
    rng = np.random.default_rng(0)
    known, unknown = rng.integers(0, 20, 70) / 20, rng.integers(0, 15, 40) / 20  # with many ties
    assert auroc(known, unknown) == pytest.approx(scipy.stats.mannwhitneyu(known, unknown).statistic / (70 * 40))


@pytest.mark.parametrize(("known", "unknown"), [([], [0.5]), ([0.5], [])])
def test_without_images_on_both_sides_there_is_no_score(known, unknown):
    known, unknown = np.array(known), np.array(unknown)
    assert math.isnan(auroc(known, unknown))
    assert math.isnan(open_f_measure(np.ones(len(known), bool), known, unknown))


@pytest.mark.parametrize("wrong", [[0.5, np.nan], ["a", "b"]])
def test_what_is_no_confidence_is_refused(wrong):
    """NaN would be larger than any number, and an image of no class recognized by it."""
    hits, fine = np.array([True, False]), np.array([0.4, 0.6])
    for measure in (
        lambda: auroc(wrong, fine),
        lambda: auroc(fine, wrong),
        lambda: open_f_measure(hits, fine, wrong),
        lambda: Reliability.of(wrong, hits),
    ):
        with pytest.raises(ValueError, match="confidences must be numbers"):
            measure()
