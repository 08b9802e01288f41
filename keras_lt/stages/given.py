"""What stage two is given in place of stage one's own: features by split, and a classifier to start from."""

from collections.abc import Mapping, Sequence

import keras
import numpy as np

from keras_lt.arguments import check_kind
from keras_lt.features import FeatureSet
from keras_lt.stages.checks import check_classes
from keras_lt.stages.representation import Representation

FEATURES = 'a dict such as {"train": FeatureSet(features, labels), "val": ...}'  # what they must be
KEYS = ("train", "val", "test", "open_set", "text")


def check_given(
    name: str, representation: Representation | None, features: Mapping[str, FeatureSet] | None, *, without_images: bool
):
    """Raises ValueError where a classifier has nothing to be trained on, or what is given is something else.

    Args:
      name: the classifier's.
      without_images: whether it is trained on images, and there are none.
    """
    if without_images or (representation is None and features is None):
        raise ValueError(
            f"{name} needs a representation and its images, or features to train on and stage_two=features. "
            f"Received: features={'None' if features is None else list(features)}"
        )
    for split, split_features in (features or {}).items():
        if split not in KEYS:
            raise ValueError(f"features must be of {', '.join(KEYS)}. Received: {', '.join(map(str, features))}")
        check_kind("features", split_features, FeatureSet, FEATURES)


def check_splits(features: Mapping[str, FeatureSet], splits: Sequence[str]):
    """Raises ValueError where there are no features of a split that is needed."""
    if missing := [split for split in splits if split not in features]:
        raise ValueError(
            f"features must be of {', '.join(dict.fromkeys(splits))}. "
            f"Received: {', '.join(features) or 'none'}, without {missing[0]}"
        )


def own_head(head: keras.layers.Layer, *, width: int) -> keras.layers.Layer:
    """A classifier that is given, as one built layer: it may come in a model of its own.

    Raises:
      ValueError: it is no such layer, or takes other features than those of this width.
    """
    layers = [head]
    if isinstance(head, keras.Model):
        layers = [layer for layer in head.layers if not isinstance(layer, keras.layers.InputLayer)]
    found = [layer for layer in layers if layer.built and hasattr(layer, "units") and hasattr(layer, "kernel")]
    if len(layers) != 1 or len(found) != 1:
        raise ValueError(
            "head must be one built layer with a kernel [D, C], such as Dense, or a model of one. "
            f"Received: {head.name} of {', '.join(type(layer).__name__ for layer in layers)}"
        )
    if found[0].kernel.shape[0] != width:
        raise ValueError(f"head must take the features, of width {width}. Received: {found[0].kernel.shape[0]}")
    return found[0]


def check_features(features: Mapping[str, FeatureSet], splits: Sequence[str], *, classes: int | None, trusted: bool):
    """Raises ValueError where features of a split are of another width, or no numbers, or its labels of no class.

    As in a `LongTailed`, every class has a training example: nothing that is fitted here could learn another.

    Args:
      splits: those that are needed.
      classes: C; None is as many as train has.
      trusted: whether they are known to be finite numbers.
    """
    widths = {split: examples.width for split, examples in features.items()}
    if len(set(widths.values())) > 1:
        raise ValueError(f"features of all splits must have one width. Received: {widths}")
    classes = classes or int(features["train"].labels.max(initial=-1)) + 1
    check_classes(range(classes))
    for name in dict.fromkeys(splits):
        labels = features[name].labels
        if not len(labels) or labels.min() < 0 or labels.max() >= classes:
            found = f"{labels.min()}..{labels.max()}" if len(labels) else "none"
            raise ValueError(f"labels must lie in 0..{classes - 1}. Received: {found} in {name}")
        absent = np.flatnonzero(np.bincount(labels, minlength=classes) == 0).tolist() if name == "train" else []
        if absent:
            raise ValueError(
                "Every class needs a training example: add some, or number the others from 0 without a gap. "
                f"Received: train with none of {len(absent)} of {classes} classes, such as {absent[0]}"
            )
        bad = None if trusted else features[name].first_not_finite
        if bad is not None:
            raise ValueError(f"features must be finite float32 numbers. Received: others in row {bad} of {name}")
