"""Seconds and memory as examples and classes double: drawing, classifiers, evaluation, report, export, folders."""

import argparse
import contextlib
import dataclasses
import functools
import multiprocessing
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable

import numpy as np
import PIL.Image

import keras_lt
from keras_lt import backbones, datasets, inspection, report, resampling, samplers, serving, stages
from keras_lt.classifiers import fresh_dense
from keras_lt.datasets.examples import ArrayRows
from keras_lt.evaluation import Scores
from keras_lt.stages.checks import STAGE_TWO
from tools.benchmarks.sampling import long_tail, measure
from tools.benchmarks.timing import timed

Work = Callable[[], object]
BATCH, SECONDS = 4096, 0.5  # of indices drawn
TRAINED_PER_VALIDATED = 10  # examples
MB = 2**20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command line."""
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS, help="what is measured")
    parser.add_argument("--classes", type=int, default=25_000, help="C of the first row")
    parser.add_argument("--examples_per_class", type=float, default=2.0, help="N / C of the first row")
    parser.add_argument("--doublings", type=int, default=2, help="rows of N doubled, and then of C doubled")
    parser.add_argument("--width", type=int, default=512, help="D, features per example")
    parser.add_argument("--same_process", action="store_true", help="memory is then that of all rows so far")


def run(arguments: argparse.Namespace) -> None:
    """Rows of a task: N doubles, then C; each in a process of its own, so that peaks of memory are its own."""
    print(f"D = {arguments.width}; time and peak memory of the work alone, without its labels, features and head")
    print(f"{'':18}{'C':>11}{'N':>13}{'seconds':>10}{'CPU s':>9}{'growth':>9}{'MB':>8}  more")
    examples = round(arguments.classes * arguments.examples_per_class)
    for task in arguments.tasks:
        before = None
        for size in doubled(arguments.classes, examples, arguments.doublings):
            if arguments.same_process:
                costs, more = measured(task, *size, arguments.width)
            else:
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    costs, more = pool.apply(measured, (task, *size, arguments.width))
            seconds, cpu, memory = costs
            growth = f"x{cpu / before:.1f}" if before else ""
            print(
                f"{task:18}{size[0]:11,}{size[1]:13,}{seconds:10.2f}{cpu:9.2f}{growth:>9}{memory:8,.0f}  {more}",
                flush=True,
            )
            before = cpu


def doubled(classes: int, examples: int, doublings: int) -> list[tuple[int, int]]:
    """C and N of each row: N doubles first, as of more classes than examples some would have none."""
    sizes = [(classes, examples * 2**doubling) for doubling in range(doublings + 1)]
    return sizes + [(classes * 2**doubling, sizes[-1][1]) for doubling in range(1, doublings + 1)]


def measured(task: str, classes: int, examples: int, width: int) -> tuple[tuple[float, float, float], str]:
    """Seconds, CPU seconds and MB by which the peak of memory grew; and what else the task has to say."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        work = TASKS[task](classes, examples, width, pathlib.Path(folder))
        pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak is from now on; Linux alone can
        before = _memory("VmRSS")
        seconds, cpu, found = timed(work)
        more = found or {}
        costs = more.pop("seconds", seconds), more.pop("CPU", cpu), max(_memory("VmHWM") - before, 0.0)
        return costs, " ".join(f"{k} {v:,.3g}" for k, v in more.items())


def drawing(engine_and_q: tuple[str, float], classes: int, examples: int, width: int, folder: pathlib.Path) -> Work:
    """The first index of a stream, and the rate of those after it."""
    labels = long_tail(classes, examples / classes)
    engine, q = engine_and_q
    row = samplers.power_probabilities(np.bincount(labels, minlength=classes), q)
    stream = functools.partial(resampling.sample_indices, seed=0, engine=engine)
    next(iter(stream([0, 1], [0.5, 0.5], num_samples=2)))  # what TensorFlow loads once

    def work() -> dict[str, float]:
        def first():
            batches = iter(stream(labels, row, num_samples=len(labels), batch_size=BATCH))
            next(batches)
            return batches

        seconds, cpu, batches = timed(first)
        _, rate = measure(lambda: batches, BATCH, seconds=SECONDS)
        return {"seconds": seconds, "CPU": cpu, "M/s": rate / 1e6, "labels, MB": labels.nbytes / MB}

    return work


def learning(name: str, classes: int, examples: int, width: int, folder: pathlib.Path) -> Work:
    """An epoch of a classifier on features that are drawn from few, so that they take no memory; and its validation."""
    validated = -(-examples // TRAINED_PER_VALIDATED)
    features = {"train": _features(examples, classes, width), "val": _features(validated, classes, width)}
    head, groups = fresh_dense(width, classes, seed=0), keras_lt.ShotGroups(np.bincount(features["train"].labels))
    recipe = dataclasses.replace(STAGE_TWO, epochs=1, batch_size=min(512, examples))

    def work():
        keras_lt.learn_classifier(name, features=features, head=head, groups=groups, recipe=recipe)

    return work


def evaluating(classes: int, examples: int, width: int, folder: pathlib.Path) -> Work:
    """Examples scored by a dense layer."""
    head, features = fresh_dense(width, classes, seed=0), _features(examples, classes, width)

    def work():
        _ = keras_lt.evaluate_classifier(head, features, np.full(classes, 50)).summary

    return work


def reporting(classes: int, examples: int, width: int, folder: pathlib.Path) -> Work:
    """Report and plots of three classifiers; says how large the largest file is."""
    counts = np.bincount(long_tail(classes, examples / classes), minlength=classes)
    groups, rng = keras_lt.ShotGroups(counts), np.random.default_rng(0)
    labels = np.arange(examples) % classes
    names, scores = ("joint", "tau_norm", "lws"), {}
    for name in names:
        top = np.where(rng.random(examples) < 0.5, labels, rng.integers(0, classes, examples))[:, np.newaxis]
        scores[name] = Scores(labels, top, rng.random(examples).astype(np.float32), groups)

    def work() -> dict[str, float]:
        results = {
            "dataset": "growth",
            "classes": classes,
            "groups": groups.sizes,
            "train_images": int(counts.sum()),
            "stage_one": {"epochs": 1, "seconds": 1.0, "images_per_second": 1.0},
            "classifiers": {n: {"val": of.summary, "test": of.summary, "seconds": 1.0} for n, of in scores.items()},
            "best": "lws",
        }
        details = report.RunDetails(
            class_names=[f"class {number}" for number in range(classes)],
            class_counts=counts,
            groups=groups,
            per_class={name: of.per_class for name, of in scores.items()},
            weight_norms={name: rng.random(classes) for name in names},
            scores=scores,
        )
        report.write_report(folder, results, details)
        return {"largest file, MB": _largest(folder)}

    return work


def exporting(classes: int, examples: int, width: int, folder: pathlib.Path) -> Work:
    """A SavedModel of a dense layer on feature vectors; says how large its largest file but the weights is."""
    backbone, classifier = backbones.of_features(width), stages.on_features(fresh_dense(width, classes, seed=0), width)
    names = [f"class {number}" for number in range(classes)]

    def work() -> dict[str, float]:
        serving.export_saved_model(backbone, folder / "1", class_names=names, classifier=classifier)
        return {"largest file but weights, MB": _largest(folder, but="variables.data*")}

    return work


def opening(classes: int, examples: int, width: int, folder: pathlib.Path) -> Work:
    """A folder of tiny images, one file many times over, opened for the second time."""
    images, cache = folder / "images", folder / "cache"
    for label, count in enumerate(np.bincount(long_tail(classes, examples / classes))):
        place = images / f"class {label}"
        place.mkdir(parents=True)
        PIL.Image.new("L", (2, 2)).save(place / "0.png")
        for number in range(1, count):
            shutil.copy(place / "0.png", place / f"{number}.png")

    def work():
        inspection.inspect(datasets.DATASETS["folder"](str(images)), cache_dir=cache)

    work()
    return work


TASKS: dict[str, Callable[[int, int, int, pathlib.Path], Work]] = {
    "instance": functools.partial(drawing, ("instance", 1.0)),
    "weighted": functools.partial(drawing, ("weighted", 0.5)),
    "stratified": functools.partial(drawing, ("stratified", 0.5)),
    "class_balanced": functools.partial(drawing, ("stratified", 0.0)),
    **{name: functools.partial(learning, name) for name in ("ncm", "tau_norm", "tau_learned", "crt", "lws")},
    "logit_adjustment": functools.partial(learning, "logit_adjusted"),
    "evaluation": evaluating,
    "report": reporting,
    "export": exporting,
    "folder": opening,
}


def _features(examples: int, classes: int, width: int):
    few = np.random.default_rng(0).random((1000, width), np.float32)
    rows = np.arange(examples)
    return keras_lt.FeatureSet(ArrayRows(few, rows % len(few)), rows % classes)


def _largest(folder: pathlib.Path, *, but: str = "") -> float:
    return max(p.stat().st_size for p in folder.rglob("*") if p.is_file() and not (but and p.match(but))) / MB


def _memory(what: str) -> float:
    """Of this process, MB: "VmRSS" is what it holds, "VmHWM" the most it held."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what))
