"""SavedModels that a TensorFlow Serving server loads as they are: encoded image in, label out."""

import errno
import os
import pathlib
from collections.abc import Sequence

import keras
import tensorflow as tf

from keras_lt.checkpoints import atomic
from keras_lt.datasets.long_tailed import IMAGENET_MEAN, IMAGENET_STD
from keras_lt.preprocessing import Preprocessing


def export_saved_model(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    class_names: Sequence[str],
    image_size: int,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    channel_order: str = "rgb",
    crop_fraction: float = 1.0,
) -> pathlib.Path:
    """Writes a SavedModel that decodes, preprocesses as in evaluation, and classifies.

    Signatures, all of any batch size:
      serving_default: `image_bytes`, strings [B], each a JPEG, PNG, BMP or GIF.
      images: `images`, uint8 [B, H, W, 3] in RGB, of one size.
    Both give `probabilities` and `logits`, float32 [B, C], and `classes`, strings [B, C], the labels in their order.

    Args:
      model: preprocessed images [B, S, S, 3] -> logits [B, C].
      path: the version's folder, such as `export/lws/1`; replaced where it exists.
      class_names: [C].
      image_size: S, pixels.
      mean, std, channel_order, crop_fraction: as in `preprocessing.Preprocessing`.
    Returns: `path`.
    Raises:
      ValueError: the model does not give one logit per class name, or Keras runs on another backend than TensorFlow.
    """
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "SavedModels are written on the TensorFlow backend: KERAS_BACKEND=tensorflow. "
            f"Received: KERAS_BACKEND={keras.backend.backend()}"
        )
    if model.output_shape[-1] != len(class_names):
        raise ValueError(
            "The model must give one logit per class name. "
            f"Received: output shape {model.output_shape}, {len(class_names)} class names"
        )
    preprocessing = Preprocessing(
        image_size=image_size,
        mean=tuple(mean),
        std=tuple(std),
        channel_order=channel_order,
        crop_fraction=crop_fraction,
    )
    labels = tf.constant(list(class_names))

    def answer(images):
        logits = tf.cast(model(images, training=False), tf.float32)
        classes = tf.broadcast_to(labels, tf.shape(logits))
        return {"probabilities": tf.nn.softmax(logits), "logits": logits, "classes": classes}

    def serve_bytes(image_bytes):
        one = tf.TensorSpec((image_size, image_size, 3), tf.float32)
        return answer(tf.map_fn(preprocessing.evaluate, image_bytes, fn_output_signature=one))

    def serve_images(images):
        return answer(preprocessing.evaluate(images))

    archive = keras.export.ExportArchive()
    archive.track(model)
    for name, function, spec in (
        ("serving_default", serve_bytes, tf.TensorSpec((None,), tf.string, name="image_bytes")),
        ("images", serve_images, tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")),
    ):
        archive.add_endpoint(name, function, input_signature=[spec])
    with atomic(path) as scratch:
        try:
            archive.write_out(scratch, verbose=False)
        except (tf.errors.ResourceExhaustedError, tf.errors.OutOfRangeError) as error:  # a full disk, a file too large
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
    return pathlib.Path(path)
