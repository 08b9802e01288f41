"""Rows of features as training and evaluation draw them, plain ones and views."""

import dataclasses

import keras
import numpy as np

from keras_lt.classifiers.chunks import classify
from keras_lt.features import FeatureSet, extract_features
from keras_lt.input_pipeline import Stream
from keras_lt.optimization import Recipe
from keras_lt.preprocessing import Preprocessing
from keras_lt.stages import Representation, learn_classifier
from tests.tiny_backbone import tiny

PREPROCESSING = Preprocessing(8, mean=(0.4,) * 3, std=(0.2,) * 3, augmentation="crop_flip")


def numbered_views():
    """Forty images of two classes in three views; a feature is 10 * row + view, of the plain image -1."""
    rows = 10.0 * np.arange(40, dtype=np.float32)[:, None, None]
    labels = np.repeat([0, 1], [30, 10])
    return FeatureSet(np.full((40, 1), -1.0, np.float32), labels, rows + np.arange(3, dtype=np.float32)[:, None])


def drawn_views(recipe, *, seed=0, start_step=0):
    batches = numbered_views().training_batches(Stream(recipe, np.array([30, 10]), seed, start_step))
    return [(*np.divmod(x.numpy()[:, 0].astype(int), 10), y.numpy()) for x, y in batches]


def test_training_draws_every_view_and_keeps_labels():
    recipe = Recipe(epochs=30, batch_size=8, sampler="class_balanced")
    drawn = drawn_views(recipe)
    assert len(drawn) == 30 * 5
    for rows, _, labels in drawn:
        np.testing.assert_array_equal(labels, numbered_views().labels[rows])
        assert np.bincount(labels).tolist() == [4, 4]
    views = np.concatenate([views for _, views, _ in drawn])
    assert abs(np.bincount(views) / len(views) - 1 / 3).max() < 0.05  # four standard deviations of 1,200 draws
    pairs = {(row, view) for rows, views, _ in drawn for row, view in zip(rows, views, strict=True)}
    assert len(pairs) > 100  # of 120: views do not go by rows


def test_a_drawn_view_depends_on_seed_and_position_alone():
    recipe = Recipe(epochs=3, batch_size=8)
    whole = drawn_views(recipe)
    np.testing.assert_array_equal(np.stack(drawn_views(recipe, start_step=4)), np.stack(whole[4:]))
    in_passes = drawn_views(dataclasses.replace(recipe, accumulate_steps=2), start_step=4)
    np.testing.assert_array_equal(np.concatenate(in_passes, axis=1), np.concatenate(whole[4:], axis=1))
    assert not np.array_equal(whole[0][1], drawn_views(recipe, seed=1)[0][1])


def test_only_training_sees_views(data):
    """NCM's means are of plain features; cRT learns from views, here of another brightness altogether."""
    backbone, dense = tiny(), keras.layers.Dense(3, name="classifier")
    backbone.name = "backbone"
    model = keras.Model(backbone.input, dense(backbone(backbone.input)))
    representation = Representation(model, PREPROCESSING, [])
    plain = {split: extract_features(backbone, data.splits[split], PREPROCESSING) for split in ("train", "val")}
    shifted = plain["train"].features[:, None] + np.arange(5, 7, dtype=np.float32)[:, None]
    viewed = {**plain, "train": dataclasses.replace(plain["train"], views=shifted)}
    recipe = Recipe(epochs=1, batch_size=16, sampler="class_balanced")

    def weights(name, features):
        learned = learn_classifier(name, representation, data, features=features, recipe=recipe)
        return np.concatenate([weight.ravel() for weight in learned.model.get_weights()])

    np.testing.assert_array_equal(weights("ncm", viewed), weights("ncm", plain))
    assert not np.allclose(weights("crt", viewed), weights("crt", plain))


def test_classify_is_argmax_over_chunks(monkeypatch):
    monkeypatch.setattr("keras_lt.classifiers.chunks.MOST_ROWS", 3)
    layer = keras.layers.Dense(4)
    rows = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    np.testing.assert_array_equal(classify(layer, rows), np.argmax(layer(rows), axis=-1))


def test_training_rows_keep_their_labels_and_follow_the_sampler():
    labels = np.repeat([0, 1], [30, 10])
    rows = np.arange(40, dtype=np.float32)[:, None]
    recipe = Recipe(epochs=2, batch_size=8, sampler="class_balanced")
    batches = FeatureSet(rows, labels).training_batches(Stream(recipe, np.array([30, 10])))
    drawn = [(x.numpy()[:, 0].astype(int), y.numpy()) for x, y in batches]
    assert len(drawn) == 10
    for x, y in drawn:
        np.testing.assert_array_equal(y, labels[x])
        assert np.bincount(y).tolist() == [4, 4]


def test_evaluation_rows_come_once_and_in_order():
    batches = FeatureSet(np.arange(5, dtype=np.float32)[:, None], np.arange(5)).evaluation_batches(batch_size=2)
    assert [y.numpy().tolist() for _, y in batches] == [[0, 1], [2, 3], [4]]


def test_views_are_drawn_with_class_weights():
    """A class of four weighs twice what one of eight does."""
    labels = np.repeat([0, 1], [4, 8])
    features = np.zeros((12, 3), np.float32)
    views = np.stack([features + 1, features + 2], axis=1)
    recipe = Recipe(epochs=1, batch_size=6, class_weights="inverse_frequency")
    batches = FeatureSet(features, labels, views).training_batches(Stream(recipe, np.array([4, 8])))
    drawn = list(batches.take(2).as_numpy_iterator())
    assert len(drawn) == 2
    for batch, ids, weights in drawn:
        assert set(batch.ravel()) <= {1, 2}
        np.testing.assert_allclose(weights / weights[ids.argmax()], np.where(ids == 0, 2, 1), rtol=1e-6)
