"""What holds for every method: hooks into both stages, which end as a backbone and a classifier on its features."""

import dataclasses

import numpy as np
import pytest

from keras_lt.classifiers import fold
from keras_lt.config import RunConfig
from keras_lt.distribution import make_strategy
from keras_lt.features import extract_features
from keras_lt.methods import METHODS, method_entry
from keras_lt.recipe import Recipe
from keras_lt.stages import Hooks, Representation, learn_representation, load_classifier
from tests.conftest import some_of

RECIPE = Recipe(epochs=1, steps_per_epoch=2, batch_size=12, learning_rate=0.05)


@pytest.fixture
def data_of(data, two_classes):
    """Two classes, of which val and test lack one; a method of base and novel classes needs two and one of these."""
    return lambda name: dataclasses.replace(data, many_above=23) if name == "fslwf" else two_classes


@pytest.mark.parametrize("name", some_of(METHODS, "decoupling", "bbn"))
def test_a_method_ends_as_a_backbone_and_a_classifier_that_survive_saving(data_of, tiny_backbone, name, tmp_path):
    data, hooks = data_of(name), METHODS[name]()
    learned = learn_representation(data, hooks=hooks, backbone=tiny_backbone, recipe=RECIPE)
    classes = len(data.class_names)
    assert learned.model.output_shape == (None, classes)
    assert np.isfinite(learned.history[0]["loss"])
    assert all(np.isfinite(weight).all() for weight in learned.model.get_weights())
    learned.save(tmp_path)
    loaded = Representation.load(tmp_path)
    images = learned.preprocessing.evaluate(data.test.images)
    np.testing.assert_array_equal(loaded.model(images), learned.model(images))
    np.testing.assert_allclose(loaded.head(loaded.backbone(images)), learned.model(images), rtol=1e-5, atol=1e-5)

    assert (hooks.classifier is not None) == METHODS[name].own_row
    if hooks.classifier is None:
        return
    features = {
        split: extract_features(loaded.backbone, data.splits[split], loaded.preprocessing) for split in ("train", "val")
    }
    recipe = dataclasses.replace(RECIPE, sampler="class_balanced")
    options = {"features": features, "recipe": recipe, "seed": 0, "strategy": make_strategy(), "folder": None}
    own = hooks.classifier(loaded, data, **options)
    assert own.model.output_shape == (None, classes)
    assert 0 <= own.val["class_mean"] <= 1
    own.save(tmp_path / "own", loaded)
    backbone, classifier = load_classifier(tmp_path / "own", loaded)
    of_test = backbone(images)
    logits = np.asarray(own.model(own.backbone(images)))
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(classifier(of_test), logits, rtol=1e-5, atol=1e-5)
    if (affine := fold(classifier.layers[-1])) is not None:
        np.testing.assert_allclose(np.asarray(of_test) @ affine[0] + affine[1], logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_the_facts_of_a_method(name):
    entry, hooks = METHODS[name], METHODS[name]()
    assert isinstance(hooks, Hooks)
    assert hooks.name == name
    fields = {field.name for field in dataclasses.fields(Recipe)}
    assert set(entry.takes) <= fields
    for field, values in hooks.fixed.items():
        assert getattr(RunConfig, field) in values  # what it takes is no flag more to give
    hooks.check_classifier(RunConfig().stage_two_recipe("crt"))
    for parameter, default in entry.parameters.items():
        told = f"{name}:{parameter}={default}"
        assert method_entry(told).parameters == entry.parameters
        config = RunConfig(method=told, classifiers=())
        assert config.systems == [told]
        assert config.stage_two_recipe(told) == config.stage_two_recipe("crt")


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name]().needs_images])
def test_features_alone_are_refused_where_a_method_does_more_on_images(name):
    with pytest.raises(ValueError, match=f"method={name} (more than that on images|has train_parts='all')"):
        RunConfig(method=name, classifiers=(), stage_one="features", train_parts="classifier")
