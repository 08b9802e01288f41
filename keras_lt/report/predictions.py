"""The page of a model's predictions for images without labels: which of them a person should look at."""

import collections
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from keras_lt.report.examples import picture
from keras_lt.report.page import template

SHOWN_CLASSES = 3  # in the headline


class Prediction(NamedTuple):
    """What a model says of an image: its classes and their probabilities, the surest first."""

    image: str
    ranked: Sequence[tuple[str, float]]


def render_predictions(
    model: str,
    predictions: Sequence[Prediction],
    least_certain: Sequence[tuple[Prediction, np.ndarray]],
    least_likely: Sequence[tuple[Prediction, np.ndarray]],
    *,
    problems: Mapping[str, str],
) -> str:
    """predictions.html, one file that needs nothing else.

    Args:
      model: its name.
      predictions: of all images, which are counted by class.
      least_certain, least_likely: those shown, with their thumbnails uint8 [H, W, 3].
      problems: image that could not be read -> why.
    """
    surest = collections.defaultdict(list)
    for prediction in predictions:
        label, probability = prediction.ranked[0]
        surest[label].append(probability)
    classes = [(label, len(own), float(np.mean(own))) for label, own in surest.items()]
    classes.sort(key=lambda row: (-row[1], row[0]))
    headline = ", ".join(f"{size:,} {label}" for label, size, _ in classes[:SHOWN_CLASSES])
    others = len(classes) - SHOWN_CLASSES
    return template("predictions.html").render(
        model=model,
        images=f"{len(predictions):,} image{'s' if len(predictions) != 1 else ''}",
        headline=headline + (f" and {others:,} more class{'es' if others > 1 else ''}" if others > 0 else ""),
        least_certain=_with_pictures(least_certain),
        least_likely=_with_pictures(least_likely),
        classes=classes,
        problems=list(problems.items()),
    )


def _with_pictures(shown):
    return [(prediction, picture(image, alt=prediction.image)) for prediction, image in shown]
