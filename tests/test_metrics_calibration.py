import math

import numpy as np
import pytest

from keras_lt.metrics import ECE_BINS, Reliability


def test_worked_by_hand():
    # 0.95 and 0.97 in (14/15, 1], one of them right; 0.5 in (7/15, 8/15], right
    bins = Reliability.of(np.array([0.95, 0.5, 0.97]), np.array([True, True, False]))
    assert bins.count.tolist() == [0] * 7 + [1] + [0] * 6 + [2]
    assert bins.accuracy[[7, 14]].tolist() == [1.0, 0.5]
    assert bins.confidence[[7, 14]] == pytest.approx([0.5, 0.96])
    assert np.isnan(bins.accuracy).sum() == np.isnan(bins.confidence).sum() == 13
    assert bins.error == pytest.approx(1 / 3 * abs(1 - 0.5) + 2 / 3 * abs(0.5 - 0.96))


def test_a_bin_holds_its_upper_end():
    bins = Reliability.of(np.arange(1, ECE_BINS + 1) / ECE_BINS, np.ones(ECE_BINS, bool))
    assert bins.count.tolist() == [1] * ECE_BINS


def test_errors_within_a_bin_cancel_and_across_bins_do_not():
    together = Reliability.of(np.full(4, 0.75), np.array([True, True, True, False]))
    apart = Reliability.of(np.array([0.75, 0.75, 0.25, 0.25]), np.array([True, False, True, False]))
    assert together.error == pytest.approx(0)
    assert apart.error == pytest.approx(0.25)


def test_bins_add_up_over_parts_of_a_split():
    rng = np.random.default_rng(0)
    confidences, hits = rng.uniform(0.01, 1, 100).astype(np.float32), rng.random(100) < 0.5
    whole, *parts = (Reliability.of(confidences[part], hits[part]) for part in np.s_[:, :30, 30:])
    for name in ("count", "correct", "confidence_sum"):
        np.testing.assert_allclose(sum(getattr(part, name) for part in parts), getattr(whole, name))


def test_without_an_example_there_is_no_error():
    assert math.isnan(Reliability.of(np.zeros(0), np.zeros(0, bool)).error)
