"""What Keras and TensorFlow do not promise: names of theirs that are private, or not there in every version.

And what they do by device where the package does it by batch.

Each says in which versions it was seen; `.ci/run` tries those of `environments/` and the newest.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping

import keras

from keras_lt import __version__


def versions() -> dict[str, str]:
    """Of the package and what it computes with, by name: whatever is written says by which it was."""
    import tensorflow as tf  # noqa: PLC0415 - not every module that needs no TensorFlow is to load it

    return {"keras_lt": __version__, "keras": keras.__version__, "tensorflow": tf.__version__}


def warn_of_versions(there: Mapping[str, str]):
    """Warns, once in a process, where what is gone on with was written by other versions; 0.1 did not say by which."""
    now = versions()
    if other := [name for name in now if there.get(name, now[name]) != now[name]]:
        theirs, ours = (", ".join(f"{name} {of[name]}" for name in other) for of in (there, now))
        warnings.warn(
            f"What is found finished was made by {theirs}, and is gone on with as it is by {ours}; another folder "
            "makes all of it anew.",
            stacklevel=2,
        )


def layers_within(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of a model and those inside of them, where `model.layers` has the outermost. Keras 3.10 to 3.15."""
    return list(model._flatten_layers(include_self=False))


def frozen_variables(model: keras.Model) -> list[keras.Variable]:
    """Weights that are made to be trained, and are frozen now: nothing changes them in a fit. Keras 3.10 to 3.15."""
    layers = [model, *layers_within(model)]
    return [variable for layer in layers for variable in layer._trainable_variables if not variable.trainable]


@contextlib.contextmanager
def unwatched(variables: list[keras.Variable]) -> Iterator[None]:
    """Inside, TensorFlow's tape leaves variables out, where Keras would have it record what is frozen.

    The gradients that it then traces nothing asks for; of a large frozen net they are most of the graph of a step.
    Keras 3.10 to 3.15, TensorFlow 2.18 to 2.21.
    """
    values = [variable.value for variable in variables if keras.backend.backend() == "tensorflow"]
    copies = [copy for value in values for copy in getattr(value, "values", [value])]  # a strategy has one per device
    for copy in copies:
        copy._trainable = False
    try:
        yield
    finally:
        for copy in copies:
            copy._trainable = True


def keep_positions(model: keras.Model):
    """Has a trained DINOv2 be saved as it is, where its positions are for the size of its images.

    It keeps two copies, of which a file has the untrained one, and brings that up to date when it is saved. It sees
    that it has to by the sum of all changes, which may as well be negative. keras_hub 0.20 to 0.32.
    """
    for layer in layers_within(model):
        trained = getattr(layer, "interpolated_position_embeddings", None)
        if trained is not None and trained.shape == layer.position_embeddings.shape:
            layer.position_embeddings.assign(trained)


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


@contextlib.contextmanager
def deterministic_ops() -> Iterator[None]:
    """TensorFlow computes the same twice inside, and afterwards as it did before. TensorFlow 2.18 to 2.21.

    It cannot be left on: a program that goes on with random numbers of its own would be refused them without a seed.
    """
    from tensorflow.python.framework import config  # noqa: PLC0415 - the other backends need none

    before = config.is_op_determinism_enabled()
    config.enable_op_determinism()
    try:
        yield
    finally:
        if not before:
            config.disable_op_determinism()


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


@keras.saving.register_keras_serializable("keras_lt")
class ScaledLoss(keras.optimizers.LossScaleOptimizer):
    """Scales the loss, so that gradients of float16 do not vanish; a step is left out where one is not finite.

    Keras asks the first device alone whether its own gradients are finite; here all are asked.
    """

    def check_finite(self, grads):
        """Whether every gradient of every device is finite."""
        finite = super().check_finite(grads)
        if keras.backend.backend() != "tensorflow":
            return finite
        import tensorflow as tf  # noqa: PLC0415 - the other backends need none

        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, 1.0 - tf.cast(finite, tf.float32)) == 0


def of_all_replicas(*arrays):
    """Arrays [b, ...] of one replica of a TensorFlow strategy, in a step -> those of the whole batch, [B, ...].

    Gradients go back to the replicas that they are of. Elsewhere the arrays are returned as they are.
    """
    if keras.backend.backend() != "tensorflow":
        return arrays
    import tensorflow as tf  # noqa: PLC0415 - the other backends need none

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return arrays
    return tuple(context.all_gather(tf.convert_to_tensor(array), axis=0) for array in arrays)
