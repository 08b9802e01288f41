"""What draws: class probabilities -> a `tf.data` stream of examples whose classes follow them; and balanced lists."""

from keras_lt.resampling.balancing import balance, count_classes
from keras_lt.resampling.indices import epoch_indices, sample_indices
from keras_lt.resampling.lists import RESAMPLING, Resampling, check_resampling, resampled_counts, smote
from keras_lt.resampling.plans import ENGINES
from keras_lt.resampling.rejection import accepted_fraction, expected_copies, rejection_resample

__all__ = [
    "ENGINES",
    "RESAMPLING",
    "Resampling",
    "accepted_fraction",
    "balance",
    "check_resampling",
    "count_classes",
    "epoch_indices",
    "expected_copies",
    "rejection_resample",
    "resampled_counts",
    "sample_indices",
    "smote",
]
