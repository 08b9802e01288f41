"""What a data set was when a run was trained on it: it tells another one, and does where the images are gone."""

import dataclasses
import functools
import hashlib
import itertools
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from keras_lt import files
from keras_lt.datasets.long_tailed import LongTailed
from keras_lt.metrics import ShotGroups

SHOWN = 3  # names of classes in a message
_SAID = ("name", "class_names", "class_counts", "listed_counts", "many_above", "few_below", "sizes", "notes")


@dataclasses.dataclass(frozen=True, eq=False)
class DataRecord:
    """Names, counts and images of a data set.

    Attributes:
      name, class_names, class_counts, listed_counts, many_above, few_below, sizes, notes: as of `LongTailed`.
      images: split -> who its images are, their labels and what they look like, uint64 [N, 3].
    """

    name: str
    class_names: tuple[str, ...]
    class_counts: np.ndarray
    listed_counts: np.ndarray
    many_above: int
    few_below: int
    sizes: dict[str, int]
    notes: tuple[str, ...]
    images: dict[str, np.ndarray]

    @functools.cached_property
    def groups(self) -> ShotGroups:
        """Which classes are many-, medium- and few-shot."""
        return ShotGroups(self.listed_counts, self.many_above, self.few_below)

    @functools.cached_property
    def digest(self) -> str:
        """Changes with all that `differences` looks at."""
        digest = hashlib.sha256("\n".join(self.class_names).encode("utf-8", "surrogateescape"))
        for split, images in sorted(self.images.items()):
            digest.update(split.encode() + np.ascontiguousarray(images).tobytes())
        return digest.hexdigest()

    def save(self, *, facts: pathlib.Path, images: pathlib.Path, **beside: object):
        """Writes names and counts as JSON, with what is to be kept beside them, and the images as npz."""
        with files.atomic(images) as scratch, scratch.open("wb") as file:
            np.savez_compressed(file, **self.images)
        files.write_json(facts, {**{name: getattr(self, name) for name in _SAID}, "digest": self.digest, **beside})

    @classmethod
    def load(cls, *, facts: pathlib.Path, images: pathlib.Path) -> "DataRecord":
        """Reads what `save` wrote."""
        again = f"put back a copy, or remove {facts}, and both are written again"
        with files.reading(facts, instead=again):
            said = files.read_json(facts)
            arrays = {name: np.array(said[name], np.int64) for name in ("class_counts", "listed_counts")}
            tuples = {name: tuple(said[name]) for name in ("class_names", "notes")}
        with files.reading(images, instead=again), np.load(images) as found:
            return cls(**{**{name: said[name] for name in _SAID}, **arrays, **tuples}, images=dict(found))

    def differences(self, now: "DataRecord") -> list[str]:
        """How another data set differs from this one, "train: images 12 new" say; nothing where it does not."""
        found = [
            f"classes {what}, {len(names):,} in all: {', '.join(names[:SHOWN])}"
            for what, names in {
                "new": [name for name in now.class_names if name not in self.class_names],
                "gone": [name for name in self.class_names if name not in now.class_names],
            }.items()
            if names
        ]
        if not found and self.class_names != now.class_names:
            found.append("the classes are in another order")
        if found:
            return found  # labels mean something else, so images do not compare
        for split in dict.fromkeys([*self.images, *now.images]):
            there, here = (record.images.get(split, np.zeros((0, 3), np.uint64)) for record in (self, now))
            parts = [f"{number} {what}" for what, number in _changes(there, here).items() if number]
            if parts:
                found.append(f"{split}: images {', '.join(parts)}")
            elif not np.array_equal(there, here):
                found.append(f"{split}: images in another order or number")
        return found

    @functools.cached_property
    def duplicates(self) -> dict[tuple[str, str], int]:
        """Two splits -> the examples of the second whose content the first has too; only splits that share some."""
        pairs = itertools.combinations(self.images, 2)
        shared = {(one, two): np.isin(self.images[two][:, 2], self.images[one][:, 2]).sum() for one, two in pairs}
        return {splits: int(number) for splits, number in shared.items() if number}

    def of_two_labels(self) -> int:
        """How many contents stand under two labels or more, in one split or in several."""
        rows = _rows(np.concatenate([images[:, 1:] for images in self.images.values()]))
        contents = np.unique(rows).view(np.uint64).reshape(-1, 2)[:, 1]
        return int((np.unique(contents, return_counts=True)[1] > 1).sum())

    def only_grew(self, now: "DataRecord") -> bool:
        """Whether another data set has all that this one has, and more images of the same classes."""
        more = sum(map(len, now.images.values())) > sum(map(len, self.images.values()))
        return (more and self.class_names == now.class_names) and all(
            np.isin(_rows(there), _rows(now.images.get(split, there[:0]))).all() for split, there in self.images.items()
        )


def record_of(data: LongTailed, hashes: Mapping[str, np.ndarray]) -> DataRecord:
    """The record of a data set.

    Args:
      hashes: split -> 16 bytes per image that tell contents apart, where these are known otherwise than by its key.
    """
    images = {}
    for split, examples in data.all_splits.items():
        keys = examples.examples.key_hashes()
        contents = np.frombuffer(hashes[split].tobytes(), np.uint64)[::2] if split in hashes else keys
        images[split] = np.stack([keys, examples.labels.astype(np.uint64), contents], 1)
    return DataRecord(**{name: getattr(data, name) for name in _SAID}, images=images)


def other_data(folder: pathlib.Path, differences: Sequence[str], *, grew: bool) -> str:
    """What to do where the parts of a run were made from other data."""
    if grew:
        return (
            f"Images were only added since {folder} was trained: {'; '.join(differences)}. What is finished there "
            "does not know them: --workdir=<another folder> trains with them, --overwrite trains again in this one"
        )
    return (
        f"{folder} holds a run of other data: {'; '.join(differences)}. Give another --workdir, --overwrite to "
        "start afresh, or the --data_dir that it was trained on"
    )


def _changes(there: np.ndarray, here: np.ndarray) -> dict[str, int]:
    """What became of the images of a split, uint64 [N, 3]."""
    new, gone = (np.setdiff1d(ours[:, 0], theirs[:, 0]).size for ours, theirs in ((here, there), (there, here)))
    both = np.isin(_rows(there[:, :1]), _rows(here[:, :1]))
    labels, contents = (
        int((both & ~np.isin(_rows(there[:, columns]), _rows(here[:, columns]))).sum()) for columns in ([0, 1], [0, 2])
    )
    return {"new": new, "gone": gone, "of another class": labels, "of other content": contents}


def _rows(table: np.ndarray) -> np.ndarray:
    """The rows of uint64 [N, K] as single values, [N]."""
    table = np.ascontiguousarray(table)
    return table.view(np.dtype((np.void, table.itemsize * table.shape[1]))).ravel()
