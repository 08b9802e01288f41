"""The paper's figure 1: a panel per group of classes, a row per classifier, a marker per run."""

import os
import pathlib
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from keras_lt.files import atomic
from keras_lt.report.figures import accuracy_rows, add_legend, encoded
from keras_lt.report.style import GROUP_LINES, PALETTE, RC, SPARE_STYLES
from keras_lt.significance import mean_and_deviation

LOOKS = [*PALETTE, *SPARE_STYLES]  # a classifier has a row here, so these tell runs apart
PANEL, ROW, OF_A_RUN = 1.6, 0.2, 0.08  # inches
ROOM = 0.6  # of the distance between two classifiers that the runs of one share

Accuracies = Mapping[str, Mapping[str, Sequence[float]]]  # classifier -> score -> accuracy of every seed


def draw_dots(runs: Mapping[str, Accuracies]) -> Figure:
    """Test accuracy on many-, medium- and few-shot classes and all: mean over seeds, and deviation where there are two.

    Args:
      runs: what tells a run from the others, such as its sampler -> its accuracies in [0, 1].
    """
    classifiers = list(dict.fromkeys(name for accuracies in runs.values() for name in accuracies))
    panels = [score for score in GROUP_LINES if _measured(runs, score)]
    figure = accuracy_rows(classifiers, panels, width=PANEL * (len(panels) + 1), row=ROW + OF_A_RUN * len(runs))
    for ax, score in zip(figure.axes, panels, strict=True):
        for number, (run, accuracies) in enumerate(runs.items()):
            look = LOOKS[number % len(LOOKS)]
            shift = ROOM * ((number + 0.5) / len(runs) - 0.5)
            shown = [(classifiers.index(name) + shift, row[score]) for name, row in accuracies.items() if row[score]]
            places = [place for place, _ in shown]
            means, deviations = (100 * np.array([mean_and_deviation(seeds) for _, seeds in shown])).reshape(-1, 2).T
            dots = {"marker": look.marker, "color": look.color, "linestyle": "none", "label": run}
            ax.errorbar(means, places, xerr=np.nan_to_num(deviations), elinewidth=1.2, **dots)
    add_legend(figure, figure.axes[0])
    return figure


def _measured(runs: Mapping[str, Accuracies], score: str) -> bool:
    """Whether there is such a class, and a finished run."""
    seeds = [seed for accuracies in runs.values() for row in accuracies.values() for seed in row[score]]
    return bool(seeds) and not np.isnan(seeds).all()


def save_figure(path: str | os.PathLike, figure: Figure) -> list[pathlib.Path]:
    """Writes a figure as PNG and as SVG, beside each other."""
    paths = {kind: pathlib.Path(path).with_suffix(f".{kind}") for kind in ("png", "svg")}
    with matplotlib.rc_context(RC):
        for kind, file in paths.items():
            with atomic(file) as scratch:
                scratch.write_bytes(encoded(figure, kind))
    return list(paths.values())
