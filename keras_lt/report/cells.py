"""Numbers as tables have them, the best of a column, and tables in Markdown and for the terminal."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import rich.box
import rich.table
import rich.text

DASH = "—"


class Cell(NamedTuple):
    """A table cell; `best` marks the highest score of its column."""

    text: str
    best: bool = False


class Table(NamedTuple):
    """A header and rows of cells; the columns from `names` on, up to `end`, are numbers, which align right."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    names: int = 1
    end: int | None = None

    @property
    def numbers(self) -> range:
        """The columns that align right."""
        return range(len(self.header))[self.names : self.end]


def as_number(value: float | None) -> float:
    """A score as a float; null, which JSON has for "no such class", is NaN."""
    return math.nan if value is None else float(value)


def percent(fraction: float | None) -> str:
    """0.379 -> "37.9"; a dash where nothing was measured."""
    fraction = as_number(fraction)
    return DASH if math.isnan(fraction) else f"{100 * fraction:.1f}"


def points(difference: float) -> str:
    """A difference of fractions in signed percentage points: 0.077 -> "+7.7"; a dash for NaN."""
    if math.isnan(difference):
        return DASH
    rounded = round(100 * difference, 1)
    return f"{rounded:+.1f}" if rounded else "0.0"


def ends(interval: Sequence[float], form: Callable[[float], str]) -> str:
    """An interval, such as "88.0…92.0"; a dash for NaN."""
    return DASH if np.isnan(interval).any() else f"{form(interval[0])}…{form(interval[1])}"


def with_deviation(mean: float, deviation: float) -> str:
    """Fractions in percent, "79.6 ± 0.4"; of one seed "79.6", of none a dash."""
    return percent(mean) + ("" if math.isnan(mean + deviation) else f" ± {percent(deviation)}")


def column_cells(
    numbers: Sequence[float | None], texts: Sequence[str] = (), *, lowest: bool = False, zero: bool = True
) -> list[Cell]:
    """A column of fractions; best are those that print as the best of them does.

    Args:
      texts: to be shown for them; empty is in percent.
      lowest: whether the lowest is best.
      zero: whether one of 0 can be best.
    """
    known = [number for number in map(as_number, numbers) if not math.isnan(number)]
    best, printed = percent((min if lowest else max)(known, default=None)), list(map(percent, numbers))
    none = (DASH,) if zero else (DASH, percent(0))
    cells = zip(texts or printed, printed, strict=True)
    return [Cell(text, best=number == best and number not in none) for text, number in cells]


def mean_cells(scores: Sequence[tuple[float, float]]) -> list[Cell]:
    """A column of means and their deviations; best are the highest means."""
    return column_cells([mean for mean, _ in scores], [with_deviation(*score) for score in scores])


def markdown_table(table: Table) -> str:
    """What stands out is bold."""
    rule = ["---:" if column in table.numbers else "---" for column in range(len(table.header))]
    rows = [[f"**{text}**" if best else text for text, best in row] for row in table.rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [table.header, rule, *rows])


def rich_table(table: Table, **options) -> rich.table.Table:
    """For the terminal; what stands out is bold and starred."""
    shown = rich.table.Table(title=table.title, box=rich.box.SIMPLE_HEAD, padding=0, **options)
    for column, name in enumerate(table.header):
        shown.add_column(name, justify="right" if column in table.numbers else "left")
    for row in table.rows:  # what is in brackets stands below its number: eighty columns hold the table
        lines = [Cell((f"*{text}" if best else text).replace(" (", "\n("), best) for text, best in row]
        # Text, not str: rich would read square brackets as markup
        shown.add_row(*(rich.text.Text(text, "bold" if best else "") for text, best in lines))
    return shown
