"""Test examples that tell what the numbers mean: the classes most confused, and predictions of few-shot classes."""

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import PIL.Image

from keras_lt.evaluation import Confusion, Scores
from keras_lt.report.details import RunDetails

PAIRS = 8
MORE = 2  # times the training examples of a rare class that a frequent one has at least
SAMPLES = 8  # correct, and as many incorrect
PIXEL_ART = 32  # images up to this side are kept as they are
JPEG_QUALITY = 85


class Picture(NamedTuple):
    """An image in the page: its data URI, empty where there are no images, and words for it."""

    uri: str
    alt: str
    is_small: bool = False


def confused_pairs(details: RunDetails, scored: Scores) -> list[tuple[Confusion, Picture, Picture]]:
    """The most frequent confusions of a class with one of at least `MORE` times its training examples.

    Returns: each with one of the images, and one of the other class that is predicted correctly; without such, any.
    """
    counts = np.asarray(details.class_counts)
    found = [p for p in scored.confused_pairs(len(scored.labels)) if counts[p.predicted] >= MORE * counts[p.true]]
    found = found[:PAIRS]
    mistaken = [np.flatnonzero((scored.labels == p.true) & (scored.predictions == p.predicted))[0] for p in found]
    pictures = _pictures(details, [*mistaken, *(_typical(scored, p.predicted) for p in found)], scored)
    return list(zip(found, pictures[: len(found)], pictures[len(found) :], strict=True))


def _typical(scored: Scores, label: int) -> int:
    """The first image of a class that is predicted correctly, else its first; -1 for a class without a test example."""
    rows = np.flatnonzero(scored.labels == label)
    right = rows[scored.is_correct[rows]]
    return int([*right[:1], *rows[:1], -1][0])


def samples(details: RunDetails, scored: Scores) -> tuple[str, dict[str, list[tuple[int, Picture]]]]:
    """Predictions of the rarest group that has test examples, drawn by chance with a fixed seed.

    Returns: the group's name, and "Correct" and "Incorrect" -> row and image, of as many classes as there can be.
    """
    groups = details.groups
    group = next((g for g in ("few", "medium", "many") if groups[g][scored.labels].any()), "")
    rows = np.flatnonzero(groups[group][scored.labels]) if group else np.zeros(0, np.int64)
    right = scored.is_correct[rows]
    halves = {"Correct": _spread(rows[right], scored.labels), "Incorrect": _spread(rows[~right], scored.labels)}
    return group, {
        kind: list(zip(half.tolist(), _pictures(details, half, scored), strict=True)) for kind, half in halves.items()
    }


def _spread(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Up to `SAMPLES` of the rows by chance; none of a class twice while another class has one left."""
    rows = np.random.default_rng(0).permutation(rows)
    by_class = np.argsort(labels[rows], kind="stable")
    _, firsts, sizes = np.unique(labels[rows][by_class], return_index=True, return_counts=True)
    turns = np.empty(len(rows), np.int64)  # 0 for the first of its class, 1 for the second, ...
    turns[by_class] = np.arange(len(rows)) - np.repeat(firsts, sizes)
    return rows[np.argsort(turns, kind="stable")[:SAMPLES]]


def _pictures(details: RunDetails, rows: Sequence[int], scored: Scores) -> list[Picture]:
    """The images at `rows` of the test split; one that does not exist, and all without thumbnails, have no URI."""
    known = [int(row) for row in rows if row >= 0] if details.thumbnails else []
    images = dict(zip(known, details.thumbnails(known) if known else (), strict=True))
    names = {row: details.class_names[scored.labels[row]] for row in images}
    return [
        picture(images[row], alt=f"Test image {row}, {names[row]}") if row in images else Picture("", "")
        for row in map(int, rows)
    ]


def picture(image: np.ndarray, *, alt: str) -> Picture:
    """Pixels uint8 [H, W, 3] as a part of the page."""
    is_small = max(image.shape[:2]) <= PIXEL_ART
    options = {"format": "PNG", "optimize": True} if is_small else {"format": "JPEG", "quality": JPEG_QUALITY}
    content = io.BytesIO()
    PIL.Image.fromarray(np.asarray(image, np.uint8)).save(content, **options)
    encoded = base64.b64encode(content.getvalue()).decode()
    return Picture(f"data:image/{options['format'].lower()};base64,{encoded}", alt, is_small)
