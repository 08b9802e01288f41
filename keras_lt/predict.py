"""Predicts the classes of images, by a run or an exported model: a CSV file, and a page of those to look at.

    python -m keras_lt.predict --model=runs/photos --images=new_photos --output=predictions.csv

A line per image, the surest of its classes first; an image that cannot be read says why. The page beside it has the
images that the model is least certain of, and of every class the least likely one.
"""

import csv
import pathlib
from collections.abc import Sequence

from keras_lt.command import Arguments, launch, part, plain_errors, quietly


def parser() -> Arguments:
    """The command's own flags."""
    own = Arguments(__doc__.splitlines()[0])
    own.add_argument(
        "--model",
        required=True,
        help="Work folder of a run, whose newest SavedModel is taken, or a SavedModel's folder.",
    )
    own.add_argument("--images", required=True, help="Folder of images at any depth, or one image.")
    own.add_argument("--output", default="predictions.csv", help="CSV file to write; the page lies beside it.")
    own.add_argument("--classifier", default="", help="Of a run: which classifier; empty is the one that it exports.")
    own.add_argument("--top_k", type=int, default=5, help="Classes per image.")
    return own


with quietly(__name__, lambda: parser().parse_args()):
    import numpy as np
    import tensorflow as tf

    from keras_lt.datasets import Split
    from keras_lt.datasets.own_images import unlabelled_images
    from keras_lt.evaluation import ScoredModel, load_model, thumbnails
    from keras_lt.files import atomic, check_own, expanded, write_text
    from keras_lt.inspection import inspect_examples
    from keras_lt.metrics import softmax
    from keras_lt.report import Prediction, render_predictions
    from keras_lt.run import Run
    from keras_lt.work_folder import WorkFolder

COLUMNS = ("image", "label", "probability")
PAGE = ".html"
LEAST_CERTAIN = 24  # images of the page
MOST_CLASSES = 200  # of which the page has the least likely image


def open_model(path: str, classifier: str) -> ScoredModel:
    """The SavedModel of that folder, or of the run in it.

    Raises:
      FileNotFoundError: there is none.
      ValueError: a classifier is asked for that the run did not export, or of what is no run.
    """
    folder = expanded(path)
    if WorkFolder(folder).flags_file.exists():
        of_run = Run(folder)
        name = classifier or of_run.exported_classifier
        of_run.check_finished([name])
        version = of_run.latest_export(name)
        command = f"python -m keras_lt.export --workdir={folder} --export_classifier={name}"
        if version is None:
            raise FileNotFoundError(f"{folder} has no SavedModel of {name}: {command} writes it")
        if others := of_run.other_in_export(version, name):
            print(f"{version} was exported with other {' and '.join(others)} than the run has now: {command}")
        return load_model(version)
    if classifier:
        raise ValueError(f"--classifier names one of a run. Received: --classifier={classifier}, --model={path}")
    if not (folder / "saved_model.pb").exists():
        raise FileNotFoundError(
            f"--model must be the work folder of a run, or hold saved_model.pb. Not found: {folder}"
        )
    return load_model(folder)


def predict(model: ScoredModel, split: Split, *, top_k: int) -> tuple[np.ndarray, np.ndarray]:
    """The most probable classes of every image, the first the surest: ids and probabilities, both [N, top_k]."""
    classes, probabilities = [], []
    for batch in model.logits(split):
        surest = tf.math.top_k(softmax(np.asarray(batch, np.float64)), top_k)  # of equals the first
        classes.append(surest.indices)
        probabilities.append(surest.values)
    return np.concatenate(classes), np.concatenate(probabilities)


def write_csv(path: pathlib.Path, split: Split, problems: dict[int, str], found: dict[int, Prediction], *, top_k: int):
    """A line per image, in the order of the names."""
    columns = [f"{column}_{place}" for place in range(2, top_k + 1) for column in COLUMNS[1:]]
    with atomic(path) as scratch, scratch.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, *columns, "problem"])
        for row, name in enumerate(split.names):
            ranked = found[row].ranked if row in found else []
            cells = [cell for label, probability in ranked for cell in (label, f"{probability:.6f}")]
            writer.writerow([name, *cells, *[""] * (2 * (top_k - len(ranked))), problems.get(row, "")])


def to_look_at(found: dict[int, Prediction]) -> tuple[list[int], list[int]]:
    """Rows of the least certain images, and of the least likely one of each class, those of many images first."""
    by_certainty = sorted(found, key=lambda row: found[row].ranked[0][1])
    least_likely, sizes = {}, {}
    for row in by_certainty:
        label = found[row].ranked[0][0]
        least_likely.setdefault(label, row)
        sizes[label] = sizes.get(label, 0) + 1
    labels = sorted(sizes, key=lambda label: (-sizes[label], label))[:MOST_CLASSES]
    return by_certainty[:LEAST_CERTAIN], [least_likely[label] for label in labels]


def main(arguments: Sequence[str] | None = None):
    """Runs the command."""
    given = parser().parse_args(arguments)
    with plain_errors():
        if given.top_k < 1:
            raise ValueError(f"--top_k must be at least 1. Received: --top_k={given.top_k}")
        if given.output.lower().endswith(PAGE):
            raise ValueError(f"--output is a csv file, the page lies beside it. Received: --output={given.output}")
        output = check_own(given.output, ",".join(COLUMNS))
        page = check_own(output.with_suffix(PAGE), "<!doctype html>")
        split = unlabelled_images(given.images)
        model = open_model(given.model, given.classifier)
    top_k = min(given.top_k, len(model.class_names))
    with part(f"{len(split):,} images are looked at"), plain_errors():
        problems = inspect_examples(split.examples, title="examining").problems
        readable = [row for row in range(len(split)) if row not in problems]
        if not readable:
            raise ValueError(f"No image can be read. Received: {split.names[0]}: {problems[0]}, and so on")
    with part(f"Predictions by {model.name}"):
        classes, probabilities = predict(model, split.subset(np.array(readable)), top_k=top_k)
        found = {
            row: Prediction(
                str(split.names[row]), [(model.class_names[c], float(p)) for c, p in zip(*ranked, strict=True)]
            )
            for row, *ranked in zip(readable, classes, probabilities, strict=True)
        }
        write_csv(output, split, problems, found, top_k=top_k)
        sections = [
            [(found[row], picture) for row, picture in zip(rows, thumbnails(split, rows), strict=True)]
            for rows in to_look_at(found)
        ]
        unread = {str(split.names[row]): said for row, said in problems.items()}
        write_text(page, render_predictions(model.name, list(found.values()), *sections, problems=unread))
    for name, said in list(unread.items())[:5]:
        print(f"Not read: {name}: {said}")
    print(f"{len(found):,} images predicted, {len(problems):,} could not be read")
    print(f"Predictions: {output}\nPage:        {page}")


if __name__ == "__main__":
    launch(main)
