"""How well classifiers do on a split: what they say of each example, and the numbers that this amounts to."""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.pool import ThreadPool
from typing import NamedTuple

import keras
import numpy as np

from keras_lt import metrics
from keras_lt.arguments import checked
from keras_lt.classifiers.chunks import in_chunks, parts_of
from keras_lt.features import FeatureSet
from keras_lt.files import atomic, reading
from keras_lt.keras_settings import plain_settings
from keras_lt.labels import OPEN

TOP = 5  # classes kept per example


class Confusion(NamedTuple):
    """How often examples of one class are predicted as another; `share` is of the examples of the true class."""

    true: int
    predicted: int
    count: int
    share: float


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """What a classifier says of every example of a split.

    Attributes:
      labels: class ids, int64 [N].
      top: the most probable classes, the first of them the prediction, int64 [N, min(5, C)].
      confidences: softmax probability of the prediction, float32 [N].
      groups: of the classes.
      open_confidences: of images of no known class, [M]; none where the data set has none.
    """

    labels: np.ndarray
    top: np.ndarray
    confidences: np.ndarray
    groups: metrics.ShotGroups
    open_confidences: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.float32))

    @property
    def predictions(self) -> np.ndarray:
        """Predicted classes, int64 [N]."""
        return self.top[:, 0]

    @property
    def is_correct(self) -> np.ndarray:
        """Whether the prediction of an example is correct, bool [N]."""
        return self.predictions == self.labels

    @functools.cached_property
    def correct(self) -> np.ndarray:
        """Correctly predicted examples per class, int64 [C]."""
        return self._per_class(self.labels[self.is_correct])

    @functools.cached_property
    def total(self) -> np.ndarray:
        """Examples per class, int64 [C]."""
        return self._per_class(self.labels)

    @property
    def per_class(self) -> np.ndarray:
        """Accuracy of each class, [C]; NaN where the split has no example of it."""
        return np.divide(self.correct, self.total, out=np.full(len(self.total), np.nan), where=self.total > 0)

    @property
    def accuracies(self) -> dict[str, float]:
        """Many, medium, few, all and class mean, as `metrics.shot_accuracy`."""
        return self.groups.accuracies(self.correct, self.total)

    @property
    def top_5(self) -> float:
        """Share of examples whose class is among the five most probable; NaN for five classes or fewer."""
        if self._classes <= TOP or not len(self.labels):
            return float("nan")
        return float((self.top == self.labels[:, np.newaxis]).any(1).mean())

    @functools.cached_property
    def reliability(self) -> dict[str, metrics.Reliability]:
        """Accuracy and confidence in bins of confidence, over all examples and over those of each group of classes."""
        members = {"all": np.ones(self._classes, bool), **self.groups}
        rows = {name: classes[self.labels] for name, classes in members.items()}
        return {name: metrics.Reliability.of(self.confidences[of], self.is_correct[of]) for name, of in rows.items()}

    @property
    def summary(self) -> dict[str, float]:
        """Every number by name, in [0, 1] and NaN where it is not defined.

        The accuracies; macro-F1 and the means of `metrics.class_means`; "top_5"; the expected calibration error "ece"
        of all, "ece_many", "ece_medium" and "ece_few" of the groups' examples; and, with open images, "open_f_measure"
        and "open_auroc", as in `metrics.confidence`.
        """
        errors = {name: bins.error for name, bins in self.reliability.items()}
        summary = {
            **self.accuracies,
            **metrics.class_means(self.correct, self.total, self._per_class(self.predictions)),
            "top_5": self.top_5,
            "ece": errors.pop("all"),
            **{f"ece_{group}": error for group, error in errors.items()},
        }
        if len(self.open_confidences):
            known, unknown = self.confidences, self.open_confidences
            summary["open_f_measure"] = metrics.open_f_measure(self.is_correct, known, unknown)
            summary["open_auroc"] = metrics.auroc(known, unknown)
        return summary

    def confused_pairs(self, k: int) -> list[Confusion]:
        """The `k` most frequent confusions; of equally frequent ones, that of the larger share first."""
        wrong = ~self.is_correct
        pairs, counts = np.unique(self.labels[wrong] * self._classes + self.predictions[wrong], return_counts=True)
        true, predicted = np.divmod(pairs, self._classes)
        shares = counts / self.total[true]
        order = np.lexsort((-shares, -counts))[:k]
        columns = (true, predicted, counts, shares)
        return [Confusion(*row) for row in zip(*(column[order].tolist() for column in columns), strict=True)]

    def save(self, path: str | os.PathLike):
        """Writes an npz with an array per attribute, of the groups their training images and cuts; atomically."""
        arrays = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        groups = arrays.pop("groups")
        arrays |= {"class_counts": groups.class_counts, "cuts": groups.cuts}
        with atomic(path) as scratch:
            np.savez_compressed(scratch, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Scores":
        """Reads what `save` wrote; version 0.1 wrote no cuts, as it had these alone."""
        with reading(path, instead="remove it, and it is made again"), np.load(path) as file:
            arrays = dict(file)
            cuts = arrays.pop("cuts", np.array([metrics.MANY_SHOT_ABOVE, metrics.FEW_SHOT_BELOW])).tolist()
            return cls(groups=metrics.ShotGroups(arrays.pop("class_counts"), *cuts), **arrays)

    @property
    def _classes(self) -> int:
        return len(self.groups.class_counts)

    def _per_class(self, ids: np.ndarray) -> np.ndarray:
        return np.bincount(ids, minlength=self._classes)


@checked(classifier="a layer or a model, features [B, D] -> logits [B, C]")
@plain_settings(dtype_policy="float32")
def evaluate_classifier(
    classifier: Callable,
    features: FeatureSet,
    groups: metrics.ShotGroups | np.ndarray,
    *,
    open_features: FeatureSet | None = None,
) -> Scores:
    """Scores a classifier, features [B, D] -> logits [B, C], on every example of a split once.

    >>> joint = keras_lt.evaluate_classifier(representation.head, features["test"], data.groups)
    >>> joint.confused_pairs(1)
    [Confusion(true=..., predicted=..., count=..., share=...)]

    Args:
      features: of the split.
      groups: of the classes, or their training images, [C]; NaN where that is not known.
      open_features: of images of no known class.
    Raises:
      ValueError: as `score`; or an example of the split is of no class.
    """
    if no_class := int((features.labels == OPEN).sum()):
        raise ValueError(
            f"Examples of no class, labelled {OPEN}, have no accuracy: give them as open_features. "
            f"Received: {no_class} of {len(features.labels)}"
        )
    open_logits = () if open_features is None else logits_in_chunks(classifier, open_features.features)
    logits = logits_in_chunks(classifier, features.features)
    return score(logits, features.labels, groups, open_logits=open_logits)


def score(
    logits: Iterable[np.ndarray],
    labels: np.ndarray,
    groups: metrics.ShotGroups | np.ndarray,
    *,
    open_logits: Iterable[np.ndarray] = (),
) -> Scores:
    """The scores of logits that come in chunks [B, C], of which one is in memory at a time.

    Args:
      labels: of the examples in the order of the logits, [N].
      groups: as in `evaluate_classifier`.
      open_logits: of images of no known class.
    Raises:
      ValueError: another number of logits than of classes, logits that are NaN or infinite, or a label of no class.
    """
    groups, labels = metrics.ShotGroups.of(groups), np.asarray(labels)
    if labels.size and labels.max() >= len(groups.class_counts):
        raise ValueError(f"Labels must lie in 0..{len(groups.class_counts) - 1}. Received: {labels.max()}")
    top, confidences = _ranked(logits, len(groups.class_counts))
    _, open_confidences = _ranked(open_logits, len(groups.class_counts))
    return Scores(labels, top, confidences, groups, open_confidences)


def logits_in_chunks(classifier: keras.layers.Layer, features: np.ndarray) -> Iterator[np.ndarray]:
    """Logits [B, C] of features [N, D], chunk by chunk."""
    for chunk in in_chunks(classifier, features):
        yield classifier(chunk)


def _ranked(logits: Iterable[np.ndarray], classes: int) -> tuple[np.ndarray, np.ndarray]:
    """The most probable classes [N, min(5, C)], and the probability of the first, float32 [N]."""
    ranked = [(np.zeros((0, min(TOP, classes)), np.int64), np.zeros(0, np.float32))]
    with ThreadPool() as pool:  # NumPy lets go of Python's lock
        for chunk in logits:
            if chunk.shape[-1] != classes:
                raise ValueError(f"There must be one logit per class, {classes}. Received: {chunk.shape[-1]} logits")
            ranked += pool.imap(_rank, parts_of(chunk))
    top, confidences = map(np.concatenate, zip(*ranked, strict=True))
    if (bad := np.flatnonzero(np.isnan(confidences))).size:
        raise ValueError(
            "Logits must be numbers, and not infinite; a lower learning rate keeps them so where features are. "
            f"Received: others for example {bad[0]}"
        )
    return top, confidences


def _rank(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same of a few rows [b, C], which stay in the cache: the largest is taken out, and again."""
    left, rows = np.maximum(logits, np.finfo(np.float32).min), np.arange(len(logits))  # what was taken out lies below
    top = np.empty((len(left), min(TOP, left.shape[-1])), np.int64)
    for place in range(top.shape[-1]):
        top[:, place] = left.argmax(-1)
        left[rows, top[:, place]] = -np.inf
    values = np.take_along_axis(logits, top, axis=-1)
    np.put_along_axis(left, top, values, axis=-1)
    with np.errstate(invalid="ignore"):  # of infinite ones, which `_ranked` refuses
        left -= values[:, :1]
    return top, 1 / np.exp(left, out=left).sum(-1)
