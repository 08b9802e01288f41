"""Classifiers on augmented images of a frozen backbone: as apart, and the backbone runs once for all of them."""

import dataclasses
import types

import numpy as np
import pytest

from keras_lt import train
from keras_lt.config import RunConfig
from keras_lt.recipe import Recipe
from keras_lt.stages import OnePass, callbacks, classifier_entry, learn_classifier, learn_representation, one_pass

RECIPE = Recipe(epochs=3, steps_per_epoch=5, batch_size=12, learning_rate=0.1, sampler="class_balanced")
LWS = "lws:epochs=2:loss=balanced_softmax:class_weights=inverse_frequency"


@pytest.fixture(scope="module")
def learn(data, tiny_backbone):
    """A function of a classifier's name and options that trains it on one representation."""
    data = dataclasses.replace(data, augmentation="crop_flip")
    recipe = Recipe(epochs=1, batch_size=16, learning_rate=0.05)
    learned = learn_representation(data, backbone=tiny_backbone, recipe=recipe)
    features = {
        split: one_pass.FeatureSet(
            learned.backbone.predict(learned.preprocessing.evaluate(np.asarray(examples.images)), verbose=0),
            examples.labels,
        )
        for split, examples in (("train", data.train), ("val", data.val))
    }
    options = {"features": features, "recipe": RECIPE, "stage_two": "images"}
    return lambda name, **more: learn_classifier(name, learned, data, **{**options, **more}).model.get_weights()


@pytest.fixture(scope="module")
def apart(learn):
    return {name: learn(name) for name in ("crt", LWS)}


@pytest.fixture
def passes(monkeypatch):
    """A number in a list: the batches that the backbone has run on, of those that are shared."""
    count, forward = [0], one_pass._forward

    def counting(*arguments):
        run = forward(*arguments)

        def counted(images):
            count[0] += 1
            return run(images)

        return counted

    monkeypatch.setattr(one_pass, "_forward", counting)
    return count


def expect_the_same(weights, others, rtol=1e-5):
    for one, other in zip(weights, others, strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=1e-6 * (rtol > 0))


def recipe_of(name):
    return classifier_entry(name, RECIPE)[1]


@pytest.mark.parametrize("names", [("crt", LWS), (LWS, "crt")])
def test_two_classifiers_are_as_apart_and_the_backbone_runs_for_the_longer_one(learn, apart, passes, tmp_path, names):
    """Their epochs, losses, class weights and kept epochs are their own."""
    first, second = names
    expect_the_same(learn(first, one_pass=OnePass(tmp_path, [recipe_of(second)])), apart[first])
    assert len(list(tmp_path.iterdir())) == 2  # the epochs that both draw
    expect_the_same(learn(second, one_pass=OnePass(tmp_path)), apart[second])
    assert passes == [3 * 5]


def test_a_kill_inside_an_epoch_changes_no_number(learn, apart, passes, tmp_path, monkeypatch):
    common = {"one_pass": OnePass(tmp_path / "drawn", [RECIPE]), "folder": tmp_path / "crt"}
    uninterrupted = learn("crt", one_pass=OnePass(tmp_path / "other", [RECIPE]))
    passes[0], looked = 0, []

    def kill(self, batch, logs=None):
        looked.append(batch)
        if looked[5:] == [0, 1, 2]:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.FiniteLoss, "on_train_batch_end", kill)
        with pytest.raises(KeyboardInterrupt):
            learn("crt", **common)
    assert [path.suffix for path in (tmp_path / "drawn").iterdir() if path.name[0] != "."] == [".npy"]
    expect_the_same(learn("crt", **common), uninterrupted, rtol=0)
    assert 3 * 5 <= passes[0] < 4 * 5  # all of the epoch had been drawn, or not yet


@pytest.mark.parametrize(
    "changes",
    [
        {"sampler": "square_root"},
        {"engine": "weighted"},
        {"resampling": "oversampling"},
        {"batch_size": 10},
        {"accumulate_steps": 2},
        {"steps_per_epoch": 4},
        {"sampler": "progressive"},
    ],
)
def test_others_share_nothing_where_they_draw_otherwise(data, changes):
    """An epoch of the progressive sampler depends on how many there are, one of the others does not."""
    other = dataclasses.replace(RECIPE, **changes)
    hashed = [one_pass._draws_hash(data.train.labels, data.class_counts, recipe) for recipe in (RECIPE, other)]
    longer = [dataclasses.replace(recipe, epochs=9, learning_rate=1, loss="focal") for recipe in (RECIPE, other)]
    again = [one_pass._draws_hash(data.train.labels, data.class_counts, recipe) for recipe in longer]
    assert hashed[0] != hashed[1]
    assert [before == after for before, after in zip(hashed, again, strict=True)] == [
        True,
        changes.get("sampler") != "progressive",
    ]


def test_no_epoch_is_kept_where_the_disk_has_little_room(learn, apart, passes, tmp_path, monkeypatch):
    usage = types.SimpleNamespace(free=2 * 5 * 12 * (4 * 4 + 8) - 1)  # twice an epoch of four features and a label
    monkeypatch.setattr(one_pass.shutil, "disk_usage", lambda folder: usage)
    expect_the_same(learn(LWS, one_pass=OnePass(tmp_path, [RECIPE])), apart[LWS])
    assert not list(tmp_path.iterdir())
    assert passes == [2 * 5]


def test_those_that_are_finished_or_on_features_are_not_waited_for():
    config = RunConfig(
        dataset="arrays",
        backbone="tiny",
        stage_two="images",
        classifiers=("joint", "ncm", "crt", "lws", "mislas", "marc"),
    )
    run = types.SimpleNamespace(config=config, classifiers=["joint", "lws"])
    assert train.later_recipes("crt", run) == [config.stage_two_recipe(name) for name in ("mislas", "marc")]
    run.config = dataclasses.replace(config, stage_two="features")
    assert train.later_recipes("crt", run) == []
