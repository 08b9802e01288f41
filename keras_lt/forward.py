"""A net over images, forward: compiled once, and on a CPU a few images at a time."""

import functools
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

# Of the largest activation on a CPU. What takes more, glibc fetches from the system and gives back at every operation:
# EfficientNet-Lite0 took 45 ms of a core for each of 24 images of 224 pixels at once, 30 for each of six.
PIECE_BYTES = 2**25


def forward_pass(net: keras.Model, shape: tuple[int, ...]) -> Callable[[tf.Tensor], np.ndarray]:
    """The net compiled, in inference mode: examples [B, *shape] -> float32 [B, D].

    Where there is but a CPU it takes no more at once than keep the largest activation below `PIECE_BYTES`.
    """
    if keras.backend.backend() != "tensorflow":
        return lambda examples: net.predict_on_batch(examples.numpy()).astype(np.float32)
    forward = traced(net, shape)  # not `predict_on_batch`, which under a strategy gives every replica the whole batch
    if any(device.device_type != "CPU" for device in tf.config.list_logical_devices()):
        return lambda examples: forward(examples).numpy()
    rows = max(1, PIECE_BYTES // _largest_activation(forward.graph))

    def by_pieces(examples):
        return np.concatenate([forward(examples[at : at + rows]).numpy() for at in range(0, len(examples), rows)])

    return by_pieces


@functools.lru_cache(maxsize=1)  # splits, classifiers and the export come one after the other
def traced(net: keras.Model, shape: tuple[int, ...]) -> Callable[[tf.Tensor], tf.Tensor]:
    """The same on TensorFlow, to be called in other graphs as well: of a large net tracing takes seconds."""
    spec = tf.TensorSpec((None, *shape), tf.float32)
    function = tf.function(lambda examples: tf.cast(net(examples, training=False), tf.float32), input_signature=[spec])
    return function.get_concrete_function()  # TensorFlow warns of functions, each of a net, that it calls once


def _largest_activation(graph: tf.Graph) -> int:
    """Bytes per example of the largest tensor that has a row for each."""
    tensors = (tensor for operation in graph.get_operations() for tensor in operation.outputs)
    return max(
        tensor.dtype.size * tensor.shape[1:].num_elements()
        for tensor in tensors
        if tensor.shape.rank and tensor.shape[0] is None and tensor.shape[1:].is_fully_defined()
    )
