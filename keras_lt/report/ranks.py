"""Classes in order of their training images: the x axis that most of a run's plots share."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from keras_lt.metrics import ShotGroups
from keras_lt.report.style import GROUP_SHADES, INK, Style
from keras_lt.report.tables import display_name

FEW_CLASSES = 20  # up to here every class is drawn and named; beyond, lines are smoothed over rank
MOST_POINTS = 400  # per line: more cannot be distinguished, and 8142 classes would weigh megabytes
LONGEST_NAME = 16  # characters of a class name below its tick
ROOM = 0.08  # share of the axis that a group's label, or the label of a tick, takes


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
    """Classes from most to fewest images of the training list; the first has rank 1.

    Attributes:
      order: class id at every rank, [C].
      counts, names: training images and name at every rank, [C].
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
        """Shades the groups, with their sizes on top, and writes class names or training images below."""
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
            ax.set_xlabel(f"training images ({len(self):,} classes, most first)")

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
