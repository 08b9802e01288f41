"""What every plot begins and ends with; pyplot and its global state play no part."""

import dataclasses
import io
from collections.abc import Sequence

import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_lt.report.cells import in_lines
from keras_lt.report.style import INK
from keras_lt.report.systems import display_name

SIZE = (4.8, 3.6)  # inches: two beside each other fill a page, and one is still readable on a phone
# Inches, of a legend.
LEGEND_LINE, LEGEND_MARK, LEGEND_CHARACTER = 0.2, 0.4, 0.065
MOST_COLUMNS = 4
LEAST_ROWS, FRAME = 3, 0.9  # of a figure of rows; the second in inches, above and below them


@dataclasses.dataclass(frozen=True)
class Plot:
    """A drawn plot: file name without suffix, words for readers with and without sight, the files."""

    name: str
    title: str
    caption: str
    alt: str
    svg: bytes
    png: bytes


def new_axes(ylabel: str) -> tuple[Figure, Axes]:
    """A figure of the usual size with one axes."""
    figure = Figure(figsize=SIZE)
    ax = figure.add_subplot()
    ax.set_ylabel(ylabel)
    lay_grid(ax, "y")
    return figure, ax


def accuracy_rows(classifiers: Sequence[str], scores: Sequence[str], *, width: float, row: float) -> Figure:
    """A figure with a panel per score, side by side, of the classifiers below one another, the first at 0.

    Args:
      width, row: inches of the figure, and of a line of a classifier's name.
    """
    names = [in_lines(display_name(name)) for name in classifiers]
    lines = max(len(names), LEAST_ROWS) + sum(name.count("\n") for name in names)
    figure = Figure(figsize=(width, FRAME + row * lines))
    panels = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
    for ax, score in zip(panels, scores, strict=True):
        ax.set_title(score, size=9)
        ax.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(3, integer=True, min_n_ticks=2))
        ax.margins(x=0.12)
        ax.tick_params(axis="y", length=0)
        lay_grid(ax, "both")
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    figure.supxlabel("test accuracy in %", size=9)
    return figure


def lay_grid(ax: Axes, axis: str) -> None:
    """A faint grid below all that is drawn."""
    ax.grid(axis=axis, color=INK, alpha=0.15, linewidth=0.6)
    ax.set_axisbelow(True)


def mark(ax: Axes, value: float, label: str, *, color: str = INK) -> None:
    """A dashed line at a value of the x axis, its label on top, kept inside of the plot."""
    ax.axvline(value, color=color, linewidth=1, linestyle=(0, (2, 2)))
    start, here, stop = ax.xaxis.get_transform().transform([ax.get_xlim()[0], value, ax.get_xlim()[1]])
    share = (here - start) / (stop - start)
    side = "left" if share < 0.3 else "right" if share > 0.7 else "center"
    ax.text(value, 1.02, label, transform=ax.get_xaxis_transform(), ha=side, size=8, color=color)


def add_legend(figure: Figure, ax: Axes) -> None:
    """The legend on top, for which a figure of many lines grows."""
    handles, labels = ax.get_legend_handles_labels()
    labels = list(map(in_lines, labels))
    longest = max(len(line) for label in labels for line in label.split("\n"))
    room = int(SIZE[0] // (LEGEND_MARK + LEGEND_CHARACTER * longest))
    columns = min(len(handles), max(room, 1), MOST_COLUMNS)
    lines = max(sum(label.count("\n") + 1 for label in column) for column in np.array_split(labels, columns))
    figure.set_figheight(figure.get_figheight() + LEGEND_LINE * (lines - 1))
    figure.legend(
        handles, labels, loc="outside upper center", ncols=columns, handlelength=2.4, columnspacing=1.0, fontsize=8
    )


def render(figure: Figure, *, name: str, title: str, caption: str, alt: str) -> Plot:
    """The figure as SVG and PNG."""
    return Plot(name, title, caption, alt, encoded(figure, "svg"), encoded(figure, "png"))


def encoded(figure: Figure, kind: str) -> bytes:
    """The figure as a file, "svg" or "png": the same bytes whenever it is drawn."""
    file = io.BytesIO()
    undated = dict.fromkeys(["Creator", "Date", "Format", "Type"]) if kind == "svg" else None
    figure.savefig(file, format=kind, metadata=undated)
    return file.getvalue()
