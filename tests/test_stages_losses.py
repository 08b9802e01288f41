"""Losses, class weights, heads and re-trained parts, as the two stages train with them."""

import dataclasses
import math

import keras
import numpy as np
import pytest

from keras_lt.classifiers import HEADS, CosineDense, HeadEntry
from keras_lt.distribution import MultiHost
from keras_lt.features import extract_features
from keras_lt.input_pipeline import Stream
from keras_lt.losses import LOSSES, cross_entropy
from keras_lt.recipe import Recipe
from keras_lt.stages import WithFeatureLoss, join, learn_classifier, learn_representation
from keras_lt.stages.checks import head_entry
from tests.conftest import some_of

RECIPE = Recipe(epochs=2, batch_size=16, learning_rate=0.05)
STILL = dataclasses.replace(RECIPE, epochs=1, learning_rate=0.0)


@pytest.fixture(scope="module")
def representation(data, tiny_backbone):
    return learn_representation(data, backbone=tiny_backbone, recipe=RECIPE)


def weights(model):
    return [weight.copy() for weight in model.get_weights()]


def moved(ours, theirs):
    return [not np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True)]


@pytest.mark.parametrize("loss", some_of(LOSSES, "ldam", "lade"))
def test_every_loss_trains_a_representation(data, tiny_backbone, loss):
    recipe = dataclasses.replace(RECIPE, epochs=1, loss=loss)
    history = learn_representation(data, backbone=tiny_backbone, recipe=recipe).history
    assert np.isfinite(history[0]["loss"])


# Heads


@pytest.mark.parametrize(
    ("head", "loss", "label", "parameters"),
    [
        ("auto", "cross_entropy", "Dense", {}),
        ("auto", "ldam", "Cosine", {"scale": 30.0}),
        ("auto", "ldam:scale=20", "Cosine", {"scale": 20.0}),
        ("cosine:scale=20", "ldam:scale=20", "Cosine", {"scale": 20.0}),
        ("cosine:scale=7", "focal", "Cosine", {"scale": 7.0}),
    ],
)
def test_auto_is_the_head_that_the_loss_needs(head, loss, label, parameters):
    chosen = head_entry(head, Recipe(loss=loss))
    assert (chosen.label, chosen.parameters) == (label, parameters)


@pytest.mark.parametrize(
    ("head", "loss"),
    [("dense", "ldam"), ("cosine", "sigmoid_focal"), ("cosine", "ldam:scale=20"), ("cosine:scale=20", "ldam")],
)
def test_a_head_that_the_loss_cannot_take_is_refused(head, loss):
    with pytest.raises(ValueError, match=f"loss={loss} needs head=.* Received: head={head}"):
        head_entry(head, Recipe(loss=loss))


@pytest.mark.exhaustive
def test_a_head_of_ones_own_takes_one_line(data, tiny_backbone, monkeypatch):
    monkeypatch.setitem(HEADS, "steep", HeadEntry(lambda width, units, *, seed, scale=9.0: CosineDense(units, scale)))
    learned = learn_representation(data, backbone=tiny_backbone, recipe=RECIPE, head="steep:scale=4")
    assert learned.head.scale == 4.0


@pytest.mark.exhaustive
def test_a_cosine_head_is_joint_s_classifier(data, tiny_backbone):
    recipe = dataclasses.replace(RECIPE, loss="ldam")
    learned = learn_representation(data, backbone=tiny_backbone, recipe=recipe)
    assert isinstance(learned.head, CosineDense)
    joint = learn_classifier("joint", learned, data)
    images = learned.preprocessing.evaluate(data.test.images)
    np.testing.assert_allclose(join(joint.backbone, joint.model)(images), learned.model(images), atol=1e-5)
    assert not joint.model.trainable_weights


def test_sigmoids_begin_at_one_in_all_classes(data, tiny_backbone):
    recipe = dataclasses.replace(STILL, loss="sigmoid_focal:gamma=1")
    learned = learn_representation(data, backbone=tiny_backbone, recipe=recipe)
    np.testing.assert_allclose(learned.head.bias, [-math.log(2)] * 3, rtol=1e-6)


# Class weights


@pytest.mark.exhaustive
def test_weights_that_are_deferred_leave_the_epochs_before_them_alone(data, tiny_backbone):
    plain, deferred = (
        learn_representation(data, backbone=tiny_backbone, recipe=dataclasses.replace(RECIPE, **changes)).history
        for changes in ({}, {"class_weights": "inverse_frequency", "class_weights_from": 1})
    )
    assert deferred[0]["loss"] == pytest.approx(plain[0]["loss"], rel=1e-5)
    assert deferred[1]["loss"] != pytest.approx(plain[1]["loss"], rel=1e-2)


def test_a_recipe_s_loss_is_the_mean_weighted_by_the_classes(data, representation):
    """At learning rate 0, a batch of all features: of n_c images each counts 1 / n_c, so all classes count alike."""
    features = extract_features(representation.backbone, data.train, representation.preprocessing)
    labels = features.labels
    losses = cross_entropy(labels, representation.head(features.features)).numpy()
    recipe = dataclasses.replace(STILL, batch_size=len(labels), class_weights="inverse_frequency")
    inputs, targets, sample_weights = next(iter(features.training_batches(Stream(recipe, data.class_counts))))
    model = keras.Sequential([keras.Input((4,)), representation.head])
    model.compile(keras.optimizers.SGD(0.0), LOSSES["cross_entropy"](data.class_counts))
    loss = model.train_on_batch(inputs, targets, sample_weight=sample_weights)
    assert loss == pytest.approx(np.mean([losses[labels == c].mean() for c in range(3)]), rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_weights": "inverse_frequency"}, "class_weights need one class per image"),
        ({"loss": "lade"}, "A loss of a whole batch needs one class per image.*loss=lade"),
    ],
)
def test_mixed_images_have_no_one_class_to_weigh_or_to_count(data, tiny_backbone, changes, message):
    recipe = dataclasses.replace(RECIPE, **changes)
    with pytest.raises(ValueError, match=message):
        learn_representation(data, backbone=tiny_backbone, recipe=recipe, mixup=0.2)


# Losses on features


def test_a_feature_loss_is_added_in_training_and_left_out_of_validation(data, representation):
    """The added loss is the features' first component, so that it is known for any batch."""
    model = WithFeatureLoss(representation.model, lambda labels, features: features[:, 0], weight=0.5)
    plain = representation.model
    images = representation.preprocessing.evaluate(data.train.images[:16])
    labels = data.train.labels[:16]
    for one in (model, plain):
        one.compile(keras.optimizers.SGD(0.0), LOSSES["cross_entropy"](data.class_counts))
    validated = [one.evaluate(images, labels, verbose=0, return_dict=True)["loss"] for one in (model, plain)]
    assert validated[0] == pytest.approx(validated[1])
    in_training = plain.get_layer("backbone")(images, training=True)
    expected = (
        cross_entropy(labels, representation.head(in_training)).numpy().mean() + 0.5 * in_training[:, 0].numpy().mean()
    )
    model.reset_metrics()  # the loss that Keras gives is a mean since then
    assert model.train_on_batch(images, labels) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", some_of(["range", "lifted"], "range"))
def test_a_feature_loss_moves_the_features_and_is_gone_from_the_model(data, tiny_backbone, name, tmp_path):
    recipe = dataclasses.replace(RECIPE, epochs=1, feature_loss=name)
    with_loss, without, weightless = (
        learn_representation(data, backbone=tiny_backbone, recipe=dataclasses.replace(recipe, **changes))
        for changes in ({}, {"feature_loss": ""}, {"feature_loss_weight": 0.0})
    )
    assert any(moved(weights(with_loss.backbone), weights(without.backbone)))
    for ours, theirs in zip(weights(weightless.model), weights(without.model), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    with_loss.save(tmp_path)
    restored = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert [layer.name for layer in restored.layers[1:]] == ["backbone", "classifier"]


def test_a_feature_loss_is_of_one_host(data, tiny_backbone):
    class SeveralHosts(MultiHost):
        def __init__(self):
            pass

    recipe = dataclasses.replace(RECIPE, feature_loss="range")
    with pytest.raises(ValueError, match=r"A loss on features.* are computed on one host"):
        learn_representation(data, backbone=tiny_backbone, recipe=recipe, strategy=SeveralHosts())


# Re-trained parts (the paper's table 1), and two-stage fine-tuning


@pytest.mark.parametrize(
    ("name", "stem", "last"),
    [
        ("crt_last_block", False, True),
        pytest.param("crt_all", True, True, marks=pytest.mark.exhaustive),
        pytest.param("crt_all_tenth", True, True, marks=pytest.mark.exhaustive),
        pytest.param("fine_tune", True, True, marks=pytest.mark.exhaustive),
    ],
)
def test_the_named_parts_are_trained_in_a_copy(data, representation, name, stem, last):
    before = weights(representation.backbone)
    classifier = learn_classifier(name, representation, data, recipe=RECIPE)
    assert not any(moved(weights(representation.backbone), before))
    ours, theirs = classifier.backbone, representation.backbone
    assert any(moved(weights(ours.get_layer("stem")), weights(theirs.get_layer("stem")))) == stem
    assert any(moved(weights(ours.get_layer("layer1")), weights(theirs.get_layer("layer1")))) == last


def test_fine_tuning_starts_from_stage_one_s_classifier_and_re_training_does_not(data, representation):
    fine_tuned, retrained = (
        learn_classifier(name, representation, data, recipe=STILL) for name in ("fine_tune", "crt_all")
    )
    kernel = representation.head.kernel.numpy()
    np.testing.assert_array_equal(fine_tuned.model.layers[-1].kernel, kernel)
    assert not np.isclose(retrained.model.layers[-1].kernel, kernel).any()


@pytest.mark.exhaustive
def test_a_tenth_of_the_learning_rate_is_a_tenth_of_the_first_step(data, representation):
    """One step without momentum behind it: the classifier moves by the learning rate times its gradient."""
    recipe = dataclasses.replace(RECIPE, epochs=1, steps_per_epoch=1, batch_size=48, weight_decay=0.0)
    kernels = {
        (name, rate): learn_classifier(
            name, representation, data, recipe=dataclasses.replace(recipe, learning_rate=rate)
        )
        .model.layers[-1]
        .kernel.numpy()
        for name in ("crt_all", "crt_all_tenth")
        for rate in (0.0, 0.05)
    }
    whole, tenth = (kernels[name, 0.05] - kernels[name, 0.0] for name in ("crt_all", "crt_all_tenth"))
    np.testing.assert_allclose(tenth, whole / 10, rtol=1e-3, atol=1e-6)


# Resampled lists


@pytest.mark.parametrize("how", some_of(["undersampling", "oversampling"], "undersampling"))
def test_both_stages_train_on_the_resampled_list(data, tiny_backbone, how, tmp_path, capsys):
    """120, 24 and 6 images: three times 6 fill one batch of 16, three times 120 fill 22."""
    steps = {"undersampling": 1, "oversampling": 22}[how]
    recipe = dataclasses.replace(RECIPE, epochs=1, resampling=how)
    learned = learn_representation(data, backbone=tiny_backbone, recipe=recipe)
    assert f"{steps}/{steps} - " in capsys.readouterr().out
    learn_classifier("crt", learned, data, recipe=recipe, folder=tmp_path)
    assert f"{steps}/{steps} - " in capsys.readouterr().out


def test_smote_is_of_features(data, tiny_backbone, representation, tmp_path, capsys):
    recipe = dataclasses.replace(RECIPE, epochs=1, resampling="smote")
    with pytest.raises(ValueError, match="what makes new features belongs to stage two"):
        learn_representation(data, backbone=tiny_backbone, recipe=recipe)
    learn_classifier("crt", representation, data, recipe=recipe, folder=tmp_path)
    assert "22/22 - " in capsys.readouterr().out
