"""What every data set becomes: three splits of labelled images, and what the training list says of them."""

import dataclasses
import functools
import pathlib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from keras_lt.arguments import check_kind, checked
from keras_lt.counts import number_per_class
from keras_lt.datasets.examples import Examples, examples_of
from keras_lt.labels import OPEN, labels_of
from keras_lt.metrics import FEW_SHOT_BELOW, MANY_SHOT_ABOVE, ShotGroups
from keras_lt.registry import member
from keras_lt.resampling import RESAMPLING
from keras_lt.resampling.indices import SEED, check_integers

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB, on images in [0, 1]
IMAGENET_STD = (0.229, 0.224, 0.225)
VAL_NAMES = ("val", "valid", "validation")  # what others call it


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Labelled examples of one split.

    Args:
      examples: `Examples`; or pixels, uint8 [N, H, W], [N, H, W, 1 or 3]; or paths of encoded images, str [N]; or
        features, floating [N, D].
      labels: class ids, integers [N] or [N, 1]; `OPEN` for an image of none of the classes.
    Attributes:
      examples: the `Examples`.
      labels: int64 [N].
    """

    examples: Examples
    labels: np.ndarray

    def __post_init__(self):
        object.__setattr__(self, "examples", examples_of(self.examples))
        object.__setattr__(self, "labels", labels_of(self.labels, len(self.examples)))

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Split({len(self):,} {self.examples.called})"

    @property
    def images(self) -> object:
        """What the examples are made of: pixels uint8 [N, H, W, 1 or 3], paths str [N], records, or vectors [N, D]."""
        return self.examples.content

    @property
    def names(self) -> np.ndarray:
        """What messages call each example, str [N]: its path, its record's name, or its row."""
        return self.examples.names

    def read(self, row: int) -> bytes | np.ndarray:
        """The encoded image, the pixels or the vector of a row.

        Raises:
          OSError: it cannot be read.
        """
        return self.examples.read(row)

    def subset(self, rows: np.ndarray) -> "Split":
        """The examples at `rows`, in that order."""
        return Split(self.examples.subset(rows), self.labels[rows])


@checked(class_names="a list, in the order of the labels", val="a Split; LongTailed.from_splits can carve one")
@dataclasses.dataclass(frozen=True, eq=False)
class LongTailed:
    """A long-tailed data set: train, val and test splits over the same C classes.

    Attributes:
      name: what tables and reports call it.
      train, val, test: the splits.
      class_names: [C], in the order of the labels.
      mean, std: image statistics per channel, RGB, on images in [0, 1].
      augmentation: the training augmentation its papers use, a name in `preprocessing.AUGMENTATIONS`.
      image_size: side that networks take by default, pixels; 0 becomes that of stored pixels, 224 for encoded
        images, and stays where there are no images.
      crop_fraction: side of the central crop in evaluation, as a fraction of the resized shorter side.
      val_is_carved: whether val was split off the training list.
      test_is_drawn: whether there were no splits, so that val and test were drawn from all images.
      source: where the image files come from; said when one is missing.
      notes: what a reader of the results has to know, such as a validation split carved from train.
      open_set: images of none of the classes, all labelled `OPEN`, that a classifier should be unsure of; or None.
      many_above, few_below: the cuts of `groups`.
      listed_counts: images per class of the published training list, int64 [C], whatever is left out of train, or
        repeated in it, later; None becomes those of train, and of a val carved from it.
    """

    name: str
    train: Split
    val: Split
    test: Split
    class_names: tuple[str, ...]
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    augmentation: str = "imagenet"
    image_size: int = 0
    crop_fraction: float = 224 / 256
    val_is_carved: bool = False
    test_is_drawn: bool = False
    source: str = ""
    notes: tuple[str, ...] = ()
    open_set: Split | None = None
    many_above: int = MANY_SHOT_ABOVE
    few_below: int = FEW_SHOT_BELOW
    listed_counts: np.ndarray | None = None

    def __post_init__(self):
        object.__setattr__(self, "class_names", tuple(map(str, self.class_names)))
        check_class_names(self.class_names, of=f"data set '{self.name}' with ")
        object.__setattr__(self, "notes", tuple(dict.fromkeys((*self.notes, *_capitals_note(self.class_names)))))
        if not self.image_size:
            object.__setattr__(self, "image_size", self.train.examples.image_size)
        classes = len(self.class_names)
        for split, examples in self.all_splits.items():
            if not len(examples):
                raise ValueError(
                    f"Every split needs images. Received: data set '{self.name}', split '{split}' of size 0"
                )
            low, high = examples.labels.min(), examples.labels.max()
            first, last = (OPEN, OPEN) if split == "open_set" else (0, classes - 1)
            if low < first or high > last:
                raise ValueError(
                    f"Labels must lie in 0..{classes - 1}, one per class name, or be {OPEN} in an open set. "
                    f"Received: data set '{self.name}', split '{split}' with labels {low}..{high}"
                )
        empty = np.flatnonzero(self.class_counts == 0)
        if empty.size:
            names = ", ".join(f"{c} ('{self.class_names[c]}')" for c in empty[:5])
            begin = "labels count from 0; " * (names == "0 ('0')")
            raise ValueError(
                f"Every class needs a training image: {begin}add images, or take the class out of the lists. "
                f"Received: data set '{self.name}' with {empty.size} empty: {names}"
            )
        listed = self.listed_counts
        if listed is None:
            carved = np.bincount(self.val.labels, minlength=classes) if self.val_is_carved else 0
            listed = self.class_counts + carved
        listed = number_per_class("listed_counts", listed)
        if listed.shape != (classes,):
            raise ValueError(f"listed_counts must be [{classes}], one per class. Received: shape {listed.shape}")
        object.__setattr__(self, "listed_counts", listed)
        _ = self.groups  # refuses cuts that overlap

    @classmethod
    @checked(splits='a dict such as {"train": Split(images, labels), "test": ...}')
    def from_splits(
        cls, name: str, splits: Mapping[str, Split], *, seed: int = 0, notes: tuple[str, ...] = (), **attributes
    ) -> "LongTailed":
        """A data set of these splits; without a "val", it is carved from train by `seed`, which the notes then say."""
        if missing := {"train", "test"} - splits.keys():
            raise ValueError(f"splits must have train and test. Received: {', '.join(splits)}, no {min(missing)}")
        for split, examples in splits.items():
            check_kind(split, examples, Split)
        if "val" in splits:
            return cls(name, **splits, notes=notes, **attributes)
        train, val = carve_validation(splits["train"], seed=seed)
        of_all = f"{len(splits['train'])} training {train.examples.called}"
        notes += (f"{name} has no val: {len(val)} of {of_all} were set aside for it.",)
        splits = {**splits, "train": train, "val": val}
        return cls(name, **splits, val_is_carved=True, notes=notes, **attributes)

    @property
    def splits(self) -> dict[str, Split]:
        """The splits of the classes, by name."""
        return {"train": self.train, "val": self.val, "test": self.test}

    @property
    def sizes(self) -> dict[str, int]:
        """Images per split."""
        return {name: len(split) for name, split in self.all_splits.items()}

    @property
    def all_splits(self) -> dict[str, Split]:
        """The splits by name, "open_set" among them where there is one."""
        return self.splits if self.open_set is None else {**self.splits, "open_set": self.open_set}

    @property
    def said(self) -> tuple[str, ...]:
        """The notes, and what the splits say themselves."""
        absent = sorted(set(range(len(self.class_names))) - set(self.test.labels.tolist()))
        if not absent:
            return self.notes
        example = self.class_names[absent[0]]
        return (*self.notes, f"Classes without a test image, and so without a score: {len(absent)}, such as {example}.")

    @property
    def of_features(self) -> bool:
        """Whether the examples are features already, without images."""
        return self.train.examples.features is not None

    @functools.cached_property
    def class_counts(self) -> np.ndarray:
        """Images per class of train, those that are drawn from, int64 [C]."""
        return np.bincount(self.train.labels, minlength=len(self.class_names))

    @functools.cached_property
    def groups(self) -> ShotGroups:
        """Which classes are many-, medium- and few-shot, by the published training list."""
        return ShotGroups(self.listed_counts, self.many_above, self.few_below)

    def resampled(self, how: str, *, seed: int = 0) -> "LongTailed":
        """The same data with another training list; shot groups still go by the images listed at first.

        Args:
          how: a name in `resampling.RESAMPLING` that makes no features.
          seed: of what is kept or repeated.
        """
        resampling = member(RESAMPLING, how, what="resampling")
        if resampling.size is None:
            return self
        return dataclasses.replace(self, train=self.train.subset(resampling(self.train.labels, seed=seed)))


def check_class_names(class_names: Sequence[str], *, of: str = ""):
    """Raises ValueError where names of classes, `of` somebody, cannot be written or told apart."""
    seen: dict[str, str] = {}
    for written in class_names:
        if written.encode("utf-8", "replace").decode() != written:
            raise ValueError(f"Class names must be UTF-8: rename their folders. Received: {written!a}")
        alike = unicodedata.normalize("NFC", written).strip()
        if not written or len(written.splitlines()) > 1:
            raise ValueError(f"A class name must be one line of text. Received: {of}{written!r}")
        if alike in seen:
            raise ValueError(
                "Class names must differ, also without blanks around them. "
                f"Received: {of}{seen[alike]!a} and {written!a}"
            )
        seen[alike] = written


def _capitals_note(class_names: Sequence[str]) -> tuple[str, ...]:
    """A note of two classes that may be one."""
    first = {}
    for name in class_names:
        if (other := first.setdefault(name.casefold(), name)) != name:
            return (f"The classes {other!r} and {name!r} differ in capitals alone: they are taken for two.",)
    return ()


def not_known(names: Iterable[str], known: Iterable[str]) -> str:
    """The names of classes that are not among those known, five at most, each with the one that it may mean; or "".

    Of letters that look alike the codes are shown, as macOS writes an umlaut in two.
    """
    known = list(known)
    meant = {plain(name): name for name in known}
    unknown = sorted(set(names) - set(known))[:5]
    return ", ".join(
        f"{name!a}, elsewhere {meant[plain(name)]!a}" if plain(name) in meant else repr(name) for name in unknown
    )


def plain(name: str) -> str:
    """A name without what is easily written otherwise: capitals, spaces around it, its form in Unicode."""
    return unicodedata.normalize("NFKC", name).strip().casefold()


def image_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per RGB channel of uint8 images [N, H, W, 1 or 3], scaled to [0, 1]."""
    total = np.zeros(images.shape[-1])
    squares = np.zeros(images.shape[-1])
    for start in range(0, len(images), 4096):
        chunk = images[start : start + 4096].astype(np.float64) / 255
        total += chunk.sum((0, 1, 2))
        squares += (chunk**2).sum((0, 1, 2))
    pixels = images[..., 0].size
    mean = total / pixels
    std = np.sqrt(np.maximum(squares / pixels - mean**2, 1e-12))
    return tuple(float(v) for v in np.resize(mean, 3)), tuple(float(v) for v in np.resize(std, 3))


def name_of_val(folder: pathlib.Path, *patterns: str) -> str:
    """What val is called in a folder where files are named by their split, "{}.csv" say; "val" where there is none.

    Raises:
      ValueError: it has two.
    """
    found = [name for name in VAL_NAMES if any((folder / pattern.format(name)).exists() for pattern in patterns)]
    if len(found) > 1:
        raise ValueError(f"val must be one file. Received: {folder} with {patterns[0]} of {', '.join(found)}")
    return found[0] if found else "val"


def carve_validation(train: Split, *, fraction: float = 0.1, seed: int = 0) -> tuple[Split, Split]:
    """Splits train into (train, val): every image goes to val with the probability `fraction`, as `divide` says."""
    rest, val = divide(train, {"val": fraction}, seed=seed)
    return train.subset(rest), train.subset(val)


def divide(split: Split, fractions: Mapping[str, float], *, seed: int = 0) -> list[np.ndarray]:
    """Rows of what is left of a split, and of every fraction that is taken from it.

    Where an image goes depends on its key (`Examples.keys`) and the seed alone, so that images added later move no
    other one from training to evaluation; equal pixels stay together. A fraction holds in expectation. Of each class
    one image stays at least, and a fraction that would have none of any class takes one of a class that can spare it.

    Args:
      fractions: of each class, by name.
    """
    check_integers(seed=(seed, *SEED))
    if (split.labels < 0).any():
        raise ValueError(f"Labels must be class ids from 0; {OPEN}, no class, is of an open set. Received: {OPEN}")
    keys = split.examples.key_hashes(seed)
    edges = np.cumsum([0.0, *fractions.values()])
    part = (np.searchsorted(edges, keys / 2.0**64, side="right")) % len(edges)  # 0 is what is left
    gone = np.flatnonzero(
        np.bincount(split.labels[part == 0], minlength=split.labels.max(initial=0) + 1)[split.labels] == 0
    )
    by_class = gone[np.lexsort((-gone, keys[gone], split.labels[gone]))]  # within each the largest key last
    part[by_class[np.diff(split.labels[by_class], append=-1) != 0]] = 0
    for number in range(1, len(edges)):
        spare = np.flatnonzero((part == 0) & (np.bincount(split.labels[part == 0])[split.labels] > 1))
        if not (part == number).any() and spare.size:
            part[spare[np.argmin(keys[spare])]] = number
    return [np.flatnonzero(part == number) for number in range(len(edges))]
