"""What came of a table's runs: our numbers beside the published ones, as a table, as JSON and as a figure."""

import dataclasses
import math
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from keras_lt.checkpoints import write_history
from keras_lt.comparison.dots import draw_dots, save_figure
from keras_lt.comparison.runs import is_finished
from keras_lt.config import RunConfig
from keras_lt.files import atomic, check_own, write_json, write_text
from keras_lt.report import cells
from keras_lt.report.published import GROUPS
from keras_lt.report.style import RC
from keras_lt.run import Run
from keras_lt.significance import average_ranks, critical_difference, mean_and_deviation
from tools.reproduction.plans import Plan, Row

RUN_FIELDS = ("column", "run", "seed")  # that every row of runs.csv begins with
CELL = 0.9  # inches of a grid's cell
WRITTEN = ("table.json", "table.md", "runs.csv")  # in this order


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A table's plan and the test scores of those of its runs that are finished.

    Attributes:
      plan, runs: the table's, (column, run, seed) -> its config.
      own_data: whether the runs are on the data that the table was published on; else nothing is subtracted.
      scores: (column, run, seed) -> classifier -> accuracies on test, of finished runs.
      stages: likewise -> what results.json says of stage one.
    """

    plan: Plan
    runs: Mapping[tuple[str, str, int], RunConfig]
    own_data: bool
    scores: Mapping[tuple[str, str, int], Mapping]
    stages: Mapping[tuple[str, str, int], Mapping]

    @classmethod
    def collect(cls, plan: Plan, runs: Mapping[tuple[str, str, int], RunConfig], *, own_data: bool) -> "Outcome":
        """Reads the results of the runs that are finished."""
        found = {place: Run.of(run).results for place, run in runs.items() if is_finished(run)}
        scores = {
            place: {name: classifier["test"] for name, classifier in results["classifiers"].items()}
            for place, results in found.items()
        }
        return cls(plan, runs, own_data, scores, {place: results["stage_one"] for place, results in found.items()})

    @property
    def columns(self) -> list[str]:
        """The columns that there are runs of."""
        return list(dict.fromkeys(column for column, _, _ in self.runs))

    @property
    def seeds(self) -> list[int]:
        """The seeds of the runs."""
        return list(dict.fromkeys(seed for _, _, seed in self.runs))

    def per_seed(self, row: Row, column: str, score: str) -> list[float]:
        """Our fractions of the seeds whose runs are finished."""
        tests = [self.scores.get((column, row.run, seed), {}).get(row.classifier) for seed in self.seeds]
        if score == "error":
            return [1 - cells.as_number(test["all"]) for test in tests if test]
        return [cells.as_number(test[score]) for test in tests if test]

    def every_classifier(self) -> list[dict]:
        """Of every finished run each classifier's test scores, as fractions, and how well stage one was learned."""
        return [
            {
                **dict(zip(RUN_FIELDS, place, strict=True)),
                "epochs": self.stages[place]["epochs"],
                "train_class_mean": _figure(self.stages[place].get("train_class_mean")),
                "classifier": name,
                **{score: _figure(test.get(score)) for score in (*GROUPS, "class_mean", "ece")},
            }
            for place, tests in self.scores.items()
            for name, test in tests.items()
        ]

    def published(self, row: Row, column: str, score: str) -> float:
        """The fraction that was published, NaN where none was."""
        columns, scores = list(self.plan.columns), self.plan.scores
        # Other data has one column: beside it stands the first that was published.
        place = columns.index(column) if column in columns else 0
        number = dict(enumerate(row.published)).get(place * len(scores) + scores.index(score))
        return math.nan if number is None else round(number / 100, 4)

    def entries(self, row: Row) -> list[dict]:
        """A row's numbers, column by column and score by score."""
        entries = []
        for column in self.columns:
            for score in self.plan.scores:
                per_seed, published = self.per_seed(row, column, score), self.published(row, column, score)
                mean, deviation = mean_and_deviation(per_seed)
                entries.append(
                    {
                        "column": column,
                        "score": score,
                        "per_seed": per_seed,
                        "mean": mean,
                        "deviation": deviation,
                        "published": published,
                        "difference": mean - published if self.own_data else math.nan,
                    }
                )
        return entries

    def ranks(self) -> tuple[dict[Row, float], int]:
        """Each row's mean rank by the plan's score, best first, and over how many columns and seeds that every row has.

        Empty where the plan ranks nothing, or there is no such run.
        """
        places = [(column, seed) for column in self.columns for seed in self.seeds] if self.plan.ranked_by else []
        found = [
            [self.scores.get((column, row.run, seed), {}).get(row.classifier) for row in self.plan.rows]
            for column, seed in places
        ]
        whole = [[test[self.plan.ranked_by] for test in tests] for tests in found if all(tests)]
        if not whole:
            return {}, 0
        ranks = dict(zip(self.plan.rows, average_ranks(np.array(whole)).tolist(), strict=True))
        return dict(sorted(ranks.items(), key=lambda item: item[1])), len(whole)

    def ranking(self) -> str:
        """The ranks as a table, and in words how far apart they must lie; empty without any."""
        ranks, runs = self.ranks()
        if not ranks:
            return ""
        apart = critical_difference(len(ranks), runs)
        first = min(ranks.values())
        rows = [
            [cells.Cell(row.name), cells.Cell(f"{rank:.1f}", best=rank - first < apart)] for row, rank in ranks.items()
        ]
        table = cells.Table("", ["System", "Mean rank"], rows)
        return (
            f"Ranked by {self.plan.ranked_by} in each of {runs} runs, 1 is best. Two systems differ by Nemenyi's test "
            f"(95 %) where their mean ranks lie {apart:.1f} or more apart; in bold those that do not differ from the "
            f"first. Seeds of one data set say nothing of others.\n\n{cells.markdown_table(table)}"
        )

    def table(self) -> cells.Table:
        """Ours, and in brackets what was published and what lies between."""
        columns = list(zip(*map(self.entries, self.plan.rows), strict=True))
        errors = "error" in self.plan.scores
        shown = [
            cells.column_cells([of["mean"] for of in column], [*map(_cell, column)], lowest=errors)
            for column in columns
        ]
        what = "Top-1 error" if errors else "Top-1 accuracy"
        first = next(iter(self.plan.columns))
        beside = "points between" if self.own_data else f"on {' '.join(filter(None, (self.plan.flag_file, first)))}"
        published = f" (published, {beside})" if any(row.published for row in self.plan.rows) else ""
        return cells.Table(
            f"{self.plan.title}. {what} on test in %{published}",
            ["System", *(" ".join(filter(None, (entry[0]["column"], entry[0]["score"]))) for entry in columns)],
            [[cells.Cell(row.name), *line] for row, line in zip(self.plan.rows, zip(*shown, strict=True), strict=True)],
        )

    def write(self, folder: pathlib.Path, *, name: str) -> list[pathlib.Path]:
        """Writes table.json, by which the others are known to be ours, table.md, runs.csv and figures; their paths."""
        content = {
            "table": name,
            "title": self.plan.title,
            "published_on": self.plan.flag_file,
            "own_data": self.own_data,
            "seeds": self.seeds,
            "finished": [str(self.runs[place].folder) for place in self.scores],
            "rows": [
                {"system": row.name, "run": row.run, "classifier": row.classifier, "scores": self.entries(row)}
                for row in self.plan.rows
            ],
            "mean_ranks": {row.name: rank for row, rank in self.ranks()[0].items()},
        }
        write_json(folder / WRITTEN[0], content)
        figures = FIGURES.get(name, lambda outcome, path: [])(self, folder / name)
        table = self.table()
        images = [f"![{self.plan.title}]({path.name})" for path in figures if path.suffix == ".png"]
        seeds = f"Seeds {', '.join(map(str, self.seeds))}; {len(self.scores)} of {len(self.runs)} runs are finished."
        parts = [f"# {table.title}", seeds, cells.markdown_table(table), *filter(None, [self.ranking()]), *images]
        write_text(folder / WRITTEN[1], "\n\n".join(parts) + "\n")
        write_history(folder / WRITTEN[2], self.every_classifier())
        return [*(folder / file for file in ("table.md", "table.json", "runs.csv")), *figures]


def check_free(folder: pathlib.Path, *, name: str):
    """Raises ValueError where the files of a table would replace what was not written as one."""
    figures = [path.name for path in folder.glob(f"{name}*.*") if name in FIGURES and path.suffix in (".png", ".svg")]
    check_own(folder / WRITTEN[0], '{\n "table":', beside=(*WRITTEN[1:], *figures))


def _figure(fraction: float | None) -> str:
    return "" if fraction is None else f"{fraction:.4f}"


def _cell(entry: Mapping) -> str:
    beside = [cells.percent(entry["published"]), cells.points(entry["difference"])]
    shown = ", ".join(text for text in beside if text != cells.DASH)
    return cells.with_deviation(entry["mean"], entry["deviation"]) + (f" ({shown})" if shown else "")


def draw_samplers(outcome: Outcome, path: pathlib.Path) -> list[pathlib.Path]:
    """Figure 1 of Kang et al.: every classifier on the representation of every sampler."""
    runs = {name: {} for name in outcome.plan.runs}
    for row in outcome.plan.rows:
        runs[row.run][row.classifier] = {score: outcome.per_seed(row, "", score) for score in outcome.plan.scores}
    with matplotlib.rc_context(RC):
        return save_figure(path, draw_dots(runs)) if outcome.scores else []


def collect_plots(outcome: Outcome, path: pathlib.Path) -> list[pathlib.Path]:
    """Figure 2 of Kang et al., which the report of a run draws: that of the first seed."""
    for place in outcome.scores:
        plots = Run.of(outcome.runs[place]).plots_folder
        drawn = sorted([*plots.glob("weight_norms.*"), *plots.glob("tau_curve_tau_norm.*")], reverse=True)
        copies = [path.with_name(f"{path.name}_{plot.name}") for plot in drawn]
        for plot, copy in zip(drawn, copies, strict=True):
            with atomic(copy) as scratch:
                shutil.copy(plot, scratch)
        return copies
    return []


def draw_grid(outcome: Outcome, path: pathlib.Path) -> list[pathlib.Path]:
    """Figure 2 of Zhou et al.: errors by how the representation and how the classifier was learned."""
    names = [row.name for row in outcome.plan.rows]
    errors = [
        [mean_and_deviation(outcome.per_seed(row, column, "error")) for column in outcome.columns]
        for row in outcome.plan.rows
    ]
    means = np.array(errors)[..., 0]
    if np.isnan(means).all():
        return []
    dark = np.nanmin(means) + 0.6 * np.ptp(means[~np.isnan(means)])
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(CELL * (len(outcome.columns) + 2), CELL * (len(names) + 1)))
        ax = figure.add_subplot()
        ax.imshow(means, cmap="Blues")
        for (y, x), mean in np.ndenumerate(means):
            text = cells.with_deviation(*errors[y][x]).replace(" ", "\n", 1)
            ax.text(x, y, text, ha="center", va="center", size=8, color="white" if mean > dark else "black")
        ax.set_xticks(range(len(outcome.columns)), outcome.columns)
        ax.set_yticks(range(len(names)), names)
        ax.set_xlabel("representation learned by")
        ax.set_ylabel("classifier learned by")
        ax.set_title("test error in %", size=10)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        return save_figure(path, figure)


FIGURES: dict[str, Callable[[Outcome, pathlib.Path], Sequence[pathlib.Path]]] = {
    "fig1": draw_samplers,
    "fig2": collect_plots,
    "bbn_fig2": draw_grid,
}
