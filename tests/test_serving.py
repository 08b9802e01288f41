import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lt.preprocessing import Preprocessing
from keras_lt.serving import export_saved_model

NAMES = ("cat", "dog", "eel")
SETTINGS = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "channel_order": "bgr", "crop_fraction": 0.8}


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    layers = [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.Flatten(), keras.layers.Dense(3)]
    return keras.Sequential(layers)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "lws" / "1"
    assert export_saved_model(model, path, class_names=NAMES, image_size=8, **SETTINGS) == path
    return path


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 20, 14, 3), np.uint8)


def expected_logits(model, images):
    preprocessing = Preprocessing(8, **SETTINGS)
    return model.predict(tf.stack([preprocessing.evaluate(tf.constant(image)) for image in images]), verbose=0)


def test_encoded_images_get_the_numbers_of_evaluation(model, exported, images):
    served = tf.saved_model.load(exported).signatures["serving_default"]
    answer = served(image_bytes=tf.stack([tf.io.encode_png(image) for image in images]))
    logits = expected_logits(model, images)
    np.testing.assert_allclose(answer["logits"], logits, atol=1e-5)
    np.testing.assert_allclose(answer["probabilities"], tf.nn.softmax(logits), atol=1e-6)
    assert answer["classes"].numpy().tolist() == [[name.encode() for name in NAMES]] * 3


def test_raw_images_of_any_size_get_the_same(model, exported, images):
    served = tf.saved_model.load(exported).signatures["images"]
    np.testing.assert_allclose(served(images=images)["logits"], expected_logits(model, images), atol=1e-5)


def test_a_process_without_keras_serves_it(exported, images):
    path = exported.parent / "image.png"
    path.write_bytes(tf.io.encode_png(images[0]).numpy())
    code = (
        "import json, sys; sys.modules['keras'] = None\n"
        "import tensorflow as tf\n"
        f"served = tf.saved_model.load({str(exported)!r}).signatures['serving_default']\n"
        f"answer = served(image_bytes=tf.constant([open({str(path)!r}, 'rb').read()]))\n"
        "print(json.dumps(answer['probabilities'].numpy().tolist()))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    served = tf.saved_model.load(exported).signatures["images"]
    np.testing.assert_allclose(json.loads(output), served(images=images[:1])["probabilities"], atol=1e-6)


def test_a_model_with_other_classes_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match=r"one logit per class name.*2 class names"):
        export_saved_model(model, tmp_path / "1", class_names=NAMES[:2], image_size=8)
    assert not (tmp_path / "1").exists()
