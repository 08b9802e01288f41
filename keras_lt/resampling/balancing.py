"""The Keras user's door: any training data in, a balanced `tf.data.Dataset` out."""

import dataclasses
import functools
import itertools
import os
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_lt import samplers
from keras_lt.arguments import as_array, checked
from keras_lt.counts import number_per_class
from keras_lt.files import atomic, expanded, reading
from keras_lt.labels import MOST_CLASSES, labels_of
from keras_lt.resampling import plans
from keras_lt.resampling.indices import SEED, check_integers, checked_classes
from keras_lt.resampling.rejection import expected_copies, resampled_epochs

COUNTING_BATCH = 1024  # labels
WITH_WEIGHTS = (2, 3)  # parts of an example: (x, y), or (x, y, w)


@checked
def balance(
    data: Any,
    schedule: str | samplers.Sampler = "class_balanced",
    *,
    epochs: int | None = None,
    class_counts: npt.ArrayLike | None = None,
    counts_file: str | os.PathLike | None = None,
    num_samples: int | None = None,
    batch_size: int = 32,
    shuffle_buffer: int = 1024,
    seed: int = 0,
) -> tf.data.Dataset:
    """Training data resampled so that its classes follow a schedule.

    Arrays are drawn from by index, stratified (see `sample_indices`); datasets are streams, so that their examples are
    dropped and repeated as they come (see `rejection_resample`): balance them before decoding and augmentation, so that
    no work goes into what is dropped and copies come out different.

    >>> x, y = np.zeros((900, 8)), np.repeat([0, 1, 2], [800, 90, 10])
    >>> balanced = keras_lt.balance((x, y))  # for model.fit(balanced, epochs=10)
    >>> np.bincount(np.concatenate([labels for _, labels in balanced]))
    array([300, 300, 300])

    Without `epochs` the result is one epoch long and goes on each time it is iterated, as `model.fit` does every epoch.
    With `epochs` it is the whole training, which a schedule that changes over training needs:

    >>> balanced = keras_lt.balance((x, y), "progressive", epochs=10)
    >>> steps_per_epoch = len(balanced) // 10  # for model.fit(balanced, epochs=10, steps_per_epoch=steps_per_epoch)

    Args:
      data: arrays (x, y), a finite `tf.data.Dataset` of (x, y), batched or not, or a finite `keras.utils.PyDataset` of
        batches (x, y). x is an array or a structure of them, y holds integer classes; sample weights may follow.
      schedule: a name in `keras_lt.samplers.SAMPLERS`, or a function (class_counts, progress) -> [C].
      epochs: see above.
      class_counts: examples per class, [C]; counted by reading all of `data` once when None.
      counts_file: .npy file that keeps the counts of a stream: written when missing, read instead of counting
        otherwise; refused where these cannot be the counts of as many examples as there are.
      num_samples: examples per epoch, as many as `data` holds when None; rounded down to whole batches where batches
        have a static size, or where `epochs` is given, so that every epoch has the same number of steps.
      batch_size: for arrays; datasets keep their own.
      shuffle_buffer: examples that a stream holds in memory to part the copies of one.
      seed: a non-negative integer.

    Returns: dataset of the data's own element spec (for arrays, of batches), whose cardinality is known.

    Raises:
      ValueError: for data of another form, other `class_counts` than theirs as far as that is known, or a schedule that
        changes without `epochs`.
    """
    check_integers(batch_size=(batch_size, 1), shuffle_buffer=(shuffle_buffer, 1), seed=(seed, *SEED))
    check_integers(epochs=(1 if epochs is None else epochs, 1))
    if isinstance(data, keras.utils.PyDataset):
        data = _in_order(data)
    source = _stream(data, shuffle_buffer) if isinstance(data, tf.data.Dataset) else _arrays(data, batch_size)
    counts = _counts(source, class_counts, counts_file)
    table = _table(schedule, counts, epochs)
    if class_counts is not None and not source.fits(counts):  # or the draws would follow another schedule
        raise ValueError(
            "class_counts must be those of the data, in the order of the class ids; None counts them. "
            f"Received: class_counts={counts}"
        )
    size = source.batch_size or 1
    num_samples = int(np.sum(counts)) if num_samples is None else num_samples
    check_integers(num_samples=(num_samples, 1))
    if source.static_batches or epochs is not None:
        num_samples = max(num_samples // size, 1) * size
    if epochs is None:  # the next number at every iteration, so that cycles through the examples go on
        numbers = itertools.count()
        epoch_ids = tf.data.Dataset.from_generator(
            lambda: itertools.islice(numbers, 1), output_signature=tf.TensorSpec((), tf.int64)
        )
    else:
        epoch_ids = tf.data.Dataset.range(epochs)
    balanced = source.resampled(epoch_ids, counts, table, num_samples=num_samples, seed=seed)
    length = (epochs or 1) * num_samples
    return balanced.apply(tf.data.experimental.assert_cardinality(-(-length // size)))


def count_classes(label_batches: Iterable[npt.ArrayLike]) -> np.ndarray:
    """How often each class occurs in batches of labels, [C], where C is the largest label plus one."""
    counts = np.zeros(0, np.int64)
    for labels in label_batches:
        flat = np.reshape(labels, -1)
        more = np.bincount(labels_of(flat, flat.size, classes=MOST_CLASSES), minlength=counts.size)
        more[: counts.size] += counts
        counts = more
    return counts


@dataclasses.dataclass(frozen=True)
class _Arrays:
    """Arrays (x, y), or with weights (x, y, w), of N examples, drawn from by index."""

    examples: tuple
    batch_size: int
    static_batches: bool = False

    def fits(self, counts: np.ndarray) -> bool:
        """Whether the counts are those of the examples."""
        return np.array_equal(np.bincount(self.examples[1].reshape(-1), minlength=counts.size), counts)

    def label_batches(self) -> Iterable[np.ndarray]:
        return [self.examples[1]]

    def resampled(
        self, epoch_ids: tf.data.Dataset, counts: np.ndarray, table: np.ndarray, *, num_samples: int, seed: int
    ) -> tf.data.Dataset:
        labels, table = checked_classes(self.examples[1].reshape(-1), table)
        with tf.device("CPU:0"):
            plan = plans.stratified_plan(labels, table, num_samples=num_samples, seed=seed)
            examples = tf.nest.map_structure(tf.constant, self.examples)
        vectors = epoch_ids.flat_map(lambda epoch: plans.indices(plan, epoch * num_samples, (epoch + 1) * num_samples))
        batches = vectors.rebatch(self.batch_size, drop_remainder=num_samples % self.batch_size == 0)
        return batches.map(lambda index: tf.nest.map_structure(lambda array: tf.gather(array, index), examples))


@dataclasses.dataclass(frozen=True)
class _Stream:
    """A dataset of (x, y), its batches taken apart, and how to put them together again."""

    examples: tf.data.Dataset
    labels: tf.data.Dataset
    batch_size: int | None
    static_batches: bool
    shuffle_buffer: int

    def fits(self, counts: np.ndarray) -> bool:
        """Whether the counts can be those of as many examples as there are, as far as that is known."""
        known, batches = int(self.examples.cardinality()), int(self.labels.cardinality())
        size = self.batch_size or COUNTING_BATCH
        fewest, most = (known, known) if known >= 0 else ((batches - 1) * size + 1, batches * size)
        most += self.static_batches * (size - 1)  # a last batch that is not full may have been dropped
        return max(known, batches) < 0 or fewest <= counts.sum() <= most

    def label_batches(self) -> Iterable[np.ndarray]:
        known = int(self.labels.cardinality())
        progress = keras.utils.Progbar(known if known >= 0 else None, unit_name="batch")
        for batch in self.labels.as_numpy_iterator():
            progress.add(1)
            yield batch

    def resampled(
        self, epoch_ids: tf.data.Dataset, counts: np.ndarray, table: np.ndarray, *, num_samples: int, seed: int
    ) -> tf.data.Dataset:
        copies = expected_copies(counts, table, samples_per_epoch=num_samples)
        examples = resampled_epochs(
            self.examples, epoch_ids, copies, size=num_samples, seed=seed, shuffle_buffer=self.shuffle_buffer
        )
        if self.batch_size is None:
            return examples
        return examples.batch(self.batch_size, drop_remainder=self.static_batches)


def _arrays(data: Any, batch_size: int) -> _Arrays:
    if not isinstance(data, tuple | list) or len(data) not in WITH_WEIGHTS:
        received = f"{len(data)} of them" if isinstance(data, tuple | list) else type(data)
        raise ValueError(
            "data must be arrays (x, y) or (x, y, sample_weight), a tf.data.Dataset of these or a "
            f"keras.utils.PyDataset. Received: {received}"
        )
    x, y, *weights = data
    y = as_array("y", y)
    if y.ndim != 1 and y.shape[1:] != (1,):
        raise ValueError(
            f"y must be [N] integer classes; of one-hot rows, y.argmax(1) makes them. Received: shape={y.shape}"
        )
    if y.dtype.kind not in "iu":
        raise ValueError(
            "y must be integer classes; of names, np.unique(y, return_inverse=True)[1] makes them. "
            f"Received: dtype={y.dtype}, such as {y.ravel()[:3]}"
        )
    try:
        if isinstance(x, list) and not all(hasattr(part, "shape") for part in x):  # plain numbers, or paths
            x = np.asarray(x)
        arrays = tf.nest.map_structure(functools.partial(as_array, "x"), (x, *weights))
        lengths = {len(array) for array in tf.nest.flatten(arrays)}
    except (TypeError, ValueError) as error:  # of what is ragged or sparse
        kinds = ", ".join(sorted({type(part).__name__ for part in tf.nest.flatten(x)}))
        raise ValueError(
            f"x must be dense arrays; ragged ones may come in a tf.data.Dataset. Received: {kinds}: {error}"
        ) from error
    if lengths != {len(y)}:
        raise ValueError(f"x and y must have the same length. Received: {sorted(lengths)} and {len(y)}")
    x, *weights = keras.tree.lists_to_tuples(arrays)  # tf.data would make one tensor of a list
    return _Arrays((x, y, *weights), batch_size)


def _stream(dataset: tf.data.Dataset, shuffle_buffer: int) -> _Stream:
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) not in WITH_WEIGHTS or not isinstance(spec[1], tf.TensorSpec):
        raise ValueError(
            "the dataset must yield (x, y) or (x, y, sample_weight): map it, such as "
            f"dataset.map(lambda d: (d['image'], d['label'])). Received: element_spec={spec}"
        )
    if any(isinstance(part, tf.SparseTensorSpec) for part in tf.nest.flatten(spec)):
        raise ValueError(f"x must be dense or ragged: map it by tf.sparse.to_dense. Received: element_spec={spec}")
    if spec[1].shape.rank == 2 and spec[1].shape[1] == 1:  # batches of columns, as Keras gives CIFAR's labels
        return _stream(dataset.map(lambda x, y, *weights: (x, y[:, 0], *weights)), shuffle_buffer)
    if spec[1].shape.rank == 1 and _is_one_example(spec):
        return _stream(dataset.map(lambda x, y, *weights: (x, y[0], *weights)), shuffle_buffer)
    if spec[1].shape.rank is None:
        raise ValueError(f"y must be of a known shape: map it by tf.ensure_shape. Received: {spec[1]}")
    if spec[1].shape.rank not in (0, 1) or not spec[1].dtype.is_integer:
        raise ValueError(
            "y must be integer classes, one an example; of one-hot rows, a map by tf.argmax(y, -1) makes them. "
            f"Received: {spec[1]}"
        )
    if dataset.cardinality() in (tf.data.INFINITE_CARDINALITY, 0):
        raise ValueError(
            "the dataset must be finite (balance it before repeat()) and not empty. "
            f"Received: cardinality {int(dataset.cardinality())}"
        )
    labels = dataset.map(lambda x, y, *weights: y)
    if spec[1].shape.rank == 0:
        return _Stream(dataset, labels.batch(COUNTING_BATCH), None, False, shuffle_buffer)
    _check_batches(spec)
    static_size = spec[1].shape[0]
    size = static_size or len(next(labels.as_numpy_iterator(), ()))
    return _Stream(dataset.unbatch(), labels, size, static_size is not None, shuffle_buffer)


def _is_one_example(spec: tuple) -> bool:
    """Whether a label [1] is that of one example, as slices of a column [N, 1] are, and no batch of one."""
    parts = tf.nest.flatten(spec[0])
    return spec[1].shape[0] == 1 and not all(part.shape.rank and part.shape[0] in (1, None) for part in parts)


def _check_batches(spec: tuple):
    """Raises ValueError where x and y of a dataset are no batches of one size: a y [K] is then no class."""
    sizes = {part.shape[0] if part.shape.rank else 0 for part in tf.nest.flatten(spec)} - {None}
    if len(sizes) > 1:
        raise ValueError(
            f"y must be an integer class per example, or batches of as many as x has. Received: element_spec={spec}"
        )


def _in_order(data: keras.utils.PyDataset) -> tf.data.Dataset:
    """The batches of a `PyDataset`, as a dataset that reads all of them in each pass."""
    if data.num_batches is None:
        raise ValueError("the PyDataset must be finite. Received: num_batches=None")

    def batches() -> Iterable[tuple]:
        for index in range(data.num_batches):
            yield keras.tree.lists_to_tuples(data[index])
        data.on_epoch_end()

    signature = tf.nest.map_structure(
        lambda array: tf.TensorSpec([None, *array.shape[1:]], array.dtype), keras.tree.lists_to_tuples(data[0])
    )
    stream = tf.data.Dataset.from_generator(batches, output_signature=signature)
    return stream.apply(tf.data.experimental.assert_cardinality(data.num_batches))


def _counts(source: _Arrays | _Stream, class_counts: npt.ArrayLike | None, counts_file: str | None) -> np.ndarray:
    if class_counts is not None:
        return number_per_class("class_counts", class_counts)
    if isinstance(source, _Arrays) or counts_file is None:
        counts = count_classes(source.label_batches())  # of arrays in no time
        if not counts.size:
            raise ValueError("data must hold examples. Received: none")
        return counts
    path = expanded(counts_file)
    if path.exists():
        with reading(path, instead="remove it, and the classes are counted again"):
            counts = np.load(path)
        if counts.ndim != 1 or not np.issubdtype(counts.dtype, np.integer) or not source.fits(counts):
            raise ValueError(
                f"counts_file must hold the class counts of these data. Received: {path} of {int(np.sum(counts))} "
                "examples; remove it where the data have changed"
            )
        return counts
    counts = count_classes(source.label_batches())
    with atomic(path) as scratch, scratch.open("wb") as file:
        np.save(file, counts)
    return counts


def _table(schedule: str | samplers.Sampler, counts: np.ndarray, epochs: int | None) -> np.ndarray:
    """Probabilities of each epoch, [E, C], or [C] where every epoch has the same."""
    if epochs is not None:
        return samplers.probability_table(schedule, counts, epochs)
    first, last = samplers.probability_table(schedule, counts, 2)
    if not np.allclose(first, last):
        raise ValueError(f"a schedule that changes over training needs epochs. Received: schedule={schedule!r}")
    return first
