"""Learns a representation, then every classifier on top of it; scores, reports and exports.

    python -m keras_lt.train --flagfile=flags/fashion_lt.cfg

Finished parts are kept in the work folder and skipped when the same command is given again.
"""

import contextlib
import dataclasses
import functools
import pathlib
import shutil
import time

from keras_lt.command import launch, part, plain_errors, quietly

with quietly():
    import keras
    import numpy as np
    import rich
    import tensorflow as tf

    from keras_lt import config, distribution, export
    from keras_lt.checkpoints import read_json, sweep, write_json
    from keras_lt.classifiers import CLASSIFIERS, fold
    from keras_lt.config import RunConfig
    from keras_lt.datasets import LongTailed
    from keras_lt.distribution import Strategy, first_ahead, is_first, make_strategy
    from keras_lt.evaluation import Scores, evaluate_classifier, thumbnails
    from keras_lt.features import Features, extract_features
    from keras_lt.logs import log_file
    from keras_lt.methods import METHODS
    from keras_lt.metrics import SHOT_CUTS
    from keras_lt.rebalancing import resampled_counts
    from keras_lt.report import RunDetails, terminal_table, write_report
    from keras_lt.serving import read_prior
    from keras_lt.stages import (
        CHOSEN_BY,
        Representation,
        learn_classifier,
    )


REPRESENTATION = "representation"  # its folder in the work folder


def run(run_config: RunConfig) -> dict:
    """Does what is missing of a run, and returns its results."""
    folder = run_config.folder
    with plain_errors():
        strategy = make_strategy(run_config.strategy, run_config.devices)
        data = run_config.open_data()
        read_prior(run_config.target_prior, data.class_counts)  # refuses one that does not fit
        for recipe in run_config.recipes:
            # Refuses a batch that the images do not fill.
            recipe.steps(int(resampled_counts(data.class_counts, recipe.resampling).sum()))
        with first_ahead(strategy) as first:
            if first:
                open_folder(run_config, data)
    with log_file(folder / "train.log") if is_first(strategy) else contextlib.nullcontext():
        return do_parts(run_config, data, strategy)


def do_parts(run_config: RunConfig, data: LongTailed, strategy: Strategy) -> dict:
    """Does what is missing of a run in its work folder, and returns its results."""
    folder = run_config.folder
    if run_config.jit_compile != "true":  # Keras does not compile with XLA where ops must be deterministic
        tf.config.experimental.enable_op_determinism()
    describe(data)
    print(f"On {distribution.describe(strategy, run_config.batch_size)}")

    with part("Stage one: the representation"):
        representation = stage_one(run_config, data, strategy, folder / REPRESENTATION)
    with part("Features of every split"), first_ahead(strategy):
        features = {
            split: extract_features(
                representation.backbone,
                examples,
                representation.preprocessing,
                dtype=run_config.feature_dtype,
                views=run_config.feature_views if split == "train" else 1,
                seed=run_config.seed,
                folder=folder / "features" / split,
            )
            for split, examples in data.all_splits.items()
        }
    for name in run_config.systems:
        with part(f"Stage two: {name}"):
            stage_two(
                name,
                run_config,
                data,
                representation=representation,
                features=features,
                strategy=strategy,
                folder=folder / "classifiers" / name,
            )

    with first_ahead(strategy) as first:
        return finish(run_config, data, representation) if first else read_json(folder / "results.json")


def finish(run_config: RunConfig, data: LongTailed, representation: Representation) -> dict:
    """Writes results, report and SavedModel of what is in the work folder; returns the results."""
    folder = run_config.folder
    files = {name: folder / "classifiers" / name / "scores.json" for name in (*METHODS, *CLASSIFIERS)}
    scores = {name: read_json(path) for name, path in files.items() if path.exists()}
    results = assemble(run_config, data, representation, scores)
    chosen = run_config.export_classifier or results["best"]
    with part("Report"):
        write_report(folder, results, report_details(run_config, data, scores, exported=chosen))
    if keras.backend.backend() == "tensorflow":
        with part(f"SavedModel of {chosen}"):
            exported = export.latest_version(folder, chosen) or export.export_version(
                folder,
                chosen,
                data,
                target_prior=run_config.target_prior,
                on_bad_request=run_config.on_bad_request,
                onnx=run_config.export_onnx,
            )
    else:
        exported = f"KERAS_BACKEND=tensorflow python -m keras_lt.export --workdir={folder} writes it"
    write_json(folder / "results.json", results)  # at the end, since a folder that has it is a finished run
    rich.print(terminal_table(results))
    print(
        f"Best on val: {results['best']}\nReport:      {folder / 'report.html'}\n"
        f"Results:     {folder / 'results.json'}, {folder / 'results.md'}\nSavedModel:  {exported}"
    )
    return results


def open_folder(run_config: RunConfig, data: LongTailed) -> pathlib.Path:
    """The work folder, made or found again.

    Raises:
      ValueError: it was made with other flags; they are named. Or it holds an imported representation of other classes.
      OSError: it cannot be written.
    """
    folder = run_config.folder
    saved = folder / "flags.cfg"
    try:
        if run_config.overwrite and folder.exists():
            shutil.rmtree(folder)
        differences = config.read_flag_file(saved).differences(run_config) if saved.exists() else []
        if not saved.exists() and (folder / REPRESENTATION / "model.keras").exists():
            check_imported(folder / REPRESENTATION, data)
        if not differences:
            dataclasses.replace(run_config, overwrite=False).save(saved)  # a replay must not empty the folder
            sweep(folder)
    except OSError as error:
        raise OSError(
            f"--workdir must be a folder that can be read and written. Received: {folder}: {error}"
        ) from error
    if differences:
        raise ValueError(
            f"{folder} holds a run with other flags: {'; '.join(differences)}. "
            "Give another --workdir, or --overwrite to start afresh"
        )
    return folder


def check_imported(folder: pathlib.Path, data: LongTailed):
    """Raises ValueError where a representation that came from elsewhere knows another number of classes."""
    classes = Representation.load(folder).model.output_shape[-1]
    if classes != len(data.class_names):
        raise ValueError(
            f"{data.name} needs a representation of its {len(data.class_names)} classes. "
            f"Received: one of {classes} in {folder}"
        )


def describe(data: LongTailed):
    """Says what the data set is like."""
    counts = data.class_counts
    groups = ", ".join(f"{size} {name}" for name, size in data.groups.sizes.items())
    print(
        f"{data.name}: {len(data.train)} training, {len(data.val)} validation and {len(data.test)} test images of "
        f"{len(counts)} classes, {counts.max()} down to {counts.min()} per class ({groups} shot)"
        + (f", and {len(data.open_set)} images of no class" if data.open_set else "")
    )
    for note in data.notes:
        print(note)


def stage_one(run_config: RunConfig, data: LongTailed, strategy: Strategy, folder: pathlib.Path) -> Representation:
    """The representation, learned or found again in `folder`."""
    if (folder / "model.keras").exists():
        print(f"found in {folder}")
        return Representation.load(folder)
    recipe = run_config.stage_one_recipe
    passes = f" in {recipe.accumulate_steps} passes" if recipe.accumulate_steps > 1 else ""
    print(f"{recipe.batch_size} images per step{passes}, learning rate {recipe.learning_rate:g}", flush=True)
    representation = METHODS[run_config.method].learn_representation(
        data,
        backbone=run_config.backbone,
        recipe=recipe,
        head=run_config.head,
        image_size=run_config.image_size,
        augmentation=run_config.augmentation,
        pretrained=run_config.pretrained,
        train_parts=run_config.train_parts,
        backbone_lr_multiplier=run_config.backbone_lr_multiplier,
        precision=run_config.precision,
        seed=run_config.seed,
        strategy=strategy,
        folder=folder,
        **run_config.augmentations,
    )
    if is_first(strategy):
        representation.save(folder)
    return representation


def stage_two(
    name: str,
    run_config: RunConfig,
    data: LongTailed,
    *,
    representation: Representation,
    features: dict[str, Features],
    strategy: Strategy,
    folder: pathlib.Path,
):
    """Leaves a learned and scored classifier in `folder`, unless it is there."""
    if (folder / "scores.json").exists():
        print(f"found in {folder}")
        return
    start = time.monotonic()
    common = {
        "features": features,
        "recipe": run_config.stage_two_recipe(name),
        "seed": run_config.seed,
        "strategy": strategy,
        "folder": folder,
    }
    if name in METHODS:
        classifier = METHODS[name].learn_classifier(representation, data, **common)
    else:
        classifier = learn_classifier(
            name,
            representation,
            data,
            stage_two=run_config.stage_two,
            batch_norm=run_config.batch_norm,
            tau_split=run_config.tau_split,
            **common,
        )
    seconds = time.monotonic() - start
    if not is_first(strategy):
        return
    classifier.save(folder, representation)

    def of(split: str) -> Features | None:
        if classifier.backbone is representation.backbone or split not in features:
            return features.get(split)
        return extract_features(classifier.backbone, data.all_splits[split], representation.preprocessing)

    scores = evaluate_classifier(classifier.model, of("test"), data.groups, open_features=of("open_set"))
    scores.save(folder / "predictions.npz")
    dense = fold(classifier.model.layers[-1])
    write_json(
        folder / "scores.json",
        {
            "val": evaluate_classifier(classifier.model, of("val"), data.groups).summary,
            "test": scores.summary,
            "chosen": classifier.chosen,
            "seconds": seconds,
            "candidates": classifier.candidates,
            "per_class": scores.per_class,
            "weight_norms": None if dense is None else np.linalg.norm(dense[0], axis=0),
        },
    )


def assemble(run_config: RunConfig, data: LongTailed, representation: Representation, scores: dict) -> dict:
    """The content of results.json; "best" is the classifier that is best on val."""
    seconds = sum(row["seconds"] for row in representation.history)
    recipe = run_config.stage_one_recipe
    method = METHODS[run_config.method]
    steps = recipe.steps(int(resampled_counts(data.class_counts, recipe.resampling).sum()))
    images = len(representation.history) * steps * recipe.batch_size
    notes = list(data.notes)
    if data.groups.cuts != SHOT_CUTS["kang"]:
        notes.append(
            f"Many-shot classes have more than {data.many_above} training images, few-shot ones fewer than "
            f"{data.few_below}; groups that are cut otherwise do not compare."
        )
    if run_config.tau_split == "test":
        notes.append("tau was chosen on test.")
    return {
        "dataset": data.name,
        "classes": len(data.class_names),
        "groups": data.groups.sizes,
        "train_images": len(data.train),
        "backbone": run_config.backbone,
        "method": run_config.method,
        "stage_one": {  # an imported representation has no recipe and took no epochs
            "recipe": dataclasses.asdict(recipe) if representation.history else None,
            "epochs": len(representation.history),
            "seconds": seconds,
            "images_per_second": images / seconds if seconds and not method.has_own_representation else None,
        },
        "classifiers": {
            name: {key: row[key] for key in ("val", "test", "chosen", "seconds")} for name, row in scores.items()
        },
        "best": max(scores, key=lambda name: scores[name]["val"][CHOSEN_BY]),
        "notes": notes,
    }


def report_details(run_config: RunConfig, data: LongTailed, scores: dict, *, exported: str) -> RunDetails:
    """What the report draws beyond the results."""
    files = {name: run_config.folder / "classifiers" / name / "predictions.npz" for name in scores}
    return RunDetails(
        class_names=data.class_names,
        class_counts=data.class_counts,
        groups=data.groups,
        per_class={name: np.array(s["per_class"], np.float64) for name, s in scores.items()},
        curves={
            name: sorted(s["candidates"], key=lambda candidate: candidate["tau"])
            for name, s in scores.items()
            if "tau" in s["chosen"] and len(s["candidates"]) > 1
        },
        weight_norms={name: np.array(s["weight_norms"]) for name, s in scores.items() if s["weight_norms"]},
        flags=run_config.as_flags(),
        scores={name: Scores.load(path) for name, path in files.items() if path.exists()},
        exported=exported,
        thumbnails=functools.partial(thumbnails, data.test),
    )


def main():
    """Runs the command."""
    with plain_errors():
        run_config = config.from_flags()
    run(run_config)


if __name__ == "__main__":
    config.define_flags()
    launch(main, config.help_text)
