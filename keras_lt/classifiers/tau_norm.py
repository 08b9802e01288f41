"""Tau-normalised classifier: stage one's weights, each class's divided by its norm to the power tau."""

from collections.abc import Callable, Generator, Sequence

import keras
import numpy as np

from keras_lt.classifiers.dense import Candidates, Head, dense_shape, linear, safe_norms
from keras_lt.registry import check_numbers

TAUS = tuple(round(0.1 * step, 1) for step in range(21))  # 0, 0.1, ..., 2: the reference's grid


def tau_normalize(kernel, tau: float):
    """Divides every class's weight vector by its norm to the power tau, in float32.

    >>> np.asarray(tau_normalize([[3, 0], [4, 2]], tau=1))
    array([[0.6, 0. ],
           [0.8, 1. ]], dtype=float32)

    Args:
      kernel: dense weights, one column per class, [D, C].
      tau: 0 leaves the kernel as it is, 1 gives columns of norm one.
    Returns: kernel [D, C]; a zero column stays zero.
    Source: w_i / ||w_i||^tau, section 4 of arXiv:1910.09217.
    """
    check_numbers(tau=tau)
    dense_shape(kernel)
    kernel = keras.ops.convert_to_tensor(kernel, "float32")
    return kernel / safe_norms(kernel, axis=0) ** tau


class _InTheRangeOfTheGrid(keras.constraints.Constraint):
    """Holds a learned tau: with large logits one step of SGD can throw it so far that norms overflow."""

    def __call__(self, tau):
        return keras.ops.clip(tau, TAUS[0], TAUS[-1])


@keras.saving.register_keras_serializable("keras_lt")
class TauNormalizedDense(Head):
    """Logits of the tau-normalised kernel, [B, D] -> [B, C], without a bias.

    The bias is dropped for every tau, as in the reference, so tau 0 is not stage one's classifier.
    The layer keeps the kernel as it was before the division. `from_dense` makes it of a trained dense layer's; made by
    `units` alone it has zeros, which it keeps.

    Args:
      units: classes C.
      tau: the power; with `learned`, where training starts.
      learned: makes tau a trainable weight in [0, 2], the only one. A loss moves it by the scale of all logits too,
        which the arg max does not see, so it may end elsewhere than the best tau of a grid.
    """

    def __init__(self, units: int, tau: float = 1.0, *, learned: bool = False, **kwargs):
        check_numbers(tau=tau)
        super().__init__(units, **kwargs)
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
        super().build(input_shape)
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units), initializer="zeros", trainable=False, name="kernel"
        )
        if self.learned:
            self.tau = self.add_weight(
                shape=(),
                initializer=keras.initializers.Constant(self.tau),
                constraint=_InTheRangeOfTheGrid(),
                name="tau",
            )

    def call(self, features):
        """Features [B, D] -> logits [B, C]."""
        return self.logits_by(tau=self.tau)(self.shared(features))

    def shared(self, features):
        """The products with the kernel [B, C], whose columns tau only divides."""
        return keras.ops.matmul(features, self.kernel)

    def logits_by(self, array: Callable = keras.ops.convert_to_tensor, *, tau: float) -> Callable:
        """What makes logits [B, C] of the products by one tau, both of the kind that `array` makes."""
        divisors = array(safe_norms(self.kernel, axis=0) ** tau)
        return lambda products: products / divisors

    def fold(self) -> tuple[np.ndarray, np.ndarray]:
        """Kernel [D, C] and bias [C], all zero, of the dense layer with the same logits."""
        tau = float(keras.ops.convert_to_numpy(self.tau))  # a learned one may have a copy on every device
        kernel = keras.ops.convert_to_numpy(tau_normalize(self.kernel, tau))
        return kernel, np.zeros(self.units, kernel.dtype)


def candidates(head: keras.layers.Layer, *, seed: int) -> Candidates:
    """One layer for every tau of the grid; validation chooses."""
    kernel, _ = linear(head)
    return [([{"tau": tau} for tau in TAUS], TauNormalizedDense.from_dense(kernel, TAUS[0]))]


def searched(head: keras.layers.Layer, *, seed: int) -> list[tuple[Generator, keras.layers.Layer]]:
    """The same layer, its tau searched between the grid's points."""
    kernel, _ = linear(head)
    return [(golden_section(TAUS), TauNormalizedDense.from_dense(kernel, TAUS[0]))]


def golden_section(taus: Sequence[float], *, tolerance: float = 0.005) -> Generator[list[dict], list[float], None]:
    """A grid, then a golden-section search around its best point (Kiefer, 1953).

    Yields lists of choices and is sent their scores. The scores must have one peak between the best point's neighbours;
    an accuracy, which moves in steps, has it roughly, so that the best of all that was tried may well be the grid's.
    """
    scores = yield [{"tau": tau} for tau in taus]
    best = int(np.argmax(scores))
    low, high = taus[max(best - 1, 0)], taus[min(best + 1, len(taus) - 1)]
    share = (5**0.5 - 1) / 2
    left, right = high - share * (high - low), low + share * (high - low)
    left_score, right_score = yield [{"tau": left}, {"tau": right}]
    while high - low > tolerance:
        if left_score >= right_score:
            high, right, right_score = right, left, left_score
            left = high - share * (high - low)
            (left_score,) = yield [{"tau": left}]
        else:
            low, left, left_score = left, right, right_score
            right = low + share * (high - low)
            (right_score,) = yield [{"tau": right}]


def learned(head: keras.layers.Layer, *, seed: int) -> Candidates:
    """The one layer to train, from tau 1."""
    kernel, _ = linear(head)
    return [([{"tau": 1.0}], TauNormalizedDense.from_dense(kernel, 1.0, learned=True))]
