"""Writes the SavedModel: signatures, and the files beside them."""

import errno
import os
import pathlib
import types
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_lt.arguments import checked
from keras_lt.backbones import folded as folded_adapters
from keras_lt.classifiers import dense_of, fold
from keras_lt.compat import versions
from keras_lt.datasets.long_tailed import IMAGENET_MEAN, IMAGENET_STD, check_class_names
from keras_lt.extras import library
from keras_lt.files import atomic, check_loadable, expanded, write_json, write_text
from keras_lt.forward import traced
from keras_lt.input_pipeline import mapped
from keras_lt.keras_settings import plain_settings
from keras_lt.preprocessing import Preprocessing
from keras_lt.registry import check_choice, check_numbers
from keras_lt.serving.onnx_model import import_onnx, write_onnx
from keras_lt.serving.priors import logit_offset
from keras_lt.stages import join
from keras_lt.work_folder import SAVED_MODEL_FILES

ON_BAD_REQUEST = ("error", "nan")
LABELS = "assets.extra/labels.txt"  # a folder for files that the graph does not read
MODEL_CARD = "README.md"
MADE_BY = "made_by.json"
ONNX = "assets.extra/model.onnx"
WARMUP = "assets.extra/tf_serving_warmup_requests"  # where TensorFlow Serving looks for it


@checked
@plain_settings(dtype_policy="float32")
def export_saved_model(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    class_names: Sequence[str],
    image_size: int = 0,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    channel_order: str = "rgb",
    crop_fraction: float = 1.0,
    resize: str = "crop",
    interpolation: str = "bilinear",
    classifier: keras.Model | None = None,
    target_prior: npt.ArrayLike | None = None,
    source_prior: npt.ArrayLike | None = None,
    temperature: float = 1.0,
    on_bad_request: str = "error",
    model_card: str = "",
    onnx: bool = False,
    made_by: Mapping | None = None,
) -> pathlib.Path:
    """Writes a SavedModel that decodes, preprocesses as in evaluation, and classifies.

    Signatures, all of any batch size:
      serving_default: `image_bytes`, strings [B], each a JPEG, PNG, BMP or GIF.
      images: `images`, uint8 [B, H, W, 3] in RGB, of one size.
      images_float: `images`, float32 [B, H, W, 3] in RGB, 0 to 255, of one size.
      features: `image_bytes` as above; where a classifier is given.
    The first three give `probabilities` and `logits`, float32 [B, C], and `classes`, strings [B, C], the labels in
    their order; the last `features`, float32 [B, D]. A model of feature vectors has one signature:
      serving_default: `features`, float32 [B, D].

    Beside them lie `LABELS`, one per line; `WARMUP` requests, where tensorflow-serving-api is installed; and what is
    asked for. The folder appears whole or not at all.

    >>> path = keras_lt.export_saved_model(
    ...     classifier.backbone,
    ...     "export/tau_norm/1",
    ...     classifier=classifier.model,
    ...     class_names=data.class_names,
    ...     **representation.preprocessing.evaluation_settings(),
    ... )
    >>> (path / "assets.extra/labels.txt").read_text().splitlines()[-1]
    'Ankle boot'

    Args:
      model: preprocessed images [B, S, S, 3], or feature vectors [B, D] -> logits [B, C], or with a classifier ->
        features [B, D]. LoRA's matrices are folded into its weights.
      path: the version's folder, such as `export/lws/1`; replaced where it holds a SavedModel and nothing else.
      class_names: [C].
      image_size: S, pixels; 0 of a model of feature vectors, for which the next ones have no meaning either.
      mean, std, channel_order, crop_fraction, resize, interpolation: as in `preprocessing.Preprocessing`.
      classifier: features [B, D] -> logits [B, C]; one dense layer where it is an affine map.
      target_prior, source_prior: as in `logit_offset`; logits and probabilities are then for that class distribution.
      temperature: what logits are divided by before that, as `fit_temperature` finds it.
      on_bad_request: what an image that cannot be decoded does: "error" refuses the request; "nan" makes its numbers
        NaN and adds the output `ok`, bool [B], so that the rest of the batch is served.
      model_card: text of README.md; empty writes none.
      made_by: what else the model depends on, kept as `MADE_BY` with the versions of the libraries.
      onnx: also write an ONNX model, preprocessed images -> logits and probabilities, checked against this one.
    Returns: `path`.
    Raises:
      ValueError: the model does not give one logit per class name, a prior that is none, or Keras runs on another
        backend than TensorFlow.
      ImportError: onnx without its packages.
    """
    takes = tuple(getattr(model, "input_shape", (None, image_size, image_size, 3)))[1:]
    check_loadable(path)
    _check_request(takes, image_size=image_size, on_bad_request=on_bad_request)
    class_names = tuple(map(str, class_names))
    check_class_names(class_names)
    _check_logits(classifier or model, len(class_names))
    check_numbers(temperature=temperature, at_least=1e-30)
    offset = logit_offset(target_prior, source_prior, classes=len(class_names))
    if onnx:
        import_onnx()
    model = folded_adapters(model)
    backbone, head = (model, _folded(classifier, temperature, offset)) if classifier else (None, None)
    network = join(backbone, head) if classifier else _shifted(model, temperature, offset)
    if image_size:
        normalization = {"mean": mean, "std": std, "channel_order": channel_order}
        resizing = {"crop_fraction": crop_fraction, "resize": resize, "interpolation": interpolation}
        preprocessing = Preprocessing(image_size=image_size, **normalization, **resizing)
        signatures = _signatures(head or network, backbone, preprocessing, class_names, on_bad_request)
    else:
        signatures = _signature_of_features(network, class_names, width=takes[0])
    with atomic(path, replaces=SAVED_MODEL_FILES) as scratch:
        try:
            _write(network, signatures, scratch)
            (scratch / LABELS).parent.mkdir()
            (scratch / LABELS).write_text("".join(f"{name}\n" for name in class_names), "utf-8")
            if made_by is not None:
                write_json(scratch / MADE_BY, {**made_by, "versions": versions()})
            if model_card:
                write_text(scratch / MODEL_CARD, model_card)
            if onnx:
                write_onnx(network, scratch / ONNX, shape=(image_size, image_size, 3) if image_size else takes)
            write_warmup(scratch, {name: spec for name, (_, spec) in signatures.items()}, image_size=image_size)
        except (tf.errors.ResourceExhaustedError, tf.errors.OutOfRangeError) as error:  # a full disk, a file too large
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
    return expanded(path)


def _write(network: keras.Model, signatures: Mapping[str, tuple[Callable, tf.TensorSpec]], path: pathlib.Path):
    """Writes the graph. Each function is traced once, where Keras's `ExportArchive` does so two or three times."""
    functions = {
        name: tf.function(function, input_signature=[spec], autograph=False).get_concrete_function()
        for name, (function, spec) in signatures.items()
    }
    kinds = ("variables", "trainable_variables", "non_trainable_variables")
    weights = {kind: [variable.value for variable in getattr(network, kind)] for kind in kinds}
    tf.saved_model.save(tf.train.Checkpoint(**weights, **functions), path, signatures=functions)


def _check_request(takes: tuple[int, ...], *, image_size: int, on_bad_request: str):
    """Raises ValueError for what cannot be served, of a model that takes batches of a shape."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "SavedModels are written on the TensorFlow backend: KERAS_BACKEND=tensorflow. "
            f"Received: KERAS_BACKEND={keras.backend.backend()}"
        )
    check_choice(ON_BAD_REQUEST, on_bad_request=on_bad_request)
    if (len(takes) == 1) == (image_size > 0):
        raise ValueError(
            "image_size is of a model of images, [B, S, S, 3], and not of one of features, [B, D]. "
            f"Received: image_size={image_size}, a model of {(None, *takes)}"
        )
    if on_bad_request != "error" and not image_size:
        raise ValueError(f"A model of features decodes no image. Received: on_bad_request={on_bad_request}")


def _check_logits(model: keras.Model, classes: int):
    """Raises ValueError for a model of other classes, or one that ends in probabilities, which logits give here."""
    if model.output_shape[-1] != classes:
        raise ValueError(
            "The model must give one logit per class name. "
            f"Received: output shape {model.output_shape}, {classes} class names"
        )
    last = model
    while getattr(last, "outputs", None):  # of a subclassed model the last layer is not known
        last = last.layers[-1]
    ends_in = keras.activations.softmax if isinstance(last, keras.layers.Softmax) else getattr(last, "activation", None)
    if ends_in in (keras.activations.softmax, keras.activations.sigmoid):
        raise ValueError(f"The model must give logits: leave out its last {ends_in.__name__}. Received: {last.name}")


def _signatures(
    network: keras.layers.Layer,
    backbone: keras.Model | None,
    preprocessing: Preprocessing,
    class_names: Sequence[str],
    on_bad_request: str,
) -> dict[str, tuple[Callable, tf.TensorSpec]]:
    """Signature -> its function and the one input that it takes.

    Args:
      network: preprocessed images -> logits, or of a backbone's features.
    """
    size = preprocessing.image_size
    one = tf.TensorSpec((size, size, 3), tf.float32)
    batch = tf.TensorSpec((None, size, size, 3), tf.float32)

    features_of = traced(backbone, (size, size, 3)) if backbone else None

    def logits_of(images, training):
        return network(features_of(images) if backbone else images, training=training)

    classify = _classify(logits_of, class_names, batch)

    def embed(images):
        return {"features": features_of(images)}

    def of_pixels(images):
        return classify(preprocessing.evaluate(images))

    def of_bytes(answer):
        def serve(image_bytes):
            if on_bad_request == "error":
                return answer(tf.map_fn(preprocessing.evaluate, image_bytes, fn_output_signature=one))
            images, ok = _readable(image_bytes, preprocessing)
            return {**{name: _where(ok, rows) for name, rows in answer(images).items()}, "ok": ok}

        return serve

    encoded = tf.TensorSpec((None,), tf.string, name="image_bytes")
    pixels = {dtype: tf.TensorSpec((None, None, None, 3), dtype, name="images") for dtype in (tf.uint8, tf.float32)}
    signatures = {
        "serving_default": (of_bytes(classify), encoded),
        "images": (of_pixels, pixels[tf.uint8]),
        "images_float": (of_pixels, pixels[tf.float32]),
    }
    return signatures | ({"features": (of_bytes(embed), encoded)} if backbone else {})


def _signature_of_features(
    network: keras.Model, class_names: Sequence[str], *, width: int
) -> dict[str, tuple[Callable, tf.TensorSpec]]:
    """The same of a network that takes features [B, width]."""
    spec = tf.TensorSpec((None, width), tf.float32, name="features")
    classify = _classify(network, class_names, spec)

    def of_features(features):
        return classify(features)

    return {"serving_default": (of_features, spec)}


def _classify(network: Callable, class_names: Sequence[str], spec: tf.TensorSpec) -> Callable:
    """What the network takes -> what is answered; traced once, for all signatures."""
    labels = tf.constant(list(class_names))

    @tf.function(input_signature=[spec], autograph=False)
    def classify(inputs):
        logits = tf.cast(network(inputs, training=False), tf.float32)
        classes = tf.broadcast_to(labels, tf.shape(logits))  # a row per example: REST answers row by row
        return {"probabilities": tf.nn.softmax(logits), "logits": logits, "classes": classes}

    return classify


def _readable(image_bytes: tf.Tensor, preprocessing: Preprocessing) -> tuple[tf.Tensor, tf.Tensor]:
    """Preprocessed images [B, S, S, 3], and which could be decoded, bool [B]; the others are zeros.

    A graph cannot catch an error, but a data set of one image can leave it out and go on to the next, the zeros.
    """
    size = preprocessing.image_size

    def one(encoded):
        image = mapped(tf.data.Dataset.from_tensors(encoded), lambda image: (preprocessing.evaluate(image), True))
        spare = tf.data.Dataset.from_tensors((tf.zeros((size, size, 3)), False))
        return image.ignore_errors().concatenate(spare).take(1).get_single_element()

    signature = tf.TensorSpec((size, size, 3), tf.float32), tf.TensorSpec((), tf.bool)
    return tf.map_fn(one, image_bytes, fn_output_signature=signature)


def _where(ok: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Rows [B, ...], those of numbers NaN where not ok."""
    return tf.where(ok[:, tf.newaxis], rows, np.nan) if rows.dtype.is_floating else rows


def _folded(classifier: keras.Model, temperature: float, offset: np.ndarray) -> keras.layers.Layer:
    """A classifier with logits / temperature + offset [C], as one dense layer where it is an affine map."""
    layers = [layer for layer in classifier.layers if not isinstance(layer, keras.layers.InputLayer)]
    weights = fold(layers[0]) if len(layers) == 1 else None
    if weights is None:
        return _shifted(classifier, temperature, offset)
    kernel, bias = weights
    return dense_of(kernel / temperature, bias / temperature + offset, name="dense")


def _shifted(model: keras.Model, temperature: float, offset: np.ndarray) -> keras.Model:
    """A model with logits / temperature + offset [C]."""
    if temperature == 1 and not offset.any():
        return model
    inputs = keras.Input(model.input_shape[1:])
    return keras.Model(inputs, model(inputs) / temperature + offset)


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
