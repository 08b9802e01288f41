"""Data sets: a name and a folder in, `LongTailed` out. A new one is a function and a line in `DATASETS`."""

from keras_lt.datasets.arrays import arrays, fashion_lt
from keras_lt.datasets.lists import places_lt
from keras_lt.datasets.long_tailed import LongTailed, Split, carve_validation

DATASETS = {"arrays": arrays, "fashion_lt": fashion_lt, "places_lt": places_lt}

__all__ = ["DATASETS", "LongTailed", "Split", "arrays", "carve_validation", "fashion_lt", "places_lt"]
