"""What a user's keras.json says decides nothing of the package's own."""

import json

import keras
import numpy as np
import pytest

from keras_lt.keras_settings import plain_settings
from keras_lt.losses import FEATURE_LOSSES, LOSSES
from keras_lt.methods import ride
from keras_lt.metrics import ShotAccuracy
from tests.programs import NOISE, run

TRAINING = (
    NOISE
    + """
import keras
from keras_lt import evaluate_classifier, extract_features
recipe = Recipe(epochs=1, batch_size=8, learning_rate=0.05)
made = learn_representation(data, backbone="tiny", recipe=recipe, augmentation="none")
features = {s: extract_features(made.backbone, data.splits[s], made.preprocessing) for s in data.splits}
crt = learn_classifier("crt", made, data, recipe=recipe, features=features)
print(made.backbone.dtype_policy.name, {w.dtype for w in made.model.weights}, features["test"].features.dtype)
scores = evaluate_classifier(crt.model, features["test"], data.groups)
print([round(float(v), 5) for v in features["test"].features.sum(1)], scores.accuracies)
print(keras.config.image_data_format(), keras.config.floatx(), keras.config.epsilon())
"""
)


def trained(home, **settings):
    """What a training prints in a process with these settings."""
    (home / "keras.json").write_text(json.dumps({"backend": "tensorflow", **settings}))
    done = run(TRAINING, environment={"KERAS_HOME": str(home), "TF_CPP_MIN_LOG_LEVEL": "3"})
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()[-3:]


def test_a_training_is_the_same_whatever_keras_json_says(tmp_path):
    other = trained(tmp_path, image_data_format="channels_first", floatx="float16", epsilon=0.01)
    plain = trained(tmp_path)
    assert other[:2] == plain[:2]
    assert plain[2] == "channels_last float32 1e-07"
    assert other[2] == "channels_first float16 0.01"  # the user's own are as they were


def test_the_users_precision_is_not_that_of_a_loss_or_a_metric():
    labels, logits = np.array([0, 1, 1]), np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)

    def values():
        metric = ShotAccuracy([500, 50, 5])
        metric.update_state(labels, logits)
        yield from (entry([5, 3, 1])(labels, logits) for entry in LOSSES.values())
        yield from (entry(labels, logits) for entry in FEATURE_LOSSES.values())
        yield ride.loss(labels, np.stack([logits, -logits]), [5, 3, 1], diversity=0.2)
        yield from metric.result().values()

    expected = [keras.ops.convert_to_numpy(value) for value in values()]
    keras.config.set_floatx("float64")
    try:
        for value, before in zip(values(), expected, strict=True):
            np.testing.assert_array_equal(value, before)
    finally:
        keras.config.set_floatx("float32")


def test_settings_come_back_also_after_an_error():
    before = keras.config.image_data_format(), keras.config.floatx(), keras.config.epsilon()
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(ValueError, match="ndim"), plain_settings():
            keras.layers.GlobalAveragePooling2D()(np.zeros((1, 2)))
        with plain_settings():
            assert keras.layers.GlobalAveragePooling2D()(np.zeros((1, 2, 2, 3))).shape == (1, 3)
        assert keras.config.image_data_format() == "channels_first"
    finally:
        keras.config.set_image_data_format(before[0])
    assert before == (keras.config.image_data_format(), keras.config.floatx(), keras.config.epsilon())
