"""Tables, plots and a page from the plain numbers of one run."""

import os
import pathlib
from collections.abc import Mapping

from keras_lt import files
from keras_lt.report import published
from keras_lt.report.advice import advise, shared_examples
from keras_lt.report.cells import show
from keras_lt.report.details import RunDetails
from keras_lt.report.intervals import bootstrap_intervals
from keras_lt.report.page import Prediction, render_page, render_predictions
from keras_lt.report.plots import draw_plots
from keras_lt.report.tables import markdown, terminal_table
from keras_lt.work_folder import PLOTS

__all__ = [
    "Prediction",
    "RunDetails",
    "advise",
    "render_predictions",
    "shared_examples",
    "show",
    "terminal_table",
    "write_report",
]


def write_report(folder: str | os.PathLike, results: Mapping, details: RunDetails) -> dict[str, pathlib.Path]:
    """Writes results.md, report.html and the plots as PNG and SVG.

    Everything is rendered before the first file is written, and no file is ever there in part.

    Args:
      folder: made if missing; files of the same names are replaced.
      results: the content of results.json. Scores lie in [0, 1]; null or NaN is shown as a dash.
        It may also hold "best", the classifier chosen on val, "notes" and "advice", sentences for the reader, and
        "backbone" and "method", by which published scores are found.
      details: the arrays behind the plots, predictions and images.
    Returns: name within the folder, such as "plots/class_counts.svg" -> path.
    """
    intervals = bootstrap_intervals(details.scores, details.groups)
    comparison = published.compare(results, groups=details.groups)
    plots = draw_plots(results, details, intervals=intervals.accuracies, published=comparison.ours)
    pages = {
        "results.md": markdown(results, {f"{PLOTS}/{plot.name}.png": plot.title for plot in plots}),
        "report.html": render_page(results, details, plots, intervals=intervals, comparison=comparison),
    }
    images = {f"{PLOTS}/{plot.name}.{kind}": getattr(plot, kind) for plot in plots for kind in ("png", "svg")}
    paths = {name: pathlib.Path(folder, name) for name in (*pages, *images)}
    for name, text in pages.items():
        files.write_text(paths[name], text)
    for name, content in images.items():
        with files.atomic(paths[name]) as scratch:
            scratch.write_bytes(content)
    return paths
