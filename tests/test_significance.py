import numpy as np
import pytest
import scipy.stats

from keras_lt.significance import (
    average_ranks,
    critical_difference,
    interval,
    mcnemar,
    proportion_interval,
    stratified_bootstrap,
)
from tests.conftest import some_of


def class_means(values, labels, *, resamples=2000, seed=0):
    """Resampled mean over classes of one column of values, [R]."""
    sizes = np.bincount(labels)
    resampled = stratified_bootstrap(values[:, None], labels, classes=len(sizes), resamples=resamples, seed=seed)
    return np.array([(sums[:, 0] / sizes).mean() for sums in resampled])


def test_classes_are_resampled_within_themselves():
    """Two classes whose members are all alike: only their own values can come."""
    values, labels = np.array([[1.0, 5.0], [2.0, 0.0], [1.0, 5.0], [2.0, 0.0], [1.0, 5.0]]), np.array([3, 1, 3, 1, 3])
    for sums in stratified_bootstrap(values, labels, classes=5, resamples=5):
        np.testing.assert_array_equal(sums, [[0, 0], [4, 0], [0, 0], [3, 15], [0, 0]])


def test_the_variance_of_a_class_of_three_is_that_of_its_mean():
    """Values 0, 1, 1: the sample variance is 1/3, that of the mean 1/9; plain resampling would give 2/27."""
    estimates = class_means(np.array([0.0, 1.0, 1.0]), np.zeros(3, int), resamples=20_000)
    assert set(estimates) == {0.0, 0.5, 1.0}  # two draws
    assert estimates.mean() == pytest.approx(2 / 3, abs=0.01)
    assert estimates.var() == pytest.approx(1 / 9, rel=0.03)


def test_columns_are_resampled_together():
    hits = np.random.default_rng(0).integers(0, 2, 40)
    for sums in stratified_bootstrap(np.stack([hits, 1 - hits, hits], 1), np.arange(40) % 4, classes=4, resamples=20):
        np.testing.assert_allclose(sums[:, 0] + sums[:, 1], 10)
        np.testing.assert_array_equal(sums[:, 0], sums[:, 2])


def test_one_seed_gives_one_interval():
    values, labels = np.arange(12.0), np.arange(12) % 3
    first, same, other = (class_means(values, labels, resamples=50, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()


@pytest.mark.parametrize(("classes", "images"), some_of([(4, 50), (60, 3)], (60, 3)))
def test_an_interval_covers_the_truth_as_often_as_it_says(classes, images):
    """Hits simulated with an accuracy per class; the truth is their mean. Plain resampling of threes covers 89 %."""
    rng = np.random.default_rng(0)
    accuracies, labels = rng.uniform(0.2, 0.9, classes), np.repeat(np.arange(classes), images)
    covered = []
    for simulation in range(400):
        hits = (rng.random(len(labels)) < accuracies[labels]).astype(float)
        low, high = interval(class_means(hits, labels, resamples=200, seed=simulation))
        covered.append(low <= accuracies.mean() <= high)
    assert 0.92 < np.mean(covered) < 0.98


def test_interval_by_hand():
    np.testing.assert_allclose(interval(np.arange(101.0)), [2.5, 97.5])
    np.testing.assert_allclose(interval(np.stack([np.arange(11.0), np.full(11, 7)], 1), 0.8), [[1, 7], [9, 7]])


def test_mcnemar_by_hand():
    """b = 1, c = 9: 2 (1 + 10) / 2 ** 10."""
    assert mcnemar(1, 9) == pytest.approx(0.021484375)
    assert mcnemar(9, 1) == mcnemar(1, 9)
    assert mcnemar(0, 0) == 1
    assert mcnemar(5, 5) == 1  # the two tails share the middle
    assert mcnemar(0, 6) == pytest.approx(2 / 64)


@pytest.mark.parametrize(("b", "c"), [(3, 17), (40, 60), (1_000, 1_100), (20_000, 20_500)])
def test_mcnemar_is_a_binomial_test(b, c):
    assert mcnemar(b, c) == pytest.approx(scipy.stats.binomtest(b, b + c).pvalue, rel=1e-6)
    assert mcnemar(np.int32(b), np.int32(c)) == mcnemar(b, c)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="counts must be >= 0"):
        mcnemar(-1, 4)
    with pytest.raises(ValueError, match="confidence=95"):
        interval(np.arange(3.0), 95)
    with pytest.raises(ValueError, match=r"labels.shape=\(3,\)"):
        next(stratified_bootstrap(np.ones((4, 1)), np.zeros(3, int), classes=1))
    with pytest.raises(ValueError, match="at least one example"):
        next(stratified_bootstrap(np.ones((0, 1)), np.zeros(0, int), classes=1))


def test_average_ranks_by_hand():
    """0.9, 0.7, 0.7 are ranks 1, 2.5, 2.5; 0.1, 0.3, 0.2 are 3, 1, 2."""
    np.testing.assert_allclose(average_ranks([[0.9, 0.7, 0.7], [0.1, 0.3, 0.2]]), [2.0, 1.75, 2.25])


@pytest.mark.parametrize(("systems", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (10, 3.164)])
def test_critical_differences_as_demsar_has_them(systems, q):
    """His table 5; 14 data sets and four classifiers need 1.25 (section 3.2.2)."""
    expected = q * (systems * (systems + 1) / (6 * 14)) ** 0.5
    assert critical_difference(systems, 14) == pytest.approx(expected, abs=1.5e-3)
    with pytest.raises(ValueError, match=r"two systems or more.*Received: systems=1, runs=14"):
        critical_difference(1, 14)


@pytest.mark.parametrize(("right", "examples"), [(0, 1), (1, 1), (80, 80), (40, 80), (3, 1000)])
def test_the_interval_of_a_share_is_wilsons(right, examples):
    expected = scipy.stats.binomtest(right, examples).proportion_ci(0.95, method="wilson")
    assert proportion_interval(right / examples, examples) == pytest.approx((expected.low, expected.high), abs=1e-5)


@pytest.mark.parametrize(("share", "examples"), [(1.1, 10), (-0.1, 10), (float("nan"), 10), (0.5, 0)])
def test_a_share_that_is_none_is_refused(share, examples):
    with pytest.raises(ValueError, match=rf"share must lie in \[0, 1\].*Received: share={share}, examples={examples}"):
        proportion_interval(share, examples)
