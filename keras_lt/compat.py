"""What Keras and TensorFlow do not promise: names of theirs that are private, or not there in every version.

Each says in which versions it was seen; `environments/` lists those that are tried: Keras 3.10 to 3.15, TensorFlow 2.18
to 2.21.
"""

import keras


def layers_within(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of a model and those inside of them; `model.layers` has the outermost only. Keras 3.10 to 3.15."""
    return list(model._flatten_layers(include_self=False))


class ClippedTogether:
    """An optimiser that clips the gradient of the whole batch; Keras's clip each replica's. Keras 3.10 to 3.15."""

    def _clip_gradients(self, grads):
        """Keras's hook, before TensorFlow's replicas sum their gradients; elsewhere they are the batch's already."""
        return grads if keras.backend.backend() == "tensorflow" else super()._clip_gradients(grads)

    def _all_reduce_sum_gradients(self, grads_and_vars):
        """Keras's hook on TensorFlow, where they are summed."""
        grads, variables = zip(*super()._all_reduce_sum_gradients(grads_and_vars), strict=True)
        return list(zip(super()._clip_gradients(list(grads)), variables, strict=True))
