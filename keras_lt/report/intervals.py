"""How much of a run's scores is chance: 95% intervals over test images."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from keras_lt.evaluation import Scores
from keras_lt.metrics import ShotGroups
from keras_lt.report.systems import BASELINE
from keras_lt.significance import interval, stratified_bootstrap

RESAMPLES = 1000  # seconds for 36,500 images of 365 classes and ten classifiers
SCORES = ("many", "medium", "few", "all", "class_mean")

Ends = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Intervals:
    """Lower and upper ends [2], fractions; NaN for a group without a class.

    Attributes:
      accuracies: classifier -> score -> ends.
      gains: classifier -> score -> ends of its difference to Joint, on the same images; empty without Joint.
    """

    accuracies: Mapping[str, Ends] = dataclasses.field(default_factory=dict)
    gains: Mapping[str, Ends] = dataclasses.field(default_factory=dict)


def bootstrap_intervals(scores: Mapping[str, Scores], groups: ShotGroups, *, resamples: int = RESAMPLES) -> Intervals:
    """Intervals of every classifier's accuracies, all from the same draws of test images, class by class.

    Args:
      scores: classifier -> what it says of the test images.
      groups: of the classes.
    """
    if not scores:
        return Intervals()
    names, labels = list(scores), next(iter(scores.values())).labels
    weights = _weights(labels, groups)
    is_correct = np.stack([scored.is_correct for scored in scores.values()], axis=1)
    sums = stratified_bootstrap(is_correct, labels, classes=weights.shape[1], resamples=resamples)
    estimates = np.stack([weights @ correct for correct in sums])  # [R, S, K]

    def by_name(of: np.ndarray) -> dict[str, Ends]:
        ends = interval(of)
        return {name: dict(zip(SCORES, ends[:, :, k].T, strict=True)) for k, name in enumerate(names)}

    baseline = [names.index(BASELINE)] if BASELINE in names else []
    return Intervals(by_name(estimates), by_name(estimates - estimates[:, :, baseline]) if baseline else {})


def _weights(labels: np.ndarray, groups: ShotGroups) -> np.ndarray:
    """What a correct image of each class adds to each of `SCORES`, [S, C]; NaN for an empty group."""
    total = np.bincount(labels, minlength=len(groups.class_counts))
    shown = total > 0
    means = [*groups.values(), shown]
    rows = [np.where(members & shown, 1 / np.maximum(total, 1), 0) for members in means]
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN of an empty group
        rows = [row / (members & shown).sum() for row, members in zip(rows, means, strict=True)]
    overall = np.full(len(total), 1 / total.sum())
    return np.stack([*rows[:3], overall, rows[3]])
