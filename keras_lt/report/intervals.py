"""How much of a run's scores is chance: 95% intervals over test examples."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from keras_lt.evaluation import Scores
from keras_lt.metrics import ShotGroups
from keras_lt.report.systems import BASELINE
from keras_lt.significance import interval, stratified_bootstrap

RESAMPLES = 1000  # seconds for 36,500 examples of 365 classes and ten classifiers
SCORES = ("many", "medium", "few", "all", "class_mean")

Ends = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Intervals:
    """Lower and upper ends [2], fractions; NaN for a group without a class.

    Attributes:
      accuracies: classifier -> score -> ends.
      gains: classifier -> score -> ends of its difference to Joint, on the same examples; empty without Joint.
    """

    accuracies: Mapping[str, Ends] = dataclasses.field(default_factory=dict)
    gains: Mapping[str, Ends] = dataclasses.field(default_factory=dict)


def bootstrap_intervals(scores: Mapping[str, Scores], groups: ShotGroups, *, resamples: int = RESAMPLES) -> Intervals:
    """Intervals of every classifier's accuracies, all from the same draws of test examples, class by class.

    Args:
      scores: classifier -> what it says of the test examples.
      groups: of the classes.
    """
    if not scores:
        return Intervals()
    labels, is_correct = next(iter(scores.values())).labels, {name: of.is_correct for name, of in scores.items()}
    resampled = resampled_accuracies(is_correct, labels, groups, resamples=resamples)
    joint = resampled.get(BASELINE)
    return Intervals(
        {name: {score: interval(values) for score, values in of.items()} for name, of in resampled.items()},
        {name: {score: interval(of[score] - joint[score]) for score in of} for name, of in resampled.items() if joint},
    )


def resampled_accuracies(
    is_correct: Mapping[str, np.ndarray], labels: np.ndarray, groups: ShotGroups, *, resamples: int
) -> dict[str, dict[str, np.ndarray]]:
    """Classifier -> score -> accuracy in each resample of the test examples, [R]; all see the same draws.

    Args:
      is_correct: classifier -> whether each example is predicted correctly, or how often of several seeds, [N].
      labels: of the examples, [N].
    """
    weights, values = _weights(labels, groups), np.stack(list(is_correct.values()), axis=1)
    sums = stratified_bootstrap(values, labels, classes=weights.shape[1], resamples=resamples)
    estimates = np.stack([weights @ correct for correct in sums])  # [R, S, K]
    return {name: dict(zip(SCORES, estimates[:, :, k].T, strict=True)) for k, name in enumerate(is_correct)}


def _weights(labels: np.ndarray, groups: ShotGroups) -> np.ndarray:
    """What a correct example of each class adds to each of `SCORES`, [S, C]; NaN for an empty group."""
    total = np.bincount(labels, minlength=len(groups.class_counts))
    shown = total > 0
    means = [*groups.values(), shown]
    rows = [np.where(members & shown, 1 / np.maximum(total, 1), 0) for members in means]
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN of an empty group
        rows = [row / (members & shown).sum() for row, members in zip(rows, means, strict=True)]
    overall = np.full(len(total), 1 / total.sum())
    return np.stack([*rows[:3], overall, rows[3]])
