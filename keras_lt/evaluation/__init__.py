"""Scores of classifiers: those of a run on their features, and models from anywhere on images."""

from keras_lt.evaluation.models import ScoredModel, load_model
from keras_lt.evaluation.scores import Confusion, Scores, evaluate_classifier, logits_in_chunks, score
from keras_lt.evaluation.small_copies import thumbnails

__all__ = [
    "Confusion",
    "ScoredModel",
    "Scores",
    "evaluate_classifier",
    "load_model",
    "logits_in_chunks",
    "score",
    "thumbnails",
]
