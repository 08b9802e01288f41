"""The network as an ONNX model, for engines other than TensorFlow."""

import pathlib
import textwrap
import warnings

import keras
import numpy as np

from keras_lt.compat import layers_within
from keras_lt.extras import library

HALVES = ("bfloat16", "float16", "mixed_bfloat16", "mixed_float16")
TOLERANCE = 1e-4  # of logits, relative to the largest of them where that is above 1


def import_onnx():
    """The module onnxruntime, where tf2onnx is there too, by which Keras writes ONNX models.

    Raises:
      ImportError: one of them is not installed, or cannot be imported.
    """
    _, onnxruntime = (
        library(name, extra="onnx", needed_by="An ONNX model") for name in ("tf2onnx.convert", "onnxruntime")
    )
    return onnxruntime


def in_float32(network: keras.Model) -> keras.Model:
    """A model of the same weights that computes in float32; itself where it does. ONNX has few ops of bfloat16."""
    layers = [layer for layer in layers_within(network) if not isinstance(layer, keras.Model)]
    if all(layer.compute_dtype == "float32" for layer in layers):
        return network
    config = keras.tree.map_structure(
        lambda leaf: "float32" if isinstance(leaf, str) and leaf in HALVES else leaf,
        keras.saving.serialize_keras_object(network),
    )
    copy = keras.saving.deserialize_keras_object(config)
    copy.set_weights(network.get_weights())
    return copy


def write_onnx(network: keras.Model, path: pathlib.Path, *, shape: tuple[int, ...]):
    """Writes preprocessed images [B, *shape], or features -> logits and probabilities, and checks them in ONNX Runtime.

    Decoding and resizing stay outside: ONNX has neither TensorFlow's decoders nor its antialiased resize.

    Raises:
      ValueError: ONNX has no such operation, as of Keras's own grouped convolution, which XLA has to compile.
      RuntimeError: ONNX Runtime gives other numbers than TensorFlow.
    """
    onnxruntime = import_onnx()
    network = in_float32(network)
    inputs = keras.Input(shape, name="preprocessed")
    logits = network(inputs)
    named = keras.Model(inputs, {"logits": logits, "probabilities": keras.ops.softmax(logits)})
    spec = keras.InputSpec(shape=(None, *shape), dtype="float32", name="preprocessed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Keras asks NumPy 2 for a name of NumPy 1
        named.export(path, format="onnx", verbose=False, input_signature=[spec])
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own errors have no other class in common
        reason = textwrap.shorten(str(error), 200, placeholder=" ...")
        raise ValueError(f"This net has an operation that no ONNX model can have. Received: {reason}") from error
    for batch_size in (1, 3):
        examples = np.random.default_rng(batch_size).normal(size=(batch_size, *shape)).astype(np.float32)
        (logits,) = session.run(["logits"], {"preprocessed": examples})
        expected = keras.ops.convert_to_numpy(network(examples, training=False))
        difference = np.abs(logits - expected).max()
        if not difference <= TOLERANCE * max(1, np.abs(expected).max()):
            raise RuntimeError(
                f"ONNX Runtime's logits differ from TensorFlow's by {difference:g}: {path.name} cannot be used"
            )
