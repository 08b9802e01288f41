"""One run's scores in words and as a table: for Markdown, for the page and for the terminal."""

import math
from collections.abc import Mapping

import rich.table

from keras_lt.recipe import Recipe
from keras_lt.report.cells import (
    DASH,
    Cell,
    Table,
    as_number,
    column_cells,
    markdown_table,
    percent,
    points,
    rich_table,
)
from keras_lt.report.systems import BASELINE, FIELDS, display_name, has_own_row, in_words

SCORES = {"many": "Many", "medium": "Medium", "few": "Few", "all": "All", "class_mean": "Class mean"}
HEADER = ["Classifier", *SCORES.values(), "Δ few", "Δ all", "Chosen", "Time"]
NUMERIC = range(1, 8)  # the columns of HEADER that align right
# What is measured beside top-1 accuracy, of `evaluation.Scores.summary`.
OF_CLASSES = {
    "macro_f1": "Macro-F1",
    "harmonic_mean": "Harmonic mean",
    "geometric_mean": "Geometric mean",
    "worst_class": "Worst class",
    "top_5": "Top-5",
}
ERRORS = {"ece": "ECE", "ece_many": "ECE many", "ece_medium": "ECE medium", "ece_few": "ECE few"}  # the lowest is best
OPEN_SET = {"open_f_measure": "Open-set F-measure", "open_auroc": "Open-set AUROC"}
MEASURES = {**OF_CLASSES, **ERRORS, **OPEN_SET}


def duration(seconds: float | None) -> str:
    """4.2 -> "4.2 s", 77 -> "77 s", 845 -> "14 min", 9000 -> "2.5 h"; a dash where nothing was measured."""
    seconds = as_number(seconds)
    if math.isnan(seconds):
        return DASH
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _chosen(values: Mapping[str, object]) -> str:
    shown = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in values.items()}
    return ", ".join(f"{'τ' if name == 'tau' else name} = {value}" for name, value in shown.items()) or DASH


def score_rows(results: Mapping) -> list[list[Cell]]:
    """One row of cells per classifier, in the columns of `HEADER`; the differences are to Joint.

    The best of a column is marked as printed, so scores that print alike are marked alike.
    """
    classifiers = results["classifiers"]
    joint = classifiers.get(BASELINE, {"test": {}})["test"]
    columns = [column_cells([c["test"].get(score) for c in classifiers.values()]) for score in SCORES]
    return [
        [
            Cell(display_name(name)),
            *scores,
            *(Cell(DASH if name == BASELINE else _gain(row["test"], joint, score)) for score in ("few", "all")),
            Cell(_chosen(row.get("chosen") or {})),
            Cell(duration(row.get("seconds"))),
        ]
        for (name, row), *scores in zip(classifiers.items(), *columns, strict=True)
    ]


def _gain(scores: Mapping, joint: Mapping, score: str) -> str:
    return points(as_number(scores.get(score)) - as_number(joint.get(score)))


def measure_table(results: Mapping, measures: Mapping[str, str] = MEASURES) -> tuple[list[str], list[list[Cell]]]:
    """Header and a row per classifier, without the columns that no classifier has a number in; both empty without any.

    The best of a column is marked as printed. A mean that is 0 for all, as one class is never correct, is not; an error
    of 0 is.

    Args:
      measures: of a classifier's summary -> the column's name.
    """
    tests = {name: classifier["test"] for name, classifier in results["classifiers"].items()}
    columns = {}
    for measure in measures:
        numbers = [as_number(test.get(measure)) for test in tests.values()]
        if not all(map(math.isnan, numbers)):
            columns[measure] = column_cells(numbers, lowest=measure in ERRORS, zero=measure in ERRORS)
    if not columns:
        return [], []
    rows = [[Cell(display_name(name)), *row] for name, *row in zip(tests, *columns.values(), strict=True)]
    return ["Classifier", *(measures[measure] for measure in columns)], rows


def best_classifier(results: Mapping) -> str | None:
    """results["best"]; without it the highest `all` on val, and None where nothing was scored there."""
    scores = on_val(results, "all")
    return results.get("best") or max(scores, key=scores.get, default=None)


def on_val(results: Mapping, score: str) -> dict[str, float]:
    """Classifier -> its score on val, of those that have one."""
    scores = {name: as_number((row.get("val") or {}).get(score)) for name, row in results["classifiers"].items()}
    return {name: of for name, of in scores.items() if not math.isnan(of)}


def headline(results: Mapping) -> str:
    """Which classifier was best on val, and what it reaches on test beside Joint; without a score on val, nothing."""
    classifiers, best = results["classifiers"], best_classifier(results)
    if best is None:
        return f"{len(classifiers)} classifiers on one representation; none was scored on val."

    test = classifiers[best]["test"]
    sentence = f"{display_name(best)} was best on val and reaches {_reach(test)} on test."
    if best == BASELINE or BASELINE not in classifiers:
        return sentence
    joint = classifiers[BASELINE]["test"]
    gains = [f"{_gain(test, joint, 'all')} points over all examples"]
    if _gain(test, joint, "few") != DASH:
        gains.append(f"{_gain(test, joint, 'few')} on few-shot classes")
    return f"{sentence} Joint reaches {_reach(joint)}: a difference of {' and '.join(gains)}."


def _reach(scores: Mapping) -> str:
    few = percent(scores.get("few"))
    return f"{percent(scores.get('all'))}%" + (f" ({few}% on few-shot classes)" if few != DASH else "")


def facts(results: Mapping) -> str:
    """Size of the data set and cost of stage one, in one line."""
    groups = ", ".join(f"{size} {group}" for group, size in results["groups"].items())
    stage_one = results["stage_one"]
    took, speed = duration(stage_one.get("seconds")), as_number(stage_one.get("images_per_second"))
    stage = [f"{stage_one['epochs']} epochs in {took}" if stage_one["epochs"] else "imported"]
    stage += [] if math.isnan(speed) else [f"{speed:,.0f} examples per second"]
    learned = percent(stage_one.get("train_class_mean"))
    stage += [] if learned == DASH else [f"{learned}% right in training (mean over classes)"]
    return (
        f"{results['train_images']:,} training examples of {results['classes']:,} classes ({groups}-shot). "
        f"Stage one: {', '.join([*_what_was_trained(results), *stage])}."
    )


def _what_was_trained(results: Mapping) -> list[str]:
    """Backbone, and what differs from plain cross-entropy on images as they come."""
    recipe = results["stage_one"].get("recipe") or {}
    changed = {
        field: recipe[field] for field in FIELDS if recipe.get(field, getattr(Recipe, field)) != getattr(Recipe, field)
    }
    words = [results.get("backbone", "")]
    if has_own_row(results.get("method", "decoupling")):
        words.append(display_name(results["method"]))
    said = {
        "sampler": "{} sampling",
        "resampling": "{} of the training list",
        "loss": "{} loss",
        "feature_loss": "{} loss on features",
        "class_weights": "class weights by {}",
    }
    words += [text.format(in_words(field, str(changed[field]))) for field, text in said.items() if field in changed]
    if recipe.get("class_weights_from"):
        words[-1] += f" after epoch {recipe['class_weights_from']}"
    return [word for word in words if word]


def markdown(results: Mapping, plots: Mapping[str, str]) -> str:
    """results.md: the headline, the table (best in bold) and the plots, given as path -> title."""
    rows = [[Cell(_plain(text), best) for text, best in row] for row in score_rows(results)]
    notes = "".join(f"- {_plain(note)}\n" for note in results.get("notes", []))
    advice = "\n".join(f"- {_plain(text)}" for text in results.get("advice", []))
    images = "\n".join(f"![{title}]({path})" for path, title in plots.items())
    parts = [
        f"# {_plain(results['dataset'])}: one representation, {len(rows)} classifiers",
        headline(results),
        facts(results),
        notes.strip(),
        "Top-1 accuracy on test in %; best of each column in bold; Δ: points above Joint.",
        markdown_table(Table("", HEADER, rows, NUMERIC.start, NUMERIC.stop)),
        f"What these numbers advise:\n\n{advice}" if advice else "",
        images,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _plain(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def terminal_table(results: Mapping) -> rich.table.Table:
    """The table of `results.md` for the terminal; the best of each column is bold and starred."""
    title = f"{results['dataset']}: top-1 accuracy on test in %"
    header = [name.replace(" ", "\n", 1) for name in HEADER]
    table = rich_table(
        Table(title, header, score_rows(results), NUMERIC.start, NUMERIC.stop),
        caption="* best of its column · Δ points above Joint",
    )
    table.columns[-1].no_wrap = True  # the time
    return table
