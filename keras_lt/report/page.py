"""The pages: of one run, and of predictions for images without labels. Each is one file that needs nothing else."""

import collections
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jinja2
import numpy as np

from keras_lt.report import cells, examples, tables
from keras_lt.report.details import RunDetails
from keras_lt.report.figures import Plot
from keras_lt.report.intervals import Ends, Intervals
from keras_lt.report.published import Comparison
from keras_lt.report.style import DARK_COLORS
from keras_lt.report.systems import BASELINE, classifier_facts

GAINS = {"few": "Δ few", "all": "Δ all"}
SHOWN_CLASSES = 3  # in the headline


class Prediction(NamedTuple):
    """What a model says of an image: its classes and their probabilities, the surest first."""

    image: str
    ranked: Sequence[tuple[str, float]]


def render_page(
    results: Mapping, details: RunDetails, plots: Sequence[Plot], *, intervals: Intervals, comparison: Comparison
) -> str:
    """report.html: headline, tables, plots, examples and flags; plots are inline and follow the page's dark mode."""
    shown = details.exported or tables.best_classifier(results)
    scored = details.scores.get(shown)
    group, samples = examples.samples(details, scored) if scored else ("", {})
    measure_header, measure_rows = tables.measure_table(results)
    return template("report.html").render(
        dataset=results["dataset"],
        headline=tables.headline(results),
        facts=tables.facts(results),
        notes=results.get("notes", []),
        advice=results.get("advice", []),
        header=tables.HEADER,
        numeric=tables.NUMERIC,
        rows=_rows(results, intervals, comparison),
        published=comparison.label,
        others=[(name, [_known(of, score) for score in tables.SCORES]) for name, of in comparison.others.items()],
        has_intervals=bool(intervals.accuracies),
        measure_header=measure_header,
        measure_rows=measure_rows,
        distances=[name for name in results["classifiers"] if classifier_facts(name).distances],
        figures=[(plot, _inline(plot.svg)) for plot in plots],
        shown=shown,
        pairs=examples.confused_pairs(details, scored) if scored else [],
        group=group,
        samples=samples if details.thumbnails else {},
        scored=scored,
        class_names=details.class_names,
        class_counts=details.class_counts,
        flags=details.flags,
    )


def template(name: str) -> jinja2.Template:
    """A template of the package, which knows the page's colors."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("keras_lt"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": tables.percent, "display_name": tables.display_name}
    environment.globals["colors"] = [(_variable(color), color, dark) for color, dark in DARK_COLORS.items()]
    return environment.get_template(name)


def _rows(results: Mapping, intervals: Intervals, comparison: Comparison) -> list[list[tuple[tables.Cell, str, str]]]:
    """The table's cells, each with its interval and its published number in words, both empty where there is none."""
    rows = []
    for name, row in zip(results["classifiers"], tables.score_rows(results), strict=True):
        below = {
            label: (
                _range(intervals.accuracies.get(name), score, tables.percent),
                _known(comparison.ours.get(name), score),
            )
            for score, label in tables.SCORES.items()
        }
        if name != BASELINE:
            gains = intervals.gains.get(name)
            below |= {label: (_range(gains, score, tables.points), "") for score, label in GAINS.items()}
        rows.append([(cell, *below.get(label, ("", ""))) for label, cell in zip(tables.HEADER, row, strict=True)])
    return rows


def _range(of: Ends | None, score: str, form: Callable[[float], str]) -> str:
    return "" if of is None or np.isnan(of[score]).any() else cells.ends(of[score], form)


def _known(scores: Mapping[str, float] | None, score: str) -> str:
    return tables.percent(scores[score]) if scores and score in scores else ""


def _inline(svg: bytes) -> str:
    """The svg element alone: colors are variables of the page, ids that plots would share are gone."""
    text = svg.decode()
    text = re.sub(r' id="[\w.]+_\d+"', "", text[text.index("<svg") :])
    for color in DARK_COLORS:
        text = text.replace(color, f"var({_variable(color)})")
    return text


def _variable(color: str) -> str:
    return f"--c{color.removeprefix('#')}"


def render_predictions(
    model: str,
    predictions: Sequence[Prediction],
    least_certain: Sequence[tuple[Prediction, np.ndarray]],
    least_likely: Sequence[tuple[Prediction, np.ndarray]],
    *,
    problems: Mapping[str, str],
) -> str:
    """predictions.html, one file that needs nothing else.

    Args:
      model: its name.
      predictions: of all images, which are counted by class.
      least_certain, least_likely: those shown, with their thumbnails uint8 [H, W, 3].
      problems: image that could not be read -> why.
    """
    surest = collections.defaultdict(list)
    for prediction in predictions:
        label, probability = prediction.ranked[0]
        surest[label].append(probability)
    classes = [(label, len(own), float(np.mean(own))) for label, own in surest.items()]
    classes.sort(key=lambda row: (-row[1], row[0]))
    headline = ", ".join(f"{label} ({size:,})" for label, size, _ in classes[:SHOWN_CLASSES])
    others = len(classes) - SHOWN_CLASSES
    return template("predictions.html").render(
        model=model,
        images=f"{len(predictions):,} image{'s' if len(predictions) != 1 else ''}",
        headline=headline + (f" and {others:,} more class{'es' if others > 1 else ''}" if others > 0 else ""),
        least_certain=_with_pictures(least_certain),
        least_likely=_with_pictures(least_likely),
        classes=classes,
        problems=list(problems.items()),
    )


def _with_pictures(shown):
    return [(prediction, examples.picture(image, alt=prediction.image)) for prediction, image in shown]
