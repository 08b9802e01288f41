"""Tau-normalised classifier: stage one's weights, each class's divided by its norm to the power tau."""

from collections.abc import Iterable, Iterator

import keras
import numpy as np

from keras_lt.classifiers.dense import dense_shape
from keras_lt.classifiers.norms import safe_norms

TAUS = tuple(round(0.1 * step, 1) for step in range(21))  # 0, 0.1, ..., 2: the reference's grid


def tau_normalize(kernel, tau: float):
    """Divides every class's weight vector by its norm to the power tau, in float32.

    Args:
      kernel: dense weights, one column per class, [D, C].
      tau: 0 leaves the kernel as it is, 1 gives columns of norm one.
    Returns: kernel [D, C]; a zero column stays zero.
    Source: w_i / ||w_i||^tau, section 4 of arXiv:1910.09217.
    """
    _check_tau(tau)
    kernel = keras.ops.convert_to_tensor(kernel, "float32")
    return kernel / safe_norms(kernel, axis=0) ** tau


@keras.saving.register_keras_serializable("keras_lt")
class TauNormalizedDense(keras.layers.Layer):
    """Logits of the tau-normalised kernel, [B, D] -> [B, C], without a bias.

    The bias is dropped for every tau, as in the reference, so tau 0 is not stage one's classifier.
    The layer keeps the kernel as it was before the division.

    Args:
      units: classes C.
      tau: the power; with `learned`, where training starts.
      learned: makes tau a trainable weight in [0, 2], the only one. A loss moves it by the scale of all logits too,
        which the arg max does not see, so it may end elsewhere than the best tau of a grid.
    """

    def __init__(self, units: int, tau: float = 1.0, *, learned: bool = False, dtype="float32", **kwargs):
        _check_tau(tau)
        super().__init__(dtype=dtype, **kwargs)
        self.units = units
        self.tau = tau
        self.learned = learned

    @classmethod
    def from_dense(cls, kernel: np.ndarray, tau: float, *, learned: bool = False) -> "TauNormalizedDense":
        """The built layer over stage one's kernel [D, C]."""
        width, units = dense_shape(kernel)
        layer = cls(units, tau, learned=learned)
        layer.build((None, width))
        layer.kernel.assign(kernel)
        return layer

    def build(self, input_shape):
        """Makes room for the kernel [D, C]; `from_dense` fills it."""
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units), initializer="zeros", trainable=False, name="kernel"
        )
        if self.learned:
            # Held to the grid's range: with large logits one step of SGD can throw it so far that norms overflow.
            self.tau = self.add_weight(
                shape=(),
                initializer=keras.initializers.Constant(self.tau),
                constraint=lambda tau: keras.ops.clip(tau, TAUS[0], TAUS[-1]),
                name="tau",
            )

    def call(self, features):
        """Features [B, D] -> logits [B, C]."""
        (logits,) = self.sweep(features, [{"tau": self.tau}])
        return logits

    def sweep(self, features, choices: Iterable[dict]) -> Iterator:
        """Logits [B, C] of one tau after another, all from one product: tau only divides its columns."""
        products, norms = keras.ops.matmul(features, self.kernel), safe_norms(self.kernel, axis=0)
        for choice in choices:
            yield products / norms ** choice["tau"]

    def fold(self) -> tuple[np.ndarray, np.ndarray]:
        """Kernel [D, C] and bias [C], all zero, of the dense layer with the same logits."""
        kernel = keras.ops.convert_to_numpy(tau_normalize(self.kernel, float(self.tau)))
        return kernel, np.zeros(self.units, kernel.dtype)

    def get_config(self):
        """The constructor's arguments; a learned tau is where it stands."""
        return {**super().get_config(), "units": self.units, "tau": float(self.tau), "learned": self.learned}


def candidates(kernel: np.ndarray, bias: np.ndarray, *, seed: int) -> list[tuple[list[dict], keras.layers.Layer]]:
    """One layer for every tau of the grid; validation chooses."""
    return [([{"tau": tau} for tau in TAUS], TauNormalizedDense.from_dense(kernel, TAUS[0]))]


def learned(kernel: np.ndarray, bias: np.ndarray, *, seed: int) -> list[tuple[list[dict], keras.layers.Layer]]:
    """The one layer to train, from tau 1."""
    return [([{"tau": 1.0}], TauNormalizedDense.from_dense(kernel, 1.0, learned=True))]


def _check_tau(tau: float) -> None:
    if not tau >= 0:
        raise ValueError(f"tau must be >= 0. Received: tau={tau}")
