"""The two stages of Kang et al. (ICLR 2020): learn a representation, then a balanced classifier on top of it."""

from keras_lt.stages.classifier import (
    BATCH_NORMS,
    STAGE_TWO_INPUTS,
    TAU_SPLITS,
    Classifier,
    check_stage_two,
    copy_of,
    join,
    learn_classifier,
    load_classifier,
    on_features,
)
from keras_lt.stages.feature_losses import WithFeatureLoss
from keras_lt.stages.fitting import CHOSEN_BY, fit, fit_on_images
from keras_lt.stages.mixing import OnMixedLabels
from keras_lt.stages.representation import (
    HEADS,
    PRECISIONS,
    TRAIN_PARTS,
    Representation,
    building,
    choose_head,
    learn_representation,
    make_preprocessing,
    read_preprocessing,
)

__all__ = [
    "BATCH_NORMS",
    "CHOSEN_BY",
    "HEADS",
    "PRECISIONS",
    "STAGE_TWO_INPUTS",
    "TAU_SPLITS",
    "TRAIN_PARTS",
    "Classifier",
    "OnMixedLabels",
    "Representation",
    "WithFeatureLoss",
    "building",
    "check_stage_two",
    "choose_head",
    "copy_of",
    "fit",
    "fit_on_images",
    "join",
    "learn_classifier",
    "learn_representation",
    "load_classifier",
    "make_preprocessing",
    "on_features",
    "read_preprocessing",
]
