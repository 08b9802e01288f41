"""The summary of repeated runs as tables, in words and as a plot; `keras_lt.repeat` computes it."""

import os
import pathlib
from collections.abc import Mapping

import matplotlib
import numpy as np
import rich.table
from matplotlib.figure import Figure

from keras_lt.files import atomic, write_json, write_text
from keras_lt.report.cells import DASH, Cell, Table, ends, markdown_table, mean_cells, percent, points, rich_table
from keras_lt.report.figures import add_legend, lay_grid
from keras_lt.report.style import GROUP_LINES, INK, RC, styles_for
from keras_lt.report.tables import SCORES, display_name

COMPARED = tuple(GROUP_LINES)  # many, medium, few, all; where classes have equally many test examples, all is the mean
SUMMARY_FILES = ("summary.json", "summary.md", "differences.png")
SMALLEST_P = 0.001  # of smaller ones only that is said


def tables(summary: Mapping) -> list[Table]:
    """Means with deviations, intervals, and where there are two classifiers or more their differences."""
    classifiers, header = summary["classifiers"], ["Classifier", *SCORES.values()]
    names = [Cell(display_name(name)) for name in classifiers]
    columns = [[row[score] for row in classifiers.values()] for score in SCORES]
    means = [mean_cells([(of["mean"], of["deviation"]) for of in column]) for column in columns]
    intervals = [[Cell(ends(of["interval"], percent)) for of in column] for column in columns]
    means, intervals = (list(zip(names, *cells, strict=True)) for cells in (means, intervals))
    found = [
        Table("Top-1 accuracy on test in %, mean ± standard deviation over seeds", header, means),
        Table("95 % interval over test examples, of the mean over seeds", header, intervals),
    ]
    header = ["Classifier", *(f"Δ {score}" for score in COMPARED), "p"]
    for reference, comparisons in _comparisons(summary).items():
        rows = [[Cell(display_name(name)), *_differences(comparison)] for name, comparison in comparisons.items()]
        found.append(Table(f"Points above {display_name(reference)}, with 95 % intervals", header, rows))
    return found


def _comparisons(summary: Mapping) -> dict[str, Mapping]:
    """Reference -> the others beside it; without those of a classifier that is alone."""
    return {reference: others for reference, others in summary["comparisons"].items() if others}


def _differences(comparison: Mapping) -> list[Cell]:
    """Differences of which an interval without 0 stands out, and the largest p over seeds."""
    cells = []
    for score in COMPARED:
        mean, (low, high) = (comparison["differences"][score][key] for key in ("mean", "interval"))
        text = DASH if np.isnan(mean) else f"{points(mean)} ({ends((low, high), points)})"
        cells.append(Cell(text, best=bool(low > 0 or high < 0)))
    largest = max(comparison["p_values"])
    return [*cells, Cell(f"< {SMALLEST_P}" if largest < SMALLEST_P else f"{largest:.3f}")]


def terminal_tables(summary: Mapping) -> list[rich.table.Table]:
    """The tables for the terminal; what is bold in Markdown is bold and starred."""
    return [rich_table(table, title_justify="left") for table in tables(summary)]


def markdown(summary: Mapping, *, plot: str) -> str:
    """summary.md: how to read the numbers, the tables (what stands out in bold) and the plot."""
    parts = [
        f"# {summary['dataset']}, one run per seed: {', '.join(map(str, summary['seeds']))}",
        f"Best on val, by the mean over seeds: {display_name(summary['best'])}.",
        "The deviation is of training: same test examples, other seeds (a sample's: over n - 1). The interval is of "
        f"the test split: same classifiers, its {summary['test_images']:,} examples drawn anew within their classes "
        f"{summary['resamples']:,} times. Neither contains the other.",
    ]
    for table in tables(summary):
        parts += [f"{table.title}:", markdown_table(table)]
    if _comparisons(summary):
        parts.append(
            "In bold: the interval leaves out 0. p: McNemar's exact test over all test examples, one seed at a time; "
            "the largest is shown. No figure is corrected for the number of comparisons."
        )
        parts.append(f"![Differences with 95 % intervals]({plot})")
    return "\n\n".join(parts) + "\n"


def draw_differences(summary: Mapping) -> Figure:
    """How far classifiers are from the first they are compared with, Joint where there is one: means and intervals."""
    reference, shown = next(iter(_comparisons(summary).items()))
    styles = styles_for(summary["classifiers"])
    scores = [score for score in COMPARED if not np.isnan(summary["classifiers"][reference][score]["mean"])]
    figure = Figure(figsize=(5.6, 0.8 + len(scores) * (0.3 + 0.17 * len(shown))))
    ax = figure.add_subplot()
    ax.axvline(0, color=INK, linewidth=1)
    for number, (name, comparison) in enumerate(shown.items()):
        style = styles[name]
        below = 0.72 * ((number + 0.5) / len(shown) - 0.5)  # lines of a group stand close, groups apart
        for place, score in enumerate(scores):
            estimate = comparison["differences"][score]
            mean, interval, per_seed = (100 * np.asarray(estimate[key]) for key in ("mean", "interval", "per_seed"))
            y, label = place + below, display_name(name) if place == 0 else None
            ax.hlines(y, *interval, color=style.color)
            ax.plot(per_seed, np.full(len(per_seed), y), "|", color=style.color, markersize=8, markeredgewidth=0.8)
            ax.plot(mean, y, marker=style.marker, color=style.color, label=label, linestyle="none")
    ax.set_yticks(range(len(scores)), scores)
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    lay_grid(ax, "x")
    ax.set_xlabel(
        f"points of test accuracy above {display_name(reference)}\n"
        "marker: mean; tick: one seed; line: 95 % interval over test examples"
    )
    add_legend(figure, ax)
    return figure


def write_summary(folder: str | os.PathLike, summary: Mapping) -> list[pathlib.Path]:
    """Writes `summary.json`, `summary.md` and, where there is something to compare, `differences.png`; their paths."""
    json_path, markdown_path, plot_path = (pathlib.Path(folder, name) for name in SUMMARY_FILES)
    write_json(json_path, summary)
    write_text(markdown_path, markdown(summary, plot=plot_path.name))
    if not _comparisons(summary):
        return [json_path, markdown_path]
    with matplotlib.rc_context(RC), atomic(plot_path) as scratch:
        draw_differences(summary).savefig(scratch)
    return [json_path, markdown_path, plot_path]
