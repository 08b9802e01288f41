"""Nearest class mean: a class is the mean of its training features, and the nearest mean wins."""

from collections.abc import Callable

import keras
import numpy as np

from keras_lt.classifiers.chunks import rows_at_once
from keras_lt.classifiers.dense import Candidates, Head, safe_norms, to_adapt
from keras_lt.registry import check_choice

TRANSFORMS = ("cl2n", "l2n", "un")
DISTANCES = ("l2", "cosine", "reference_cosine")
CHUNK = 4096  # rows of features in memory at once: 32 MiB when D is 2048


@keras.saving.register_keras_serializable("keras_lt")
class NearestClassMean(Head):
    """Scores of features against class means, [B, D] -> [B, C]; nothing to train, `adapt` sets the means.

    Args:
      units: classes C.
      transform: of features, before means and distances: "cl2n" subtracts the mean training feature and then
        divides by the norm, "l2n" divides by the norm, "un" does nothing. The means of transformed features
        are not normalised again.
      distance: "l2" scores -||f - mu||^2, "cosine" the cosine of f and mu, "reference_cosine" f.mu / D, which
        is what the reference computes under that name.
    """

    def __init__(self, units: int, transform: str = "cl2n", distance: str = "l2", **kwargs):
        check_choice(TRANSFORMS, transform=transform)
        check_choice(DISTANCES, distance=distance)
        super().__init__(units, **kwargs)
        self.transform = transform
        self.distance = distance

    def build(self, input_shape):
        """Makes room for the mean feature [D], 0 without use, and the class means [C, D]; `adapt` fills them."""
        super().build(input_shape)
        width = input_shape[-1]
        self.center = self.add_weight(shape=(width,), initializer="zeros", trainable=False, name="center")
        self.means = self.add_weight(shape=(self.units, width), initializer="zeros", trainable=False, name="means")

    def adapt(self, features: np.ndarray, labels: np.ndarray) -> None:
        """Sets the class means from training features.

        Rows are read in chunks and summed in float64, so a memory map larger than memory will do.

        Args:
          features: [N, D].
          labels: class ids in [0, C), [N].
        Raises:
          ValueError: shapes or ids that do not fit, or a class without an example.
        """
        features, labels = to_adapt(self, features, labels)
        counts = np.bincount(labels, minlength=self.units)
        if not counts.all():
            absent = np.flatnonzero(counts == 0).tolist()
            raise ValueError(f"every class needs an example. Received: labels without classes {absent}")
        if self.transform != "l2n":
            self.center.assign(sum(chunk.sum(0, np.float64) for chunk in rows_at_once(features, CHUNK)) / len(features))
        self.means.assign(self._class_means(features, labels, counts))

    def call(self, features):
        """Features [B, D] -> scores [B, C], the larger the nearer."""
        return self.logits_by(distance=self.distance)(self.shared(features))

    def shared(self, features) -> tuple:
        """By rows, what the distances have in common.

        Returns: products of features and class means [B, C], both transformed and, where "un", centred: distances do
          not see the centre, which large numbers would lose their digits to; the features' products with the centre,
          their squared norms and, as they were before it, their norms, [B, 1].
        """
        features, means = self._transformed(features), self.means
        norms, along = safe_norms(features, axis=-1), keras.ops.zeros_like(features[:, :1])
        if self.transform == "un":
            features, means = features - self.center, means - self.center
            along = keras.ops.matmul(features, self.center[:, None])
        # Not the transposed means, which of many classes would take longer.
        products = keras.ops.transpose(keras.ops.matmul(means, keras.ops.transpose(features)))
        return products, along, keras.ops.sum(keras.ops.square(features), axis=-1, keepdims=True), norms

    def logits_by(
        self, array: Callable = keras.ops.convert_to_tensor, *, distance: str, transform: str = ""
    ) -> Callable:
        """What makes scores [B, C] by one distance of what `shared` gives, both of the kind that `array` makes."""
        del transform  # the layer's own
        is_centred = self.transform == "un"
        if distance == "l2":
            means = self.means - self.center if is_centred else self.means
            of_means = array(keras.ops.sum(keras.ops.square(means), axis=-1))
            return lambda shared: 2 * shared[0] - shared[2] - of_means
        divisors = array(safe_norms(self.means, axis=-1)[:, 0]) if distance == "cosine" else self.means.shape[-1]
        along_means = array(keras.ops.matmul(self.means, self.center)) if is_centred else None

        def logits(shared):
            products, along, _, norms = shared
            if is_centred:  # f.mu = (f - c).(mu - c) + (f - c).c + mu.c
                products = products + along + along_means
            return (products / norms if distance == "cosine" else products) / divisors

        return logits

    def _transformed(self, features):
        if self.transform == "un":
            return features
        if self.transform == "cl2n":
            features = features - self.center
        return features / safe_norms(features, axis=-1)

    def _class_means(self, features: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
        sums = np.zeros(self.means.shape, np.float64)
        start = 0
        for chunk in rows_at_once(features, CHUNK):
            ids = labels[start : start + len(chunk)]
            start += len(chunk)
            transformed = keras.ops.convert_to_numpy(self._transformed(chunk))
            # Sorted by class, a class is one slice: far faster than np.add.at, and than np.add.reduceat in float64.
            order = np.argsort(ids, kind="stable")
            present, first = np.unique(ids[order], return_index=True)
            for one, rows in zip(present, np.split(transformed[order], first[1:]), strict=True):
                sums[one] += rows.sum(0, np.float64)
        sums /= counts[:, np.newaxis]  # of many classes a second array of float64 would be most of the memory
        return sums.astype(np.float32)


def candidates(head: keras.layers.Layer, *, seed: int) -> Candidates:
    """A layer per transform, for every distance, still to be adapted; the paper's choice first, to win ties."""
    return [
        (
            [{"transform": transform, "distance": distance} for distance in DISTANCES],
            NearestClassMean(head.units, transform),
        )
        for transform in TRANSFORMS
    ]
