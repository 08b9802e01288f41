"""A new member of a family is a function and a line: nothing else is told of it, on the command line or in Python."""

import dataclasses
import functools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags

from keras_lt import config, train
from keras_lt.checkpoints import read_history
from keras_lt.classifiers import CLASSIFIERS, ClassifierEntry, HeadEntry, fresh_cosine, fresh_dense
from keras_lt.datasets import DATASETS, LongTailed, SourceEntry, Split
from keras_lt.features import FeatureSet
from keras_lt.input_pipeline import Stream, training_batches, training_indices
from keras_lt.losses import (
    CLASS_WEIGHTS,
    FEATURE_LOSSES,
    LOSSES,
    LossEntry,
    PerExampleLoss,
    WeightsEntry,
    cross_entropy,
)
from keras_lt.methods import METHODS, MethodEntry
from keras_lt.optimization import OPTIMIZERS, OptimizerEntry
from keras_lt.recipe import SCHEDULES, Recipe, ScheduleEntry
from keras_lt.registry import Entry
from keras_lt.report.systems import display_name, system_of
from keras_lt.resampling import RESAMPLING, Resampling
from keras_lt.run import Run, source_prior
from keras_lt.samplers import SAMPLERS, SamplerEntry
from keras_lt.stages import HEADS, Hooks, OnMixedLabels, learn_classifier, learn_representation
from tests.conftest import squares


def configured(*arguments):
    flag_values = flags.FlagValues()
    config.define_flags(flag_values)
    flag_values(["keras_lt", *arguments])
    return config.from_flags(flag_values)


def last_class(class_counts, progress, *, share=1.0):
    """The last class gets a share, the first the rest."""
    row = np.zeros(len(class_counts))
    row[0], row[-1] = 1 - share, share
    return row


@keras.saving.register_keras_serializable("tests_new")
def powered(labels, logits, power):
    return cross_entropy(labels, logits) ** power


def shades(data_dir="", *, size=8, tail=6):
    """Three shades of grey; both numbers are the source's parameters."""
    train_split, val, test = (
        Split(*squares(counts, seed=seed, size=size))
        for seed, counts in enumerate([(60, 24, tail), (9,) * 3, (6,) * 3])
    )
    return LongTailed("shades", train_split, val, test, "abc", augmentation="none", crop_fraction=1.0)


def mine(head, *, seed, rho=1.0):
    """A fresh dense layer whose weights begin rho times as large."""
    layer = fresh_dense(*head.kernel.shape, seed=seed)
    layer.kernel.assign(rho * layer.kernel)
    return [([{"rho": rho}], layer)]


LAST = SamplerEntry(last_class, label="Last class")
POWERED = LossEntry(lambda class_counts, *, power=2.0: PerExampleLoss(powered, power=power), label="Powered")
OWN_RECIPE = {"loss": "balanced_softmax", "sampler": "instance_balanced", "epochs": 3}
MINE = ClassifierEntry(mine, label="Mine", recipe=OWN_RECIPE)


def test_a_sampler(monkeypatch):
    monkeypatch.setitem(SAMPLERS, "last_class", LAST)
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    for told, shares in (("last_class", [0, 0, 1]), ("last_class:share=0.25", [0.75, 0, 0.25])):
        recipe = dataclasses.replace(configured(f"--sampler={told}").stage_one_recipe, batch_size=50, epochs=2)
        rows = training_indices(labels, Stream(recipe, np.bincount(labels))).take(40)
        drawn = labels[np.concatenate(list(rows.as_numpy_iterator()))]
        np.testing.assert_allclose(np.bincount(drawn, minlength=3) / len(drawn), shares, atol=0.03)


def test_a_loss_with_a_parameter(monkeypatch, data, tiny_backbone):
    """At learning rate 0, what is logged of val is the mean of the losses there."""
    monkeypatch.setitem(LOSSES, "powered", POWERED)
    recipe = configured("--loss=powered:power=3", "--epochs=1", "--batch_size=16", "--learning_rate=0").stage_one_recipe
    np.testing.assert_allclose(recipe.loss_entry([3, 1])(np.array([0]), np.zeros((1, 2))), math.log(2) ** 3, rtol=1e-6)
    learned = learn_representation(data, backbone=tiny_backbone, recipe=recipe)
    logits = learned.model.predict(learned.preprocessing.evaluate(data.val.images), verbose=0)
    expected = np.mean(np.asarray(cross_entropy(data.val.labels, logits)) ** 3)
    assert learned.history[0]["val_loss"] == pytest.approx(expected, rel=1e-4)


def test_everything_that_a_recipe_names(monkeypatch, data, tiny_backbone):
    """One stage one of new members alone; each function notes the parameter that it was told."""
    told = {}

    def weigh(class_counts, *, first=1.0):
        told["class_weights"] = first
        return np.array([first, *np.ones(len(class_counts) - 1)])

    def near(labels, features, *, bound=1.0):
        told["feature_loss"] = bound
        return keras.ops.relu(keras.ops.sum(keras.ops.square(keras.ops.cast(features, "float32")), axis=-1) - bound)

    def rmsprop(learning_rate, *, weight_decay, multipliers, rho=0.9, **options):
        told["optimizer"] = rho
        return keras.optimizers.RMSprop(learning_rate, rho=rho, weight_decay=weight_decay, **options)

    def halved(recipe, epoch, *, every=1):
        told["schedule"] = every
        return 0.5 ** (int(epoch) // every)

    def steep(width, units, *, seed, scale=9.0):
        return fresh_cosine(width, units, seed=seed, scale=scale)

    def heads_of(labels, *, seed, keep=2):
        told["resampling"] = keep
        return np.concatenate([np.flatnonzero(labels == label)[:keep] for label in np.unique(labels)])

    monkeypatch.setitem(CLASS_WEIGHTS, "mine", WeightsEntry(weigh))
    monkeypatch.setitem(FEATURE_LOSSES, "mine", Entry(near))
    monkeypatch.setitem(OPTIMIZERS, "mine", OptimizerEntry(rmsprop))
    monkeypatch.setitem(SCHEDULES, "mine", ScheduleEntry(halved))
    monkeypatch.setitem(HEADS, "mine", HeadEntry(steep))
    monkeypatch.setitem(RESAMPLING, "mine", Resampling(heads_of, size=lambda counts: 6))
    members = {
        "class_weights": "first=2.0",
        "feature_loss": "bound=0.5",
        "optimizer": "rho=0.8",
        "schedule": "every=2",
        "resampling": "keep=6",
        "head": "scale=4.0",
    }
    given = [f"--{name}=mine:{parameter}" for name, parameter in members.items()]
    run = configured(*given, "--epochs=4", "--batch_size=9", "--learning_rate=0.01", "--classifiers=joint")
    learned = learn_representation(data, backbone=tiny_backbone, recipe=run.stage_one_recipe, head=run.head)
    assert told == {"class_weights": 2.0, "feature_loss": 0.5, "optimizer": 0.8, "schedule": 2, "resampling": 6}
    assert learned.head.scale == 4.0
    assert [row["learning_rate"] for row in learned.history] == pytest.approx([0.01, 0.01, 0.005, 0.005])
    assert all(np.isfinite(row["loss"]) for row in learned.history)


@pytest.fixture
def embeddings():
    """Two classes of 40 and 8 points, and 10 of each to validate."""

    def around(counts, seed):
        labels = np.repeat([0, 1], counts)
        return FeatureSet(np.eye(2, 4)[labels] + np.random.default_rng(seed).normal(0, 0.2, (len(labels), 4)), labels)

    return {"train": around((40, 8), 0), "val": around((10, 10), 1)}


def test_a_classifier_with_its_own_loss_sampler_and_epochs(monkeypatch, embeddings, tmp_path):
    monkeypatch.setitem(CLASSIFIERS, "mine", MINE)
    run = configured("--classifiers=joint,mine:rho=2:learning_rate=0.5,mine", "--classifier_epochs=7")
    assert run.systems == ["joint", "mine:rho=2:learning_rate=0.5", "mine"]
    recipe = run.stage_two_recipe("mine:rho=2:learning_rate=0.5")
    assert {name: getattr(recipe, name) for name in OWN_RECIPE} == OWN_RECIPE
    assert (recipe.learning_rate, run.stage_two_recipe("mine").learning_rate) == (0.5, run.learning_rate)
    # Its loss takes the classes' sizes out of the logits, which its sampler has left in them.
    np.testing.assert_allclose(source_prior("mine", run, np.array([40, 8])), [0.5, 0.5])

    small = Recipe(batch_size=12, learning_rate=0.0, steps_per_epoch=2)
    learned = learn_classifier("mine:rho=2:epochs=2", features=embeddings, recipe=small, folder=tmp_path)
    assert learned.chosen == {"rho": 2.0}
    assert [row["epoch"] for row in read_history(tmp_path / "history.csv")] == [1, 2]
    fresh = fresh_dense(4, 2, seed=0).get_weights()
    np.testing.assert_allclose(learned.model.layers[-1].kernel, 2 * fresh[0], rtol=1e-6)
    by_hand = LOSSES["balanced_softmax"]([40, 8])(embeddings["val"].labels, learned.model(embeddings["val"].features))
    assert read_history(tmp_path / "history.csv")[0]["val_loss"] == pytest.approx(float(by_hand), rel=1e-5)

    assert display_name("mine:rho=2") == "Mine, rho 2"
    assert system_of("mine:rho=2", method="decoupling", recipe={}) == "mine"
    assert Run(tmp_path).classifier_folder("mine:rho=2").name == "mine-rho=2"


class Twice(OnMixedLabels):
    """Its loss counts twice."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return 2 * super().compute_loss(x, y, y_pred, sample_weight, training)


def scaled_hooks(*, factor=1.0):
    """A net whose features are scaled, a loss that counts twice, and batches all of whose labels are 0."""

    def scaled(backbone, *, pretrained):
        return keras.Model(backbone.input, keras.layers.Rescaling(factor)(backbone.output))

    def of_class_0(split, preprocessing, stream):
        batches = training_batches(split, preprocessing, stream)
        return batches.map(lambda images, labels: (images, tf.zeros_like(labels)))

    own = functools.partial(learn_classifier, "joint")

    def twice(model, class_counts):
        return Twice(model)

    return Hooks("scaled", network=scaled, training_model=twice, batches=of_class_0, classifier=own)


def test_a_method_of_one_file(monkeypatch, data, tiny_backbone):
    """Features 0 leave the biases as logits; at learning rate 0 the loss of all is -2 log softmax(biases)_0."""
    monkeypatch.setitem(METHODS, "scaled", MethodEntry(scaled_hooks, label="Scaled"))
    run = configured("--method=scaled:factor=0", "--classifiers=crt")
    assert run.systems == ["scaled:factor=0", "crt"]
    assert display_name(run.method) == "Scaled, factor 0"
    hooks = run.method_entry()
    recipe = Recipe(epochs=1, batch_size=50, learning_rate=0.0)
    learned = learn_representation(data, backbone=tiny_backbone, recipe=recipe, hooks=hooks)
    bias = np.asarray(learned.head.bias, np.float64)
    assert learned.history[0]["loss"] == pytest.approx(2 * (np.log(np.exp(bias).sum()) - bias[0]), rel=1e-5)
    options = {"features": None, "recipe": recipe, "seed": 0, "strategy": None, "folder": None}
    own = hooks.classifier(learned, data, **options)
    assert own.val["all"] == pytest.approx(1 / 3)  # one class for all
    with pytest.raises(ValueError, match="stage_one=features fits a classifier alone, and method=scaled more"):
        configured("--method=scaled", "--stage_one=features", "--train_parts=classifier")


@pytest.mark.exhaustive
def test_a_whole_run_by_flags(monkeypatch, tiny_backbone, tmp_path):
    """A source of data, a sampler, a loss and a classifier, from the command line to the report."""
    monkeypatch.setitem(DATASETS, "shades", SourceEntry(shades, reads="nothing", needs_folder=False, label="Shades"))
    monkeypatch.setitem(SAMPLERS, "last_class", LAST)
    monkeypatch.setitem(LOSSES, "powered", POWERED)
    monkeypatch.setitem(CLASSIFIERS, "mine", MINE)
    run = configured(
        *("--dataset=shades:size=6:tail=12", f"--workdir={tmp_path / 'run'}", "--backbone=tiny", "--epochs=1"),
        *("--batch_size=16", "--learning_rate=0.05", "--sampler=last_class:share=0.5", "--loss=powered:power=3"),
        "--classifiers=joint,mine:rho=2:epochs=1",
    )
    results = train.run(run)
    assert (results["train_images"], run.load_data().image_size) == (96, 6)
    assert results["stage_one"]["recipe"]["loss"] == "powered:power=3"
    assert results["classifiers"]["mine:rho=2:epochs=1"]["chosen"] == {"rho": 2.0}
    folder = run.folder
    assert (folder / "classifiers" / "mine-rho=2-epochs=1" / "model.keras").exists()
    text = (folder / "results.md").read_text("utf-8")
    assert "Mine, rho 2, epochs 1" in text
    assert "last class (share 0.5) sampling, powered (power 3) loss" in text
    assert Run(folder).classifiers == ["joint", "mine:rho=2:epochs=1"]
    assert Run(folder).classifier("mine:rho=2:epochs=1").chosen == {"rho": 2.0}
