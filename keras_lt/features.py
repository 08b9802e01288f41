"""A frozen backbone over a split, once: features in memory or in memory-mapped files."""

import dataclasses
import errno
import functools
import hashlib
import json
import os
import pathlib
import shutil
import sys
import time
from collections.abc import Callable, Iterable

import keras
import numpy as np
import tensorflow as tf

from keras_lt.arguments import checked, in_place
from keras_lt.compat import versions, warn_of_versions
from keras_lt.datasets import FeatureVectors, LongTailed, Split
from keras_lt.datasets.examining import first_not_finite
from keras_lt.datasets.examples import ArrayRows
from keras_lt.files import check_replaceable, expanded, new_memory_map, read_json, remove, write_json
from keras_lt.forward import forward_pass
from keras_lt.input_pipeline import (
    Stream,
    as_many_as,
    evaluation_batches,
    evaluation_rows,
    fold_in,
    mapped,
    own_rows,
    prefetched,
    seed_at,
    training_indices,
    view_batches,
    weighted,
)
from keras_lt.keras_settings import plain_settings
from keras_lt.labels import labels_of
from keras_lt.preprocessing import NoPreprocessing, Preprocessing
from keras_lt.registry import member
from keras_lt.resampling import RESAMPLING
from keras_lt.work_folder import FEATURE_FILES

FEATURE_DTYPES = ("float32", "float16")
SAVE_SECONDS = 5.0  # of extraction that a kill may cost


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureSet:
    """Features of one split.

    Attributes:
      features: of the images as they are evaluated, floating [N, D], in memory or memory-mapped, or rows of these.
      labels: int64 [N], given also as [N, 1]; `OPEN`, -1, for examples of no class.
      views: of each image augmented V times, [N, V, D]; None where training draws from `features`.
    """

    features: np.ndarray | ArrayRows
    labels: np.ndarray
    views: np.ndarray | ArrayRows | None = None

    def __post_init__(self):
        features = in_place("features", self.features)
        if features.ndim != 2 or features.dtype.kind != "f" or not features.shape[1]:
            raise ValueError(
                f"features must be floating-point numbers [N, D]. Received: {features.dtype}, shape {features.shape}"
            )
        object.__setattr__(self, "features", features)
        object.__setattr__(self, "labels", labels_of(self.labels, len(features)))
        if self.views is not None:
            views = in_place("views", self.views)
            if views.shape[::2] != features.shape:
                raise ValueError(
                    f"views must be [N, V, D], with features of {features.shape}. Received: shape {views.shape}"
                )
            object.__setattr__(self, "views", views)

    @property
    def width(self) -> int:
        """Features per example, D."""
        return self.features.shape[-1]

    @property
    def as_split(self) -> Split:
        """The same examples as a split of a data set."""
        return Split(FeatureVectors(self.features), self.labels)

    @functools.cached_property
    def first_not_finite(self) -> int | None:
        """The first row with a number that is none in float32, of features or views; None without one."""
        found = [first_not_finite(array) for array in (self.features, self.views) if array is not None]
        return min((row for row in found if row is not None), default=None)

    def resampled(self, how: str, *, seed: int = 0) -> "FeatureSet":
        """Other examples drawn from, as `LongTailed.resampled`; or "smote", with which new ones are made.

        Raises:
          ImportError: imbalanced-learn, for "smote", is not installed.
        """
        resampling = member(RESAMPLING, how, what="resampling")
        if resampling.makes_features:
            return FeatureSet(*resampling(self.features, self.labels, seed=seed))
        if resampling.size is None:
            return self
        rows = resampling(self.labels, seed=seed)
        features, views = (array if array is None else ArrayRows(array, rows) for array in (self.features, self.views))
        return FeatureSet(features, self.labels[rows], views)

    def training_batches(self, stream: Stream) -> tf.data.Dataset:
        """Sampled batches, as `input_pipeline.training_batches` of images: (features [B, D], labels [B], ...).

        Which of its views an example is, is drawn by the seed and its position in the stream.
        """
        weights = functools.partial(weighted, labels=self.labels, stream=stream)
        rows, recipe = training_indices(self.labels, stream), stream.recipe
        if self.views is None:
            return self._gather(rows, weights)

        def drawn(step):
            step_seed = fold_in(seed_at(stream.seed, step), 14)
            return tf.random.stateless_uniform((recipe.batch_size,), step_seed, 0, self.views.shape[1], tf.int64)

        views = mapped(stream.steps(), drawn).rebatch(recipe.micro_batch)
        return self._gather(tf.data.Dataset.zip(rows, own_rows(views, stream)).apply(as_many_as(rows)), weights)

    def evaluation_batches(self, *, batch_size: int, **share: int) -> tf.data.Dataset:
        """Every row once, in order: (features [B, D], labels [B]); the share is as of `input_pipeline`'s images."""
        return self._gather(*evaluation_rows(len(self.labels), batch_size=batch_size, **share))

    def _gather(
        self,
        index_batches: tf.data.Dataset,
        weights: Callable[[tf.data.Dataset], tf.data.Dataset] = lambda batches: batches,
    ) -> tf.data.Dataset:
        """Batches of the examples at those indices, or (indices, views)."""

        def read(rows, *view):  # NumPy reads a memory map without taking all of it into memory
            return (self.views[rows, view[0]] if view else self.features[rows]).astype(np.float32)

        def batch(rows, *view):
            features = tf.numpy_function(read, [rows, *view], tf.float32, stateful=False)
            return tf.ensure_shape(features, (None, self.features.shape[1])), tf.gather(self.labels, rows)

        return prefetched(weights(mapped(index_batches, batch)))


@checked
@plain_settings(dtype_policy="float32")
def extract_features(
    backbone: keras.Model,
    split: Split,
    preprocessing: Preprocessing | NoPreprocessing,
    *,
    batch_size: int = 256,
    folder: str | os.PathLike | None = None,
    dtype: str = "float32",
    views: int = 1,
    seed: int = 0,
) -> FeatureSet:
    """The backbone's features of every example, with the evaluation preprocessing; on one device of several.

    Examples that are features already are taken as they are and where they lie, memory-mapped or not.

    >>> val = keras_lt.extract_features(representation.backbone, data.val, representation.preprocessing)
    1000/1000 - ...
    >>> val.features.shape
    (1000, 128)

    Args:
      backbone: images [B, S, S, 3] -> features [B, D].
      batch_size: images that are read at once; on a CPU a net takes fewer of them, as `forward` says.
      folder: where `features.npy` and its manifest are kept, those of the views in a folder beside it. An extraction
        that was stopped goes on there, to the same bits. What is there, or was copied there from another run, is taken
        where all that the manifest names is the same: backbone, preprocessing, examples (files by their paths below
        the data set's folder and their sizes, not their content); else it is replaced. None keeps features in memory.
      dtype: in `FEATURE_DTYPES`; float16 takes half the space and rounds to three digits.
      views: above 1, each image is also augmented that often by `preprocessing.train`, for training to draw from.
        Where the preprocessing does not augment there is nothing to choose from. MixUp and CutMix play no part.
      seed: of the augmentations.
    Raises:
      ValueError: an unknown dtype, a negative number of views, features that are no finite numbers of that dtype, or
        a backbone that takes other examples.
      OSError: the disk has too little space left.
    """
    if dtype not in FEATURE_DTYPES or views < 0:
        raise ValueError(
            f"dtype must be one of {', '.join(FEATURE_DTYPES)}, and views at least 0. "
            f"Received: dtype={dtype!r}, views={views}"
        )
    given, takes = split.examples.features, backbone.input_shape[1:]
    if (len(takes) == 1) != (given is not None) or (given is not None and takes != split.examples.shape):
        raise ValueError(
            f"The backbone takes examples of shape {takes}. "
            f"Received: {split.examples.called} of shape {split.examples.shape}"
        )
    if given is not None:
        return FeatureSet(given, split.labels)
    size, width = preprocessing.image_size, backbone.output_shape[-1]
    compiled = functools.partial(forward_pass, backbone, (size, size, 3))  # not where all features are found
    shared = {"dtype": dtype, "batch_size": batch_size}
    if folder is not None:
        folder = expanded(folder)
        shared |= {"backbone": backbone_hash(backbone), "examples": examples_hash(split)}
    extracted = functools.partial(_extract, compiled, older=functools.partial(examples_hash, split, placed=True))
    features = extracted(
        lambda start: evaluation_batches(split, preprocessing, batch_size=batch_size, start=start),
        {"shape": (len(split), width), "preprocessing": preprocessing.evaluation_settings(), **shared},
        folder,
    )
    if views < 2 or not preprocessing.augments:
        return FeatureSet(features, split.labels)
    shared |= {"preprocessing": dataclasses.asdict(preprocessing), "seed": seed}
    augmented = extracted(
        lambda start: view_batches(split, preprocessing, views=views, seed=seed, batch_size=batch_size, start=start),
        {"shape": (len(split), views, width), **shared},
        folder and folder.with_name(f"{folder.name}-views"),
    )
    return FeatureSet(features, split.labels, augmented)


def extract_splits(
    backbone: keras.Model, preprocessing: Preprocessing | NoPreprocessing, *, data: LongTailed, splits: Iterable[str]
) -> dict[str, FeatureSet]:
    """`extract_features` of several splits of a data set, into memory."""
    return {split: extract_features(backbone, data.splits[split], preprocessing) for split in splits}


def verbosity() -> int:
    """Of Keras's progress: a moving bar on a terminal, a line when done in a log."""
    return 1 if sys.stdout.isatty() else 2


def _extract(
    compiled: Callable[[], Callable],
    batches: Callable[[int], tf.data.Dataset],
    manifest: dict,
    folder: pathlib.Path | None,
    older: Callable[[], str],
) -> np.ndarray:
    """The array of that manifest: in memory, found in the folder, or computed and written to it.

    Args:
      compiled: () -> the backbone as a function.
      batches: (images already done) -> the batches of those after them.
      manifest: all that the array depends on, its shape and dtype among it.
      older: () -> what version 0.1 has in the manifest for the examples.
    """
    shape, dtype = manifest["shape"], np.dtype(manifest["dtype"])
    if folder is None:
        array = np.empty(shape, dtype)
        _fill(array, compiled(), batches, start=0, save=lambda done: None)
        return array
    total, manifest = int(np.prod(shape[:-1])), json.loads(json.dumps(manifest))  # as it is read: tuples are lists
    if _rows_done(folder, manifest, older) < total:
        partial = folder.with_name(f"{folder.name}.part")  # the same name for the next process to find
        start = _rows_done(partial, manifest, older)
        for place in (folder, partial):
            check_replaceable(place, FEATURE_FILES)
        remove(folder)  # of no use to anybody, and its space may be needed
        if not start:
            remove(partial)
            partial.mkdir(parents=True)
        path = partial / "features.npy"
        taken = 512 * path.stat().st_blocks if start else 0  # all of its room, where the system promises any
        _check_space(partial, total * shape[-1] * dtype.itemsize - taken)
        array = np.lib.format.open_memmap(path, mode="r+") if start else new_memory_map(path, dtype=dtype, shape=shape)

        def save(done):
            array.flush()  # first, as the manifest vouches for the rows
            write_json(partial / "manifest.json", {**manifest, "rows": done, "versions": versions()})

        _fill(array, compiled(), batches, start=start, save=save)
        os.replace(partial, folder)
    return np.load(folder / "features.npy", mmap_mode="r")


def _fill(array, forward, batches, *, start, save):
    """Writes the features of every batch from row `start` on, and now and then saves how many rows are done."""
    rows = array.reshape(-1, array.shape[-1])
    progress = keras.utils.Progbar(len(rows), unit_name="image", verbose=verbosity())
    done, saved = start, time.monotonic()
    for images, _ in batches(start):
        features = forward(images)
        stored = rows[done : done + len(features)]
        with np.errstate(over="ignore"):  # said below
            stored[:] = features
        if not np.isfinite(stored).all():
            raise ValueError(
                f"Features must be finite numbers of {array.dtype}. Received: between {features.min()} and "
                f"{features.max()} in rows {done} to {done + len(features) - 1}"
            )
        done += len(features)
        progress.update(done)
        if time.monotonic() - saved > SAVE_SECONDS or done == len(rows):
            save(done)
            saved = time.monotonic()


def _rows_done(folder: pathlib.Path, manifest: dict, older: Callable[[], str]) -> int:
    """Rows of the array in the folder, 0 where it is not the manifest's."""
    try:
        found = read_json(folder / "manifest.json", needs=["rows"])
        rows, made_by = found.pop("rows"), found.pop("versions", {})
        np.load(folder / "features.npy", mmap_mode="r")  # refuses a file that was cut short
    except (OSError, ValueError, KeyError, EOFError):  # never written, or of a machine that lost its power
        return 0
    if found != manifest and found != {**manifest, "examples": older()}:
        return 0
    warn_of_versions(made_by)
    return rows


def _check_space(folder: pathlib.Path, needed: int):
    """A memory map on a full disk ends the process without a word, hence before."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"{needed / 1e9:.1f} GB must be free for features: make room, or store float16 or fewer views. "
            f"Received: {free / 1e9:.1f} GB free",
            str(folder),
        )


def backbone_hash(backbone: keras.Model) -> str:
    """Of layers, dtype policies and weights."""
    return _hash(np.frombuffer(backbone.to_json().encode(), np.uint8), *backbone.get_weights())


def examples_hash(split: Split, *, placed: bool = False) -> str:
    """Of examples, in their order, and labels; `placed`: also of where they lie, as version 0.1 has it."""
    fingerprint = split.examples.placed_fingerprint() if placed else split.examples.fingerprint()
    return _hash(np.frombuffer(fingerprint, np.uint8), split.labels)


def _hash(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).view(np.uint8))
    return digest.hexdigest()
