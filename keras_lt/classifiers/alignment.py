"""Stage one's classifier, its logits aligned by a few learned numbers per class: DisAlign and MARC."""

import keras
import numpy as np

from keras_lt.classifiers.chunks import rows_at_once
from keras_lt.classifiers.dense import Candidates, OnDense, linear, safe_norms, to_adapt


@keras.saving.register_keras_serializable("keras_lt")
class DisAlign(OnDense):
    """Logits s (scale z + offset) + (1 - s) z of stage one's z, [B, D] -> [B, C] (Zhang et al., CVPR 2021).

    s = sigmoid(f v + d) is the confidence of an example; scale and offset [C], v [D, 1] and d [1] are trained, the rest
    is frozen. This is the paper's form; the classification layer that its authors released is another.

    `adapt` measures the features: the confidence sees them over their root mean squared norm, or the published
    learning rate would drive it to a constant on features of any length.
    """

    def build(self, input_shape):
        """Makes the scale [C], at first 1, the offset [C], the confidence kernel [D, 1] and bias [1], at first 0."""
        super().build(input_shape)
        self.scale = self.add_weight(shape=(self.units,), initializer="ones", name="scale")
        self.offset = self.add_weight(shape=(self.units,), initializer="zeros", name="offset")
        self.confidence_kernel = self.add_weight(
            shape=(input_shape[-1], 1), initializer="zeros", name="confidence_kernel"
        )
        self.confidence_bias = self.add_weight(shape=(1,), initializer="zeros", name="confidence_bias")
        self.feature_norm = self.add_weight(shape=(), initializer="ones", trainable=False, name="feature_norm")

    def adapt(self, features: np.ndarray, labels: np.ndarray):
        """Measures the root mean squared norm of training features [N, D], in chunks."""
        features, _ = to_adapt(self, features, labels)
        squares = (float(np.square(chunk).sum()) for chunk in rows_at_once(features, 4096, np.float64))
        mean = sum(squares) / len(features)
        self.feature_norm.assign(max(mean, 1e-12) ** 0.5)

    def call(self, features):
        """Features [B, D] -> logits [B, C]."""
        logits = self.dense_logits(features)
        confidence = keras.ops.sigmoid(
            keras.ops.matmul(features / self.feature_norm, self.confidence_kernel) + self.confidence_bias
        )
        return confidence * (self.scale * logits + self.offset) + (1 - confidence) * logits


@keras.saving.register_keras_serializable("keras_lt")
class MarginCalibration(OnDense):
    """Logits scale z + offset ||w|| of stage one's z and its class weights w (MARC, Wang et al., ACML 2022).

    Scale and offset, [C], at first 1 and 0, are trained: DisAlign with a confidence of one. Weights that are all zero
    count as of length one, or their class could not be moved.
    """

    def build(self, input_shape):
        """Makes the scale [C] and the offset [C]."""
        super().build(input_shape)
        self.scale = self.add_weight(shape=(self.units,), initializer="ones", name="scale")
        self.offset = self.add_weight(shape=(self.units,), initializer="zeros", name="offset")

    def call(self, features):
        """Features [B, D] -> logits [B, C]."""
        return self.scale * self.dense_logits(features) + self.offset * safe_norms(self.kernel, axis=0)[0]

    def fold(self) -> tuple[np.ndarray, np.ndarray]:
        """Kernel [D, C] and bias [C] of the dense layer with the same logits."""
        scale, offset, kernel, bias = (
            keras.ops.convert_to_numpy(weight) for weight in (self.scale, self.offset, self.kernel, self.bias)
        )
        return scale * kernel, scale * bias + offset * keras.ops.convert_to_numpy(safe_norms(kernel, axis=0))[0]


def disalign(head: keras.layers.Layer, *, seed: int, rho: float = 1.2) -> Candidates:
    """The one layer to train; rho is of the class weights, n^-rho."""
    return [([{}], DisAlign.from_dense(*linear(head)))]


def marc(head: keras.layers.Layer, *, seed: int, rho: float = 1.2) -> Candidates:
    """The one layer to train; rho is of the class weights, n^-rho."""
    return [([{}], MarginCalibration.from_dense(*linear(head)))]
