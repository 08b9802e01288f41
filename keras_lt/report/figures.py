"""What every plot begins and ends with, and the x axis that most share; pyplot and its global state play no part."""

import dataclasses
import io
from collections.abc import Mapping, Sequence

import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_lt.metrics import ShotGroups
from keras_lt.report.cells import in_lines
from keras_lt.report.style import GROUP_SHADES, INK, Style
from keras_lt.report.systems import display_name

SIZE = (4.8, 3.6)  # inches: two beside each other fill a page, and one is still readable on a phone
# Inches, of a legend.
LEGEND_LINE, LEGEND_MARK, LEGEND_CHARACTER = 0.2, 0.4, 0.065
MOST_COLUMNS = 4
LEAST_ROWS, FRAME = 3, 0.9  # of a figure of rows; the second in inches, above and below them
FEW_CLASSES = 20  # up to here every class is drawn and named; beyond, lines are smoothed over rank
MOST_POINTS = 400  # per line: more cannot be distinguished, and 8142 classes would weigh megabytes
LONGEST_NAME = 16  # characters of a class name below its tick
ROOM = 0.08  # share of the axis that a group's label, or the label of a tick, takes


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


def smooth(values: Sequence[float], window: int) -> np.ndarray:
    """Running mean over `window` (odd) neighbors, [C] -> [C]; it skips NaN and is truncated at both ends."""
    values = np.asarray(values, np.float64)
    known = ~np.isnan(values)
    sums, numbers = (np.insert(np.cumsum(terms), 0, 0) for terms in (np.where(known, values, 0.0), known))
    center = np.arange(len(values))
    start, stop = np.maximum(center - window // 2, 0), np.minimum(center + window // 2 + 1, len(values))
    number = numbers[stop] - numbers[start]
    return np.where(number > 0, (sums[stop] - sums[start]) / np.maximum(number, 1), np.nan)


@dataclasses.dataclass(frozen=True)
class Ranks:
    """Classes from most to fewest examples of the training list; the first has rank 1.

    Attributes:
      order: class id at every rank, [C].
      counts, names: training examples and name at every rank, [C].
      groups: number of many-, medium- and few-shot classes, which follow each other in rank.
    """

    order: np.ndarray
    counts: np.ndarray
    names: Sequence[str]
    groups: Mapping[str, int]

    @classmethod
    def sort(cls, groups: ShotGroups, *, class_counts: np.ndarray, class_names: Sequence[str]) -> "Ranks":
        """Sorts classes given by id, [C], by the list that groups go by; of equal counts, classes keep their order."""
        order = np.argsort(-groups.class_counts, kind="stable")
        return cls(order, np.asarray(class_counts)[order], [class_names[c] for c in order], groups.sizes)

    def __len__(self) -> int:
        return len(self.order)

    @property
    def named(self) -> bool:
        """Whether there are few enough classes to draw each with its name."""
        return len(self) <= FEW_CLASSES

    @property
    def window(self) -> int:
        """Neighbors that a smoothed line averages over: about a twelfth of the classes, odd."""
        return len(self) // 12 | 1

    @property
    def shown(self) -> np.ndarray:
        """Positions that a line is drawn through: all, or so many as can be distinguished."""
        return np.linspace(0, len(self) - 1, min(len(self), MOST_POINTS)).round().astype(int)

    def draw_axis(self, ax: Axes) -> None:
        """Shades the groups, with their sizes on top, and writes class names or training examples below."""
        edges = np.cumsum([0, *(self.groups[group] for group in GROUP_SHADES)])
        for (group, shade), start, stop in zip(GROUP_SHADES.items(), edges, edges[1:], strict=False):
            ax.axvspan(start + 0.5, stop + 0.5, color=INK, alpha=shade, linewidth=0)
            if stop - start > ROOM * len(self):
                middle = (start + stop) / 2 / len(self)
                label = f"{group}\n{stop - start}"
                ax.text(middle, 1.02, label, transform=ax.transAxes, ha="center", va="bottom", size=8)
        ax.set_xlim(0.5, len(self) + 0.5)
        if self.named:
            names = [n if len(n) <= LONGEST_NAME else n[: LONGEST_NAME - 1] + "…" for n in self.names]
            ax.set_xticks(np.arange(len(self)) + 1, names, rotation=40, ha="right", rotation_mode="anchor")
            for label in ax.get_xticklabels():
                label.set_parse_math(False)  # a dollar in a class name is a dollar
        else:
            ticks = self._ticks(edges)
            ax.set_xticks(ticks + 1, [f"{self.counts[t]:,}" for t in ticks])
            ax.set_xlabel(f"training examples ({len(self):,} classes, most first)")

    def _ticks(self, edges: np.ndarray) -> np.ndarray:
        """Positions of the first, the last and each group's first class, then of others with room."""
        last = len(self) - 1
        wanted = [0, last, *edges[1:-1], *np.linspace(0, last, 9).round().astype(int)]
        ticks = []
        for position in wanted:
            if all(abs(position - other) > ROOM * last for other in ticks):
                ticks.append(int(position))
        return np.sort(ticks)

    def draw_lines(
        self, ax: Axes, *, values: Mapping[str, np.ndarray], styles: Mapping[str, Style], raw: bool = False
    ) -> None:
        """Draws a line per classifier.

        Args:
          values: classifier -> one value per class id, [C]. Lines over many classes are smoothed.
          styles: classifier -> how it is drawn.
          raw: also draw the values themselves below their smoothed line, in a light shade.
        """
        step = max(len(self.shown) // 6, 1)
        for number, name in enumerate(values):
            style, line = styles[name], np.asarray(values[name], np.float64)[self.order]
            look = {**style.line, "label": display_name(name)}
            if self.named:
                ax.plot(self.shown + 1, line, **look)
                continue
            if raw:
                ax.plot(self.shown + 1, line[self.shown], color=style.color, alpha=0.3, linewidth=0.5)
            first = step * number // len(values)  # markers of lines that run together stand beside each other
            smoothed = smooth(line, self.window)[self.shown]
            ax.plot(self.shown + 1, smoothed, markevery=(first, step), **look)
