"""What both stages refuse before they look at images or train."""

import dataclasses

import keras
import numpy as np
import pytest

import keras_lt
from keras_lt import Recipe, learn_representation
from keras_lt.datasets import Split


def test_one_class_is_nothing_to_learn(data):
    one = keras_lt.FeatureSet(np.ones((4, 3), "f"), np.zeros(4, int))
    with pytest.raises(ValueError, match="two classes or more"):
        keras_lt.learn_classifier("ncm", features={"train": one, "val": one})
    of_one = {name: split.subset(np.flatnonzero(split.labels == 0)) for name, split in data.splits.items()}
    alone = dataclasses.replace(data, **of_one, class_names=("dark",), listed_counts=None)
    with pytest.raises(ValueError, match="two classes or more"):
        keras_lt.learn_representation(alone)


def test_an_epoch_without_a_full_batch_is_refused_before_images_are_looked_at(data, tiny_backbone, monkeypatch):
    monkeypatch.setattr("keras_lt.stages.representation.screen", None)
    with pytest.raises(ValueError, match=r"at least one full batch.*batch_size=512, 150"):
        learn_representation(data, backbone=tiny_backbone, recipe=Recipe(batch_size=512))


def test_a_file_that_is_no_image_is_named_before_any_training(data, tmp_path, tiny_backbone):
    paths = np.array([str(tmp_path / f"{number}.png") for number in range(3)])
    for path in paths[:2]:
        keras.utils.save_img(path, np.zeros((8, 8, 3)))
    (tmp_path / "2.png").write_text("<html>")
    broken = dataclasses.replace(data, test=Split(paths, np.arange(3)))
    with pytest.raises(ValueError, match=r"1 of 3 in test:\n  .*2\.png: not a complete image"):
        learn_representation(broken, backbone=tiny_backbone, recipe=Recipe(epochs=1, batch_size=16))
