import keras
import numpy as np

from keras_lt.evaluation import evaluate
from keras_lt.features import Features

PREDICTED = np.array([0, 0, 1, 1, 2, 0])
LABELS = np.array([0, 0, 0, 1, 2, 2])
COUNTS = np.array([500, 50, 5, 7])  # many-, medium- and two few-shot classes, the last not in the split


def test_scores_are_sums_over_every_example():
    one_hot = np.eye(4, dtype=np.float32)[PREDICTED]
    scores = evaluate(keras.layers.Identity(), Features(one_hot, LABELS), COUNTS)
    assert scores.correct.tolist() == [2, 1, 1, 0]
    assert scores.total.tolist() == [3, 1, 2, 0]
    np.testing.assert_allclose(scores.per_class, [2 / 3, 1, 1 / 2, np.nan])
    expected = {"many": 2 / 3, "medium": 1.0, "few": 1 / 2, "all": 4 / 6, "class_mean": (2 / 3 + 1 + 1 / 2) / 3}
    assert {name: round(value, 9) for name, value in scores.accuracies.items()} == {
        name: round(value, 9) for name, value in expected.items()
    }
