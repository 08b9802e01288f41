"""Every layer that adapts to training features takes the same, and refuses the same in a line."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lt import classifiers
from keras_lt.classifiers import fresh_dense

D, C = 4, 3
LABELS = np.repeat(np.arange(C), (6, 3, 2))
FEATURES = (np.eye(C, D)[LABELS] + np.random.default_rng(0).normal(size=(len(LABELS), D))).astype(np.float32)
LAYERS = {
    "ncm": lambda: classifiers.NearestClassMean(C),
    "class means": lambda: classifiers.ClassMeanCosine(C, 25.0, kernel_initializer="zeros"),
    "logit adjustment": lambda: classifiers.LogitAdjustment(fresh_dense(D, C, seed=0)),
    "of a head that is not built": lambda: classifiers.LogitAdjustment(keras.layers.Dense(C)),
    "disalign": lambda: classifiers.DisAlign(C),
}
every_layer = pytest.mark.parametrize("kind", LAYERS)


def test_these_are_all():
    layers = (getattr(classifiers, name) for name in classifiers.__all__)
    adapting = {layer for layer in layers if hasattr(layer, "adapt")}
    assert adapting == {type(make()) for make in LAYERS.values()}


@every_layer
def test_it_is_built_where_it_is_not_yet_and_takes_arrays_in_any_form(kind):
    layer = LAYERS[kind]()
    layer.build((None, D))
    layer.adapt(FEATURES, LABELS)
    expected = layer.get_weights()
    for features, labels in (
        (FEATURES, LABELS[:, np.newaxis]),
        (FEATURES.tolist(), LABELS.tolist()),
        (tf.constant(FEATURES), tf.constant(LABELS, tf.uint8)),
    ):
        other = LAYERS[kind]()
        other.adapt(features, labels)
        for ours, theirs in zip(other.get_weights(), expected, strict=True):
            if "not built" not in kind or ours.ndim == 1:  # its kernel is drawn anew
                np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@every_layer
@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (FEATURES, LABELS + 1, r"whole numbers in \[0, 3\); .* Received: int64, from 1 to 3"),
        (FEATURES, LABELS - 1, r"whole numbers in \[0, 3\)"),
        (FEATURES, LABELS[:5], r"one label per example.*11 examples and labels of shape \(5,\)"),
        (FEATURES, np.array(["a", "b", "c"])[LABELS], "whole numbers .*Received: <U1, "),
        (FEATURES, np.eye(C)[LABELS], "one label per example"),
        (FEATURES[:, 0], LABELS, "features must be"),
        (FEATURES[:, :2], LABELS, "width that the layer was built for, 4. Received: 2"),
    ],
)
def test_what_does_not_fit_is_refused(kind, features, labels, message):
    layer = LAYERS[kind]()
    layer.build((None, D))
    with pytest.raises(ValueError, match=message):
        layer.adapt(features, labels)


@every_layer
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_it_is_as_trainable_once_it_is_saved(kind, suffix, tmp_path):
    layer = LAYERS[kind]()
    layer.adapt(FEATURES, LABELS)
    keras.Sequential([keras.Input((D,)), layer]).save(tmp_path / f"model{suffix}")
    restored = keras.models.load_model(tmp_path / f"model{suffix}")
    np.testing.assert_array_equal(restored(FEATURES), layer(FEATURES))
    assert [weight.shape for weight in restored.trainable_weights] == [
        weight.shape for weight in layer.trainable_weights
    ]


@pytest.mark.parametrize("dtype", ["bfloat16", "mixed_float16"])
def test_a_prior_in_half_precision_moves_the_logits_of_a_head_in_float32(dtype):
    layer = classifiers.LogitAdjustment(fresh_dense(D, C, seed=0), dtype=dtype)
    layer.adapt(FEATURES, LABELS)
    shift = np.asarray(fresh_dense(D, C, seed=0)(FEATURES)) - np.asarray(layer(FEATURES))
    np.testing.assert_allclose(shift, np.broadcast_to(np.log([6 / 11, 3 / 11, 2 / 11]), shift.shape), rtol=0.01)


@pytest.mark.parametrize("units", [0, -1, 2.5, "3", None])
@pytest.mark.parametrize("kind", [classifiers.TauNormalizedDense, classifiers.LearnableWeightScaling])
def test_classes_are_a_whole_number(kind, units):
    with pytest.raises(ValueError, match=rf"units must be the number of classes.*Received: units={units!r}"):
        kind(units)


def test_a_scale_or_radius_that_leaves_nothing_is_refused():
    for scale in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=f"scale={scale}"):
            classifiers.CosineDense(C, scale)
    with pytest.raises(ValueError, match=r"radius=-1\.0"):
        classifiers.MaxNormDense(C, -1.0)
