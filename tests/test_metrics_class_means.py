import math

import numpy as np
import pytest

from keras_lt.metrics import class_means

# Labels      0 0 0 0 | 1 1 | 2
# Predictions 0 0 0 1 | 1 0 | 2: accuracies 3/4, 1/2 and 1, of 4, 2 and 1 predictions
CORRECT, TOTAL, PREDICTED = [3, 1, 1], [4, 2, 1], [4, 2, 1]


def test_worked_by_hand():
    means = class_means(CORRECT, TOTAL, PREDICTED)
    assert means["macro_f1"] == pytest.approx((6 / 8 + 2 / 4 + 2 / 2) / 3)
    assert means["harmonic_mean"] == pytest.approx(3 / (4 / 3 + 2 + 1))
    assert means["geometric_mean"] == pytest.approx((3 / 8) ** (1 / 3))
    assert means["worst_class"] == 0.5


def test_f1_weighs_what_is_missed_against_what_is_wrongly_said():
    # class 0: precision 2/5, recall 2/2, so F1 = 2 * .4 * 1 / 1.4; class 1: precision 1/1, recall 1/4
    means = class_means([2, 1], [2, 4], [5, 1])
    assert means["macro_f1"] == pytest.approx((0.8 / 1.4 + 0.5 / 1.25) / 2)


def test_a_class_that_is_never_right_makes_the_product_means_zero():
    means = class_means([0, 9], [1, 9], [0, 10])
    assert (means["harmonic_mean"], means["geometric_mean"], means["worst_class"]) == (0, 0, 0)
    assert means["macro_f1"] == pytest.approx((0 + 18 / 19) / 2)


def test_a_class_without_an_example_counts_only_in_f1_and_there_only_where_it_is_predicted():
    assert class_means([1, 0, 0], [2, 0, 0], [1, 1, 0]) == pytest.approx(
        {"macro_f1": (2 / 3 + 0) / 2, "harmonic_mean": 0.5, "geometric_mean": 0.5, "worst_class": 0.5}
    )


def test_means_of_accuracies_are_ordered():
    correct = np.random.default_rng(0).integers(1, 21, 50)
    means = class_means(correct, np.full(50, 20), correct)
    in_order = [means["worst_class"], means["harmonic_mean"], means["geometric_mean"], (correct / 20).mean()]
    assert in_order == sorted(in_order)
    assert len(set(in_order)) == 4


def test_without_an_example_there_is_no_mean():
    assert all(math.isnan(value) for value in class_means([0, 0], [0, 0], [0, 0]).values())


@pytest.mark.parametrize(
    ("sums", "message"),
    [(([1], [1, 2], [1, 1]), r"must all be \[C\]"), (([2], [1], [2]), "0 <= correct"), (([1], [1], [0]), "predicted")],
)
def test_sums_that_do_not_fit_are_refused(sums, message):
    with pytest.raises(ValueError, match=message):
        class_means(*sums)
