import dataclasses

import keras
import numpy as np
import pytest

from keras_lt import features as features_module
from keras_lt.features import Features, classify, extract_features
from keras_lt.optimization import Recipe
from keras_lt.preprocessing import Preprocessing
from tests.tiny_backbone import tiny

PREPROCESSING = Preprocessing(8, mean=(0.4,) * 3, std=(0.2,) * 3, augmentation="crop_flip")


@pytest.fixture(scope="module")
def backbone():
    keras.utils.set_random_seed(0)
    return tiny()


def test_features_are_the_backbones_on_evaluation_images(data, backbone):
    extracted = extract_features(backbone, data.val, PREPROCESSING, batch_size=7)
    images = PREPROCESSING.evaluate(keras.ops.convert_to_tensor(data.val.images))
    np.testing.assert_allclose(extracted.features, backbone(images, training=False), atol=1e-5)
    np.testing.assert_array_equal(extracted.labels, data.val.labels)


def test_features_on_disk_are_taken_while_nothing_they_depend_on_changes(data, backbone, tmp_path):
    folder = tmp_path / "val"
    first = extract_features(backbone, data.val, PREPROCESSING, folder=folder)
    assert isinstance(first.features, np.memmap)
    written = (folder / "features.npy").stat().st_mtime_ns

    def is_taken(model, split, preprocessing):
        extract_features(model, split, preprocessing, folder=folder)
        nonlocal written
        before, written = written, (folder / "features.npy").stat().st_mtime_ns
        return written == before

    assert is_taken(backbone, data.val, PREPROCESSING)
    assert is_taken(backbone, data.val, dataclasses.replace(PREPROCESSING, augmentation="none"))  # plays no part
    assert not is_taken(backbone, data.val, dataclasses.replace(PREPROCESSING, std=(0.3,) * 3))
    assert not is_taken(backbone, data.val.subset(np.arange(30)[::-1]), PREPROCESSING)
    changed = keras.models.clone_model(backbone)
    changed.set_weights([weight + 0.1 for weight in backbone.get_weights()])
    assert not is_taken(changed, data.val, PREPROCESSING)


def test_classify_is_argmax_over_chunks(monkeypatch):
    monkeypatch.setattr(features_module, "CHUNK", 3)
    layer = keras.layers.Dense(4)
    rows = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    np.testing.assert_array_equal(classify(layer, rows), np.argmax(layer(rows), axis=-1))


def test_training_rows_keep_their_labels_and_follow_the_sampler():
    labels = np.repeat([0, 1], [30, 10])
    rows = np.arange(40, dtype=np.float32)[:, None]
    recipe = Recipe(epochs=2, batch_size=8, sampler="class_balanced")
    batches = Features(rows, labels).training_batches(recipe, class_counts=np.array([30, 10]), seed=0)
    drawn = [(x.numpy()[:, 0].astype(int), y.numpy()) for x, y in batches]
    assert len(drawn) == 10
    for x, y in drawn:
        np.testing.assert_array_equal(y, labels[x])
        assert np.bincount(y).tolist() == [4, 4]


def test_evaluation_rows_come_once_and_in_order():
    batches = Features(np.arange(5, dtype=np.float32)[:, None], np.arange(5)).evaluation_batches(batch_size=2)
    assert [y.numpy().tolist() for _, y in batches] == [[0, 1], [2, 3], [4]]
