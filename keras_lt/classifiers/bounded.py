"""Dense classifiers whose parts are trained otherwise: MiSLAS's scales beside slow weights, and MaxNorm."""

import keras
import numpy as np

from keras_lt.classifiers.dense import Candidates, dense_shape, linear
from keras_lt.classifiers.lws import LearnableWeightScaling
from keras_lt.registry import check_numbers
from keras_lt.saving import SavedByArguments


@keras.saving.register_keras_serializable("keras_lt")
class ScaledDense(LearnableWeightScaling):
    """Logits scales * (features @ kernel + bias), [B, D] -> [B, C], of which all are trained (MiSLAS, CVPR 2021).

    Args:
      units: classes C.
      lr_factor: the learning rate of kernel and bias over that of the scales.
    """

    trains_dense = True

    def __init__(self, units: int, lr_factor: float = 1.0, **kwargs):
        super().__init__(units, **kwargs)
        self.lr_factor = lr_factor

    @property
    def multipliers(self) -> dict[str, float]:
        """Path of a variable -> factor on its learning rate."""
        return {variable.path: self.lr_factor for variable in (self.kernel, self.bias)}


def max_norm_radius(kernel: np.ndarray, threshold: float) -> float:
    """Radius min ||w|| + threshold (max ||w|| - min ||w||) over the classes (Alshammari et al., CVPR 2022).

    Args:
      kernel: one column per class, [D, C].
      threshold: 0 is the smallest norm, 1 the largest.
    """
    check_numbers(threshold=threshold)
    dense_shape(kernel)
    norms = np.linalg.norm(np.asarray(kernel, np.float64), axis=0)
    return float(norms.min() + threshold * (norms.max() - norms.min()))


def project_max_norm(kernel, radius: float):
    """The kernel [D, C] with every class's weights no longer than the radius: w min(1, radius / ||w||)."""
    check_numbers(radius=radius)
    dense_shape(kernel)
    kernel = keras.ops.convert_to_tensor(kernel, "float32")
    norms = keras.ops.sqrt(keras.ops.sum(keras.ops.square(kernel), axis=0))
    return kernel * keras.ops.minimum(1.0, radius / keras.ops.maximum(norms, keras.config.epsilon()))


@keras.saving.register_keras_serializable("keras_lt")
class MaxNormDense(SavedByArguments, keras.layers.Dense):
    """A dense layer whose class weights are put back to a radius after every epoch; the bias is free.

    Args:
      units: classes C.
      radius: largest norm of a class's weights.
    """

    def __init__(self, units: int, radius: float, *, dtype="float32", **kwargs):
        check_numbers(radius=radius)
        super().__init__(units, dtype=dtype, **kwargs)
        self.radius = radius

    def after_epoch(self):
        """Projects the weights."""
        self.kernel.assign(project_max_norm(self.kernel, self.radius))


def mislas(
    head: keras.layers.Layer,
    *,
    seed: int,
    lr_factor: float = 0.05,
    head_smoothing: float = 0.3,
    tail_smoothing: float = 0.0,
    shape: str = "concave",
    power: float = 2.0,
) -> Candidates:
    """The one layer to train, from stage one's weights; smoothing, its shape and power are of its loss."""
    return [([{}], ScaledDense.from_dense(*linear(head), lr_factor=lr_factor))]


def max_norm(head: keras.layers.Layer, *, seed: int, threshold: float = 0.1, beta: float = 0.9999) -> Candidates:
    """The one layer to train, from stage one's weights, within their relative radius; beta is of the class weights."""
    kernel, bias = linear(head)
    width, units = dense_shape(kernel, bias)
    layer = MaxNormDense(units, max_norm_radius(kernel, threshold))
    layer.build((None, width))
    layer.set_weights([kernel, bias])
    return [([{}], layer)]
