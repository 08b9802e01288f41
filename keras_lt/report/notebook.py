"""The report's plots for whoever works without a run, in a notebook: `IPython.display.Image(plot.png)` shows one."""

import matplotlib

from keras_lt.arguments import checked
from keras_lt.datasets import LongTailed
from keras_lt.report.figures import Plot
from keras_lt.report.plots import draw_class_counts, draw_tau_curve
from keras_lt.report.ranks import Ranks
from keras_lt.report.style import RC, styles_for
from keras_lt.stages import Classifier


@checked
def plot_class_counts(data: LongTailed) -> Plot:
    """The long tail: training images of every class, most first, on a log scale.

    >>> plot = keras_lt.plot_class_counts(data)
    >>> plot.alt
    '10 classes sorted by training images, from 1,000 down to 10.'
    """
    ranks = Ranks.sort(data.groups, class_counts=data.class_counts, class_names=data.class_names)
    with matplotlib.rc_context(RC):
        return draw_class_counts(ranks)


@checked
def plot_tau_curve(classifier: Classifier) -> Plot:
    """What every tau does to many-, medium- and few-shot classes of val, with the one that was chosen.

    >>> plot = keras_lt.plot_tau_curve(classifier)

    Args:
      classifier: of `learn_classifier("tau_norm", ...)` or "tau_search".
    Raises:
      ValueError: it did not choose a tau.
    """
    if "tau" not in classifier.chosen:
        raise ValueError(f"The classifier must have chosen a tau, as tau_norm does. Received: {classifier.chosen}")
    name = "tau_norm"
    with matplotlib.rc_context(RC):
        return draw_tau_curve(
            name, classifier.candidates, style=styles_for([name])[name], chosen_tau=classifier.chosen["tau"]
        )
