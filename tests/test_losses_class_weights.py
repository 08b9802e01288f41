import pathlib

import numpy as np
import pytest

from keras_lt.losses import (
    CLASS_WEIGHTS,
    class_weight_table,
    effective_number_weights,
    inverse_frequency_weights,
    power_weights,
)

GOLDEN = pathlib.Path(__file__).parent / "golden"


def test_inverse_frequency_weights_by_hand():
    """1/6, 1/3 and 1/2 sum to one: times three."""
    np.testing.assert_allclose(inverse_frequency_weights([6, 3, 2]), [0.5, 1.0, 1.5])


def test_effective_number_weights_are_the_reference_ones():
    golden = np.load(GOLDEN / "losses.npz")
    weights = effective_number_weights(golden["class_counts"], 0.9999)
    np.testing.assert_allclose(weights, golden["effective_number_weights"], rtol=1e-5)
    # beta 1/2 and one or two images: effective numbers 1 and 3/2, so weights 1 and 2/3, scaled to sum to two.
    np.testing.assert_allclose(effective_number_weights([1, 2], 0.5), [1.2, 0.8])
    np.testing.assert_allclose(effective_number_weights([1, 2], 0), [1, 1])
    with pytest.raises(ValueError, match=r"beta must lie in \[0, 1\). Received: beta=1"):
        effective_number_weights([1, 2], 1)


def test_effective_number_weights_near_one_are_the_inverse_frequencies():
    counts = [1280, 100, 5]
    np.testing.assert_allclose(effective_number_weights(counts, 1 - 1e-9), inverse_frequency_weights(counts), rtol=1e-5)


def test_power_weights_by_hand():
    """1 / sqrt of 1, 4 and 16 is 1, 1/2 and 1/4, which sum to 7/4: times 12/7."""
    np.testing.assert_allclose(power_weights([1, 4, 16], 0.5), np.array([12, 6, 3]) / 7)
    np.testing.assert_allclose(power_weights([1, 4, 16], 0), [1, 1, 1])
    np.testing.assert_allclose(power_weights([6, 3, 2], 1), inverse_frequency_weights([6, 3, 2]))
    np.testing.assert_allclose(power_weights([10_000, 1], 300), [0, 2])
    with pytest.raises(ValueError, match=r"rho must be at least 0\. Received: rho=-1"):
        power_weights([2, 1], -1)


@pytest.mark.parametrize("name", [name for name, entry in CLASS_WEIGHTS.items() if entry.weighs])
def test_a_class_without_images_takes_no_weight_from_the_others(name):
    weights = CLASS_WEIGHTS[name](np.array([1000, 0, 10, 1]))
    assert weights[1] == 0
    assert weights[0] < weights[2] < weights[3]
    np.testing.assert_allclose(weights[[0, 2, 3]], CLASS_WEIGHTS[name](np.array([1000, 10, 1])))
    np.testing.assert_allclose(weights.sum(), 3)


@pytest.mark.parametrize(
    ("name", "counts", "last"),
    [("inverse_frequency", [3, 1], [0.5, 1.5]), ("effective_number:beta=0.5", [2, 1], [0.8, 1.2])],
)
def test_deferred_weights_begin_after_first_epoch_epochs(name, counts, last):
    """1/3 and 1; 1 / (1 + 1/2) and 1."""
    table = class_weight_table(name, counts, epochs=5, first_epoch=3)
    assert table.dtype == np.float32
    np.testing.assert_allclose(table, [[1, 1]] * 3 + [last] * 2)
    np.testing.assert_allclose(class_weight_table(name, counts, epochs=2), [last] * 2)


def test_no_weights_are_no_table():
    assert class_weight_table("none", [3, 1], epochs=5) is None


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="class_weights must be one of none, inverse_frequency, effective_number"):
        class_weight_table("inverse", [3, 1], epochs=5)
    with pytest.raises(ValueError, match="Received: first_epoch=-1"):
        class_weight_table("inverse_frequency", [3, 1], epochs=5, first_epoch=-1)
