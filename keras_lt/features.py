"""A frozen backbone over a split, once: features in memory or in memory-mapped files."""

import dataclasses
import hashlib
import os
import pathlib
import sys

import keras
import numpy as np
import tensorflow as tf

from keras_lt.checkpoints import atomic, read_json, write_json
from keras_lt.datasets import Split
from keras_lt.input_pipeline import evaluation_batches, prefetched, training_indices
from keras_lt.optimization import Recipe
from keras_lt.preprocessing import Preprocessing

CHUNK = 8192  # feature rows scored at a time: bounds memory at CHUNK x C logits


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """Features of one split.

    Attributes:
      features: float32 [N, D], in memory or memory-mapped.
      labels: int64 [N].
    """

    features: np.ndarray
    labels: np.ndarray

    def training_batches(
        self, recipe: Recipe, *, class_counts: np.ndarray, seed: int, start_step: int = 0
    ) -> tf.data.Dataset:
        """Sampled batches, as `input_pipeline.training_batches` of images: (features [B, D], labels [B])."""
        stream = {"class_counts": class_counts, "seed": seed, "start_step": start_step}
        return self._gather(training_indices(self.labels, recipe, **stream, batch_size=recipe.pass_size))

    def evaluation_batches(self, *, batch_size: int) -> tf.data.Dataset:
        """Every row once, in order: (features [B, D], labels [B])."""
        return self._gather(tf.data.Dataset.range(len(self.labels)).batch(batch_size))

    def _gather(self, index_batches: tf.data.Dataset) -> tf.data.Dataset:
        def rows(indices):  # NumPy reads a memory map without taking all of it into memory
            features = tf.numpy_function(lambda i: self.features[i], [indices], tf.float32)
            features.set_shape((None, self.features.shape[1]))
            return features, tf.gather(self.labels, indices)

        return prefetched(index_batches.map(rows))


def extract_features(
    backbone: keras.Model,
    split: Split,
    preprocessing: Preprocessing,
    *,
    batch_size: int = 256,
    folder: str | os.PathLike | None = None,
) -> Features:
    """The backbone's features of every example, with the evaluation preprocessing.

    Args:
      backbone: images [B, S, S, 3] -> features [B, D].
      batch_size: images of one forward pass.
      folder: where `features.npy` and its manifest are kept. Features already there are taken where backbone,
        preprocessing and examples are the same ones, and replaced otherwise. None keeps them in memory.
    """
    shape = (len(split), backbone.output_shape[-1])
    if folder is None:
        return Features(_fill(np.empty(shape, np.float32), backbone, split, preprocessing, batch_size), split.labels)
    folder = pathlib.Path(folder)
    manifest = {
        "shape": list(shape),
        "dtype": "float32",
        "fingerprint": _fingerprint(backbone, split, preprocessing),
    }
    if not (folder / "manifest.json").exists() or read_json(folder / "manifest.json") != manifest:
        with atomic(folder) as scratch:
            scratch.mkdir()
            array = np.lib.format.open_memmap(scratch / "features.npy", mode="w+", dtype=np.float32, shape=shape)
            _fill(array, backbone, split, preprocessing, batch_size).flush()
            write_json(scratch / "manifest.json", manifest)
    return Features(np.load(folder / "features.npy", mmap_mode="r"), split.labels)


def classify(classifier: keras.layers.Layer, features: np.ndarray) -> np.ndarray:
    """Class with the largest logit, in chunks: features [N, D] -> int64 [N]."""
    predictions = [
        keras.ops.convert_to_numpy(keras.ops.argmax(classifier(np.asarray(features[start : start + CHUNK])), axis=-1))
        for start in range(0, len(features), CHUNK)
    ]
    return np.concatenate(predictions).astype(np.int64)


def verbosity() -> int:
    """Of Keras's progress: a moving bar on a terminal, a line when done in a log."""
    return 1 if sys.stdout.isatty() else 2


def _fill(array, backbone, split, preprocessing, batch_size):
    batches = evaluation_batches(split, preprocessing, batch_size=batch_size)
    # Not `predict_on_batch`, which under a strategy gives every replica the whole batch.
    forward = tf.function(lambda images: backbone(images, training=False), input_signature=[batches.element_spec[0]])
    progress = keras.utils.Progbar(len(split), unit_name="image", verbose=verbosity())
    row = 0
    for images, _ in batches:
        batch = forward(images)
        array[row : row + len(batch)] = batch
        row += len(batch)
        progress.update(row)
    return array


def _fingerprint(backbone: keras.Model, split: Split, preprocessing: Preprocessing) -> str:
    """Changes with anything that the features depend on: weights, preprocessing, examples."""
    digest = hashlib.sha256(repr(preprocessing.evaluation_settings()).encode())
    images = np.frombuffer(split.images.fingerprint(), np.uint8) if split.is_records else split.images
    for array in (*backbone.get_weights(), images, split.labels):
        digest.update(np.ascontiguousarray(array).view(np.uint8))
    return digest.hexdigest()
