"""Cosines to directions of the classes."""

import numpy as np
import tensorflow as tf

from keras_lt.classifiers import CLASSIFIERS, CosineDense
from tests.test_classifiers import FEATURES, HEAD, C, D, built


def test_cosine_logits_by_hand():
    layer = CosineDense(2, scale=10.0)
    layer.build((None, 2))
    layer.kernel.assign([[3.0, 0.0], [4.0, 0.0]])  # the second class has no direction
    np.testing.assert_allclose(layer(np.array([[8.0, 6.0]])), [[9.6, 0.0]], rtol=1e-6)


def test_plain_cosines_ignore_norms():
    layer = CosineDense(C, scale=1.0)
    cosines = layer(FEATURES)
    assert np.abs(cosines).max() <= 1 + 1e-6
    layer.kernel.assign(layer.kernel * 7.0)
    np.testing.assert_allclose(layer(FEATURES * 3), cosines, atol=1e-6)


def test_a_zero_feature_does_not_spoil_the_cosine_s_gradient():
    layer = built("cosine")
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(np.vstack([FEATURES[:1], np.zeros((1, D), np.float32)])) ** 2)
    assert np.isfinite(tape.gradient(loss, layer.kernel.value)).all()


def test_cosine_candidate_is_drawn_from_the_seed():
    kernels = [CLASSIFIERS["cosine"](HEAD, seed=seed)[0][1].kernel.numpy() for seed in (0, 0, 1)]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert not np.isclose(kernels[0], kernels[2]).all()
