"""Classifiers on augmented images of a frozen backbone: as apart, and the backbone runs once for all of them."""

import dataclasses
import resource
import types

import keras
import numpy as np
import pytest

from keras_lt.config import RunConfig
from keras_lt.features import extract_features
from keras_lt.input_pipeline import Stream
from keras_lt.preprocessing import Preprocessing
from keras_lt.recipe import Recipe
from keras_lt.run import Run
from keras_lt.stages import OnePass, Representation, callbacks, learn_classifier, one_pass
from tests.tiny_backbone import tiny

RECIPE = Recipe(epochs=3, steps_per_epoch=5, batch_size=12, learning_rate=0.1, sampler="class_balanced")
LWS = "lws:epochs=2:loss=balanced_softmax:class_weights=inverse_frequency"


PREPROCESSING = Preprocessing(8, mean=(0.4,) * 3, std=(0.2,) * 3, augmentation="crop_flip")


@pytest.fixture(scope="module")
def learn(data):
    """A function of a classifier's name and options that trains it on one representation."""
    keras.utils.set_random_seed(0)
    backbone, dense = tiny(), keras.layers.Dense(3, name="classifier")
    backbone.name = "backbone"
    learned = Representation(keras.Model(backbone.input, dense(backbone(backbone.input))), PREPROCESSING, [])
    features = {split: extract_features(backbone, data.splits[split], PREPROCESSING) for split in ("train", "val")}
    options = {"features": features, "recipe": RECIPE, "stage_two": "images"}
    return lambda name, **more: learn_classifier(name, learned, data, **{**options, **more}).model.get_weights()


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


def expect_the_same(weights, others):
    for one, other in zip(weights, others, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_two_classifiers_are_as_apart_and_the_backbone_runs_for_the_longer_one(learn, passes, tmp_path):
    """Their epochs, losses, class weights and kept epochs are their own; cRT is killed inside its last epoch."""
    apart = {name: learn(name) for name in ("crt", LWS)}
    expect_the_same(learn(LWS, one_pass=OnePass(tmp_path / "drawn", [RECIPE])), apart[LWS])
    assert (passes, len(list((tmp_path / "drawn").iterdir()))) == ([2 * 5], 2)

    def kill(self, batch, logs=None):
        if self._epoch == 2 and batch == 1:
            raise KeyboardInterrupt

    crt = {"one_pass": OnePass(tmp_path / "drawn", [RECIPE]), "folder": tmp_path / "crt"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks.FiniteLoss, "on_train_batch_end", kill)
        with pytest.raises(KeyboardInterrupt):
            learn("crt", **crt)
    resumed = learn("crt", **crt)
    expect_the_same(resumed, apart["crt"])
    assert 3 * 5 <= passes[0] < 4 * 5  # the stream is ahead of the training: it was through the epoch, or not yet
    before = passes[0]
    for one, other in zip(resumed, learn("crt", one_pass=OnePass(tmp_path / "drawn")), strict=True):
        np.testing.assert_array_equal(one, other)
    assert passes[0] == before


def test_averaged_weights_of_a_head_need_no_statistics_of_its_frozen_net(learn, monkeypatch):
    """Each epoch's statistics would begin the batches anew."""
    begun, batches = [], one_pass._batches

    def counted(split, preprocessing, stream, **options):
        begun.append(stream.start_step)
        return batches(split, preprocessing, stream, **options)

    monkeypatch.setattr(one_pass, "_batches", counted)
    learn("crt", recipe=dataclasses.replace(RECIPE, ema_momentum=0.5))
    assert begun == [0]


def test_a_frozen_net_is_trained_as_before_where_that_ends():
    net = tiny()
    layers = [net, *net.layers]
    net.layers[1].trainable = False  # the stem, as stage one may have frozen it
    net.layers[-2].layers[1].kernel.trainable = False
    before = [part.trainable for part in (*layers, *net.variables)]
    with one_pass._frozen(net):
        assert not any(part.trainable for part in (*layers, *net.variables))
    assert [part.trainable for part in (*layers, *net.variables)] == before
    assert len(set(before)) == 2


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
    hashed = [one_pass._draws_hash(data.train.labels, Stream(recipe, data.class_counts)) for recipe in (RECIPE, other)]
    longer = [dataclasses.replace(recipe, epochs=9, learning_rate=1, loss="focal") for recipe in (RECIPE, other)]
    again = [one_pass._draws_hash(data.train.labels, Stream(recipe, data.class_counts)) for recipe in longer]
    assert hashed[0] != hashed[1]
    assert [before == after for before, after in zip(hashed, again, strict=True)] == [
        True,
        changes.get("sampler") != "progressive",
    ]


def test_an_epoch_is_kept_whole_for_those_that_want_it_where_there_is_room(tmp_path, monkeypatch):
    """Epochs of two updates in two passes each, of which the first epoch alone is wanted."""
    asked = []

    def computed(step):
        asked.append(step)
        for number in range(2 * step, 12):
            yield [np.full((3, 2), number, np.float32), np.full(3, number)]

    recipe = Recipe(epochs=3, batch_size=6, accumulate_steps=2)
    epochs = one_pass._Epochs(tmp_path, "key", recipe, steps=2, size=100, wanted=1)

    def drawn(first=0):
        return [(int(features[0, 0]), *labels) for features, labels in epochs.batches(computed, first=first, parts=2)]

    whole = [(number,) * 4 for number in range(12)]
    monkeypatch.setattr(one_pass.shutil, "disk_usage", lambda folder: types.SimpleNamespace(free=199))
    assert drawn() == whole
    monkeypatch.setattr(one_pass.shutil, "disk_usage", lambda folder: types.SimpleNamespace(free=200))
    abandoned = epochs.batches(computed, first=0, parts=2)
    for _ in range(3):
        next(abandoned)
    abandoned.close()
    assert not list(tmp_path.iterdir())
    assert drawn() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["key-00001.npy"]
    assert asked == [0, 0, 0]
    assert drawn() == whole
    assert drawn(first=2) == whole[8:]
    assert asked[3:] == [2, 4]  # what is there is not computed again


def test_an_epoch_that_the_disk_has_no_room_for_or_that_is_cut_short_is_computed(tmp_path, capsys):
    def computed(step):
        for number in range(2 * step, 4):
            yield [np.full((300, 2), number, np.float32), np.full(300, number)]

    epochs = one_pass._Epochs(tmp_path, "key", Recipe(epochs=2, batch_size=6), steps=2, size=100, wanted=2)

    def drawn():
        return [int(labels[0]) for _, labels in epochs.batches(computed, first=0, parts=2)]

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, before[1]))  # a batch of 5 kB, and not another one
    try:
        assert drawn() == [0, 1, 2, 3]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())
    said = capsys.readouterr().out.splitlines()
    assert [line.startswith(f"{tmp_path} has no epoch {n} for other") for n, line in enumerate(said, 1)] == [True] * 2
    assert drawn() == [0, 1, 2, 3]
    paths = sorted(tmp_path.iterdir())
    paths[0].write_bytes(paths[0].read_bytes()[:-1])
    paths[1].write_bytes(b"junk")
    assert drawn() == [0, 1, 2, 3]
    assert len({path.stat().st_size for path in paths}) == 1


def test_those_that_are_finished_or_on_features_are_not_waited_for():
    config = RunConfig(
        dataset="arrays",
        backbone="tiny",
        stage_two="images",
        classifiers=("joint", "ncm", "crt", "lws", "mislas", "marc"),
    )
    run = types.SimpleNamespace(config=config, classifiers=["joint", "lws"], drawn_folder="drawn")
    assert Run.one_pass(run, "crt").others == [config.stage_two_recipe(name) for name in ("mislas", "marc")]
    run.config = dataclasses.replace(config, stage_two="features")
    assert Run.one_pass(run, "crt").others == []
