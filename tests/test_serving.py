import functools
import io
import sys

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from keras_lt.classifiers import CosineDense, LearnableWeightScaling
from keras_lt.preprocessing import Preprocessing
from keras_lt.serving import LABELS, MODEL_CARD, ONNX, WARMUP, export_saved_model

NAMES = ("cat", "dog", "eel")
SETTINGS = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "channel_order": "bgr", "crop_fraction": 0.8}
TARGET, SOURCE = (0.5, 0.3, 0.2), (0.1, 0.1, 0.8)


@pytest.fixture(scope="module")
def backbone():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.GlobalMaxPooling2D()])


@pytest.fixture(scope="module")
def lws():
    rng = np.random.default_rng(0)
    layer = LearnableWeightScaling.from_dense(rng.normal(size=(4, 3)), rng.normal(size=3))
    layer.scales.assign([1, 2, 3])
    return on_features(layer)


@pytest.fixture(scope="module")
def exported(backbone, lws, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "lws" / "1"
    assert export_saved_model(backbone, path, class_names=NAMES, image_size=8, classifier=lws, **SETTINGS) == path
    return path


@pytest.fixture(scope="module")
def cosine():
    keras.utils.set_random_seed(1)
    return on_features(CosineDense(3, scale=4.0))


@pytest.fixture(scope="module")
def lenient(backbone, cosine, tmp_path_factory):
    """What goes on after a damaged image, for classes as frequent as TARGET; its head is no affine map."""
    path = tmp_path_factory.mktemp("export") / "cosine" / "1"
    options = {"target_prior": TARGET, "source_prior": SOURCE, "on_bad_request": "nan", "model_card": "# Card\n"}
    return export_saved_model(
        backbone, path, class_names=NAMES, image_size=8, classifier=cosine, onnx=True, **options, **SETTINGS
    )


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 20, 14, 3), np.uint8)


def on_features(layer):
    inputs = keras.Input((4,))
    return keras.Model(inputs, layer(inputs))


def preprocessed(images):
    preprocessing = Preprocessing(8, **SETTINGS)
    return tf.stack([preprocessing.evaluate(tf.constant(image)) for image in images])


def encoded(images, encode=tf.io.encode_png):
    return [encode(image).numpy() for image in images]


@functools.cache
def load(path):
    return tf.saved_model.load(path)


def signature(path, name):
    return load(path).signatures[name]


@pytest.mark.versions
def test_encoded_images_get_the_numbers_of_evaluation(backbone, lws, exported, images):
    answer = signature(exported, "serving_default")(image_bytes=tf.constant(encoded(images)))
    logits = lws(backbone(preprocessed(images)))
    np.testing.assert_allclose(answer["logits"], logits, atol=1e-5)
    np.testing.assert_allclose(answer["probabilities"], tf.nn.softmax(logits), atol=1e-6)
    assert answer["classes"].numpy().tolist() == [[name.encode() for name in NAMES]] * 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF"])
def test_every_format_is_decoded(exported, kind):
    grey = np.full((20, 14, 3), 100, np.uint8)  # no format loses anything of it
    file = io.BytesIO()
    PIL.Image.fromarray(grey).save(file, kind)
    answer = signature(exported, "serving_default")(image_bytes=tf.constant([file.getvalue()]))
    plain = signature(exported, "images")(images=grey[np.newaxis])
    np.testing.assert_allclose(answer["logits"], plain["logits"], atol=1e-5)


def test_pixels_of_any_size_get_the_same(backbone, lws, exported, images):
    for name, dtype in (("images", np.uint8), ("images_float", np.float32)):
        answer = signature(exported, name)(images=images.astype(dtype))
        np.testing.assert_allclose(answer["logits"], lws(backbone(preprocessed(images))), atol=1e-5)


@pytest.mark.versions
def test_features_are_the_backbones(backbone, exported, images):
    answer = signature(exported, "features")(image_bytes=tf.constant(encoded(images)))
    assert list(answer) == ["features"]
    np.testing.assert_allclose(answer["features"], backbone(preprocessed(images)), atol=1e-5)


@pytest.mark.parametrize("count", [1, 5])
def test_batches_have_any_size(exported, lenient, images, count):
    batch = tf.constant(encoded(images)[:1] * count, tf.string)
    for path in (exported, lenient):
        answer = signature(path, "serving_default")(image_bytes=batch)
        assert {name: tuple(rows.shape[:1]) for name, rows in answer.items()} == dict.fromkeys(answer, (count,))


@pytest.mark.versions
def test_a_linear_head_is_served_as_one_dense_layer(exported):
    shapes = sorted(tuple(variable.shape) for variable in load(exported).variables)
    assert shapes == [(3,), (3, 3, 3, 4), (4,), (4, 3)]  # of the convolution and of one dense layer: no scales


def test_a_model_on_images_needs_no_classifier(backbone, lws, images, tmp_path):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, lws(backbone(inputs)))
    path = export_saved_model(
        model, tmp_path / "1", class_names=NAMES, image_size=8, target_prior=TARGET, source_prior=SOURCE, **SETTINGS
    )
    served = load(path).signatures
    assert set(served) == {"serving_default", "images", "images_float"}
    expected = model(preprocessed(images)) + np.log(np.divide(TARGET, SOURCE))
    np.testing.assert_allclose(served["images"](images=images)["logits"], expected, atol=1e-5)


def test_a_target_prior_weighs_the_probabilities(backbone, cosine, lenient, images):
    """p(c|x) in use is proportional to p(c|x) in training times how much more frequent c has become."""
    weighed = tf.nn.softmax(cosine(backbone(preprocessed(images)))) * np.divide(TARGET, SOURCE)
    answer = signature(lenient, "serving_default")(image_bytes=tf.constant(encoded(images)))
    expected = weighed / tf.reduce_sum(weighed, 1, keepdims=True)
    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-5)


def test_a_target_prior_is_folded_into_the_bias(backbone, lws, images, tmp_path):
    path = export_saved_model(
        backbone, tmp_path / "1", class_names=NAMES, image_size=8, classifier=lws, target_prior=TARGET, **SETTINGS
    )
    expected = lws(backbone(preprocessed(images))) + np.log(np.multiply(TARGET, 3))  # a balanced source: 1/3 each
    np.testing.assert_allclose(signature(path, "images")(images=images)["logits"], expected, atol=1e-5)
    assert len(load(path).variables) == 4


def damaged(images):
    jpeg, png = encoded(images[:1], tf.io.encode_jpeg)[0], encoded(images[:1])[0]
    return {"cut_jpeg": jpeg[: len(jpeg) // 2], "cut_png": png[: len(png) // 2], "text": b"no image", "empty": b""}


@pytest.mark.parametrize("kind", ["cut_jpeg", "cut_png", "text", "empty"])
def test_a_damaged_image_refuses_the_request(exported, images, kind):
    batch = [encoded(images)[0], damaged(images)[kind]]
    with pytest.raises(tf.errors.InvalidArgumentError):
        signature(exported, "serving_default")(image_bytes=tf.constant(batch))


@pytest.mark.parametrize(
    ("name", "numbers"), [("serving_default", ("logits", "probabilities")), ("features", ("features",))]
)
def test_or_it_gets_nan_and_the_others_are_served(lenient, images, name, numbers):
    good = encoded(images)
    served = signature(lenient, name)
    alone = served(image_bytes=tf.constant(good))
    mixed = served(image_bytes=tf.constant([good[0], *damaged(images).values(), *good[1:]]))
    assert mixed["ok"].numpy().tolist() == [True] + [False] * 4 + [True] * 2
    for output in numbers:
        np.testing.assert_allclose(mixed[output][mixed["ok"]], alone[output], atol=1e-6)
        assert np.isnan(mixed[output][~mixed["ok"]]).all()


def test_labels_and_what_is_asked_for_lie_beside(exported, lenient):
    for path in (exported, lenient):
        assert (path / LABELS).read_text().split() == list(NAMES)
    assert (lenient / MODEL_CARD).read_text() == "# Card\n"
    assert (lenient / ONNX).exists()
    assert not (exported / MODEL_CARD).exists()
    assert not (exported / ONNX).exists()


def test_without_the_serving_package_warmup_is_left_out(backbone, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis.model_pb2", None)
    path = export_saved_model(backbone, tmp_path / "1", class_names="abcd", image_size=8)
    assert (path / "saved_model.pb").exists()
    assert not (path / WARMUP).exists()


ENDING = {
    "activation": keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")]),
    "layer": keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Softmax()]),
}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_names": NAMES[:2]}, r"one logit per class name.*2 class names"),
        ({"class_names": ("a", "b", "a ")}, r"Class names must differ.*Received: 'a' and 'a '"),
        ({"class_names": ("a\nb", "c", "d")}, r"one line of text\. Received: 'a\\nb'"),
        ({"classifier": ENDING["activation"]}, r"must give logits: leave out its last softmax\. Received: "),
        ({"classifier": ENDING["layer"]}, r"must give logits: leave out its last softmax\. Received: "),
        ({"on_bad_request": "skip"}, r"on_bad_request must be one of.*'skip'"),
        ({"target_prior": (0.5, 0.5)}, r"target_prior must be 3 probabilities"),
        ({"target_prior": TARGET, "source_prior": (1, 0, 0)}, r"source_prior must be 3 .* above 0"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(backbone, lws, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        export_saved_model(
            backbone, tmp_path / "1", **{"class_names": NAMES, "image_size": 8, "classifier": lws, **options}
        )
    assert not list(tmp_path.iterdir())


def test_onnx_without_its_packages_names_the_extra(backbone, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"pip install 'keras_lt\[onnx\]'"):
        export_saved_model(backbone, tmp_path / "1", class_names="abcd", image_size=8, onnx=True)


def test_an_onnx_model_of_other_numbers_is_not_kept(backbone, tmp_path, monkeypatch):
    monkeypatch.setattr("keras_lt.serving.onnx_model.TOLERANCE", -1.0)
    with pytest.raises(RuntimeError, match="differ from TensorFlow's"):
        export_saved_model(backbone, tmp_path / "1", class_names="abcd", image_size=8, onnx=True)
    assert not list(tmp_path.iterdir())


def test_a_net_that_onnx_cannot_have_is_refused_in_a_line(tmp_path):
    layers = [keras.layers.Conv2D(4, 3, groups=2), keras.layers.GlobalAveragePooling2D()]
    net = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 1), *layers])
    with pytest.raises(ValueError, match=r"an operation that no ONNX model can have\. Received: .{9,200}$"):
        export_saved_model(net, tmp_path / "1", class_names="abcd", image_size=8, onnx=True)
    assert not list(tmp_path.iterdir())
