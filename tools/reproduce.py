"""A published table or figure, from its runs to our numbers beside the published ones.

    python -m tools.reproduce                                                     # what there is
    python -m tools.reproduce --table=2 --data_dir=/data/imagenet --columns=ResNet-10 --seeds=0 --dry_run
    python -m tools.reproduce --table=2 --data=fashion_lt                         # in miniature, on a CPU

Runs that are finished are found, one that was killed goes on, and flags of `keras_lt.train` hold for all of them.
"""

import dataclasses
import math
import pathlib
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from absl import flags

from keras_lt.command import find_flag_file, launch, plain_errors, quietly

with quietly():
    from keras_lt import config, registry
    from keras_lt.checkpoints import write_history
    from keras_lt.classifiers import CLASSIFIERS
    from keras_lt.comparison.runs import check_folder_of_runs, command_of, train_all, train_apart
    from keras_lt.config import RunConfig
    from keras_lt.files import check_own, expanded
    from keras_lt.report.cells import rich_table, show
    from keras_lt.run import Run
    from tools.reproduction.outcome import RUN_FIELDS, Outcome, check_free
    from tools.reproduction.plans import PLANS, Plan

TABLE = flags.DEFINE_enum("table", None, list(PLANS), "What to reproduce; without it, what there is is listed.")
DATA = flags.DEFINE_string(
    "data", "", "Name of a file in flags/, such as fashion_lt, to take in place of the table's own data."
)
COLUMNS = flags.DEFINE_list("columns", [], "Columns of the table, comma-separated; empty is all.")
SPLITS_BY_SEED = flags.DEFINE_bool(
    "splits_by_seed", False, "Each seed draws the data set's splits, too, as --dataset=elpv:seed=1 does."
)
RESULTS_DIR = flags.DEFINE_string(
    "results_dir", "", "Folder that gets runs.csv too, as <table>_<data>.csv, such as docs/results; empty is none."
)
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only print the commands of the runs.")

Place = tuple[str, str, int]  # column, run, seed


def base_config(plan: Plan, *, data: str = "", flag_values: flags.FlagValues = flags.FLAGS) -> RunConfig:
    """What all runs begin with: --flagfile, or the flag file of --data or the table's own; then the flags beside it.

    Raises:
      ValueError: there is no such file, or --data and --dataset are both given.
    """
    given = config.from_flags(flag_values)
    if flag_values["dataset"].present:
        if data:
            raise ValueError(f"--data takes the place of --flagfile and --dataset. Received: --data={data}")
        return given
    fields = [field.name for field in dataclasses.fields(RunConfig) if flag_values[field.name].present]
    path = f"flags/{data or plan.flag_file}.cfg"
    if find_flag_file(path) is None:
        raise ValueError(f"--data must name a file in flags/. Not found: {path}")
    return dataclasses.replace(config.read_flag_file(path), **{name: getattr(given, name) for name in fields})


def plan_runs(
    plan: Plan,
    base: RunConfig,
    *,
    seeds: Sequence[int],
    folder: pathlib.Path,
    columns: Sequence[str] = (),
    splits_by_seed: bool = False,
) -> dict[Place, RunConfig]:
    """Every run of a table, all of the first seed first.

    Args:
      base: what the runs are variations of.
      folder: each run's is <folder>/<column>/<run>/seed<seed>.
      columns: of the plan, in part; empty is all.
      splits_by_seed: whether a run's seed draws the splits, too.
    Raises:
      ValueError: a column that the table does not have on this data.
    """
    found = plan.columns if on_own_data(plan, base) else plan.columns_elsewhere
    if unknown := [name for name in columns if name not in found]:
        raise ValueError(f"--columns must be some of {', '.join(found) or 'none'}. Received: {', '.join(unknown)}")
    runs = {}
    for seed in seeds:
        for column in columns or found:
            of_column = dataclasses.replace(base, **found[column])
            for name, run in plan.runs.items():
                runs[column, name, seed] = dataclasses.replace(
                    of_column,
                    **in_epochs(run.flags, of_column.epochs),
                    classifiers=classifiers_of(plan, name),
                    export_classifier="",
                    dataset=of_column.dataset + f":seed={seed}" * splits_by_seed,
                    seed=seed,
                    workdir=str(folder / column / name / f"seed{seed}"),
                )
    return runs


def on_own_data(plan: Plan, base: RunConfig) -> bool:
    """Whether this is the data set that the table was published on."""
    return base.dataset == config.read_flag_file(f"flags/{plan.flag_file}.cfg").dataset


def in_epochs(changes: Mapping[str, object], epochs: int) -> dict[str, object]:
    """The same flags, with shares of the epochs as whole numbers, at least one; those of a tuple differ."""

    def resolve(value):
        if isinstance(value, tuple):
            return tuple(dict.fromkeys(map(resolve, value)))
        return max(math.floor(value * epochs), 1) if isinstance(value, Fraction) else value

    return {name: resolve(value) for name, value in changes.items()}


def classifiers_of(plan: Plan, run: str) -> tuple[str, ...]:
    """What a run learns beside its method's own classifier."""
    wanted = dict.fromkeys(row.classifier for row in plan.rows if row.run == run)
    return tuple(name for name in wanted if registry.split(name)[0] in CLASSIFIERS)


def representations_taken(plan: Plan, runs: Mapping[Place, RunConfig]) -> dict[pathlib.Path, pathlib.Path]:
    """Folder of a run -> folder of the run whose representation it takes."""
    return {
        run.folder: runs[column, plan.runs[name].representation, seed].folder
        for (column, name, seed), run in runs.items()
        if plan.runs[name].representation
    }


def train_planned(
    plan: Plan, runs: Mapping[Place, RunConfig], *, train_one: Callable[[RunConfig], object] = train_apart
):
    """Does the runs that are missing; those that take another's representation after it, with that in their folder.

    Raises:
      ValueError: some are not finished after that; they are named.
    """
    sources = representations_taken(plan, runs)

    def train(run: RunConfig):
        if run.folder not in sources:
            train_one(run)
            return
        source = Run(sources[run.folder])
        if source.has_representation:
            take_representation(run, source)
            train_one(dataclasses.replace(run, overwrite=False))  # it would remove what was taken
        else:
            print(f"left out: {source.folder} has no representation to take")

    train_all(list(runs.values()), train_one=train)


def take_representation(run_config: RunConfig, source: Run):
    """Puts another run's representation and features into a work folder, unless it holds a run already."""
    run = Run.of(run_config)
    with run.locked():
        if run_config.overwrite:
            run.empty()
        if not run.flags_file.exists():
            run.take_representation(source)


def overview() -> str:
    """The tables, their columns and their runs."""
    return "\n".join(
        f"--table={name}: {plan.title}\n"
        f"    on {plan.flag_file}; columns: {', '.join(filter(None, plan.columns)) or 'one'}\n"
        f"    runs: {', '.join(plan.runs)}"
        for name, plan in PLANS.items()
    )


def main():
    """Runs the command."""
    if TABLE.value is None:
        print(overview())
        return
    plan = PLANS[TABLE.value]
    with plain_errors():
        base = base_config(plan, data=DATA.value)
        name = f"table{TABLE.value}" if TABLE.value.isdecimal() else TABLE.value
        workdir = flags.FLAGS["workdir"].value or f"runs/reproduce/{name}_{DATA.value or base.dataset}"
        folder = expanded(workdir)
        kept = RESULTS_DIR.value and expanded(RESULTS_DIR.value) / f"{name}_{DATA.value or base.dataset}.csv"
        options = {"columns": COLUMNS.value, "splits_by_seed": SPLITS_BY_SEED.value}
        runs = plan_runs(plan, base, seeds=config.seeds(), folder=folder, **options)
        if DRY_RUN.value:
            taken = representations_taken(plan, runs)
            for run in runs.values():
                note = f"  # with the representation of {taken[run.folder]}" if run.folder in taken else ""
                print(shlex.join(command_of(run)) + note)
            return
        check_folder_of_runs(folder, runs.values())
        check_free(folder, name=name)
        if kept:
            check_own(kept, ",".join(RUN_FIELDS))
    unfinished = ""
    try:
        train_planned(plan, runs)
    except ValueError as error:
        unfinished = f"Error: {error}"
    outcome = Outcome.collect(plan, runs, own_data=on_own_data(plan, base))
    paths = outcome.write(folder, name=name)
    if kept and outcome.scores:
        write_history(kept, outcome.every_classifier())
        paths.append(kept)
    table = outcome.table()
    print(f"\n{table.title}")  # which within it would be no wider than it
    show(rich_table(table._replace(title="")))
    print(*paths, sep="\n")
    if unfinished:
        sys.exit(unfinished)


if __name__ == "__main__":
    config.answer(config.define_repeat_flags)
    launch(main)
