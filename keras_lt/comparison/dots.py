"""The paper's figure 1: a panel per group of classes, classifiers side by side, a marker per run."""

import os
import pathlib
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from keras_lt.files import atomic
from keras_lt.report.figures import lay_grid
from keras_lt.report.style import GROUP_LINES, PALETTE, RC, SPARE_STYLES
from keras_lt.report.tables import display_name
from keras_lt.significance import mean_and_deviation

LOOKS = [*PALETTE, *SPARE_STYLES]  # classifiers stand side by side here, so these tell runs apart
PANEL = (2.6, 3.3)  # inches
ROOM = 0.6  # of the distance between two classifiers that the runs of one share

Accuracies = Mapping[str, Mapping[str, Sequence[float]]]  # classifier -> score -> accuracy of every seed


def draw_dots(runs: Mapping[str, Accuracies]) -> Figure:
    """Test accuracy on many-, medium- and few-shot classes and all: mean over seeds, and deviation where there are two.

    Args:
      runs: what tells a run from the others, such as its sampler -> its accuracies in [0, 1].
    """
    classifiers = list(dict.fromkeys(name for accuracies in runs.values() for name in accuracies))
    panels = [score for score in GROUP_LINES if _measured(runs, score)]
    figure = Figure(figsize=(PANEL[0] * len(panels), PANEL[1]))
    for ax, score in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for number, (run, accuracies) in enumerate(runs.items()):
            look = LOOKS[number % len(LOOKS)]
            shift = ROOM * ((number + 0.5) / len(runs) - 0.5)
            shown = [(classifiers.index(name) + shift, row[score]) for name, row in accuracies.items() if row[score]]
            places = [place for place, _ in shown]
            means, deviations = (100 * np.array([mean_and_deviation(seeds) for _, seeds in shown])).reshape(-1, 2).T
            ax.errorbar(
                places, means, np.nan_to_num(deviations), fmt=look.marker, color=look.color, elinewidth=1.2, label=run
            )
        ax.set_title(score, size=10)
        names = map(display_name, classifiers)
        ax.set_xticks(range(len(classifiers)), names, rotation=40, ha="right", rotation_mode="anchor")
        ax.set_xlim(-0.5, len(classifiers) - 0.5)
        ax.tick_params(axis="x", length=0)
        lay_grid(ax, "y")
    figure.axes[0].set_ylabel("test accuracy in %")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(runs), 4))
    return figure


def _measured(runs: Mapping[str, Accuracies], score: str) -> bool:
    """Whether there is such a class, and a finished run."""
    seeds = [seed for accuracies in runs.values() for row in accuracies.values() for seed in row[score]]
    return bool(seeds) and not np.isnan(seeds).all()


def save_figure(path: str | os.PathLike, figure: Figure) -> list[pathlib.Path]:
    """Writes a figure as PNG and as SVG, beside each other."""
    paths = [pathlib.Path(path).with_suffix(suffix) for suffix in (".png", ".svg")]
    with matplotlib.rc_context(RC):
        for file in paths:
            with atomic(file) as scratch:
                figure.savefig(scratch)
    return paths
