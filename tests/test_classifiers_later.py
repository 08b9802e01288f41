"""Classifiers after the paper: against the authors' own values, by hand, and through stage two."""

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lt.classifiers import (
    ClassMeanCosine,
    DisAlign,
    LogitAdjustment,
    MarginCalibration,
    MaxNormDense,
    ScaledDense,
    adjust_logits,
    fold,
    max_norm_radius,
    project_max_norm,
    tau_normalize,
)
from keras_lt.features import FeatureSet
from keras_lt.losses import power_weights
from keras_lt.metrics import softmax
from keras_lt.optimization import CoupledSGD
from keras_lt.recipe import Recipe
from keras_lt.serving.priors import logit_offset
from keras_lt.stages import classifier_entry, learn_classifier
from tests.conftest import some_of

GOLDEN = pathlib.Path(__file__).parent / "golden/later"


def golden(name):
    return dict(np.load(GOLDEN / f"{name}.npz"))


def key(number):
    """A number as the names of golden values have it."""
    return str(number).replace(".", "_")


def check_loss_and_gradients(values, layer, recipe, prefix, names):
    """Of the mean over the golden examples, by each trained weight; names says how the golden values call them."""
    weights = recipe.weight_table(values["class_counts"])
    weights = None if weights is None else weights[-1][values["labels"]]
    with tf.GradientTape() as tape:
        loss = recipe.loss_entry(values["class_counts"])(values["labels"], layer(values["features"]), weights)
    np.testing.assert_allclose(loss, values[f"{prefix}_loss"], rtol=1e-5)
    assert len(names) == len(layer.trainable_weights)
    slopes = tape.gradient(loss, [getattr(layer, name).value for name in names])
    for slope, name in zip(slopes, names.values(), strict=True):
        expected = values[f"{prefix}_grad_{name}"]
        np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def losses_of_steps(model, values, steps):
    """Of so many steps on all golden examples, before each."""
    losses = []
    for _ in range(steps):
        model.reset_metrics()
        losses.append(model.train_on_batch(values["features"], values["labels"]))
    return losses


def dense(kernel, bias):
    layer = keras.layers.Dense(kernel.shape[1], dtype="float32")
    layer.build((None, kernel.shape[0]))
    layer.set_weights([kernel, bias])
    return layer


# Logit adjustment


def test_adjusted_logits_are_the_authors():
    """Theirs subtract log(pi^tau + 1e-12), of which the second term shows at tau 8."""
    values = golden("logit_adjustment")
    shares = values["class_counts"] / values["class_counts"].sum()
    theirs = zip(values["taus"], values["posthoc_logits"], values["posthoc_predictions"], strict=True)
    for tau, expected, predictions in theirs:
        ours = adjust_logits(values["logits"], values["class_counts"], tau=tau) - np.log1p(1e-12 * shares**-tau)
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(ours.argmax(axis=1), predictions)


def test_the_post_compensated_softmax_is_the_authors():
    """For classes that are equally frequent it is the adjustment by tau 1; else an exported model's offset."""
    values = golden("lade")
    ours = adjust_logits(values["logits"], values["class_counts"], tau=1)
    np.testing.assert_allclose(ours, values["pc_softmax_logits_uniform"], rtol=1e-4)
    offset = logit_offset(values["target_prior"], values["prior"], classes=12)
    expected = values["pc_softmax_probabilities_target"]
    np.testing.assert_allclose(softmax(values["logits"] + offset), expected, rtol=1e-4)


def test_the_layer_adjusts_by_the_counts_it_adapts_to():
    """Two classes of three and one: log shares -0.288 and -1.386."""
    head = dense(np.eye(2, dtype=np.float32), np.array([0.5, 0.0], np.float32))
    layer = LogitAdjustment(head, tau=2.0)
    layer.build((None, 2))
    layer.adapt(np.zeros((4, 2)), np.array([0, 0, 0, 1]))
    expected = np.array([[1.5, 2.0]]) - 2 * np.log([0.75, 0.25])
    np.testing.assert_allclose(layer(np.array([[1.0, 2.0]])), expected, rtol=1e-5)
    kernel, bias = fold(layer)
    np.testing.assert_allclose(np.array([[1.0, 2.0]]) @ kernel + bias, expected, rtol=1e-5)


def test_the_effective_prior_is_the_mean_posterior():
    head = dense(np.array([[np.log(3), 0.0]], np.float32), np.zeros(2, np.float32))
    layer = LogitAdjustment(head, prior="effective")
    layer.build((None, 1))
    layer.adapt(np.array([[0.0], [1.0]]), np.array([0, 0]))  # posteriors 1/2 and 3/4: the mean is 5/8
    np.testing.assert_allclose(np.exp(layer.log_prior), [5 / 8, 3 / 8], rtol=1e-5)


@pytest.mark.parametrize("tau", [0.25, 1.0])
def test_the_multiplicative_form_is_the_authors(tau):
    values = golden("logit_adjustment")
    expected = values[f"multiplicative_logits_{key(tau)}"]
    classes = values["logits"].shape[1]
    layer = LogitAdjustment(dense(np.eye(classes, dtype=np.float32), np.zeros(classes)), tau, multiplicative=True)
    layer.build((None, classes))
    labels = np.repeat(np.arange(classes), values["class_counts"])
    layer.adapt(np.zeros((len(labels), classes)), labels)
    np.testing.assert_allclose(layer(values["logits"]), expected, rtol=1e-4)
    kernel, bias = fold(layer)
    np.testing.assert_allclose(values["logits"] @ kernel + bias, expected, rtol=1e-4)


def test_a_class_without_images_is_left_alone():
    np.testing.assert_allclose(adjust_logits(np.zeros((1, 3)), [3, 1, 0], tau=1)[0, 2], 0)


# DisAlign and MARC


def test_disalign_is_the_authors_paper_form():
    values = golden("disalign")
    layer = DisAlign.from_dense(values["kernel"], values["bias"])
    for weight in ("confidence_kernel", "confidence_bias"):
        getattr(layer, weight).assign(values[weight])
    layer.scale.assign(values["logit_scale"])
    layer.offset.assign(values["logit_bias"])
    np.testing.assert_allclose(layer(values["features"]), values["paper_logits"], rtol=1e-4, atol=1e-5)
    names = {"scale": "logit_scale", "offset": "logit_bias"}
    names |= {name: name for name in ("confidence_kernel", "confidence_bias")}
    check_loss_and_gradients(values, layer, classifier_entry("disalign")[1], "paper", names)
    for rho in (1.2, 1.5):
        weights = power_weights(values["class_counts"], rho)
        np.testing.assert_allclose(weights, values[f"class_weights_{key(rho)}"], rtol=1e-5)


def test_at_its_start_disalign_is_stage_ones_classifier():
    values = golden("disalign")
    layer = DisAlign.from_dense(values["kernel"], values["bias"])
    layer.adapt(values["features"], np.zeros(len(values["features"]), int))
    expected = values["features"] @ values["kernel"] + values["bias"]
    np.testing.assert_allclose(layer(values["features"]), expected, rtol=1e-4, atol=1e-5)
    norms = np.linalg.norm(values["features"], axis=1)
    np.testing.assert_allclose(layer.feature_norm, np.sqrt(np.mean(norms**2)), rtol=1e-5)
    assert len(layer.trainable_weights) == 4


def test_marc_by_hand():
    """Class weights of norm 5 and 2; logits 3 f1 + 4 f2 + 1 and 2 f1."""
    layer = MarginCalibration.from_dense(np.array([[3.0, 2.0], [4.0, 0.0]], np.float32), np.array([1.0, 0.0]))
    features = np.array([[1.0, 1.0]])
    np.testing.assert_allclose(layer(features), [[8.0, 2.0]])
    layer.scale.assign([0.5, 2.0])
    layer.offset.assign([1.0, -1.0])
    np.testing.assert_allclose(layer(features), [[4.0 + 5.0, 4.0 - 2.0]], rtol=1e-6)
    kernel, bias = fold(layer)
    np.testing.assert_allclose(features @ kernel + bias, [[9.0, 2.0]], rtol=1e-6)


# MiSLAS


SMOOTHING = Recipe(loss="label_aware_smoothing:head=0.4:tail=0.1")


def test_scaled_logits_and_what_their_weights_learn_by_are_the_authors():
    values = golden("mislas")
    layer = ScaledDense.from_dense(values["kernel"], values["bias"])
    layer.scales.assign(values["scales"])
    np.testing.assert_allclose(layer(values["features"]), values["scaled_logits"], rtol=1e-4, atol=1e-5)
    check_loss_and_gradients(values, layer, SMOOTHING, "scaled", {name: name for name in ("kernel", "bias", "scales")})


def test_five_steps_of_mislas_are_the_authors():
    values = golden("mislas")
    layer = ScaledDense.from_dense(values["kernel"], values["bias"], lr_factor=0.2)
    model = keras.Sequential([keras.Input((values["kernel"].shape[0],)), layer])
    optimizer = CoupledSGD(0.1, momentum=0.9, coupled_weight_decay=5e-4, multipliers=layer.multipliers)
    model.compile(optimizer, SMOOTHING.loss_entry(values["class_counts"]))
    np.testing.assert_allclose(losses_of_steps(model, values, 5), values["loss_of_5_steps"], rtol=1e-5)
    for weight, name in ((layer.kernel, "kernel"), (layer.bias, "bias"), (layer.scales, "scales")):
        np.testing.assert_allclose(weight, values[f"{name}_after_5_steps"], rtol=1e-4, atol=1e-5)
    kernel, bias = fold(layer)
    np.testing.assert_allclose(values["features"] @ kernel + bias, layer(values["features"]), rtol=1e-4, atol=1e-5)


# MaxNorm


@pytest.mark.parametrize("threshold", [0.1, 0.3, 1.0])
def test_the_radius_and_the_projection_are_the_authors(threshold):
    values = golden("weight_balancing")
    radius = max_norm_radius(values["kernel"], threshold)
    np.testing.assert_allclose(radius, values[f"radius_{key(threshold)}"], rtol=1e-5)
    expected = values[f"kernel_projected_{key(threshold)}"]
    np.testing.assert_allclose(project_max_norm(values["kernel"], radius), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("tau", [0.5, 1.0, 1.9])
def test_weight_balancing_s_tau_normalisation_is_ours(tau):
    values = golden("weight_balancing")
    expected = values[f"kernel_tau_normalized_{key(tau)}"]
    np.testing.assert_allclose(tau_normalize(values["kernel"], tau), expected, rtol=1e-4, atol=1e-6)


def test_epochs_of_max_norm_are_the_authors():
    """Three epochs of four full-batch steps by the released loss, projected after each."""
    values = golden("weight_balancing")
    layer = MaxNormDense(values["kernel"].shape[1], max_norm_radius(values["kernel"], 0.1))
    model = keras.Sequential([keras.Input((values["kernel"].shape[0],)), layer])
    layer.set_weights([values["kernel"], values["bias"]])
    loss = Recipe(loss="class_balanced_binary").loss_entry(values["class_counts"])
    model.compile(CoupledSGD(0.01, momentum=0.9, coupled_weight_decay=0.1), loss)
    for epoch in range(1, 4):
        expected = values["loss_of_12_steps"][4 * epoch - 4 : 4 * epoch]
        np.testing.assert_allclose(losses_of_steps(model, values, 4), expected, rtol=1e-5)
        layer.after_epoch()
        np.testing.assert_allclose(layer.kernel, values[f"kernel_after_epoch_{epoch}"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.bias, values["bias_after_epoch_3"], rtol=1e-4, atol=1e-5)


# Class means


def test_class_means_are_averaged_as_they_are():
    """Class 0 has (2, 0) and (0, 4): its mean (1, 2) points to (1, 2) / sqrt 5, whatever the lengths of the two."""
    layer = ClassMeanCosine(2, scale=10.0)
    layer.build((None, 2))
    layer.adapt(np.array([[2.0, 0.0], [0.0, 4.0], [3.0, 0.0]]), np.array([0, 0, 1]))
    np.testing.assert_allclose(layer.kernel, np.array([[5**-0.5, 1.0], [2 * 5**-0.5, 0.0]]), rtol=1e-6)
    np.testing.assert_allclose(layer(np.array([[0.0, 7.0]])), [[20 * 5**-0.5, 0.0]], rtol=1e-5)


# Through stage two


@pytest.fixture(scope="module")
def embeddings():
    """Three classes of 90, 20 and 5 points that overlap, counts not sorted, and 40 of each to validate."""
    corners = 2 * np.eye(3, 6, dtype=np.float32)

    def around(counts, seed):
        labels = np.repeat(np.arange(3), counts)
        return FeatureSet(corners[labels] + np.random.default_rng(seed).normal(size=(len(labels), 6)), labels)

    return {"train": around((20, 90, 5), 0), "val": around((40, 40, 40), 1)}


@pytest.fixture(scope="module")
def joint(embeddings):
    recipe = Recipe(epochs=20, batch_size=23, learning_rate=0.1)
    return learn_classifier("crt:sampler=instance_balanced", features=embeddings, recipe=recipe).model.layers[-1]


NAMES = ("logit_adjusted", "class_mean_cosine", "lift", "disalign", "marc", "mislas", "max_norm")


def test_a_head_that_began_at_class_means_stays_where_training_has_left_it(embeddings):
    head = ClassMeanCosine(3, scale=10.0)
    head.build((None, embeddings["train"].width))
    learned = np.random.default_rng(0).normal(size=head.kernel.shape)
    head.kernel.assign(learned)
    kept = learn_classifier("joint", features=embeddings, head=head).model.layers[-1]
    np.testing.assert_allclose(kept.kernel, learned, rtol=1e-6)
    np.testing.assert_allclose(kept(embeddings["val"].features), head(embeddings["val"].features), rtol=1e-6)


@pytest.mark.parametrize("name", some_of(NAMES, "logit_adjusted", "lift", "mislas"))
def test_every_one_finds_more_of_the_rarest_class_than_joint(embeddings, joint, name, tmp_path):
    recipe = Recipe(epochs=10, batch_size=23, learning_rate=0.1, sampler="class_balanced")
    before = learn_classifier("joint", features=embeddings, head=joint).val
    learned = learn_classifier(name, features=embeddings, head=joint, recipe=recipe)
    assert learned.val["few"] > before["few"]
    assert learned.val["class_mean"] > before["class_mean"]
    learned.model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    features = embeddings["val"].features
    np.testing.assert_allclose(restored(features), learned.model(features), rtol=1e-6)
    affine = fold(restored.layers[-1])
    if affine is not None:
        np.testing.assert_allclose(features @ affine[0] + affine[1], learned.model(features), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "preferred", "last"), [("logit_adjusted", 1.0, 3.0), ("logit_adjusted:multiplicative=true", 0.1, 0.6)]
)
def test_tau_is_its_form_s_own_unless_val_says_otherwise_by_a_standard_error(embeddings, joint, name, preferred, last):
    learned = learn_classifier(name, features=embeddings, head=joint)
    by_tau = {row["tau"]: row["class_mean"] for row in learned.candidates}
    best, own = max(by_tau.values()), by_tau[preferred]
    assert learned.chosen == {"tau": preferred}
    assert best - own <= (own * (1 - own) / 120) ** 0.5
    np.testing.assert_allclose(list(by_tau), np.linspace(0, last, 31), atol=1e-12)


def test_parameters_reach_recipe_and_layer():
    _, recipe = classifier_entry("disalign:rho=1.5:epochs=3")
    assert (recipe.class_weights, recipe.sampler, recipe.epochs) == ("power:rho=1.5", "instance_balanced", 3)
    _, recipe = classifier_entry("mislas:head_smoothing=0.4:tail_smoothing=0.1:shape=power:power=0.5")
    assert recipe.loss == "label_aware_smoothing:head=0.4:tail=0.1:shape=power:power=0.5"
    assert classifier_entry("lift:tau=0.5")[1].loss == "logit_adjustment:tau=0.5"
    assert classifier_entry("max_norm:beta=0.99")[1].class_weights == "effective_number:beta=0.99"
    assert classifier_entry("lift:loss=cross_entropy")[1].loss == "cross_entropy"


@pytest.mark.parametrize("name", ["logit_adjusted:prior=flat", "disalign:tau=1"])
def test_parameters_that_cannot_be_are_refused(embeddings, joint, name):
    with pytest.raises(ValueError, match="Received: "):
        learn_classifier(name, features=embeddings, head=joint)
