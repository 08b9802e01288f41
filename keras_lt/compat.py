"""What Keras and TensorFlow do not promise: names of theirs that are private, or not there in every version.

Each says in which versions it was seen; `.ci/run` tries those of `environments/` and the newest.
"""

from collections.abc import Callable

import keras


def layers_within(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of a model and those inside of them, where `model.layers` has the outermost. Keras 3.10 to 3.15."""
    return list(model._flatten_layers(include_self=False))


def renormalizes(layer: keras.layers.BatchNormalization) -> bool:
    """Whether it is batch renormalization, which Keras has from 3.14 on."""
    return getattr(layer, "renorm", False)


def variable_index(optimizer: keras.optimizers.Optimizer, variable) -> int:
    """The position of a variable among those that the optimiser was built for. Keras 3.10 to 3.15."""
    return optimizer._get_variable_index(variable)


def inside_xla() -> bool:
    """Whether what TensorFlow traces now is compiled by XLA as a whole. TensorFlow 2.18 to 2.21."""
    import tensorflow as tf  # noqa: PLC0415 - the other backends need none

    return tf.__internal__.get_enclosing_xla_context() is not None


def compute_on_tensorflow(layer: keras.layers.Layer):
    """Has an image layer compute on TensorFlow, for use in `tf.data`, whatever the backend. Keras 3.10 to 3.15."""
    layer.backend.set_backend("tensorflow")


class CountedSeeds(keras.random.SeedGenerator):
    """The seeds that a Keras layer asks for, made of the times that it has asked instead of a variable.

    It leaves out the parent's constructor, where the variable is made. Keras 3.10 to 3.15.

    Args:
      seed_of: (times asked, from 1) -> int [2].
    """

    def __init__(self, seed_of: Callable):
        self._seed_of, self._asked = seed_of, 0

    def next(self, ordered=True):
        """The next seed, int [2]."""
        self._asked += 1
        return self._seed_of(self._asked)


class ClippedTogether:
    """An optimiser that clips the gradient of the whole batch; Keras's clip each replica's. Keras 3.10 to 3.15."""

    def _clip_gradients(self, grads):
        """Keras's hook, before TensorFlow's replicas sum their gradients; elsewhere they are the batch's already."""
        return grads if keras.backend.backend() == "tensorflow" else super()._clip_gradients(grads)

    def _all_reduce_sum_gradients(self, grads_and_vars):
        """Keras's hook on TensorFlow, where they are summed."""
        grads, variables = zip(*super()._all_reduce_sum_gradients(grads_and_vars), strict=True)
        return list(zip(super()._clip_gradients(list(grads)), variables, strict=True))
