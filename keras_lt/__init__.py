"""Long-tailed image recognition with Keras 3: learn the representation first, then balance the classifier.

Names are loaded when first used, so that `import keras_lt` costs nothing.
"""

import importlib

__version__ = "0.1.0"

_HOME = {
    "LongTailed": "datasets",
    "Recipe": "optimization",
    "balance": "resampling",
    "learn_classifier": "stages",
    "learn_representation": "stages",
}

__all__ = list(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'keras_lt' has no attribute '{name}'")
    return getattr(importlib.import_module(f"keras_lt.{_HOME[name]}"), name)


def __dir__():
    return sorted([*globals(), *_HOME])
