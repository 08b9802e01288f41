"""Post-hoc logit adjustment: stage one's classifier, each logit less tau times the log of its class's prior."""

from collections.abc import Callable

import keras
import numpy as np

from keras_lt.arguments import as_operand, check_kind
from keras_lt.classifiers.chunks import in_chunks
from keras_lt.classifiers.dense import Candidates, copied, fold, to_adapt
from keras_lt.counts import check_counts
from keras_lt.registry import check_choice, check_numbers
from keras_lt.saving import SavedByArguments

# By whether the form is multiplicative: the grid, 0 to 3 or 0 to 0.6, and what is taken of it where val cannot tell.
# A quotient needs far less than a difference: its best was 0.1 on good features of 365 classes, 0.2 on poor ones.
TAUS = {form: tuple(round(step * k, 2) for k in range(31)) for form, step in ((False, 0.1), (True, 0.02))}
PREFERRED = {False: 1.0, True: 0.1}
PRIORS = ("counts", "effective")


def adjust_logits(logits, class_counts, *, tau: float):
    """Logits less tau log pi, pi being the classes' shares of the training images (Menon et al., ICLR 2021).

    >>> np.round(adjust_logits(np.zeros((1, 2)), [3, 1], tau=1.0), 3)
    array([[0.288, 1.386]])

    Args:
      logits: [..., C].
      class_counts: training images per class, [C].
      tau: 0 leaves them as they are, 1 is for classes that are equally frequent where the classifier is used.
    Returns: [..., C]; a class without images keeps its logits, since nothing is known of its prior.
    """
    check_numbers(tau=tau)
    logits = as_operand("logits", logits)
    return logits - tau * _log_prior(check_counts(class_counts, classes=[None, *logits.shape][-1]))


def _log_prior(shares: np.ndarray) -> np.ndarray:
    """The log of shares that need not sum to one; 0 for a share of 0."""
    return np.where(shares > 0, np.log(np.maximum(shares, np.finfo(float).tiny) / shares.sum()), 0.0)


@keras.saving.register_keras_serializable("keras_lt")
class LogitAdjustment(SavedByArguments, keras.layers.Layer):
    """A classifier's logits less tau log prior, or over prior^tau, [B, D] -> [B, C]; `adapt` sets the prior.

    Args:
      head: the classifier, features [B, D] -> logits [B, C], built.
      tau: the strength.
      prior: "counts", the classes' shares of the training examples; or "effective", the mean of the classifier's own
        posterior over them (Bhat et al., WACV 2025).
      multiplicative: divides by prior^tau in place of subtracting (Hasegawa & Sato, ICLR 2024).
    """

    def __init__(
        self,
        head: keras.layers.Layer,
        tau: float = 1.0,
        prior: str = "counts",
        *,
        multiplicative: bool = False,
        dtype="float32",
        **kwargs,
    ):
        check_kind("head", head, keras.layers.Layer)
        check_choice(PRIORS, prior=prior)
        check_numbers(tau=tau)
        super().__init__(dtype=dtype, **kwargs)
        self.head = copied(head, trainable=False)
        self.units = head.units
        self.tau = tau
        self.prior = prior
        self.multiplicative = multiplicative

    def build(self, input_shape):
        """Makes room for the log of the prior [C]; `adapt` fills it."""
        if not self.head.built:
            self.head.build(input_shape)
        self.log_prior = self.add_weight(shape=(self.units,), initializer="zeros", trainable=False, name="log_prior")

    def adapt(self, features: np.ndarray, labels: np.ndarray):
        """Sets the prior from training features [N, D] and their labels [N]."""
        features, labels = to_adapt(self, features, labels)
        shares = np.bincount(labels, minlength=self.units).astype(np.float64)
        if self.prior == "effective":
            shares = np.zeros(self.units)
            for chunk in in_chunks(self.head, features):
                shares += keras.ops.convert_to_numpy(keras.ops.softmax(self.head(chunk))).sum(0, np.float64)
        self.log_prior.assign(_log_prior(shares))

    def call(self, features):
        """Features [B, D] -> logits [B, C]."""
        return self.logits_by(tau=self.tau)(self.shared(features))

    def shared(self, features):
        """The head's logits [B, C]."""
        return keras.ops.cast(self.head(features), self.compute_dtype)

    def logits_by(self, array: Callable = keras.ops.convert_to_tensor, *, tau: float) -> Callable:
        """What adjusts logits [B, C] by one tau, both of the kind that `array` makes."""
        shift = tau * keras.ops.cast(self.log_prior, self.compute_dtype)
        by = array(keras.ops.exp(-shift) if self.multiplicative else shift)
        return lambda logits: logits * by if self.multiplicative else logits - by

    def fold(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Kernel [D, C] and bias [C] of the dense layer with the same logits; None where the head has none."""
        if (affine := fold(self.head)) is None:
            return None
        kernel, bias = affine
        shift = self.tau * keras.ops.convert_to_numpy(self.log_prior)
        return (kernel * np.exp(-shift), bias * np.exp(-shift)) if self.multiplicative else (kernel, bias - shift)


def candidates(
    head: keras.layers.Layer, *, seed: int, prior: str = "counts", multiplicative: bool = False
) -> Candidates:
    """One layer for every tau of the grid, still to be adapted; validation chooses."""
    layer = LogitAdjustment(head, PREFERRED[multiplicative], prior, multiplicative=multiplicative)
    layer.build((None, head.kernel.shape[0]))
    return [([{"tau": tau} for tau in TAUS[multiplicative]], layer)]


def preferred(*, multiplicative: bool, **_) -> dict[str, float]:
    """The choice of `candidates` with these parameters that is taken where val cannot tell."""
    return {"tau": PREFERRED[multiplicative]}
