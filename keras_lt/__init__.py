"""Long-tailed image recognition with Keras 3: learn the representation first, then balance the classifier.

>>> import keras_lt
>>> data = keras_lt.load("fashion_lt")  # or ("folder", "my_images")
>>> recipe = keras_lt.Recipe(epochs=1, batch_size=64, learning_rate=0.1)
>>> representation = keras_lt.learn_representation(data, backbone="resnet8", recipe=recipe)
38/38 - ...
>>> features = {
...     split: keras_lt.extract_features(representation.backbone, data.splits[split], representation.preprocessing)
...     for split in ("train", "val", "test")
... }
2478/2478 - ...
>>> classifier = keras_lt.learn_classifier("tau_norm", representation, data, features=features)
>>> scores = keras_lt.evaluate_classifier(classifier.model, features["test"], data.groups)
>>> list(scores.accuracies)
['many', 'medium', 'few', 'all', 'class_mean']

The examples of these functions go on with the names above. What goes by name stands in a dict of its family, such as
`keras_lt.classifiers.CLASSIFIERS`. All is loaded when first used, so that `import keras_lt` costs nothing.
"""

import importlib
import sys

import wrapt

__version__ = "0.2.0"

_HOME = {
    "Classifier": "stages.Classifier",
    "FeatureSet": "features.FeatureSet",
    "LongTailed": "datasets.LongTailed",
    "Recipe": "recipe.Recipe",
    "Representation": "stages.Representation",
    "Run": "run.Run",
    "ShotAccuracy": "metrics.ShotAccuracy",
    "ShotGroups": "metrics.ShotGroups",
    "Split": "datasets.Split",
    "balance": "resampling.balance",
    "evaluate_classifier": "evaluation.evaluate_classifier",
    "export_saved_model": "serving.export_saved_model",
    "extract_features": "features.extract_features",
    "join": "stages.join",
    "learn_classifier": "stages.learn_classifier",
    "learn_representation": "stages.learn_representation",
    "load": "datasets.load",
    "plot_class_counts": "report.plots.plot_class_counts",
    "plot_tau_curve": "report.plots.plot_tau_curve",
    "shot_accuracy": "metrics.shot_accuracy",
}
_FAMILIES = ("backbones", "classifiers", "datasets", "losses", "methods", "metrics", "samplers")

__all__ = list(_HOME) + list(_FAMILIES)


def __getattr__(name: str):
    if name in _FAMILIES:
        return importlib.import_module(f"keras_lt.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'keras_lt' has no attribute '{name}'")
    module, _, attribute = _HOME[name].rpartition(".")
    return getattr(importlib.import_module(f"keras_lt.{module}"), attribute)


def __dir__():
    return sorted({*globals(), *__all__})


def _find_here(keras):
    """Makes Keras look for this package's classes: they are registered once a saved model names one of them."""
    keras_find = keras.saving.get_registered_object
    home = sys.modules[keras_find.__module__]

    def find(name, *args, **kwargs):
        if str(name).startswith("keras_lt>"):
            home.get_registered_object = keras_find
            for family in ("backbones", "classifiers", "losses", "metrics", "methods", "stages"):
                importlib.import_module(f"keras_lt.{family}")
        return keras_find(name, *args, **kwargs)

    home.get_registered_object = find


wrapt.register_post_import_hook(_find_here, "keras")  # now, or when somebody imports it
