"""Finished runs in one table, and as the paper's figure 1: by what their flags differ in.

    python -m keras_lt.compare runs/instance runs/class_balanced runs/square_root --output_dir=runs/samplers

Runs that differ by their seed alone are one line: mean and deviation.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

from keras_lt.command import Arguments, launch, plain_errors, quietly


def parser() -> Arguments:
    """The command's own flags."""
    own = Arguments(__doc__.splitlines()[0])
    own.add_argument("workdirs", nargs="+", help="Work folders of finished runs.")
    own.add_argument("--output_dir", default="runs/compare", help="Folder to write to.")
    return own


with quietly(__name__, lambda: parser().parse_args()):
    import matplotlib

    from keras_lt.comparison.dots import Accuracies, draw_dots, save_figure
    from keras_lt.config import RunConfig
    from keras_lt.datasets import check_outside
    from keras_lt.files import check_own, write_text
    from keras_lt.report.cells import Cell, Table, as_number, markdown_table, mean_cells, rich_table, show
    from keras_lt.report.style import GROUP_LINES, RC
    from keras_lt.report.systems import display_name
    from keras_lt.run import Run, flags_of
    from keras_lt.significance import mean_and_deviation

TITLE = "# Runs compared"
SCORES = tuple(GROUP_LINES)  # many, medium, few, all


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A run's folder, the flags that decide its numbers but for the seed, and its results."""

    folder: pathlib.Path
    flags: Mapping[str, str]
    seed: int
    results: Mapping

    @classmethod
    def read(cls, folder: str) -> "FinishedRun":
        """Reads a work folder.

        Raises:
          FileNotFoundError: there is no finished run in it.
        """
        run = Run(folder)
        results = run.results
        own = {field.name for field in dataclasses.fields(RunConfig) if field.metadata["of_the_run"]} - {"seed"}
        flags = flags_of(run.config, on_features=results.get("backbone") == "")
        flags = {name: value for name, value in flags.items() if name in own}
        digest = run.recorded_data.digest if run.recorded_data else "unknown"  # of version 0.1, not gone on with
        flags |= {"dataset": results["dataset"], "examples": digest[:8]}  # arrays have many names, a name many images
        return cls(run.folder, flags, run.config.seed, results)


def group_seeds(runs: Sequence[FinishedRun]) -> dict[tuple[tuple[str, str], ...], list[FinishedRun]]:
    """The runs of each set of flags, given by those flags that differ: ((flag, value), ...) -> runs.

    Raises:
      ValueError: two runs have the same flags and the same seed.
    """
    names = dict.fromkeys(name for run in runs for name in run.flags)
    differing = [name for name in names if len({run.flags.get(name) for run in runs}) > 1]
    groups = {}
    for run in runs:
        groups.setdefault(tuple((name, run.flags.get(name, "")) for name in differing), []).append(run)
    for group in groups.values():
        seeds = [run.seed for run in group]
        if same := [str(run.folder) for run in group if seeds.count(run.seed) > 1]:
            raise ValueError(f"Expected runs that differ. Received: {', '.join(same)}")
    return groups


def accuracies_of(results: Sequence[Mapping]) -> Accuracies:
    """Test accuracies of the classifiers of several seeds' results."""
    names = dict.fromkeys(name for result in results for name in result["classifiers"])
    rows = {name: [r["classifiers"][name]["test"] for r in results if name in r["classifiers"]] for name in names}
    return {name: {score: [as_number(row[score]) for row in tests] for score in SCORES} for name, tests in rows.items()}


def table_of(groups: Mapping[tuple[tuple[str, str], ...], Sequence[FinishedRun]]) -> Table:
    """A line per run and classifier; a column per flag that differs."""
    names, scores = [], []
    for flags, runs in groups.items():
        for classifier, accuracies in accuracies_of([run.results for run in runs]).items():
            names.append([*(Cell(value or "none") for _, value in flags), Cell(display_name(classifier))])
            scores.append([mean_and_deviation(accuracies[score]) for score in SCORES])
    columns = [mean_cells(column) for column in zip(*scores, strict=True)]
    differing = [name for name, _ in next(iter(groups))]
    return Table(
        "Top-1 accuracy on test in %; with several seeds mean ± standard deviation",
        [*differing, "Classifier", *SCORES],
        [[*name, *row] for name, row in zip(names, zip(*columns, strict=True), strict=True)],
        names=len(differing) + 1,
    )


def label(flags: Sequence[tuple[str, str]]) -> str:
    """What tells a line from the others in the figure: the value where one flag differs, else flag=value of each."""
    if len(flags) == 1:
        return flags[0][1] or "none"
    return ", ".join(f"{name}={value}" for name, value in flags) or "run"


def main(arguments: Sequence[str] | None = None):
    """Runs the command."""
    given = parser().parse_args(arguments)
    with plain_errors():
        groups = group_seeds([FinishedRun.read(folder) for folder in given.workdirs])
        for config in (Run(folder).config for folder in given.workdirs):
            check_outside(given.output_dir, "output_dir", config.dataset, config.data_dir, **config.data_options)
        page = check_own(pathlib.Path(given.output_dir, "compare.md"), TITLE, beside=("compare.png", "compare.svg"))
    table = table_of(groups)
    with matplotlib.rc_context(RC):
        figure = draw_dots({label(flags): accuracies_of([r.results for r in runs]) for flags, runs in groups.items()})
    folders = "\n".join(f"- {run.folder}" for runs in groups.values() for run in runs)
    parts = [TITLE, f"{table.title}:", markdown_table(table), "![By classifier](compare.png)", folders]
    write_text(page, "\n\n".join(parts) + "\n")  # first: by it the figures are known to be ours, after a kill too
    paths = save_figure(page.with_suffix(".png"), figure)
    show(rich_table(table, title_justify="left"))
    print(page, *paths, sep="\n")


if __name__ == "__main__":
    launch(main)
