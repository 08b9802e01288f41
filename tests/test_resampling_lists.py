import sys

import numpy as np
import pytest

from keras_lt.registry import member
from keras_lt.resampling import RESAMPLING, check_resampling, resampled_counts, smote

COUNTS = (5, 3, 2)
LABELS = np.repeat([0, 1, 3], COUNTS)  # class 2 has no images


def test_undersampling_keeps_of_every_class_as_many_as_the_smallest_has():
    rows = RESAMPLING["undersampling"](LABELS, seed=0)
    assert np.bincount(LABELS[rows]).tolist() == [2, 2, 0, 2]
    assert sorted(set(rows)) == rows.tolist()  # each once, in their order


def test_oversampling_keeps_all_and_repeats_up_to_the_largest():
    rows = RESAMPLING["oversampling"](LABELS, seed=0)
    assert np.bincount(LABELS[rows]).tolist() == [5, 5, 0, 5]
    assert rows[: len(LABELS)].tolist() == list(range(len(LABELS)))


@pytest.mark.parametrize("how", ["undersampling", "oversampling"])
def test_the_choice_is_the_seed_s(how):
    labels = np.repeat([0, 1], [400, 20])
    one, again, other = (RESAMPLING[how](labels, seed=seed).tolist() for seed in (0, 0, 1))
    assert one == again != other


@pytest.mark.parametrize(
    ("how", "counts"),
    [("none", [5, 3, 0, 2]), ("undersampling", [2, 2, 0, 2]), ("oversampling", [5, 5, 0, 5]), ("smote", [5, 5, 0, 5])],
)
def test_what_becomes_of_the_list_is_known_from_the_counts(how, counts):
    assert resampled_counts(np.array([5, 3, 0, 2]), how).tolist() == counts
    if not RESAMPLING[how].makes_features:
        assert np.bincount(LABELS[RESAMPLING[how](LABELS, seed=0)]).tolist() == counts


def test_smote_makes_features_between_two_of_a_class():
    features = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [0.0, 8.0], [4.0, 8.0]], np.float32)
    labels = np.array([0, 0, 0, 0, 1, 1])
    made, of = smote(features, labels, seed=0)
    np.testing.assert_array_equal(made[:6], features)
    assert np.bincount(of).tolist() == [4, 4]
    np.testing.assert_allclose(made[6:, 1], 8.0)
    assert ((made[6:, 0] > 0) & (made[6:, 0] < 4)).all()


def test_smote_needs_two_of_a_class():
    with pytest.raises(ValueError, match=r"2 examples of every class.*1 of class 1$"):
        smote(np.zeros((3, 2)), np.array([0, 0, 1]), seed=0)


def test_that_a_class_is_too_small_is_known_from_the_counts():
    check_resampling("smote", [5, 2, 0])  # a class that is not there is not missed
    check_resampling("oversampling", [5, 1])
    with pytest.raises(ValueError, match=r"resampling=smote:neighbors=3 needs at least 2.*1 of class 1, and 1 more"):
        check_resampling("smote:neighbors=3", [5, 1, 0, 1])


def test_smote_s_neighbours_are_a_parameter():
    """With one neighbour every new feature lies between 0 and 1 or between 9 and 10."""
    features, labels = np.array([[0.0], [1], [9], [10], *[[5]] * 30], np.float32), np.repeat([0, 1], [4, 30])
    (made, of), (wide, _) = (
        member(RESAMPLING, how, what="resampling")(features, labels, seed=0) for how in ("smote:neighbors=1", "smote")
    )
    assert not ((made[of == 0] > 1) & (made[of == 0] < 9)).any()
    assert ((wide[of == 0] > 1) & (wide[of == 0] < 9)).any()


def test_without_imbalanced_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "imblearn.over_sampling", None)
    with pytest.raises(ImportError, match=r"keras_lt\[imblearn\]"):
        smote(np.zeros((4, 2)), np.array([0, 0, 1, 1]), seed=0)
