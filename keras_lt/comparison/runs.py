"""Runs of `keras_lt.train`, one after the other: found when finished, resumed when killed."""

import pathlib
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence

from keras_lt.command import part
from keras_lt.config import RunConfig
from keras_lt.config.fitted import FITTED
from keras_lt.run import Run


def check_folder_of_runs(folder: pathlib.Path, runs: Collection[RunConfig]):
    """Raises ValueError where the folder that is to hold the runs is one itself, and does not hold any of them yet."""
    if Run(folder).flags_file.exists() and not any(run.folder.exists() for run in runs):
        raise ValueError(
            "--workdir is to hold several runs, and is one of keras_lt.train itself: give another. "
            f"Received: --workdir={folder}"
        )


def is_finished(run: RunConfig) -> bool:
    """Whether the run's folder holds all of its results, by the same flags."""
    found = Run(run.folder)
    if not found.is_finished or found.differences(run) or found.other_weights(run):
        return False
    return set(run.systems) <= found.results["classifiers"].keys()


def is_complete(run: RunConfig) -> bool:
    """Whether it is finished, and nothing of its report and SavedModel is missing, as a kill or new flags leave it."""
    return is_finished(run) and Run.of(run).is_complete


def command_of(run: RunConfig) -> list[str]:
    """The command that does a run; flags that have their default are left out, where they would not be made to fit."""
    defaults = RunConfig().as_flags()
    said = [f"--{name}={value}" for name, value in run.as_flags().items() if name in FITTED or value != defaults[name]]
    return [sys.executable, "-m", "keras_lt.train", *said]


def train_apart(run: RunConfig):
    """Does a run in a process of its own: one that dies leaves the others alone, and each has the whole device."""
    subprocess.run(command_of(run), check=False)


def train_all(runs: Sequence[RunConfig], *, train_one: Callable[[RunConfig], object] = train_apart):
    """Does the runs that are missing, one after the other.

    Raises:
      ValueError: some are not finished after that; they are named.
    """
    for run in runs:
        with part(str(run.folder)):
            if is_complete(run) and not run.overwrite:
                print("found")
            else:
                train_one(run)
    unfinished = [str(run.folder) for run in runs if not is_finished(run)]
    if unfinished:
        raise ValueError(
            f"{len(unfinished)} of {len(runs)} runs are not finished: {', '.join(unfinished)}. "
            "Their own messages are above; the same command resumes, --seeds can leave them out"
        )
