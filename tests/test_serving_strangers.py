"""A SavedModel in the hands of those who know nothing of this package: other processes, engines and protocols.

The network has grouped convolutions, which the graph optimiser must not fuse with batch norm, bias or ReLU: without
oneDNN there is no kernel for that.
"""

import base64
import json

import grpc
import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
from tensorflow_serving.apis import get_model_metadata_pb2, model_pb2, predict_pb2, prediction_log_pb2

from keras_lt.backbones.fast_layers import GroupedConv2D
from keras_lt.classifiers import LearnableWeightScaling
from keras_lt.preprocessing import Preprocessing
from keras_lt.serving import ONNX, WARMUP, export_saved_model
from tests.conftest import some_of
from tests.programs import lines_of
from tests.serving_server import served

NAMES = ("cat", "dög", "eel")
ANSWERS = {"probabilities": (tf.float32, [-1, 3]), "logits": (tf.float32, [-1, 3]), "classes": (tf.string, [-1, 3])}
BYTES = {"image_bytes": (tf.string, [-1]), "ok": (tf.bool, [-1])}
ENDS = {  # signature -> input and outputs, dtype and shape
    "serving_default": {**BYTES, **ANSWERS},
    "images": {"images": (tf.uint8, [-1, -1, -1, 3]), **ANSWERS},
    "images_float": {"images": (tf.float32, [-1, -1, -1, 3]), **ANSWERS},
    "features": {**BYTES, "features": (tf.float32, [-1, 8])},
}
SETTINGS = {"image_size": 8, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "crop_fraction": 0.8}
TENSORFLOW_ALONE = """
import json, pathlib, sys
sys.modules["keras"] = sys.modules["keras_lt"] = None  # an import of them would fail
import numpy as np
import tensorflow as tf
"""
LOADED = """
served = tf.saved_model.load(path).signatures["serving_default"]
print(json.dumps(served(image_bytes=tf.constant(images))["logits"].numpy().tolist()))
"""
SESSION = """
with tf.compat.v1.Session(graph=tf.Graph()) as session:
    meta_graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], path)
    ends = meta_graph.signature_def["serving_default"]
    logits = session.run(ends.outputs["logits"].name, {ends.inputs["image_bytes"].name: images})
print(json.dumps(logits.tolist()))
"""
C_API = """
import json, pathlib, sys
import numpy as np
from tests.c_api import SavedModel
"""
SERVED_BY_C = """
model = SavedModel(path)
good = model.run("serving_default", {"image_bytes": np.array(images, object)})
bad = model.run("serving_default", {"image_bytes": np.array([images[0], images[1][:-20]], object)})
of_pixels = model.run("images", {"images": np.zeros((2, 9, 9, 3), np.uint8)})
assert "tensorflow" not in sys.modules
print(json.dumps(good["logits"].tolist()))
print(json.dumps({
    "signatures": model.signatures,
    "classes": [name.decode() for name in good["classes"][0]],
    "ok": bad["ok"].tolist(),
    "bad": np.isnan(bad["logits"]).tolist(),
    "pixels": of_pixels["probabilities"].sum(1).tolist(),
}))
"""


@pytest.fixture(scope="module")
def backbone():
    keras.utils.set_random_seed(0)
    x = images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(8, 3, padding="same")(x)
    for bias in (False, True):
        x = GroupedConv2D(8, 3, groups=4, padding="same", use_bias=bias)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    model = keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))
    model.set_weights([np.abs(w) + 0.1 if w.ndim == 1 else w for w in model.get_weights()])  # no identity
    return model


@pytest.fixture(scope="module")
def classifier():
    rng = np.random.default_rng(0)
    inputs = keras.Input((8,))
    return keras.Model(inputs, LearnableWeightScaling.from_dense(rng.normal(size=(8, 3)), rng.normal(size=3))(inputs))


@pytest.fixture(scope="module")
def exported(backbone, classifier, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "lws" / "1"
    options = {"classifier": classifier, "on_bad_request": "nan", "onnx": True}
    return export_saved_model(backbone, path, class_names=NAMES, **SETTINGS, **options)


@pytest.fixture(scope="module")
def request_images(exported):
    """Encoded images, which also lie beside the export for other processes."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 14, 3), np.uint8)
    encoded = [tf.io.encode_png(image).numpy() for image in pixels]
    for number, image in enumerate(encoded):
        (exported.parent / f"{number}.png").write_bytes(image)
    return encoded


@pytest.fixture(scope="module")
def logits(backbone, classifier, request_images):
    evaluate = Preprocessing(**SETTINGS).evaluate
    return classifier(backbone(tf.stack([evaluate(tf.constant(image)) for image in request_images]))).numpy()


def inputs_of(exported):
    return f"""
path = {str(exported)!r}
images = [file.read_bytes() for file in sorted(pathlib.Path(path).parent.glob("*.png"))]
"""


def test_tensorflow_alone_serves_it(exported, request_images, logits):
    for answered in lines_of(TENSORFLOW_ALONE, inputs_of(exported), LOADED, SESSION):
        np.testing.assert_allclose(json.loads(answered), logits, atol=1e-4)


@pytest.mark.parametrize("onednn", some_of([0, 1], 1))
def test_the_c_api_serves_it_with_and_without_onednn(exported, request_images, logits, onednn):
    switch = f'import os; os.environ["TF_ENABLE_ONEDNN_OPTS"] = "{onednn}"\n'
    answered, more = map(json.loads, lines_of(switch, C_API, inputs_of(exported), SERVED_BY_C, loads_tensorflow=True))
    np.testing.assert_allclose(answered, logits, atol=1e-4)
    assert more["classes"] == list(NAMES)
    assert more["ok"] == [True, False]
    assert more["bad"] == [[False] * 3, [True] * 3]
    np.testing.assert_allclose(more["pixels"], [1, 1], atol=1e-5)
    numbers = {
        signature: {name: (code, shape) for end in ends.values() for name, (_, code, shape) in end.items()}
        for signature, ends in more["signatures"].items()
    }
    assert numbers == {
        signature: {name: (dtype.as_datatype_enum, shape) for name, (dtype, shape) in ends.items()}
        for signature, ends in ENDS.items()
    }


@pytest.fixture(scope="module")
def stub(exported):
    with served(exported) as stub:
        yield stub


def asked(name, value, *, signature="", dtype=None, model="lws"):
    request = predict_pb2.PredictRequest(model_spec=model_pb2.ModelSpec(name=model, signature_name=signature))
    request.inputs[name].CopyFrom(tf.make_tensor_proto(value, dtype=dtype))
    return request


def test_a_client_learns_every_signature_from_the_server(stub):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "lws"
    response = stub.GetModelMetadata(request)
    assert (response.model_spec.name, response.model_spec.version.value) == ("lws", 1)
    found = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(found)
    described = {
        signature: {
            name: (tf.as_dtype(info.dtype), [size.size for size in info.tensor_shape.dim])
            for ends in (definition.inputs, definition.outputs)
            for name, info in ends.items()
        }
        for signature, definition in found.signature_def.items()
    }
    assert described == ENDS


def test_requests_over_grpc_are_answered_by_every_signature(stub, request_images, logits):
    values = {"image_bytes": request_images, "images": np.zeros((2, 9, 9, 3))}
    for signature, ends in ENDS.items():
        name = next(iter(ends))
        response = stub.Predict(asked(name, values[name], signature=signature, dtype=ends[name][0]))
        assert response.model_spec.signature_name == signature
        assert set(response.outputs) == set(ends) - {name}
        for output, tensor in response.outputs.items():
            dtype, shape = ends[output]
            assert tensor.dtype == dtype.as_datatype_enum
            assert [size.size for size in tensor.tensor_shape.dim] == [len(values[name]), *shape[1:]]
    answer = stub.Predict(asked("image_bytes", request_images))  # without a name it is serving_default
    np.testing.assert_allclose(tf.make_ndarray(answer.outputs["logits"]), logits, atol=1e-4)
    few = asked("image_bytes", request_images)
    few.output_filter.append("probabilities")
    assert list(stub.Predict(few).outputs) == ["probabilities"]


@pytest.mark.parametrize(
    ("name", "value", "options", "status"),
    [
        ("image_bytes", [b"x"], {"model": "cats"}, grpc.StatusCode.NOT_FOUND),
        ("image_bytes", [b"x"], {"signature": "pictures"}, grpc.StatusCode.FAILED_PRECONDITION),
        ("images", [b"x"], {}, grpc.StatusCode.INVALID_ARGUMENT),
        ("images", np.zeros((1, 9, 9, 3)), {"signature": "images"}, grpc.StatusCode.INVALID_ARGUMENT),  # float64
        ("images", np.zeros((9, 9, 3), np.uint8), {"signature": "images"}, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_requests_that_fit_no_signature_are_refused_over_grpc(stub, name, value, options, status):
    with pytest.raises(grpc.RpcError) as refused:
        stub.Predict(asked(name, value, **options))
    assert refused.value.code() == status


def test_a_corrupt_image_over_grpc_spoils_no_other(stub, request_images, logits):
    outputs = stub.Predict(asked("image_bytes", [request_images[0], b"no image"])).outputs
    assert tf.make_ndarray(outputs["ok"]).tolist() == [True, False]
    answered = tf.make_ndarray(outputs["logits"])
    np.testing.assert_allclose(answered[0], logits[0], atol=1e-4)
    assert np.isnan(answered[1]).all()


def test_rest_answers_row_by_row(stub, request_images, logits):
    """The row format: {"instances": [row, ...]} -> {"predictions": [row, ...]}, for outputs of one batch size."""
    instances = [{"image_bytes": {"b64": base64.b64encode(image).decode()}} for image in request_images]
    body = json.loads(json.dumps({"instances": instances}))
    batch = [base64.b64decode(row["image_bytes"]["b64"]) for row in body["instances"]]
    answer = stub.Predict(asked("image_bytes", batch))
    outputs = {name: tf.make_ndarray(tensor) for name, tensor in answer.outputs.items()}
    assert {len(rows) for rows in outputs.values()} == {len(instances)}
    rows = [{name: output[i].tolist() for name, output in outputs.items()} for i in range(len(instances))]
    predictions = json.loads(json.dumps({"predictions": rows}, default=bytes.decode))["predictions"]
    best = [row["classes"][int(np.argmax(row["probabilities"]))] for row in predictions]
    assert best == [NAMES[c] for c in logits.argmax(1)]
    assert all(row["ok"] for row in predictions)


def test_warmup_requests_are_answered(exported, stub):
    logs = map(
        prediction_log_pb2.PredictionLog.FromString, (r.numpy() for r in tf.data.TFRecordDataset(exported / WARMUP))
    )
    requests = [log.predict_log.request for log in logs]
    assert [request.model_spec.signature_name for request in requests] == list(ENDS)
    for request in requests:
        request.model_spec.name = "lws"  # as the server does with those that it finds beside a model
        assert stub.Predict(request).outputs


def test_onnx_runtime_gives_the_same_numbers(exported, backbone, classifier):
    images = np.random.default_rng(5).normal(size=(5, 8, 8, 3)).astype(np.float32)
    expected = classifier(backbone(images))
    session = onnxruntime.InferenceSession(exported / ONNX, providers=["CPUExecutionProvider"])
    logits, probabilities = session.run(["logits", "probabilities"], {"preprocessed": images})
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    np.testing.assert_allclose(probabilities, tf.nn.softmax(expected), atol=1e-5)
