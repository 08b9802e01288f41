"""How well a classifier does: by groups of classes, over classes, in its confidence, and on images of no class."""

from keras_lt.metrics.classes import accuracy_under, class_means, long_tailed_shares
from keras_lt.metrics.confidence import ECE_BINS, Reliability, auroc, open_f_measure, softmax
from keras_lt.metrics.shots import (
    FEW_SHOT_BELOW,
    MANY_SHOT_ABOVE,
    SHOT_CUTS,
    ShotAccuracy,
    ShotGroups,
    check_cuts,
    shot_accuracy,
)

__all__ = [
    "ECE_BINS",
    "FEW_SHOT_BELOW",
    "MANY_SHOT_ABOVE",
    "SHOT_CUTS",
    "Reliability",
    "ShotAccuracy",
    "ShotGroups",
    "accuracy_under",
    "auroc",
    "check_cuts",
    "class_means",
    "long_tailed_shares",
    "open_f_measure",
    "shot_accuracy",
    "softmax",
]
