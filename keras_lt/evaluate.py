"""Scores classifiers afresh, on a split or on a folder of images, and prints the table.

    python -m keras_lt.evaluate --workdir=runs/fashion_lt
    python -m keras_lt.evaluate --workdir=runs/fashion_lt --classifiers=lws --split=val --predictions=val.csv
    python -m keras_lt.evaluate --workdir=runs/fashion_lt --test_distribution=backward:ratio=25 --target_prior=em
    python -m keras_lt.evaluate --workdir=runs/sade --aggregate
    python -m keras_lt.evaluate --model=runs/fashion_lt/export/lws/1 --dataset=fashion_lt
    python -m keras_lt.evaluate --model=runs/fashion_lt/export/lws/1 --images=photos --predictions=photos.csv

`--model` is a SavedModel of `keras_lt.export`, or a `.keras` file from images to logits, which takes its preprocessing
from the run in `--workdir`, or from `preprocessing.json` beside it; on data that are features already, a model from
features to logits. `--images` holds a folder per class, or images without labels, for which predictions are written
alone.
"""

import csv
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

from keras_lt import config
from keras_lt.command import launch, part, plain_errors, quietly

with quietly(__name__, functools.partial(config.answer, config.define_evaluate_flags)):
    import keras
    import numpy as np
    import rich.table

    from keras_lt.classifiers import dense_of, fold
    from keras_lt.config import EvaluateOptions
    from keras_lt.datasets import LongTailed, Split
    from keras_lt.datasets.data_record import DataRecord
    from keras_lt.datasets.own_images import labelled_images
    from keras_lt.evaluation import ScoredModel, Scores, load_model, logits_in_chunks, score
    from keras_lt.files import atomic, check_own
    from keras_lt.inspection import readable, screen
    from keras_lt.metrics import ShotGroups, accuracy_under
    from keras_lt.report.cells import Table, rich_table, show
    from keras_lt.report.tables import ERRORS, OF_CLASSES, OPEN_SET, SCORES, display_name, measure_table
    from keras_lt.run import Run, source_prior
    from keras_lt.serving import PriorEstimate, estimate_prior, logit_offset, read_prior

EM = "em"  # --target_prior, estimated from the images
BOOTSTRAP_ROUNDS = 50
COLUMNS = ("model", "image", "label", "predicted", "confidence", "top_5")


def run(options: EvaluateOptions) -> dict[str, Scores]:
    """Scores what was asked for, prints the table and writes the predictions; returns the scores by model."""
    with plain_errors():
        if options.predictions:
            check_own(options.predictions, ",".join(COLUMNS))
        of_run = Run(**options.run) if options.run is not None else None
        data = open_data(options, of_run)
        models = open_models(options, of_run, on_features=not options.images and data is not None and data.of_features)
        class_names = agreed_names(models, data)
        if options.images:
            split = labelled_images(options.images, class_names)
            split = readable(split, of=options.images, on_bad_image=options.on_bad_image)
        else:
            split = data.splits[options.split]
        open_set = None if options.images or options.split != "test" else data.open_set
        labelled = split.labels.min() >= 0
        if not labelled and not options.predictions:
            raise ValueError(
                "Images without a folder per class have no labels to score by; --predictions=<file>.csv writes what "
                f"is predicted. Received: --images={options.images}"
            )
        groups = ShotGroups(np.full(len(class_names), np.nan)) if data is None else data.groups
        tested = tested_distribution(options.test_distribution, groups, labelled=labelled)
        moved = mover(options, of_run, split, tested=tested)
        if options.aggregate:
            models.append(aggregated(of_run, split))
    scores = {}
    for model in models:
        with part(display_name(model.name)), plain_errors():
            logits = moved(model).logits
            open_logits = () if open_set is None else logits(open_set)
            scores[model.name] = score(logits(split), split.labels, groups, open_logits=open_logits)
    if labelled:
        of = options.images or f"{data.name}, {options.split}"
        summaries = {name: s.summary for name, s in scores.items()}
        if tested is not None:
            for name, scored in scores.items():
                summaries[name]["tested"] = accuracy_under(tested, scored.per_class)
        title = f"{of}: {len(split):,} {split.examples.called}, in %"
        show(*tables(summaries, title=title, more={"tested": f"All, {options.test_distribution}"}))
    if options.predictions:
        write_predictions(options.predictions, scores, split=split, class_names=class_names)
        print(f"Predictions: {options.predictions}")
    return scores


def open_models(options: EvaluateOptions, of_run: Run | None, *, on_features: bool) -> list[ScoredModel]:
    """The model that was asked for, of images or of features, or classifiers of the run."""
    if options.model:
        if Run(options.model).flags_file.exists():
            raise ValueError(
                "--model is a .keras file or the folder of a SavedModel; --workdir scores the classifiers of a run. "
                f"Received: --model={options.model}, a run"
            )
        preprocessing = of_run.preprocessing if of_run else None
        return [load_model(options.model, preprocessing=preprocessing, on_features=on_features)]
    return run_models(of_run, options.classifiers or list(of_run.results["classifiers"]))


def run_models(of_run: Run, names: Sequence[str]) -> list[ScoredModel]:
    """The classifiers of those names of a run.

    Raises:
      ValueError: a classifier is not there.
    """

    @functools.cache  # classifiers on one backbone share its features
    def features(backbone: keras.Model, examples: Split) -> np.ndarray:
        return of_run.extract(backbone, examples).features

    def logits(name: str, examples: Split) -> Iterator[np.ndarray]:
        classifier = of_run.classifier(name)
        return logits_in_chunks(classifier.model, features(classifier.backbone, examples))

    of_run.check_finished(names)
    return [ScoredModel(name, functools.partial(logits, name)) for name in names]


def aggregated(of_run: Run, split: Split) -> ScoredModel:
    """The classifier of the run's method, its experts weighed by two augmented views of the images of a split.

    Raises:
      ValueError: the method has no such thing, or its training images were not augmented.
    """
    name, entry = of_run.config.method, of_run.config.method_entry
    if entry.aggregated is None or not of_run.preprocessing.augments:
        raise ValueError(
            "--aggregate weighs the experts of --method=sade by images that are augmented as those of its training. "
            f"Received: a run of --method={name}, --augmentation={of_run.config.augmentation}"
        )
    classifier = of_run.classifier(name)
    kernel, bias = fold(classifier.model.layers[-1])
    features = of_run.extract(classifier.backbone, split, views=2, seed=of_run.config.seed)
    kernel, weights = entry.aggregated(kernel, features.views)
    print(f"Weights of the experts by two views of each image: {', '.join(f'{weight:.3f}' for weight in weights)}")
    weighed = dense_of(kernel, bias)

    def logits(examples: Split) -> Iterator[np.ndarray]:
        of = features if examples is split else of_run.extract(classifier.backbone, examples)
        return logits_in_chunks(weighed, of.features)

    return ScoredModel(f"{name}:aggregated", logits)


def open_data(options: EvaluateOptions, of_run: Run | None) -> LongTailed | DataRecord | None:
    """The data set, its images looked at where they are what is scored; None where nothing says which it is."""
    if options.data is not None:
        data = options.data.load_data()
        return data if options.images else screen(data, on_bad_image=options.data.on_bad_image)
    if of_run is None:
        return None
    return of_run.about_data if options.images else of_run.data


def agreed_names(models: Sequence[ScoredModel], data: LongTailed | DataRecord | None) -> tuple[str, ...]:
    """The names of the classes, which model and data set must agree on.

    Raises:
      ValueError: they do not, or neither knows them.
    """
    known = [model.class_names for model in models if model.class_names]
    known += [] if data is None else [data.class_names]
    if not known:
        raise ValueError("A .keras file does not name its classes: --workdir or --dataset does. Received: neither")
    first, last = known[0], known[-1]
    if first != last:
        pairs = enumerate(zip(first, last, strict=False))
        differs = next(
            (f"class {c} '{ours}' there, '{theirs}' here" for c, (ours, theirs) in pairs if ours != theirs), ""
        )
        raise ValueError(
            "Model and data set must have the same classes in the same order. "
            f"Received: a model of {len(first)}, data of {len(last)}" + (f", {differs}" if differs else "")
        )
    return first


def tested_distribution(text: str, groups: ShotGroups, *, labelled: bool) -> np.ndarray | None:
    """The class distribution [C] that --test_distribution names; None without one.

    Raises:
      ValueError: there is none of that name, or nothing to score under it.
    """
    if not text:
        return None
    if not labelled or np.isnan(groups.class_counts).any():
        raise ValueError(
            "--test_distribution needs labels, and the training images per class, which --workdir or --dataset says. "
            f"Received: --test_distribution={text}"
        )
    return read_prior(text, groups.class_counts, flag="test_distribution")


def mover(
    options: EvaluateOptions, of_run: Run | None, split: Split, *, tested: np.ndarray | None
) -> Callable[[ScoredModel], ScoredModel]:
    """A classifier of the run -> the same with calibrated logits, for the class distribution that is asked for.

    Raises:
      ValueError: there is no such distribution.
    """
    if not options.target_prior and not options.calibrate:
        return lambda model: model
    data = of_run.data
    classes = len(data.class_names)
    known = None if options.target_prior == EM else read_prior(options.target_prior, data.class_counts)
    logit_offset(known, classes=classes)  # refuses one that does not fit
    # By them the split is a sample of the class distribution that it is tested under.
    weights = (
        None if tested is None else (tested / np.maximum(np.bincount(split.labels, minlength=classes), 1))[split.labels]
    )

    def moved(model: ScoredModel) -> ScoredModel:
        temperature = of_run.temperature(model.name)
        source = source_prior(model.name, of_run.config, data.class_counts)
        target = known
        if options.target_prior == EM:
            posteriors = np.concatenate([np.asarray(chunk) / temperature for chunk in model.logits(split)])
            estimate = estimate_prior(posteriors, source, weights=weights, rounds=BOOTSTRAP_ROUNDS)
            say_estimate(estimate, data.groups)
            target = estimate.prior
        offset = logit_offset(target, source, classes=classes)
        return dataclasses.replace(
            model,
            logits=lambda examples: (np.asarray(chunk) / temperature + offset for chunk in model.logits(examples)),
        )

    return moved


def say_estimate(estimate: PriorEstimate, groups: ShotGroups):
    """Prints the share of each group of classes, with its interval."""
    shares = {name: estimate.share(of) for name, of in groups.items() if of.any()}
    said = (
        f"{name} {100 * share:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
        for name, (share, low, high) in shares.items()
    )
    print(f"Class distribution by expectation-maximisation: {', '.join(said)}")


def tables(
    summaries: Mapping[str, Mapping[str, float]], *, title: str, more: Mapping[str, str]
) -> Iterator[rich.table.Table]:
    """A row per model, a column per number; those that no model has are left out.

    Args:
      more: numbers beside the accuracies that every table has -> their label.
    """
    results = {"classifiers": {name: {"test": summary} for name, summary in summaries.items()}}
    for measures in ({**SCORES, **more}, OF_CLASSES, ERRORS, OPEN_SET):
        header, rows = measure_table(results, measures)
        if rows:
            yield rich_table(Table(title, [name.replace(" ", "\n", 1) for name in header], rows))
        title = ""


def write_predictions(
    path: str | os.PathLike, scores: Mapping[str, Scores], *, split: Split, class_names: Sequence[str]
):
    """Writes a CSV file with a line per model and image; an image without a label has an empty one."""
    names = np.array(class_names)
    with atomic(path) as scratch, scratch.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for model, scored in scores.items():
            rows = zip(split.names, split.labels, scored.top, scored.confidences, strict=True)
            for image, label, top, confidence in rows:
                true = names[label] if label >= 0 else ""
                writer.writerow((model, image, true, names[top[0]], f"{confidence:.6f}", " | ".join(names[top])))


def main():
    """Runs the command."""
    with plain_errors():
        options = config.evaluate_options()
    run(options)


if __name__ == "__main__":
    launch(main)
