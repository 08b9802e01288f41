"""Samplers against the paper's equations, the reference's numbers and values worked by hand."""

import pathlib

import numpy as np
import pytest

from keras_lt import samplers

COUNTS = [80, 40, 20, 20]
GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "sampling.npz")


@pytest.mark.parametrize(
    ("q", "expected"),
    [
        (1, [0.5, 0.25, 0.125, 0.125]),
        (0, [0.25, 0.25, 0.25, 0.25]),
        (2, [6400 / 8800, 1600 / 8800, 400 / 8800, 400 / 8800]),
    ],
)
def test_power(q, expected):
    np.testing.assert_allclose(samplers.power_probabilities(COUNTS, q), expected, rtol=1e-14)


def test_square_root():
    # The square roots of 81, 16 and 9 are 9, 4 and 3.
    np.testing.assert_allclose(samplers.power_probabilities([81, 16, 9], 0.5), [9 / 16, 4 / 16, 3 / 16])


def test_a_large_q_does_not_overflow():
    np.testing.assert_allclose(samplers.power_probabilities([1000, 500, 1], 2000), [1, 0, 0], atol=1e-300)


@pytest.mark.parametrize(("name", "q"), [("power_q_half", 1 / 2), ("power_q_third", 1 / 3)])
def test_power_equals_the_reference(name, q):
    np.testing.assert_allclose(samplers.power_probabilities(GOLDEN["class_counts"], q), GOLDEN[name], rtol=1e-12)


def test_progressive_equals_the_reference():
    table = samplers.probability_table("progressive", GOLDEN["class_counts"], len(GOLDEN["progressive"]))
    np.testing.assert_allclose(table, GOLDEN["progressive"], rtol=1e-12)


def test_progressive_moves_linearly_from_instance_to_class_balanced():
    table = samplers.probability_table("progressive", COUNTS, 5)
    assert table.shape == (5, 4)
    np.testing.assert_allclose(table[0], [0.5, 0.25, 0.125, 0.125])
    np.testing.assert_allclose(table[2], [0.375, 0.25, 0.1875, 0.1875])
    np.testing.assert_allclose(table[4], [0.25] * 4)


def test_progress_of_the_paper_stops_one_step_short():
    table = samplers.probability_table("progressive", COUNTS, 4, progress="paper")
    # t/T is 0, 1/4, 2/4, 3/4; a quarter of the way from 0.5 to 0.25 is 0.4375.
    np.testing.assert_allclose(table[:, 0], [0.5, 0.4375, 0.375, 0.3125])


def test_a_single_epoch_is_the_start_of_the_schedule():
    np.testing.assert_allclose(samplers.probability_table("progressive", COUNTS, 1), [[0.5, 0.25, 0.125, 0.125]])


def test_effective_number():
    # beta 1/2: E_1 = 1, E_2 = 3/2, E_3 = 7/4, so n/E = 1, 4/3, 12/7, in 21sts 21, 28, 36.
    expected = np.array([21, 28, 36]) / 85
    np.testing.assert_allclose(samplers.effective_number_probabilities([1, 2, 3], beta=0.5), expected)


def test_effective_number_lies_between_instance_and_class_balanced():
    np.testing.assert_allclose(samplers.effective_number_probabilities(COUNTS, beta=0), [0.5, 0.25, 0.125, 0.125])
    np.testing.assert_allclose(samplers.effective_number_probabilities(COUNTS, beta=1 - 1e-9), [0.25] * 4, rtol=1e-6)
    np.testing.assert_allclose(samplers.effective_number_probabilities(COUNTS, beta=1 - 1e-15), [0.25] * 4, rtol=1e-9)


def test_reversed():
    # n_max / n is 1, 2, 4, 4.
    np.testing.assert_allclose(samplers.reversed_probabilities(COUNTS), np.array([1, 2, 4, 4]) / 11)


def test_mixture():
    mixed = samplers.mixture({"instance_balanced": 0.75, samplers.reversed_probabilities: 0.25})
    np.testing.assert_allclose(mixed([30, 10], 0.0), [0.75 * 0.75 + 0.25 * 0.25, 0.75 * 0.25 + 0.25 * 0.75])


def test_a_mixture_follows_the_progress_of_its_parts():
    table = samplers.probability_table(samplers.mixture({"progressive": 0.5, "class_balanced": 0.5}), COUNTS, 3)
    np.testing.assert_allclose(table[:, 0], [0.375, 0.3125, 0.25])


@pytest.mark.parametrize("name", samplers.SAMPLERS)
def test_every_sampler_skips_a_class_without_images_and_shifts_no_index(name):
    table = samplers.probability_table(name, [8, 0, 2, 0, 2], 3)
    assert (table[:, [1, 3]] == 0).all()
    np.testing.assert_allclose(table[:, [0, 2, 4]], samplers.probability_table(name, [8, 2, 2], 3))


@pytest.mark.parametrize(
    "sampler",
    [
        lambda counts, absent: samplers.power_probabilities(counts, 0.5, absent=absent),
        lambda counts, absent: samplers.progressive_probabilities(counts, 0.5, absent=absent),
        lambda counts, absent: samplers.effective_number_probabilities(counts, absent=absent),
        lambda counts, absent: samplers.reversed_probabilities(counts, absent=absent),
        lambda counts, absent: samplers.probability_table("class_balanced", counts, 2, absent=absent),
    ],
)
def test_an_absent_class_is_an_error_on_request(sampler):
    with pytest.raises(ValueError, match="0 for class 1"):
        sampler([3, 0, 2], "error")


@pytest.mark.parametrize("name", samplers.SAMPLERS)
@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([3, -2, 1], "-2.0 for class 1"),
        ([3, np.nan, 1], "nan for class 1"),
        ([0, 0], "at least one image"),
        ([[3, 2], [1, 1]], "one-dimensional"),
        ([], "one-dimensional"),
    ],
)
def test_bad_counts(name, counts, message):
    with pytest.raises(ValueError, match=message):
        samplers.SAMPLERS[name](counts, 0.0)


@pytest.mark.parametrize("q", [-0.1, np.nan, np.inf])
def test_bad_q(q):
    with pytest.raises(ValueError, match=f"q={q}"):
        samplers.power_probabilities(COUNTS, q)


@pytest.mark.parametrize("beta", [-0.1, 1.0, np.nan])
def test_bad_beta(beta):
    with pytest.raises(ValueError, match=f"beta={beta}"):
        samplers.effective_number_probabilities(COUNTS, beta=beta)


@pytest.mark.parametrize("progress", [-0.1, 1.1, np.nan])
def test_bad_progress(progress):
    with pytest.raises(ValueError, match=f"progress={progress}"):
        samplers.progressive_probabilities(COUNTS, progress)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"class_balanced.*square_root.*'balanced'"):
        samplers.probability_table("balanced", COUNTS, 3)


def test_mixture_weights_must_be_a_distribution():
    with pytest.raises(ValueError, match=r"sum=0\.9"):
        samplers.mixture({"instance_balanced": 0.5, "reversed": 0.4})
    with pytest.raises(ValueError, match=r"-0\.5"):
        samplers.mixture({"instance_balanced": 1.5, "reversed": -0.5})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0.5, 0.4, 0.0, 0.0], r"row 0 .*sum=0\.9"),
        ([1.5, -0.5, 0.0, 0.0], r"row 0 .*-0\.5 for class 1"),
        ([1.0], r"\[C\] = \[4\]"),
    ],
)
def test_a_user_function_must_return_a_distribution_over_the_classes(row, message):
    with pytest.raises(ValueError, match=message):
        samplers.probability_table(lambda class_counts, progress: np.array(row), COUNTS, 2)


def test_a_bad_row_is_named():
    with pytest.raises(ValueError, match=r"row 2 .*sum=0\.8"):
        samplers.check_probabilities([[0.5, 0.5], [0.9, 0.1], [0.4, 0.4]])
    with pytest.raises(ValueError, match=r"row 1 .*nan for class 0"):
        samplers.check_probabilities([[0.5, 0.5], [np.nan, 0.1]])


def test_bad_table_arguments():
    with pytest.raises(ValueError, match="epochs=0"):
        samplers.probability_table("reversed", COUNTS, 0)
    with pytest.raises(ValueError, match="'paperish'"):
        samplers.probability_table("reversed", COUNTS, 2, progress="paperish")
    with pytest.raises(ValueError, match="absent='skip'"):
        samplers.probability_table("reversed", COUNTS, 2, absent="skip")
