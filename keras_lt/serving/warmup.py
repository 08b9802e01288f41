"""Requests that a server answers before it calls a version ready: else the first user waits for its set-up."""

import importlib.util
import pathlib

import numpy as np
import tensorflow as tf

WARMUP = "assets.extra/tf_serving_warmup_requests"  # where TensorFlow Serving looks for it


def write_warmup(folder: pathlib.Path, *, image_size: int, features: bool) -> bool:
    """Writes one request of a grey image per signature; returns False, and writes none, without tensorflow-serving-api.

    Args:
      image_size: side of that image, pixels.
      features: whether there is a signature of that name.
    """
    if not importlib.util.find_spec("tensorflow_serving"):
        return False
    from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2  # noqa: PLC0415 - optional

    image = np.full((image_size, image_size, 3), 128, np.uint8)
    encoded = {"image_bytes": [tf.io.encode_jpeg(image).numpy()]}
    requests = {
        "serving_default": encoded,
        "images": {"images": image[np.newaxis]},
        "images_float": {"images": image[np.newaxis].astype(np.float32)},
    } | ({"features": encoded} if features else {})
    with tf.io.TFRecordWriter(str(folder / WARMUP)) as writer:
        for signature, inputs in requests.items():
            request = predict_pb2.PredictRequest(model_spec=model_pb2.ModelSpec(signature_name=signature))
            for name, value in inputs.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            log = prediction_log_pb2.PredictLog(request=request)
            writer.write(prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString())
    return True
