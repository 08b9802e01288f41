"""Experts: the losses are the authors', the mean of the heads is one dense layer, and whole trainings."""

import dataclasses
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lt import Recipe, backbones
from keras_lt.classifiers import CLASSIFIERS, fold
from keras_lt.config import RunConfig
from keras_lt.features import extract_features
from keras_lt.methods import balpoe, experts, method_entry, ride, sade
from keras_lt.metrics import softmax
from keras_lt.stages import learn_classifier, learn_representation
from tests.tiny_backbone import TINY, tiny

GOLDEN = {
    name: np.load(pathlib.Path(__file__).parent / f"golden/later/{name}.npz") for name in ("balpoe", "sade", "ride")
}
WEIGHTS = GOLDEN["ride"]["effective_number_weights"]
COUNTS = GOLDEN["ride"]["class_counts"]


def late(factor, diversity):
    temperatures = ride.class_temperatures(COUNTS, factor=factor)
    return {"diversity": diversity, "class_weights": WEIGHTS, "temperatures": temperatures}


# Name of the golden values -> method, arguments.
CASES = {
    "taus_0_1_2": (balpoe, {"taus": (0, 1, 2)}),
    "taus_0_0_5_1": (balpoe, {"taus": (0, 0.5, 1)}),
    "tau_1": (sade, {"tau": 1}),
    "tau_2": (sade, {"tau": 2}),
    "early": (ride, {"diversity": -0.45}),
    "late": (ride, late(0.05, -0.45)),
    "late_0_02": (ride, late(0.02, -0.2)),
    "cross_entropy": (ride, {"diversity": -0.2, "max_margin": 0}),
}
RECIPE = Recipe(epochs=2, steps_per_epoch=2, batch_size=12, learning_rate=0.05)


def value_and_gradient(method, labels, logits, counts, **arguments):
    logits = tf.constant(logits, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = tf.reduce_mean(method.loss(tf.constant(labels), logits, counts, **arguments))
    return float(value), tape.gradient(value, logits).numpy()


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_the_authors_in_any_order_of_classes(case):
    method, arguments = CASES[case]
    golden = GOLDEN[method.__name__.rpartition(".")[2]]
    labels, logits = golden["labels"], golden["expert_logits"]
    orders = np.arange(12), np.random.default_rng(0).permutation(12)
    for order in orders:
        ordered = {name: value[order] if np.shape(value) == (12,) else value for name, value in arguments.items()}
        value, slope = value_and_gradient(
            method, np.argsort(order)[labels], logits[..., order], golden["class_counts"][order], **ordered
        )
        expected = golden[f"grad_{case}"][..., order]
        np.testing.assert_allclose(value, golden[f"loss_{case}"], rtol=1e-5)
        np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_the_authors_ride_without_diversity_is_ours_of_experts_that_all_are_the_mean():
    golden = GOLDEN["ride"]
    mean = golden["expert_logits"].mean(axis=0)
    np.testing.assert_allclose(mean, golden["aggregated_logits"], rtol=1e-4, atol=1e-5)
    value, slope = value_and_gradient(ride, golden["labels"], np.stack([mean] * 3), COUNTS, diversity=0)
    expected = golden["grad_factor_zero"]
    np.testing.assert_allclose(value, golden["loss_factor_zero"], rtol=1e-5)
    np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("counts", [[5, 5], [9, 1], [9, 0]], ids=["equal", "single", "absent"])
@pytest.mark.parametrize("case", [name for name in CASES if "late" not in name])
def test_two_classes_of_any_size_are_finite(case, counts):
    method, arguments = CASES[case]
    value, slope = value_and_gradient(method, [0, 0, 1], np.full((3, 3, 2), [50.0, -50.0]), counts, **arguments)
    assert np.isfinite(value)
    assert np.isfinite(slope).all()


def test_experts_that_are_alike_do_not_disagree():
    """Equal counts and equal experts: E ln 2 of RIDE without margins, whatever the diversity."""
    value, _ = value_and_gradient(ride, [0, 1], np.zeros((3, 2, 2)), [4, 4], diversity=-1.0, max_margin=0)
    assert value == pytest.approx(3 * np.log(2))
    np.testing.assert_allclose(ride.class_temperatures([4, 4], factor=0.02), 1)


def test_the_reversed_prior_by_hand():
    """Of 6, 3 and 1 images, the rarest has 6 of 10; classes of one size share what falls to them."""
    np.testing.assert_allclose(sade.inverse_prior([3, 6, 1]), [0.3, 0.1, 0.6])
    np.testing.assert_allclose(sade.inverse_prior([1, 6, 1, 2]), [0.4, 0.1, 0.4, 0.1])
    np.testing.assert_allclose(sade.inverse_prior([4, 4]), 0.5)
    np.testing.assert_allclose(sade.inverse_prior(COUNTS), GOLDEN["sade"]["inverse_prior"], rtol=1e-4)


def test_the_experts_are_weighed_as_the_authors_do():
    golden = GOLDEN["sade"]
    weights = sade.aggregation_weights(golden["view_logits"])
    np.testing.assert_allclose(weights, golden["aggregation_weights"], rtol=1e-5)
    for epoch, parameters in enumerate(golden["aggregation_parameters_per_epoch"], start=1):
        after = sade.aggregation_weights(golden["view_logits"], epochs=epoch)
        np.testing.assert_allclose(after, softmax(parameters), rtol=1e-5)
    aggregated = np.einsum("e,enc->nc", weights, golden["expert_logits"])
    np.testing.assert_allclose(aggregated, golden["aggregated_logits"], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(weights, sade.aggregation_weights(golden["view_logits"], batch_size=16))


def test_the_weighed_mean_of_experts_is_one_dense_layer_too():
    """Of three experts with four features each, which two views of seven images see."""
    rng = np.random.default_rng(0)
    kernel, views = rng.normal(size=(12, 5)), rng.normal(size=(7, 2, 12))
    weighed, weights = sade.aggregated(kernel, views)
    of_two = np.stack([experts.expert_logits(views[:, view], kernel, experts=3) for view in (0, 1)], axis=1)
    np.testing.assert_array_equal(weights, sade.aggregation_weights(of_two, batch_size=7))
    assert np.ptp(weights) > 0.01
    np.testing.assert_allclose(views[:, 0] @ weighed, np.einsum("e,enc->nc", weights, of_two[:, 0]), rtol=1e-9)


def test_an_expert_that_both_views_agree_by_gains():
    """The second expert sees noise; at the end it is at its least, which ends the search."""
    rng = np.random.default_rng(0)
    steady = np.broadcast_to(4 * np.eye(5)[rng.integers(0, 5, 60)], (2, 60, 5))
    views = np.stack([steady, rng.normal(0, 5, steady.shape)])
    weights = sade.aggregation_weights(views, batch_size=2, epochs=100)
    assert weights.sum() == pytest.approx(1)
    assert weights[1] < 0.05
    with pytest.raises(ValueError, match=r"two views of some images, \[E, 2, N, C\]. Received"):
        sade.aggregation_weights(views[:, 0])


@pytest.mark.parametrize("cosine", [True, False])
def test_the_mean_of_the_heads_is_one_dense_layer(cosine):
    heads = experts.fresh_heads(12, 5, seed=0, experts=3, cosine=cosine)
    maps = np.random.default_rng(0).normal(size=(6, 2, 2, 12)).astype(np.float32)
    features = np.asarray(experts.ExpertPooling(3)(maps))
    of_each = np.asarray(heads.expert_logits(features))
    kernel, bias = fold(heads)
    np.testing.assert_allclose(heads(features), of_each.mean(axis=1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(features @ kernel + bias, of_each.mean(axis=1), rtol=1e-4, atol=1e-5)
    apart = experts.expert_logits(features, kernel, experts=3)
    np.testing.assert_allclose(apart, of_each.transpose(1, 0, 2), rtol=1e-4, atol=1e-5)
    if cosine:  # of the second expert's mean over positions and its own weights
        means, own = maps.mean(axis=(1, 2))[:, 4:8], np.asarray(heads.kernel)[1]
        cosines = means @ own / np.linalg.norm(means, axis=1, keepdims=True) / np.linalg.norm(own, axis=0)
        np.testing.assert_allclose(of_each[:, 1], 30 * cosines, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("same_start", [True, False])
def test_experts_share_the_trunk_and_have_a_last_block_each(same_start):
    plain = tiny()
    block = plain.layers[-2].count_params()
    net = backbones.with_experts(plain, 3, same_start=same_start)
    assert net.output_shape == (None, 12)
    assert net.count_params() == plain.count_params() + 2 * block
    assert [layer.name for layer in backbones.last_block(net)] == ["experts"]
    of_each = np.split(np.asarray(net(np.random.default_rng(0).normal(size=(2, 8, 8, 3)))), 3, axis=1)
    assert all(np.allclose(of_each[0], other) == same_start for other in of_each[1:])


def learn(data, method="ride", recipe=RECIPE, **options):
    return learn_representation(
        data, hooks=method_entry(method)(), backbone=TINY, recipe=recipe, check_images=False, **options
    )


def test_what_it_leaves_is_a_dense_classifier_that_others_start_from(data):
    learned = learn(data, "sade", mixup=0.5)
    assert isinstance(learned.head, keras.layers.Dense)
    assert learned.backbone.output_shape == (None, 12)
    features = {
        split: extract_features(learned.backbone, data.splits[split], learned.preprocessing)
        for split in ("train", "val")
    }
    np.testing.assert_allclose(np.linalg.norm(features["val"].features[:, :4], axis=1), 30**0.5, rtol=1e-5)
    own = method_entry("sade")().classifier(
        learned, data, features=features, recipe=RECIPE, seed=0, strategy=None, folder=None
    )
    assert own.val["class_mean"] == pytest.approx(max(row["val_class_mean"] for row in learned.history))
    for name in ("tau_norm", "lws"):
        assert CLASSIFIERS[name].starts_from == "affine"
        other = learn_classifier(name, learned, data, features=features, recipe=dataclasses.replace(RECIPE, epochs=1))
        assert other.model.input_shape == (None, 12)


LATE = dataclasses.replace(RECIPE, class_weights="effective_number:beta=0.9", class_weights_from=1)


@pytest.mark.exhaustive
def test_temperatures_set_in_with_the_class_weights_also_after_a_stop(data, tmp_path):
    """The last epoch's checkpoint is taken away, as if the run had been killed before it."""
    whole = learn(data, "ride:temperature=0.5", LATE, folder=tmp_path)
    never = learn(data, "ride:temperature=0", LATE)
    assert whole.history[0]["loss"] == pytest.approx(never.history[0]["loss"], rel=1e-6)
    assert abs(whole.history[1]["loss"] - never.history[1]["loss"]) > 1e-4
    (tmp_path / "checkpoints" / "epoch-00002.npz").unlink()
    again = learn(data, "ride:temperature=0.5", LATE, folder=tmp_path)
    assert again.history[1]["loss"] == pytest.approx(whole.history[1]["loss"], rel=1e-5)
    np.testing.assert_allclose(again.head.kernel, whole.head.kernel, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["balpoe", "sade", "ride"])
def test_the_loss_of_a_batch_is_the_mean_of_its_parts(method):
    """As micro-batches and devices take it, with the weights that the input pipeline gives; so for a clone."""
    network = experts.with_experts(tiny(), pretrained=False, experts=3, cosine=True)
    heads = experts.fresh_heads(12, 3, seed=0, experts=3, cosine=True)
    network.name, heads.name = "backbone", "classifier"
    joint = keras.Model(network.input, heads(network(network.input)))
    model = method_entry(method)().training_model(joint, [8, 4, 1])
    model.compile("sgd")
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(8, 8, 8, 3)).astype(np.float32), rng.integers(0, 3, 8)
    weights = rng.uniform(0.5, 2, 8).astype(np.float32)

    def loss(of, rows):
        return float(of.compute_loss(y=labels[rows], y_pred=of(images[rows]), sample_weight=weights[rows]))

    whole = loss(model, slice(None))
    assert np.mean([loss(model, slice(0, 4)), loss(model, slice(4, 8))]) == pytest.approx(whole, rel=1e-5)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    clone.compile("sgd")
    assert loss(clone, slice(None)) == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "balpoe:experts=1:taus=1"}, r"experts must lie in \[2, 101\)\. Received: experts=1"),
        ({"method": "ride:experts=0"}, r"experts must lie in \[2, 101\). Received: experts=0"),
        ({"method": "ride:experts=two"}, "experts must be a whole number. Received: method=ride:experts=two"),
        ({"method": "balpoe:taus=0+1"}, "one number for each expert.*Received: taus=0.1, experts=3"),
        ({"method": "balpoe:taus=0,1,2"}, r"taus must be numbers joined by \+"),
        ({"method": "balpoe:taus=0+1+nan"}, "tau must be finite and at least 0"),
        ({"method": "sade:experts=2"}, "method=sade has three experts.*Received: experts=2"),
        ({"method": "ride:diversity=nan"}, "diversity must be finite"),
        ({"method": "sade", "sampler": "class_balanced"}, "method=sade has sampler='instance_balanced' and no other"),
        ({"method": "sade", "class_weights": "effective_number"}, "class_weights='none'"),
        ({"method": "ride", "loss": "ldam"}, "method=ride has loss='cross_entropy'"),
        ({"method": "ride", "feature_loss": "range"}, "feature_loss=''"),
        ({"method": "ride", "head": "cosine"}, "head='auto'"),
        ({"method": "ride", "train_parts": "classifier"}, "train_parts='all' or 'last_block' and no other"),
        ({"method": "balpoe", "backbone": "keras_applications/ConvNeXtTiny"}, "backbone of method=balpoe must average"),
    ],
)
def test_what_is_not_of_experts_is_refused_before_any_work(options, words):
    with pytest.raises(ValueError, match=words) as refused:
        RunConfig(classifiers=(), **options)
    assert "\n" not in str(refused.value)
