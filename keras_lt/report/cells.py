"""Numbers as tables have them, the best of a column, and tables in Markdown and for the terminal."""

import math
import textwrap
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import rich
import rich.box
import rich.console
import rich.markup
import rich.measure
import rich.table
import rich.text

DASH = "—"
NAME_LINE = 26  # characters of a name's line in a plot


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


def in_lines(name: str) -> str:
    """A name with line breaks, for a plot."""
    return textwrap.fill(name, NAME_LINE, break_long_words=False, break_on_hyphens=False)


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
    """For the terminal; what stands out is bold and starred. Where room is short names are folded, and no number is."""
    title = rich.markup.escape(table.title)
    shown = rich.table.Table(title=title, box=rich.box.SIMPLE_HEAD, padding=0, **options)
    rows = [[_starred(cell) for cell in row] for row in table.rows]
    for column, name in enumerate(table.header):
        layout = {"overflow": "fold"}
        if column in table.numbers:
            lines = "\n".join([name, *(row[column].plain for row in rows)]).split("\n")
            layout = {"justify": "right", "no_wrap": True, "min_width": max(map(len, lines))}
        shown.add_column(rich.markup.escape(name), **layout)
    for row in rows:
        shown.add_row(*row)
    return shown


def _starred(cell: Cell) -> rich.text.Text:
    """A cell as text, and not as the markup that rich takes square brackets for."""
    text = f"*{cell.text}" if cell.best else cell.text
    # What is in brackets stands below its number: eighty columns hold the table.
    return rich.text.Text(text.replace(" (", "\n("), "bold" if cell.best else "")


def show(*tables: rich.table.Table):
    """Prints tables, wider than the terminal where their numbers are; a file has no width that they must fit."""
    console = rich.get_console()
    for table in tables:
        least, most = rich.measure.Measurement.get(console, console.options.update(max_width=10_000), table)
        width = max(console.width, least if console.is_terminal else most)
        rich.console.Console(width=width).print(table)
