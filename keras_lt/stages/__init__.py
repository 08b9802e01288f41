"""The two stages of Kang et al. (ICLR 2020): learn a representation, then a balanced classifier on top of it."""

from keras_lt.classifiers import HEADS
from keras_lt.stages.checks import check_hosts, check_own_classifier, classifier_entry
from keras_lt.stages.choosing import chooses
from keras_lt.stages.classifier import JOINT, Classifier, copy_of, join, learn_classifier, load_classifier
from keras_lt.stages.fitting import CHOSEN_BY, fit, fit_on_images, on_features
from keras_lt.stages.hooks import DECOUPLING, Hooks
from keras_lt.stages.one_pass import OnePass
from keras_lt.stages.representation import (
    Representation,
    building,
    learn_representation,
    make_preprocessing,
    read_preprocessing,
    text_features,
)
from keras_lt.stages.training_models import OnMixedLabels, WithFeatureLoss

__all__ = [
    "CHOSEN_BY",
    "DECOUPLING",
    "HEADS",
    "JOINT",
    "Classifier",
    "Hooks",
    "OnMixedLabels",
    "OnePass",
    "Representation",
    "WithFeatureLoss",
    "building",
    "check_hosts",
    "check_own_classifier",
    "chooses",
    "classifier_entry",
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
    "text_features",
]
