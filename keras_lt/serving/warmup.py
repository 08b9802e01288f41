"""Requests that a server answers before it calls a version ready: else the first user waits for its set-up."""

import pathlib
import types
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from keras_lt.extras import library

WARMUP = "assets.extra/tf_serving_warmup_requests"  # where TensorFlow Serving looks for it


def write_warmup(folder: pathlib.Path, signatures: Mapping[str, tf.TensorSpec], *, image_size: int) -> bool:
    """Writes one request per signature; returns False, and writes none, without tensorflow-serving-api.

    Args:
      signatures: name -> the one input that it takes, of which a request has a grey image, or a vector of zeros.
      image_size: side of that image, pixels; 0 of a model of vectors.
    """
    try:
        model_pb2, predict_pb2, prediction_log_pb2 = map(_protocol, ("model_pb2", "predict_pb2", "prediction_log_pb2"))
    except ImportError:
        return False
    with tf.io.TFRecordWriter(str(folder / WARMUP)) as writer:
        for signature, spec in signatures.items():
            request = predict_pb2.PredictRequest(model_spec=model_pb2.ModelSpec(signature_name=signature))
            request.inputs[spec.name].CopyFrom(tf.make_tensor_proto(_input(spec, image_size=image_size)))
            log = prediction_log_pb2.PredictLog(request=request)
            writer.write(prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString())
    return True


def _protocol(name: str) -> types.ModuleType:
    return library(f"tensorflow_serving.apis.{name}", extra="serving", needed_by="A warm-up request")


def _input(spec: tf.TensorSpec, *, image_size: int) -> np.ndarray | list[bytes]:
    """A batch of one for a signature."""
    image = np.full((1, image_size, image_size, 3), 128, np.uint8)
    if spec.dtype == tf.string:
        return [tf.io.encode_jpeg(image[0]).numpy()]
    return image.astype(spec.dtype.as_numpy_dtype) if image_size else np.zeros((1, *spec.shape[1:]), np.float32)
