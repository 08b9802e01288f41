"""The class distribution of images without labels, against quapy's implementation of the same iteration."""

import pathlib

import numpy as np
import pytest

from keras_lt.serving import estimate_prior

# Of 400 examples of six classes, normal about 2 e_y, so that 2 x + log pi is their log posterior; by quapy 0.2.3.
GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "em.npz")


def test_the_estimate_is_quapys():
    found = estimate_prior(GOLDEN["log_posteriors"], GOLDEN["source"])
    np.testing.assert_allclose(found.prior, GOLDEN["prior"], atol=1e-6)
    assert found.samples.shape == (0, 6)


def test_posteriors_that_are_sure_count_the_classes():
    labels = np.array([0, 0, 1, 2, 2, 2, 2, 2])
    found = estimate_prior(50.0 * np.eye(3)[labels], [0.6, 0.3, 0.1])
    np.testing.assert_allclose(found.prior, [2 / 8, 1 / 8, 5 / 8], atol=1e-6)


def test_a_weight_is_how_often_an_example_counts():
    scores, source = GOLDEN["log_posteriors"], GOLDEN["source"]
    times = np.arange(len(scores)) % 3
    weighted = estimate_prior(scores, source, weights=times).prior
    np.testing.assert_allclose(weighted, estimate_prior(np.repeat(scores, times, axis=0), source).prior, atol=1e-6)


def test_the_interval_holds_what_the_sample_has():
    found = estimate_prior(GOLDEN["log_posteriors"], GOLDEN["source"], rounds=40, seed=1)
    rare = np.arange(6) >= 4
    share, low, high = found.share(rare)
    assert share == pytest.approx(GOLDEN["prior"][4:].sum(), abs=1e-6)
    assert low < (GOLDEN["labels"] >= 4).mean() < high
    assert 0.02 < high - low < 0.3  # 2 x 1.96 x (0.7 x 0.3 / 400) ** 0.5 = 0.09 were the labels known
    assert np.isnan(estimate_prior(GOLDEN["log_posteriors"]).share(rare)[1])


def test_a_class_that_is_not_there_has_a_finite_logarithm():
    found = estimate_prior(100.0 * np.eye(3)[[0, 0, 1]])
    assert 0 < found.prior[2] < 1e-7


@pytest.mark.parametrize(
    ("scores", "source", "message"),
    [
        (np.zeros((0, 3)), None, "finite numbers"),
        (np.full((2, 3), np.nan), None, "finite numbers"),
        (np.zeros((2, 3)), [0.5, 0.5], "source_prior must be 3"),
    ],
)
def test_what_is_no_posterior_is_refused(scores, source, message):
    with pytest.raises(ValueError, match=message):
        estimate_prior(scores, source)
