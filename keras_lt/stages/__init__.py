"""The two stages of Kang et al. (ICLR 2020): learn a representation, then a balanced classifier on top of it."""

from keras_lt.stages.classifier import (
    BATCH_NORMS,
    STAGE_TWO_INPUTS,
    TAU_SPLITS,
    Classifier,
    check_stage_two,
    join,
    learn_classifier,
    load_classifier,
)
from keras_lt.stages.fitting import CHOSEN_BY
from keras_lt.stages.representation import (
    PRECISIONS,
    TRAIN_PARTS,
    Representation,
    learn_representation,
    make_preprocessing,
)

__all__ = [
    "BATCH_NORMS",
    "CHOSEN_BY",
    "PRECISIONS",
    "STAGE_TWO_INPUTS",
    "TAU_SPLITS",
    "TRAIN_PARTS",
    "Classifier",
    "Representation",
    "check_stage_two",
    "join",
    "learn_classifier",
    "learn_representation",
    "load_classifier",
    "make_preprocessing",
]
