"""Which of a classifier's options is taken: each is scored, in one pass where they share a layer."""

from collections.abc import Callable, Generator, Iterator, Mapping
from multiprocessing.pool import ThreadPool

import keras
import numpy as np

from keras_lt.classifiers.chunks import classify, in_chunks, largest, parts_of
from keras_lt.features import FeatureSet
from keras_lt.metrics import ShotGroups
from keras_lt.stages.fitting import CHOSEN_BY


def chooses(options: list[tuple[list[dict] | Generator, keras.layers.Layer]]) -> bool:
    """Whether one of several is to be chosen, of what a classifier's entry gives."""
    return len(options) > 1 or not isinstance(options[0][0], list) or len(options[0][0]) > 1


def best_of(tried: list[tuple], preferred: Mapping[str, object] | None, examples: int) -> tuple:
    """The first of the best options, or the preferred one where the best is no better by more than a standard error.

    Args:
      examples: that the options were scored on, by which the error of an accuracy p is sqrt(p (1 - p) / examples).
    """
    best = max(tried, key=lambda option: option[-1][CHOSEN_BY])
    for option in tried if preferred else ():
        accuracy = option[-1][CHOSEN_BY]
        error = (accuracy * (1 - accuracy) / examples) ** 0.5
        if option[0] == preferred and best[-1][CHOSEN_BY] - accuracy <= error:
            return option
    return best


def each_judged(
    choices: list[dict] | Generator, judge: Callable[[list[dict]], list[dict]]
) -> Iterator[tuple[dict, dict[str, float]]]:
    """Every choice with its scores, of a list or of all that a search asks for."""
    asked = choices if isinstance(choices, list) else next(choices, None)
    while asked:
        scores = judge(asked)
        yield from zip(asked, scores, strict=True)
        try:
            asked = None if isinstance(choices, list) else choices.send([one[CHOSEN_BY] for one in scores])
        except StopIteration:
            return


def scores_of(layer, judged: FeatureSet, groups: ShotGroups, choices: list[dict]) -> list[dict[str, float]]:
    """The accuracies of each choice, in chunks: neither all features nor all logits are ever in memory."""
    if len(choices) == 1:
        return [groups.of_predictions(classify(layer, judged.features), judged.labels)]
    logits_by = [layer.logits_by(keras.ops.convert_to_numpy, **choice) for choice in choices]
    predicted = []
    with ThreadPool() as pool:  # of parts in a core's cache; NumPy lets go of Python's lock
        for chunk in in_chunks(layer, judged.features):
            parts = parts_of(layer.shared(keras.ops.convert_to_tensor(chunk)))
            predicted += pool.imap(lambda part: [largest(logits(part)) for logits in logits_by], parts)
    return [groups.of_predictions(classes, judged.labels) for classes in np.concatenate(predicted, axis=1)]


def as_chosen(layer: keras.layers.Layer, chosen: dict, width: int) -> keras.layers.Layer:
    """A layer that stood for several choices, as the one with these arguments of its constructor."""
    settled = type(layer).from_config({**layer.get_config(), **chosen})
    settled.build((None, width))
    settled.set_weights(layer.get_weights())
    return settled
