"""Test images that tell what the numbers mean: the classes most confused, and predictions of few-shot classes."""

import base64
import dataclasses
import io
from collections.abc import Sequence

import numpy as np
import PIL.Image

from keras_lt.report.details import RunDetails, Scored

PAIRS = 8
MORE = 2  # times the training images of a rare class that a frequent one has at least
SAMPLES = 8  # correct, and as many incorrect
PIXEL_ART = 32  # images up to this side are kept as they are
JPEG_QUALITY = 85


@dataclasses.dataclass(frozen=True)
class Picture:
    """An image in the page: its data URI, empty where there are no images, and words for it."""

    uri: str
    alt: str
    is_small: bool = False


@dataclasses.dataclass(frozen=True)
class Class:
    """A class as a reader meets it: its name and its training images."""

    name: str
    count: int


@dataclasses.dataclass(frozen=True)
class ConfusedPair:
    """A class predicted as one with many more training images.

    Attributes:
      true, predicted: the two.
      count: test images.
      share: of the true class's test images.
      mistaken: one of these images.
      typical: an image of the other class that is predicted correctly; without one, of any.
    """

    true: Class
    predicted: Class
    count: int
    share: float
    mistaken: Picture
    typical: Picture


@dataclasses.dataclass(frozen=True)
class Sample:
    """A test image, its true class and the predicted one."""

    picture: Picture
    true: Class
    predicted: Class
    confidence: float


def confused_pairs(details: RunDetails, scored: Scored) -> list[ConfusedPair]:
    """The most frequent confusions of a class with one of at least `MORE` times its training images."""
    counts = np.asarray(details.class_counts)
    found = [p for p in scored.confused_pairs(len(scored.labels)) if counts[p[1]] >= MORE * counts[p[0]]][:PAIRS]
    mistaken = [np.flatnonzero((scored.labels == p[0]) & (scored.predictions == p[1]))[0] for p in found]
    typical = [_typical(scored, p[1]) for p in found]
    pictures = _pictures(details, [*mistaken, *typical], scored)
    return [
        ConfusedPair(_class(details, true), _class(details, predicted), count, share, first, second)
        for (true, predicted, count, share), first, second in zip(
            found, pictures[: len(found)], pictures[len(found) :], strict=True
        )
    ]


def _typical(scored: Scored, label: int) -> int:
    """The first image of a class that is predicted correctly, else its first; -1 for a class without a test image."""
    rows = np.flatnonzero(scored.labels == label)
    right = rows[scored.is_correct[rows]]
    return int([*right[:1], *rows[:1], -1][0])


def samples(details: RunDetails, scored: Scored) -> tuple[str, list[Sample], list[Sample]]:
    """Correct and incorrect predictions of the rarest group that has test images, drawn by chance with a fixed seed.

    Returns: the group's name, and images of as many of its classes as there can be.
    """
    groups = details.groups
    group = next((g for g in ("few", "medium", "many") if groups[g][scored.labels].any()), "")
    rows = np.flatnonzero(groups[group][scored.labels]) if group else np.zeros(0, np.int64)
    chosen = [_spread(rows[scored.is_correct[rows] == right], scored.labels) for right in (True, False)]
    pictures = iter(_pictures(details, [row for half in chosen for row in half], scored))
    right, wrong = (
        [
            Sample(
                next(pictures),
                _class(details, scored.labels[row]),
                _class(details, scored.predictions[row]),
                float(scored.confidences[row]),
            )
            for row in half
        ]
        for half in chosen
    )
    return group, right, wrong


def _spread(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Up to `SAMPLES` of the rows by chance; none of a class twice while another class has one left."""
    rows = np.random.default_rng(0).permutation(rows)
    by_class = np.argsort(labels[rows], kind="stable")
    _, firsts, sizes = np.unique(labels[rows][by_class], return_index=True, return_counts=True)
    turns = np.empty(len(rows), np.int64)  # 0 for the first of its class, 1 for the second, ...
    turns[by_class] = np.arange(len(rows)) - np.repeat(firsts, sizes)
    return rows[np.argsort(turns, kind="stable")[:SAMPLES]]


def _class(details: RunDetails, label: int) -> Class:
    return Class(details.class_names[label], int(details.class_counts[label]))


def _pictures(details: RunDetails, rows: Sequence[int], scored: Scored) -> list[Picture]:
    """The images at `rows` of the test split; one that does not exist, and all without thumbnails, have no URI."""
    known = [int(row) for row in rows if row >= 0]
    images = iter(details.thumbnails(known) if details.thumbnails and known else [None] * len(known))
    return [_picture(details, row, next(images), scored) if row >= 0 else Picture("", "") for row in rows]


def _picture(details: RunDetails, row: int, image: np.ndarray | None, scored: Scored) -> Picture:
    if image is None:
        return Picture("", "")
    return picture(image, alt=f"Test image {row}, {details.class_names[scored.labels[row]]}")


def picture(image: np.ndarray, *, alt: str) -> Picture:
    """Pixels uint8 [H, W, 3] as a part of the page."""
    is_small = max(image.shape[:2]) <= PIXEL_ART
    options = {"format": "PNG", "optimize": True} if is_small else {"format": "JPEG", "quality": JPEG_QUALITY}
    content = io.BytesIO()
    PIL.Image.fromarray(np.asarray(image, np.uint8)).save(content, **options)
    encoded = base64.b64encode(content.getvalue()).decode()
    return Picture(f"data:image/{options['format'].lower()};base64,{encoded}", alt, is_small)
