"""Tables of scores, in Markdown and for the terminal."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import rich.box
import rich.table
import rich.text

from keras_lt.report.tables import DASH, Cell, percent


class Table(NamedTuple):
    """A title, a header, and rows of cells; the first `names` columns are words, `best` marks what stands out."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    names: int = 1


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Of a sample, over n - 1; NaN where there are too few values."""
    mean = float(np.mean(values)) if len(values) else math.nan
    return mean, float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def with_deviation(mean: float, deviation: float) -> str:
    """Fractions in percent, "79.6 ± 0.4"; of one seed "79.6", of none a dash."""
    return percent(mean) + ("" if math.isnan(mean + deviation) else f" ± {percent(deviation)}")


def mark_best(columns: Sequence[Sequence[float]], texts: Sequence[Sequence[str]]) -> list[list[Cell]]:
    """Cells of the texts, column by column: best are those whose number prints as the column's highest does."""
    cells = []
    for numbers, words in zip(columns, texts, strict=True):
        highest = percent(max((n for n in numbers if not math.isnan(n)), default=None))
        shown = zip(numbers, words, strict=True)
        cells.append([Cell(word, best=percent(number) == highest != DASH) for number, word in shown])
    return cells


def markdown_table(table: Table) -> str:
    """What stands out is bold."""
    rule = ["---" if column < table.names else "---:" for column in range(len(table.header))]
    rows = [[f"**{text}**" if best else text for text, best in row] for row in table.rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [table.header, rule, *rows])


def terminal_table(table: Table) -> rich.table.Table:
    """What stands out is bold and starred."""
    shown = rich.table.Table(title=table.title, box=rich.box.SIMPLE_HEAD, padding=0, title_justify="left")
    for column, name in enumerate(table.header):
        shown.add_column(name, justify="left" if column < table.names else "right")
    for row in table.rows:  # what is in brackets stands below its number: eighty columns hold the table
        lines = [Cell((f"*{text}" if best else text).replace(" (", "\n("), best) for text, best in row]
        # Text, not str: rich would read square brackets as markup
        shown.add_row(*(rich.text.Text(text, "bold" if best else "") for text, best in lines))
    return shown
