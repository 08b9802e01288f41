"""How well classifiers do on a split: accuracies by group, and per class."""

import dataclasses

import keras
import numpy as np

from keras_lt.features import Features, classify
from keras_lt.metrics import shot_accuracy_from_counts


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """Sums over one split.

    Attributes:
      correct, total: examples per class, int64 [C].
      class_counts: training images per class, int64 [C].
    """

    correct: np.ndarray
    total: np.ndarray
    class_counts: np.ndarray

    @property
    def accuracies(self) -> dict[str, float]:
        """Many, medium, few, all and class mean, as `metrics.shot_accuracy`."""
        return shot_accuracy_from_counts(self.correct, self.total, self.class_counts)

    @property
    def per_class(self) -> np.ndarray:
        """Accuracy of each class, [C]; NaN where the split has no example of it."""
        return np.divide(self.correct, self.total, out=np.full(len(self.total), np.nan), where=self.total > 0)


def evaluate(classifier: keras.layers.Layer, features: Features, class_counts: np.ndarray) -> Scores:
    """Scores a classifier, features [B, D] -> logits [B, C], on every example of a split once."""
    classes = len(class_counts)
    hits = features.labels[classify(classifier, features.features) == features.labels]
    return Scores(
        correct=np.bincount(hits, minlength=classes),
        total=np.bincount(features.labels, minlength=classes),
        class_counts=np.asarray(class_counts),
    )
