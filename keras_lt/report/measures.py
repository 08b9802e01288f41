"""The table of what is measured beside top-1 accuracy."""

import math
from collections.abc import Mapping

from keras_lt.report.cells import Cell, as_number, column_cells
from keras_lt.report.systems import display_name

# Of `evaluation.Scores.summary`.
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


def measure_table(results: Mapping, measures: Mapping[str, str] = MEASURES) -> tuple[list[str], list[list[Cell]]]:
    """Header and a row per classifier, without the columns that no classifier has a number in; both empty without any.

    The best of a column is marked as printed. A mean that is 0 for all, as one class is never correct, is not.

    Args:
      measures: of a classifier's summary -> the column's name.
    """
    tests = {name: classifier["test"] for name, classifier in results["classifiers"].items()}
    columns = {}
    for measure in measures:
        numbers = [as_number(test.get(measure)) for test in tests.values()]
        if not all(map(math.isnan, numbers)):
            columns[measure] = column_cells(numbers, lowest=measure in ERRORS, zero=False)
    if not columns:
        return [], []
    rows = [[Cell(display_name(name)), *row] for name, *row in zip(tests, *columns.values(), strict=True)]
    return ["Classifier", *(measures[measure] for measure in columns)], rows
