import math

import keras
import numpy as np
import pytest

from keras_lt.classifiers import fresh_dense
from keras_lt.evaluation import Confusion, Scores, evaluate_classifier, score
from keras_lt.features import FeatureSet
from keras_lt.metrics import ShotGroups

PREDICTED = np.array([0, 0, 1, 1, 2, 0])
LABELS = np.array([0, 0, 0, 1, 2, 2])
COUNTS = np.array([500, 50, 5, 7])  # many-, medium- and two few-shot classes, the last not in the split
CONFIDENCES = np.array([0.9, 0.7, 0.6, 0.8, 0.97, 0.5])


def logits_of(predicted, confidences, classes):
    """Logits whose softmax gives each prediction its confidence, and the other classes the rest in equal parts."""
    rest = (1 - np.asarray(confidences)) / (classes - 1)
    probabilities = np.repeat(rest[:, None], classes, axis=1)
    probabilities[np.arange(len(predicted)), predicted] = confidences
    return np.log(probabilities).astype(np.float32)


@pytest.fixture
def scores():
    logits = logits_of(PREDICTED, CONFIDENCES, 4)
    return evaluate_classifier(keras.layers.Identity(), FeatureSet(logits, LABELS), COUNTS)


def test_scores_are_sums_over_every_example(scores):
    assert scores.correct.tolist() == [2, 1, 1, 0]
    assert scores.total.tolist() == [3, 1, 2, 0]
    np.testing.assert_allclose(scores.per_class, [2 / 3, 1, 1 / 2, np.nan])
    expected = {"many": 2 / 3, "medium": 1.0, "few": 1 / 2, "all": 4 / 6, "class_mean": (2 / 3 + 1 + 1 / 2) / 3}
    assert scores.accuracies == pytest.approx(expected)


def test_confidence_is_the_softmax_probability_of_the_prediction(scores):
    assert scores.predictions.tolist() == PREDICTED.tolist()
    np.testing.assert_allclose(scores.confidences, CONFIDENCES, rtol=1e-6)
    assert scores.confidences.dtype == np.float32


def test_the_summary_worked_by_hand(scores):
    summary = scores.summary
    assert {name: summary[name] for name in scores.accuracies} == scores.accuracies
    assert summary["macro_f1"] == pytest.approx((4 / 6 + 2 / 3 + 2 / 3) / 3)
    assert summary["harmonic_mean"] == pytest.approx(3 / (3 / 2 + 1 + 2))
    assert summary["worst_class"] == 0.5
    # each example alone in its bin of fifteen: |1 - confidence| where right, confidence where wrong
    misses = np.array([0.1, 0.3, 0.6, 0.2, 0.03, 0.5])
    assert summary["ece"] == pytest.approx(misses.mean(), rel=1e-5)
    assert summary["ece_many"] == pytest.approx(misses[:3].mean(), rel=1e-5)
    assert summary["ece_medium"] == pytest.approx(0.2, rel=1e-5)
    assert summary["ece_few"] == pytest.approx((0.03 + 0.5) / 2, rel=1e-5)
    assert math.isnan(summary["top_5"])  # four classes
    assert "open_auroc" not in summary


def test_the_bins_of_the_groups_add_up_to_those_of_all(scores):
    assert set(scores.reliability) == {"all", "many", "medium", "few"}
    assert scores.reliability["many"].count.sum() == 3
    groups = [scores.reliability[group].count for group in ("many", "medium", "few")]
    np.testing.assert_array_equal(np.sum(groups, axis=0), scores.reliability["all"].count)


def test_top_5_counts_a_class_among_the_five_most_probable():
    logits = np.array([[0, 1, 2, 3, 4, 5, 6.0]] * 4)
    scores = score([logits], np.array([6, 2, 1, 0]), np.ones(7))
    assert scores.top.tolist() == [[6, 5, 4, 3, 2]] * 4
    assert scores.summary["top_5"] == 0.5


def test_of_equal_classes_the_first_come_first_also_of_impossible_ones():
    never = -np.inf
    logits = np.array([[1, 2, 2, 0, 2, 1, 0], [never, 3, never, never, never, never, 3], [0, 0, 0, 0, 0, 0, 0.0]])
    scores = score([logits], np.zeros(3, int), np.ones(7))
    assert scores.top.tolist() == [[1, 2, 4, 0, 5], [1, 6, 0, 2, 3], [0, 1, 2, 3, 4]]
    odds = 3 + 2 / np.e + 2 / np.e**2
    np.testing.assert_allclose(scores.confidences, [1 / odds, 1 / 2, 1 / 7], rtol=1e-6)


@pytest.mark.parametrize("rows", [1, 3, 50])
def test_parts_of_any_size_give_what_the_whole_gives(monkeypatch, rows):
    monkeypatch.setattr("keras_lt.classifiers.chunks.PART_BYTES", rows * 9 * 4 + 8)
    logits = np.random.default_rng(0).normal(size=(50, 9)).astype(np.float32)
    scores = score([keras.ops.convert_to_tensor(logits)], np.zeros(50, int), np.ones(9))
    np.testing.assert_array_equal(scores.top, np.argsort(-logits, axis=1)[:, :5])
    odds = np.exp(logits.astype(np.float64))
    np.testing.assert_allclose(scores.confidences, odds.max(1) / odds.sum(1), rtol=1e-6)


def test_chunks_give_what_the_whole_gives(monkeypatch):
    rng = np.random.default_rng(0)
    logits, labels, counts = rng.normal(size=(50, 9)), rng.integers(0, 9, 50), rng.integers(1, 200, 9)
    whole = score([logits], labels, counts)
    np.testing.assert_array_equal(whole.top, np.argsort(-logits, axis=1)[:, :5])
    sizes = []

    def classifier(chunk):
        sizes.append(len(chunk))
        return chunk

    monkeypatch.setattr("keras_lt.classifiers.chunks.LOGITS_BYTES", 20 * 9 * 4 + 8)  # 20 rows of nine logits
    parts = evaluate_classifier(classifier, FeatureSet(logits, labels), counts)
    assert sizes == [1, 20, 20, 10]  # the first says how many classes there are
    assert parts.summary == pytest.approx(whole.summary, nan_ok=True)


def test_confused_pairs_are_the_most_frequent_ones():
    labels = np.array([2, 2, 2, 1, 1, 1, 1, 0, 0, 0])
    predicted = np.array([0, 0, 2, 0, 0, 1, 2, 1, 0, 0])
    scores = score([logits_of(predicted, np.full(10, 0.9), 3)], labels, np.array([200, 50, 5]))
    # both 2 -> 0 and 1 -> 0 occur twice, in two thirds and in a half of their class
    assert scores.confused_pairs(3) == [Confusion(2, 0, 2, 2 / 3), Confusion(1, 0, 2, 1 / 2), Confusion(0, 1, 1, 1 / 3)]
    assert len(scores.confused_pairs(10)) == 4
    assert scores.confused_pairs(0) == []


def test_scores_survive_saving_and_those_of_version_0_1_are_read(tmp_path):
    logits, labels = logits_of(PREDICTED, CONFIDENCES, 4), LABELS
    saved = score([logits], labels, ShotGroups(COUNTS, 99, 6))
    saved.save(tmp_path / "predictions.npz")
    loaded = Scores.load(tmp_path / "predictions.npz")
    assert loaded.groups == saved.groups
    assert loaded.summary == pytest.approx(saved.summary, nan_ok=True)
    arrays = {name: getattr(saved, name) for name in ("labels", "top", "confidences", "open_confidences")}
    np.savez(tmp_path / "old.npz", class_counts=COUNTS, **arrays)
    assert Scores.load(tmp_path / "old.npz").groups == ShotGroups(COUNTS)


def test_open_images_are_scored_by_their_confidence():
    known, unknown = logits_of([0, 1], [0.9, 0.4], 20), logits_of([0, 3, 5], [0.06, 0.5, 0.3], 20)
    scores = evaluate_classifier(
        keras.layers.Identity(),
        FeatureSet(known, np.array([0, 2])),
        np.ones(20),
        open_features=FeatureSet(unknown, np.full(3, -1)),
    )
    np.testing.assert_allclose(scores.open_confidences, [0.06, 0.5, 0.3], rtol=1e-5)
    assert scores.summary["open_f_measure"] == pytest.approx(2 / (2 + 1 + 2))  # one right, one wrong, two not rejected
    assert scores.summary["open_auroc"] == pytest.approx((3 + 2) / 6)
    assert scores.total.sum() == 2


def test_classes_of_unknown_size_are_in_no_group(scores):
    unknown = score([logits_of(PREDICTED, CONFIDENCES, 4)], LABELS, np.full(4, np.nan))
    for name, value in unknown.summary.items():
        of_group = name.removeprefix("ece_") in ("many", "medium", "few")
        assert value == pytest.approx(math.nan if of_group else scores.summary[name], nan_ok=True)


def test_scores_survive_saving(scores, tmp_path):
    scores.save(tmp_path / "predictions.npz")
    loaded = Scores.load(tmp_path / "predictions.npz")
    assert loaded.summary == pytest.approx(scores.summary, nan_ok=True)
    assert loaded.confused_pairs(5) == scores.confused_pairs(5)


def test_an_empty_split_has_no_score():
    assert all(math.isnan(value) for value in score([], np.zeros(0, np.int64), COUNTS).summary.values())


def test_another_number_of_logits_is_refused():
    with pytest.raises(ValueError, match=r"one logit per class, 4. Received: 3 logits"):
        score([np.zeros((2, 3))], np.array([0, 1]), COUNTS)


def test_examples_of_no_class_are_no_part_of_a_split_that_is_scored():
    features = FeatureSet(np.zeros((3, 2), np.float32), [0, -1, -1])
    with pytest.raises(ValueError, match=r"no accuracy: give them as open_features. Received: 2 of 3$"):
        evaluate_classifier(fresh_dense(2, 4, seed=0), features, COUNTS)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_no_prediction_of_the_first_class(number):
    logits = np.array([[1, 0], [number, 0]], np.float32)
    with pytest.raises(ValueError, match=r"Logits must be numbers, and not infinite; .*: others for example 1$"):
        evaluate_classifier(keras.layers.Identity(), FeatureSet(logits, [0, 1]), [5, 3])
