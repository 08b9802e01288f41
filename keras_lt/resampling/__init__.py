"""Resampling: class probabilities -> a `tf.data` stream of examples whose classes follow them."""

from keras_lt.resampling.balance import balance, count_classes
from keras_lt.resampling.indices import sample_indices
from keras_lt.resampling.plans import ENGINES
from keras_lt.resampling.rejection import accepted_fraction, expected_copies, rejection_resample

__all__ = [
    "ENGINES",
    "accepted_fraction",
    "balance",
    "count_classes",
    "expected_copies",
    "rejection_resample",
    "sample_indices",
]
