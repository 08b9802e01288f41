"""Nearest class mean: the authors' values, chunks, digits, and what is refused."""

import pathlib

import numpy as np
import pytest

from keras_lt import classifiers, metrics
from keras_lt.classifiers import NearestClassMean

GOLDEN = pathlib.Path(__file__).parent / "golden"
D, C = 5, 3
FEATURES = np.random.default_rng(2).normal(size=(12, D)).astype(np.float32)
LABELS = np.arange(12) % C


def golden(name):
    return np.load(GOLDEN / f"{name}.npz")


def four_accuracies(logits, data):
    accuracy = metrics.shot_accuracy(np.argmax(logits, 1), data["test_labels"], data["class_counts"])
    return [accuracy[name] for name in ("many", "medium", "few", "all")]


@pytest.mark.parametrize(("distance", "key"), [("l2", "l2"), ("reference_cosine", "cos")])
@pytest.mark.parametrize("transform", ["un", "l2n", "cl2n"])
def test_ncm_logits_and_accuracies_are_the_reference_ones(transform, distance, key):
    data = golden("ncm")
    layer = NearestClassMean(24, transform, distance)
    layer.adapt(data["train_features"], data["train_labels"])
    logits = layer(data["test_features"])
    expected = data[f"logits_{transform}_{key}"]
    np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(four_accuracies(logits, data), data[f"acc_{transform}_{key}"])


def test_ncm_by_hand():
    features = [[2.0, 0.0], [4.0, 0.0], [0.0, 3.0], [0.0, 5.0]]  # means (3, 0) and (0, 4)
    scores = {}
    for distance in ("l2", "cosine", "reference_cosine"):
        layer = NearestClassMean(2, "un", distance)
        layer.adapt(np.array(features), np.array([0, 0, 1, 1]))
        scores[distance] = layer(np.array([[3.0, 4.0]]))[0]
    np.testing.assert_allclose(scores["l2"], [-16.0, -9.0])
    np.testing.assert_allclose(scores["cosine"], [0.6, 0.8], rtol=1e-6)
    np.testing.assert_allclose(scores["reference_cosine"], [4.5, 8.0])


def test_ncm_means_of_normalised_features_are_not_normalised_again():
    layer = NearestClassMean(1, "l2n")
    layer.adapt(np.array([[2.0, 0.0], [0.0, 7.0]]), np.array([0, 0]))
    np.testing.assert_allclose(layer.means, [[0.5, 0.5]], rtol=1e-6)


def test_ncm_centres_with_the_mean_training_feature():
    layer = NearestClassMean(2, "cl2n")
    layer.adapt(np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 4.0]]), np.array([0, 0, 1]))  # centre (0, 2)
    np.testing.assert_allclose(layer.center, [0.0, 2.0])
    np.testing.assert_allclose(layer.means, [[0.0, -1.0], [0.0, 1.0]])
    np.testing.assert_allclose(layer(np.array([[0.0, 2.5]])), [[-4.0, 0.0]])


@pytest.mark.parametrize("distance", ["l2", "cosine", "reference_cosine"])
def test_ncm_of_a_zero_feature_is_finite(distance):
    layer = NearestClassMean(C, "l2n", distance)
    layer.adapt(FEATURES, LABELS)
    assert np.isfinite(layer(np.zeros((1, D), np.float32))).all()


def test_ncm_reads_a_memory_map_in_chunks(tmp_path, monkeypatch):
    stored = np.memmap(tmp_path / "features", np.float16, "w+", shape=FEATURES.shape)
    stored[:] = FEATURES
    whole, chunked = NearestClassMean(C), NearestClassMean(C)
    whole.adapt(np.asarray(stored), LABELS)
    monkeypatch.setattr(classifiers.ncm, "CHUNK", 5)  # 12 rows: 5 + 5 + 2
    chunked.adapt(stored, LABELS)
    np.testing.assert_allclose(chunked.means, whole.means, atol=1e-6)


def test_ncm_means_by_chunks_are_the_plain_means(monkeypatch):
    monkeypatch.setattr(classifiers.ncm, "CHUNK", 5)
    layer = NearestClassMean(C, "un")
    layer.adapt(FEATURES, LABELS)
    np.testing.assert_allclose(layer.means, [FEATURES[c == LABELS].mean(0) for c in range(C)], rtol=1e-6)


def test_ncm_means_of_many_examples_do_not_drift():
    layer = NearestClassMean(1, "un")
    layer.adapt(np.full((200_000, 1), 0.1, np.float32), np.zeros(200_000, np.int64))
    assert layer.means.numpy() == np.float32(0.1)  # a float32 running sum is off in the fourth digit


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (FEATURES[:3], [0, 2, 2], r"without classes \[1\]"),
        (FEATURES[:3], [0, 1, 3], r"whole numbers in \[0, 3\)"),
        (FEATURES[:3], [0, 1, -1], r"whole numbers in \[0, 3\)"),
        (FEATURES[:3], [0, 1], "one label per example"),
        (FEATURES[0], [0, 1, 2, 0, 1], "features must be"),
        (FEATURES[:0], np.zeros(0, np.int64), r"without classes \[0, 1, 2\]"),
    ],
)
def test_ncm_refuses_examples_that_do_not_fit(features, labels, message):
    with pytest.raises(ValueError, match=message):
        NearestClassMean(C).adapt(features, labels)


def test_ncm_names_the_valid_choices():
    with pytest.raises(ValueError, match=r"cl2n.*l2n.*un.*Received: transform='cln'"):
        NearestClassMean(C, "cln")
    with pytest.raises(ValueError, match=r"l2.*cosine.*reference_cosine.*Received: distance='cos'"):
        NearestClassMean(C, distance="cos")


def test_ncm_keeps_its_digits_where_all_features_are_far_from_zero():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = (1000 + np.eye(3)[labels] + rng.normal(0, 0.1, (60, 3))).astype(np.float32)
    layer = NearestClassMean(3, "un")
    layer.adapt(features, labels)
    exact = -((features[:, None].astype(np.float64) - np.asarray(layer.means, np.float64)) ** 2).sum(-1)
    np.testing.assert_allclose(layer(features), exact, atol=2e-3)  # without the centre they are off by 0.5
