"""What heads have in common; the dense one: fresh, frozen, re-trained (cRT), and what other linear ones fold into."""

import numbers

import keras
import numpy as np

from keras_lt.arguments import as_operand, in_place
from keras_lt.labels import labels_of
from keras_lt.saving import SavedByArguments

Candidates = list[tuple[list[dict], keras.layers.Layer]]  # layers, each with the choices that it stands for


class Head(SavedByArguments, keras.layers.Layer):
    """What layers from features [B, D] to logits [B, C] have in common.

    Args:
      units: classes C.
    """

    def __init__(self, units: int, *, dtype="float32", **kwargs):
        if not isinstance(units, numbers.Integral) or units < 1:
            raise ValueError(f"units must be the number of classes, a whole one from 1. Received: units={units!r}")
        super().__init__(dtype=dtype, **kwargs)
        self.units = units

    def build(self, input_shape):
        """Holds the features to [B, D]: those of width 1 would be broadcast, and more axes taken for others."""
        self.input_spec = keras.layers.InputSpec(ndim=2, axes={-1: input_shape[-1]})


class OnDense(Head):
    """What layers on stage one's kernel [D, C] and bias [C] have in common, which are frozen unless they say else."""

    # Frozen as they are made, not by `variable.trainable = False` later: a saved model forgets that.
    trains_dense = False

    @classmethod
    def from_dense(cls, kernel: np.ndarray, bias: np.ndarray, **options):
        """The built layer over stage one's kernel [D, C] and bias [C]."""
        width, units = dense_shape(kernel, bias)
        layer = cls(units, **options)
        layer.build((None, width))
        layer.kernel.assign(kernel)
        layer.bias.assign(bias)
        return layer

    def build(self, input_shape):
        """Makes room for kernel and bias; `from_dense` fills it."""
        super().build(input_shape)
        made = {"initializer": "zeros", "trainable": self.trains_dense}
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel", **made)
        self.bias = self.add_weight(shape=(self.units,), name="bias", **made)

    def dense_logits(self, features):
        """Stage one's logits, [B, C]."""
        return keras.ops.matmul(features, self.kernel) + self.bias


def safe_norms(vectors, axis: int):
    """Euclidean norms along an axis (kept as length one), with 1 in place of 0.

    A zero vector divided by its safe norm stays zero and passes a finite gradient; 0 / 0 would be NaN.
    """
    squares = keras.ops.sum(keras.ops.square(vectors), axis=axis, keepdims=True)
    return keras.ops.sqrt(keras.ops.where(squares > 0, squares, 1.0))


def to_adapt(layer: keras.layers.Layer, features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Training features [N, D], where they are, and labels int64 [N], once they fit the layer, which is built for them.

    Args:
      layer: with `units`, its classes C.
      labels: class ids in [0, C), [N] or [N, 1].
    Raises:
      ValueError: shapes or ids that do not fit, or features of another width than the layer was built for.
    """
    features = in_place("features", features)
    if len(features.shape) != 2:
        raise ValueError(f"features must be [N, D]. Received: features.shape={tuple(features.shape)}")
    labels = labels_of(labels, len(features), classes=layer.units)
    width = features.shape[1]
    if not layer.built:
        layer.build((None, width))
    built_for = layer.get_build_config()["input_shape"][-1]
    if built_for != width:
        raise ValueError(f"features must be of the width that the layer was built for, {built_for}. Received: {width}")
    return features, labels


def fresh_dense(width: int, units: int, *, seed: int) -> keras.layers.Dense:
    """A trainable dense layer on features [B, width], drawn as the reference draws its linear layers.

    Weights and bias are U(-1/sqrt(width), 1/sqrt(width)).
    """
    limit = width**-0.5
    rng = np.random.default_rng(seed)  # not a Keras initializer: the same numbers on every backend
    return dense_of(*(rng.uniform(-limit, limit, shape) for shape in ((width, units), (units,))))


def dense_of(kernel: np.ndarray, bias: np.ndarray, *, name: str | None = None) -> keras.layers.Dense:
    """A dense layer with this kernel [D, C] and bias [C]."""
    layer = keras.layers.Dense(len(bias), kernel_initializer="zeros", dtype="float32", name=name)
    layer.build((None, len(kernel)))
    layer.set_weights([kernel, bias])
    return layer


def joint(head: keras.layers.Layer, *, seed: int) -> Candidates:
    """Stage one's own classifier, unchanged."""
    return [([{}], copied(head, trainable=False))]


def crt(head: keras.layers.Layer, *, seed: int) -> Candidates:
    """Classifier re-training: a fresh dense layer in place of stage one's."""
    return [([{}], fresh_dense(*head.kernel.shape, seed=seed))]


def fine_tuned(head: keras.layers.Layer, *, seed: int) -> Candidates:
    """Stage one's own classifier, trained on."""
    return [([{}], copied(head, trainable=True))]


def copied(head: keras.layers.Layer, *, trainable: bool) -> keras.layers.Layer:
    """A layer with the same weights, if it has any yet, which nothing adapts to the training features once more."""
    kind = getattr(head, "once_learned", type(head))
    layer = kind.from_config({**head.get_config(), "trainable": trainable})
    if head.built:
        layer.build((None, head.kernel.shape[0]))
        layer.set_weights(head.get_weights())
    return layer


def linear(head: keras.layers.Layer) -> tuple[np.ndarray, np.ndarray]:
    """Kernel [D, C] and bias [C] of stage one's classifier, for what starts from its weights.

    Raises:
      ValueError: it is no affine map of the features.
    """
    weights = fold(head)
    if weights is None:
        raise ValueError(
            "tau-normalisation, weight scaling and all that adjusts a linear classifier start from a dense layer's "
            "weights, without an activation and not quantised; for another head take joint, ncm, crt or cosine. "
            f"Received: a head of type {type(head).__name__}"
        )
    return weights


def fold(layer: keras.layers.Layer) -> tuple[np.ndarray, np.ndarray] | None:
    """The kernel [D, C] and bias [C] of the one dense layer that computes what this head computes.

    Returns: None for a head that is no affine map of the features, or has no `fold` of its own.
    """
    if isinstance(layer, keras.layers.Dense):
        if layer.activation is not keras.activations.linear or layer.dtype_policy.quantization_mode:
            return None  # a quantised one rounds the features, too
        kernel = keras.ops.convert_to_numpy(layer.kernel)
        bias = keras.ops.convert_to_numpy(layer.bias) if layer.use_bias else np.zeros(layer.units, kernel.dtype)
        return kernel, bias
    return layer.fold() if hasattr(layer, "fold") else None


def dense_shape(kernel: np.ndarray, bias: np.ndarray | None = None) -> tuple[int, int]:
    """The feature width D and classes C of a dense layer's kernel [D, C].

    Raises:
      ValueError: the kernel is not a matrix, or the bias is not one value per class.
    """
    kernel = as_operand("kernel", kernel)
    if len(kernel.shape) != 2:
        raise ValueError(f"kernel must be [D, C]. Received: kernel.shape={kernel.shape}")
    width, units = kernel.shape
    if bias is not None and (shape := tuple(as_operand("bias", bias).shape)) != (units,):
        raise ValueError(f"bias must be [C] with C={units}. Received: bias.shape={shape}")
    return width, units
