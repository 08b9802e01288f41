"""One run per seed, and what their scores are worth: deviations, intervals, and classifiers compared in pairs.

    python -m keras_lt.repeat --flagfile=flags/fashion_lt.cfg --seeds=0,1,2 --workdir=runs/fashion_lt_seeds

Every seed is a run of `keras_lt.train` in `<workdir>/seed-<n>`, skipped when finished and resumed when killed.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

from keras_lt import config
from keras_lt.command import launch, part, plain_errors, quietly

with quietly(__name__, functools.partial(config.answer, config.define_repeat_flags)):
    import numpy as np

    from keras_lt.classifiers.chunks import classify
    from keras_lt.comparison.runs import check_folder_of_runs, train_all
    from keras_lt.comparison.summary import SUMMARY_FILES, terminal_tables, write_summary
    from keras_lt.config import RunConfig
    from keras_lt.files import check_own
    from keras_lt.metrics import ShotGroups
    from keras_lt.report import show
    from keras_lt.report.intervals import resampled_accuracies
    from keras_lt.report.systems import BASELINE
    from keras_lt.run import Run
    from keras_lt.serving.onnx_model import import_onnx
    from keras_lt.significance import interval, mcnemar, mean_and_deviation
    from keras_lt.stages import CHOSEN_BY

RESAMPLES = 2000


def runs_of(run_config: RunConfig, seeds: Sequence[int]) -> list[RunConfig]:
    """The config of every seed's run; without a work folder they go to runs/<dataset>_seeds."""
    folder = run_config.workdir or f"runs/{run_config.dataset}_seeds"
    return [dataclasses.replace(run_config, seed=seed, workdir=f"{folder}/seed-{seed}") for seed in seeds]


def predict(run: Run) -> dict[str, np.ndarray]:
    """What every classifier of a finished run takes the test images for, int64 [N]."""
    return {
        name: classify(run.classifier(name).model, run.features("test", name).features) for name in run.config.systems
    }


def best_on_val(runs: Sequence[RunConfig]) -> str:
    """The classifier with the highest mean over the runs of what they choose by, which is on val."""
    results = [Run.of(run).results["classifiers"] for run in runs]
    return max(runs[0].systems, key=lambda name: np.mean([row[name]["val"][CHOSEN_BY] for row in results]))


def summarize(
    predictions: Mapping[str, np.ndarray],
    labels: np.ndarray,
    groups: ShotGroups,
    *,
    best: str,
    resamples: int = RESAMPLES,
) -> dict:
    """Scores and comparisons over seeds.

    Args:
      predictions: classifier -> class ids, a row per seed, [S, N].
      labels: of the same test images, [N].
      groups: of the classes.
      best: the classifier that, beside the baseline, all are compared with.
    Returns: {"test_images", "resamples", "best", "classifiers": {name: {score: estimate}}, "comparisons": {reference:
      {name: {"differences": {score: estimate}, "only_right", "only_wrong", "p_values"}}}}, the last three per seed. An
      estimate is {"per_seed", "mean", "deviation", "interval"}: deviation over seeds, interval over test images.
    """
    measured = {
        name: _by_score([groups.of_predictions(row, labels) for row in rows]) for name, rows in predictions.items()
    }
    is_correct = {name: rows == labels for name, rows in predictions.items()}
    over_seeds = {name: rows.mean(0) for name, rows in is_correct.items()}
    resampled = resampled_accuracies(over_seeds, labels, groups, resamples=resamples)
    references = dict.fromkeys(name for name in (BASELINE, best) if name in predictions)
    return {
        "test_images": len(labels),
        "resamples": resamples,
        "best": best,
        "classifiers": {
            name: {score: _estimate(values, resampled[name][score]) for score, values in scores.items()}
            for name, scores in measured.items()
        },
        "comparisons": {
            reference: {
                name: _compare(name, reference, measured=measured, resampled=resampled, is_correct=is_correct)
                for name in predictions
                if name != reference
            }
            for reference in references
        },
    }


def _by_score(rows: Sequence[Mapping[str, float]]) -> dict[str, np.ndarray]:
    return {score: np.array([row[score] for row in rows]) for score in rows[0]}


def _estimate(per_seed: np.ndarray, resampled: np.ndarray) -> dict:
    mean, deviation = mean_and_deviation(per_seed)
    return {"per_seed": per_seed, "mean": mean, "deviation": deviation, "interval": interval(resampled)}


def _compare(name: str, reference: str, *, measured: Mapping, resampled: Mapping, is_correct: Mapping) -> dict:
    """Differences on the same images; McNemar's test takes one seed at a time, as images must be independent."""
    ours = (is_correct[name] & ~is_correct[reference]).sum(1)
    theirs = (is_correct[reference] & ~is_correct[name]).sum(1)
    return {
        "differences": {
            score: _estimate(values - measured[reference][score], resampled[name][score] - resampled[reference][score])
            for score, values in measured[name].items()
        },
        "only_right": ours,
        "only_wrong": theirs,
        "p_values": [mcnemar(first, second) for first, second in zip(ours, theirs, strict=True)],
    }


def compare(runs: Sequence[RunConfig]) -> dict:
    """The summary of finished runs that differ by their seed alone: what `summarize` returns, and what it is of."""
    with part("Predictions of the test examples"), plain_errors():  # data may be others now than those of a run found
        opened = [Run.of(run) for run in runs]
        predicted = [predict(run) for run in opened]
        data = opened[0].data
    predictions = {name: np.stack([row[name] for row in predicted]) for name in predicted[0]}
    with part(f"{RESAMPLES:,} resamples"):
        return {
            "dataset": data.name,
            "seeds": [run.seed for run in runs],
            **summarize(predictions, data.test.labels, data.groups, best=best_on_val(runs)),
        }


def main():
    """Runs the command."""
    with plain_errors():
        run_config, seeds = config.from_flags(), config.seeds()
        runs = runs_of(run_config, seeds)
        first = Run.of(runs[0])
        check_folder_of_runs(first.folder.parent, runs)
        if run_config.export_onnx:
            import_onnx()  # refuses where its libraries are missing
        first.fit_to_data(config.said(run_config))  # looks at images
        runs = runs_of(dataclasses.replace(first.config, workdir=run_config.workdir), seeds)
        check_own(runs[0].folder.with_name(SUMMARY_FILES[0]), '{\n "dataset":', beside=SUMMARY_FILES[1:])
        train_all(runs)
    summary = compare(runs)
    paths = write_summary(runs[0].folder.parent, summary)
    show(*terminal_tables(summary))
    print(*paths, sep="\n")


if __name__ == "__main__":
    launch(main)
