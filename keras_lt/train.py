"""Learns a representation, then every classifier on top of it; scores, reports and exports.

    python -m keras_lt.train --flagfile=flags/fashion_lt.cfg

Finished parts are kept in the work folder and skipped when the same command is given again.
"""

import contextlib
import dataclasses
import functools
import sys
import time
from collections.abc import Collection, Iterator

from keras_lt import config
from keras_lt.command import launch, part, plain_errors, quietly

with quietly(__name__, functools.partial(config.answer, config.define_flags)):
    import keras
    import numpy as np

    from keras_lt import distribution
    from keras_lt.classifiers import fold
    from keras_lt.compat import deterministic_ops, warn_of_versions
    from keras_lt.config import RunConfig
    from keras_lt.config.checks import check_with_data
    from keras_lt.config.fitted import FITTED
    from keras_lt.datasets import LongTailed
    from keras_lt.datasets.data_record import DataRecord
    from keras_lt.distribution import Strategy, first_ahead, is_first, make_strategy
    from keras_lt.evaluation import thumbnails
    from keras_lt.features import FeatureSet
    from keras_lt.keras_settings import plain_settings
    from keras_lt.logs import log_file
    from keras_lt.metrics import SHOT_CUTS
    from keras_lt.report import RunDetails, advise, shared_examples, show, terminal_table, write_report
    from keras_lt.resampling import resampled_counts
    from keras_lt.run import Run, flags_of
    from keras_lt.serving.onnx_model import import_onnx
    from keras_lt.stages import CHOSEN_BY, DECOUPLING, learn_classifier, learn_representation


@plain_settings(dtype_policy="float32")
def run(run_config: RunConfig, *, said: Collection[str] = FITTED) -> dict:
    """Does what is missing of a run, and returns its results.

    Args:
      said: the flags that somebody said; of `FITTED`, the others are to fit the data set.
    """
    this_run = Run.of(run_config)
    with contextlib.ExitStack() as held:
        with plain_errors():
            if run_config.overwrite:
                this_run.check_emptiable()
            else:
                this_run.check_free()
            this_run.check_unobstructed(anew=run_config.overwrite or not this_run.has_representation)
            strategy = make_strategy(run_config.strategy, run_config.devices)
            if run_config.export_onnx:
                import_onnx()  # refuses where its libraries are missing
            this_run.fit_to_data(said)
            check_with_data(this_run.config, this_run.listed_data, strategy)  # before every image is looked at
            if this_run.data is not this_run.listed_data:  # but for images that are left out
                check_with_data(this_run.config, this_run.data, strategy)
            if not run_config.overwrite:
                this_run.check_splits(*this_run.data.splits)
            with first_ahead(strategy) as first:
                if first:
                    open_folder(this_run, held)
                    held.enter_context(log_file(this_run.log_file))
        if run_config.jit_compile != "true":  # Keras does not compile with XLA where ops must be deterministic
            held.enter_context(deterministic_ops())
        return do_parts(this_run, strategy)


def do_parts(run: Run, strategy: Strategy) -> dict:
    """Does what is missing of a run in its work folder, and returns its results."""
    describe(run.data)
    describe_repeats(run.current_data)
    warn_of_versions(run.begun_by)
    print(f"On {distribution.describe(strategy, run.config.batch_size)}")

    with part("Stage one: the representation"):
        stage_one(run, strategy)
    with part("Features of every split"), plain_errors(), first_ahead(strategy):  # of a net that diverged, none
        texts = ["text"] * run.config.begins_by_text
        features = {split: run.features(split) for split in [*run.data.all_splits, *texts]}
    for name in run.config.systems:
        with part(f"Stage two: {name}"):
            stage_two(name, run, features, strategy)

    with first_ahead(strategy) as first:
        if first:
            run.remove_drawn()
        return finish(run) if first else run.results


def finish(run: Run) -> dict:
    """Writes results, report and SavedModel of what is in the work folder; returns the results."""
    outcomes = {name: run.outcome(name) for name in run.classifiers}
    results = assemble(run, outcomes)
    run.save_results(results)  # first: a folder that has them is a finished run, whatever becomes of the rest
    chosen = run.exported_classifier
    written, failures = {}, []
    with extra("Report", "its report", "the same command", failures):
        details = report_details(run, outcomes, exported=chosen)
        results["advice"] = advise(results, details)
        written = write_report(run.folder, results, details)
        run.save_results(results)
    exported = export(run, chosen, failures)
    show(terminal_table(results))
    for text in results.get("advice", ()):
        print(f"Advice: {text}")
    print(
        f"Best on val: {results['best']}\nReport:      {written.get('report.html', 'none')}\n"
        f"Results:     {', '.join(map(str, filter(None, (run.results_file, written.get('results.md')))))}\n"
        f"SavedModel:  {exported}"
    )
    if failures:
        sys.exit(f"Error: the run is finished, but not {'; not '.join(failures)}")
    return results


def export(run: Run, chosen: str, failures: list[str]) -> object:
    """The SavedModel of a classifier; where it is not written the command that does it."""
    command = f"python -m keras_lt.export --workdir={run.folder} --export_classifier={chosen}"
    if keras.backend.backend() != "tensorflow":
        return f"KERAS_BACKEND=tensorflow {command} writes it"
    with extra(f"SavedModel of {chosen}", "its SavedModel", command, failures):
        return run.current_export(chosen) or run.export(chosen)
    return command


@contextlib.contextmanager
def extra(title: str, what: str, again: str, failures: list[str]) -> Iterator[None]:
    """A part that a finished run does not depend on: what goes wrong in it, of whatever library, is said later."""
    try:
        with part(title):
            yield
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        failures.append(f"{what}: {reason}. {again} tries again")


def open_folder(run: Run, held: contextlib.ExitStack):
    """Makes the work folder or finds it again, and holds it, so that no other training comes in between.

    Raises:
      ValueError: another training has it. It was made with other flags; they are named. Or it holds an imported
        representation of other classes.
      OSError: it cannot be written.
    """
    try:
        held.enter_context(run.locked())
        if run.config.overwrite:
            run.empty()
        differences = run.differences(run.config) or run.other_weights(run.config)
        if not run.flags_file.exists() and run.has_representation:
            check_imported(run)
        if not differences:
            run.save_config()
    except OSError as error:
        raise OSError(
            f"--workdir must be a folder that can be read and written. Received: {run.folder}: {error}"
        ) from error
    if differences:
        raise ValueError(
            f"{run.folder} holds a run with other flags: {'; '.join(differences)}. "
            "Give another --workdir, or --overwrite to start over"
        )


def check_imported(run: Run):
    """Raises ValueError where a representation that came from elsewhere knows another number of classes."""
    classes = run.representation.model.output_shape[-1]
    if classes != len(run.data.class_names):
        raise ValueError(
            f"{run.data.name} needs a representation of its {len(run.data.class_names)} classes. "
            f"Received: one of {classes} in {run.representation_folder}"
        )


def describe(data: LongTailed):
    """Says what the data set is like."""
    counts, called = data.class_counts, data.train.examples.called
    groups = ", ".join(f"{size} {name}" for name, size in data.groups.sizes.items())
    print(
        f"{data.name}: {len(data.train)} training, {len(data.val)} validation and {len(data.test)} test {called} of "
        f"{len(counts)} classes, {counts.max()} down to {counts.min()} per class ({groups} shot)"
        + (f", and {len(data.open_set)} {called} of no class" if data.open_set else "")
    )
    for note in data.said:
        print(note)


def describe_repeats(record: DataRecord):
    """Says before the training what of the data contradicts itself."""
    if said := shared_examples(record.duplicates):
        print(said)
    if number := record.of_two_labels():
        print(f"{number:,} examples stand under two labels, byte for byte the same; keras_lt.describe names some.")


def stage_one(run: Run, strategy: Strategy):
    """Leaves the representation in the run, unless it is there."""
    if run.has_representation:
        print(f"found in {run.representation_folder}")
        return
    config, recipe = run.config, run.config.stage_one_recipe
    parts = f" in {recipe.accumulate_steps} micro-batches" if recipe.accumulate_steps > 1 else ""
    drawn = f"{recipe.batch_size} {run.data.train.examples.called} per step{parts}"
    print(f"{drawn}, peak learning rate {recipe.learning_rate:g}", flush=True)
    with first_ahead(strategy):
        text = run.features("text") if recipe.head_start == "text" else None
    representation = learn_representation(
        run.data,
        backbone=config.backbone,
        recipe=recipe,
        hooks=config.method_entry(),
        extract=run.features_of,
        text=text,
        seed=config.seed,
        strategy=strategy,
        folder=run.representation_folder,
        check_images=False,  # the run has looked at them
        **config.stage_one_options,
    )
    if is_first(strategy):
        representation.save(run.representation_folder)
    run.representation = representation  # as it is in memory; it need not be read


def stage_two(name: str, run: Run, features: dict[str, FeatureSet], strategy: Strategy):
    """Leaves a learned and scored classifier in the run, unless it is there."""
    folder = run.classifier_folder(name)
    if name in run.classifiers:
        print(f"found in {folder}")
        return
    start = time.monotonic()
    config = run.config
    common = {"features": features, "seed": config.seed, "strategy": strategy, "folder": folder}
    if name == config.method:
        own = config.method_entry().classifier
        classifier = own(run.representation, run.data, recipe=config.stage_two_recipe(name), **common)
    else:
        classifier = learn_classifier(
            name,
            run.representation,
            run.data,
            recipe=config.stage_two_recipe(name),
            stage_two=config.stage_two,
            batch_norm=config.batch_norm,
            tau_split=config.tau_split,
            one_pass=run.one_pass(name),
            **common,
        )
    seconds = time.monotonic() - start
    if not is_first(strategy):
        return
    run.keep(name, classifier)
    with plain_errors():  # of a head that the last step has broken
        scores, on_val = run.evaluate(name, "test"), run.evaluate(name, "val")
    dense = fold(classifier.model.layers[-1])
    run.save_scores(
        name,
        scores,
        {
            "val": on_val.summary,
            "test": scores.summary,
            "chosen": classifier.chosen,
            "seconds": seconds,
            "candidates": classifier.candidates,
            "per_class": scores.per_class,
            "weight_norms": None if dense is None else np.linalg.norm(dense[0], axis=0),
        },
    )


def assemble(run: Run, outcomes: dict) -> dict:
    """The content of results.json; "best" is the classifier that is best on val."""
    data, history, recipe = run.data, run.representation.history, run.config.stage_one_recipe
    seconds = sum(row["seconds"] for row in history)
    steps = recipe.steps(int(resampled_counts(data.class_counts, recipe.resampling).sum()))
    hooks = run.config.method_entry()
    plain = (hooks.data, hooks.batches) == (DECOUPLING.data, DECOUPLING.batches)  # others see other images
    images = len(history) * steps * recipe.batch_size
    notes = list(data.said)
    if data.groups.cuts != SHOT_CUTS["kang"]:
        notes.append(
            f"Many-shot classes have more than {data.many_above} training {data.train.examples.called}, few-shot ones "
            f"fewer than {data.few_below}; groups that are cut otherwise do not compare."
        )
    if run.config.tau_split == "test":
        notes.append("tau was chosen on test.")
    return {
        "dataset": data.name,
        "classes": len(data.class_names),
        "groups": data.groups.sizes,
        "train_images": len(data.train),
        "backbone": "" if data.of_features else run.config.backbone,
        "method": run.config.method,
        "stage_one": {  # an imported representation has no recipe and took no epochs
            "recipe": dataclasses.asdict(recipe) if history else None,
            "epochs": len(history),
            "seconds": seconds,
            "images_per_second": images / seconds if seconds and plain else None,
            "train_class_mean": history[-1].get("class_mean") if history else None,
        },
        "classifiers": {
            name: {key: row[key] for key in ("val", "test", "chosen", "seconds")} for name, row in outcomes.items()
        },
        "best": max(outcomes, key=lambda name: outcomes[name]["val"][CHOSEN_BY]),
        "notes": notes,
    }


def report_details(run: Run, outcomes: dict, *, exported: str) -> RunDetails:
    """What the report draws beyond the results."""
    return RunDetails(
        class_names=run.data.class_names,
        class_counts=run.data.class_counts,
        groups=run.data.groups,
        per_class={name: np.array(row["per_class"], np.float64) for name, row in outcomes.items()},
        curves={
            name: row["candidates"]
            for name, row in outcomes.items()
            if "tau" in row["chosen"] and len(row["candidates"]) > 1
        },
        weight_norms={name: np.array(row["weight_norms"]) for name, row in outcomes.items() if row["weight_norms"]},
        flags=flags_of(run.config, on_features=run.data.of_features),
        scores={name: run.scores(name) for name in outcomes},
        exported=exported,
        thumbnails=None if run.data.of_features else functools.partial(thumbnails, run.data.test),
        val_examples=len(run.data.val),
        duplicates=run.current_data.duplicates,
    )


def main():
    """Runs the command."""
    with plain_errors():
        run_config = config.from_flags()
    run(run_config, said=config.said(run_config))


if __name__ == "__main__":
    launch(main)
