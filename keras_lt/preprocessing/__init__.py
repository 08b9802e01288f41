"""Images into the network's input: one way for training, one for evaluation and serving alike.

Every random choice is a function of a seed, the example's or the batch's, so that a resumed run sees the same pixels.
"""

from keras_lt.preprocessing.augmentations import AUGMENTATIONS, NO_AUGMENTATION
from keras_lt.preprocessing.decoding import MOST_PIXELS, decode
from keras_lt.preprocessing.pipeline import NoPreprocessing, Preprocessing

__all__ = ["AUGMENTATIONS", "MOST_PIXELS", "NO_AUGMENTATION", "NoPreprocessing", "Preprocessing", "decode"]
