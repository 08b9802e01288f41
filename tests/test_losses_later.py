"""Losses after the paper against the authors' own values and gradients, and what their golden values do not show."""

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lt.labels import MixedLabels
from keras_lt.losses import LOSSES, loss_entry, smoothing_by_class
from keras_lt.stages import OnMixedLabels

GOLDEN = pathlib.Path(__file__).parent / "golden/later"
# Loss -> file, name of the value, name of the gradient, factor of the authors' mean over ours.
CASES = {
    **{
        f"label_aware_smoothing:head={head}:tail={tail}:shape={shape}": ("mislas", f"loss_{key}", f"grad_{key}", 1)
        for head, tail, share in ((0.4, 0.1, "0_4_0_1"), (0.3, 0.0, "0_3_0_0"))
        for shape, key in (
            ("concave", f"concave_{share}"),
            ("linear", f"linear_{share}"),
            ("convex", f"convex_{share}"),
            ("power:power=2", f"exp_2_0_{share}"),
            ("power:power=0.5", f"exp_0_5_{share}"),
        )
    },
    "balanced_binary_cross_entropy:label_smoothing=0.1": (
        "smoothing_and_bce",
        "bce_balanced_loss",
        "bce_balanced_grad",
        1,
    ),
    **{
        f"los:delta={delta}": ("smoothing_and_bce", f"los_loss_{key}", f"los_grad_{key}", 1)
        for delta, key in ((0.9, "0_9"), (0.98, "0_98"), (0.99, "0_99"))
    },
    "lade:weight=0.1:regularizer=0.1": ("lade", "lade_loss_0_1_alpha_0_1", "lade_grad_0_1_alpha_0_1", 1),
    "lade:weight=0.05:regularizer=0.5": ("lade", "lade_loss_0_5_alpha_0_05", "lade_grad_0_5_alpha_0_05", 1),
    "lade:weight=0.1:regularizer=0.01": ("lade", "lade_loss_0_01_alpha_0_1", "lade_grad_0_01_alpha_0_1", 1),
    "lade:weight=0": ("lade", "prior_ce_loss", "prior_ce_grad", 1),
    "class_balanced_binary": ("weight_balancing", "cb_binary_loss_0_9999", "cb_binary_grad_0_9999", 1),
    "class_balanced_binary:beta=0.99": ("weight_balancing", "cb_binary_loss_0_99", "cb_binary_grad_0_99", 1),
    "logit_adjustment:tau=0.5": ("logit_adjustment", "loss_0_5", "grad_0_5", 1),
    "logit_adjustment:tau=1": ("logit_adjustment", "loss_1_0", "grad_1_0", 1),
    "logit_adjustment:tau=2": ("logit_adjustment", "loss_2_0", "grad_2_0", 1),
}

NAMES = ("label_aware_smoothing", "balanced_binary_cross_entropy", "lade", "class_balanced_binary")


def value_and_gradient(loss, class_counts, labels, logits):
    function = loss_entry(loss)(class_counts)
    return with_gradient(lambda watched: function(tf.constant(labels), watched), logits)


def with_gradient(function, logits):
    logits = tf.constant(logits, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = function(logits)
    return float(value), tape.gradient(value, logits).numpy()


def check_against(ours, slope, value, gradient):
    np.testing.assert_allclose(ours, value, rtol=1e-5)
    np.testing.assert_allclose(slope, gradient, rtol=1e-4, atol=1e-5 * np.abs(gradient).max())


@pytest.mark.parametrize("loss", CASES)
def test_values_and_gradients_are_the_authors(loss):
    file, value, gradient, factor = CASES[loss]
    golden = np.load(GOLDEN / f"{file}.npz")
    ours, slope = value_and_gradient(loss, golden["class_counts"], golden["labels"], golden["logits"])
    check_against(ours, slope, factor * golden[value], factor * golden[gradient])


def test_the_loss_of_mixed_images_is_the_authors():
    """Theirs weighs the first image's label by lambda, below a half here, so that the other's is the larger part."""
    golden = np.load(GOLDEN / "mislas.npz")
    images = keras.Input((12,))
    model = OnMixedLabels(keras.Model(images, keras.layers.Identity()(images)))
    model.compile(loss=loss_entry("label_aware_smoothing:head=0.4:tail=0.1")(golden["class_counts"]))
    share = np.full(32, 1 - golden["mixup_lambda"], np.float32)
    labels = MixedLabels(golden["other_labels"], golden["labels"], share)
    ours, slope = with_gradient(lambda logits: model.compute_loss(y=labels, y_pred=logits), golden["logits"])
    check_against(ours, slope, golden["mixup_loss_concave_0_4_0_1"], golden["mixup_grad_concave_0_4_0_1"])


def test_without_its_prior_the_balanced_binary_cross_entropy_is_the_authors_plain_one():
    golden = np.load(GOLDEN / "smoothing_and_bce.npz")
    shares = golden["class_counts"] / golden["class_counts"].sum()
    logits = golden["logits"] - np.log(shares / (1 - shares))
    loss = "balanced_binary_cross_entropy:label_smoothing=0.1"
    ours, slope = value_and_gradient(loss, golden["class_counts"], golden["labels"], logits)
    check_against(ours, slope, golden["bce_plain_loss"], golden["bce_plain_grad"])


@pytest.mark.parametrize(
    "loss", ["label_aware_smoothing", "balanced_binary_cross_entropy", "lade", "class_balanced_binary"]
)
def test_classes_need_not_be_sorted(loss):
    """The same examples under a permutation of the classes have the same loss."""
    golden = np.load(GOLDEN / "lade.npz")
    order = np.random.default_rng(0).permutation(12)
    plain, slope = value_and_gradient(loss, golden["class_counts"], golden["labels"], golden["logits"])
    permuted, moved = value_and_gradient(
        loss, golden["class_counts"][order], np.argsort(order)[golden["labels"]], golden["logits"][:, order]
    )
    np.testing.assert_allclose(permuted, plain, rtol=1e-5)
    np.testing.assert_allclose(moved, slope[:, order], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "loss", ["label_aware_smoothing", "balanced_binary_cross_entropy", "lade", "class_balanced_binary"]
)
@pytest.mark.parametrize("counts", [[5, 5, 5], [9, 3, 0], [100, 3, 1]], ids=["equal", "absent", "single"])
def test_equal_counts_and_rare_classes_are_finite(loss, counts):
    value, slope = value_and_gradient(loss, counts, [0, 0, 1], np.eye(3) * 50)
    assert np.isfinite(value)
    assert np.isfinite(slope).all()


def test_a_class_of_nearly_all_images_has_all_digits_of_its_prior():
    """Seven of three billion and seven images: the odds of the rest are 3e9 / 7, which 1 - pi in float32 has not."""
    labels, odds = np.array([0, 1]), 3e9 / 7
    ours = loss_entry("balanced_binary_cross_entropy")([3_000_000_000, 7]).call(tf.constant(labels), tf.zeros((2, 2)))
    np.testing.assert_allclose(ours, [2 * np.log1p(1 / odds), 2 * np.log1p(odds)], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gap", [9.0, 30.0])
def test_a_class_that_is_nearly_certain_has_all_digits_of_its_complement(gap):
    """Two classes: -log p of the wrong one, and -log(1 - p) of the right one, are both log(1 + e^gap)."""
    value, slope = value_and_gradient("class_balanced_binary", [5, 5], [0], [[0.0, gap]])
    assert value == pytest.approx(np.log1p(np.exp(gap)), rel=1e-6)
    np.testing.assert_allclose(slope, [[-1, 1]], rtol=1e-3)


def test_smoothing_by_hand():
    """Counts 9, 5 and 1 have t = 1, 1/2 and 0."""
    np.testing.assert_allclose(smoothing_by_class([9, 5, 1], head=0.3, tail=0.1, shape="linear"), [0.3, 0.2, 0.1])
    concave = smoothing_by_class([9, 5, 1], head=0.3, tail=0.1)
    np.testing.assert_allclose(concave, [0.3, 0.1 + 0.2 * 2**-0.5, 0.1])
    np.testing.assert_allclose(smoothing_by_class([4, 4], head=0.3, tail=0.1), [0.3, 0.3])


@pytest.mark.parametrize(
    "loss",
    [
        "label_aware_smoothing:head=1",
        "label_aware_smoothing:shape=round",
        "label_aware_smoothing:power=3",
        "lade:weight=-1",
        "balanced_binary_cross_entropy:label_smoothing=1",
        "class_balanced_binary:beta=1",
        "los:delta=1",
    ],
)
def test_what_does_not_fit_is_refused(loss):
    with pytest.raises(ValueError, match="Received: "):
        loss_entry(loss)([3, 1])
    assert loss.partition(":")[0] in LOSSES
