"""Labels in every form, by all losses: class ids, a column of them, one-hot rows, and two classes of a mixed image."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lt.classifiers import NearestClassMean
from keras_lt.datasets import LongTailed, Split
from keras_lt.evaluation import score
from keras_lt.features import FeatureSet
from keras_lt.labels import MixedLabels, class_ids
from keras_lt.losses import (
    LOSSES,
    PerExampleLoss,
    balanced_softmax,
    cross_entropy,
    effective_number_weights,
    focal,
    ldam,
    lifted_structured,
    range_loss,
)
from keras_lt.methods import balpoe, oltr, ride, sade
from keras_lt.metrics import ShotAccuracy, shot_accuracy
from keras_lt.resampling import balance, count_classes
from keras_lt.stages import OnMixedLabels
from tests.conftest import some_of

COUNTS = [40, 5, 0, 12]  # one class has no image
IDS, OTHERS = np.array([0, 1, 1, 0, 1]), np.array([1, 0, 1, 1, 0])
WEIGHT = np.float32([0.5, 0.6, 0.75, 0.9, 1.0])

every_loss = pytest.mark.parametrize("name", LOSSES)
some_classes = pytest.mark.parametrize("classes", [2, 3, 4])


def logits_of(classes):
    return np.random.default_rng(classes).normal(0, 3, (len(IDS), classes)).astype(np.float32)


def loss_of(name, classes, *, reduction=None):
    loss = LOSSES[name](np.array(COUNTS[:classes]))
    loss.reduction = reduction
    return loss


IMAGES = np.zeros((5, 2, 2), np.uint8)
HIDDEN = np.ma.masked_equal(IDS, 1)  # two of five are there


@pytest.mark.parametrize(
    "door",
    [
        lambda: class_ids(HIDDEN, 2),
        lambda: Split(IMAGES, HIDDEN),
        lambda: Split(np.ma.masked_array(IMAGES, IMAGES == 0), IDS),
        lambda: FeatureSet(np.ones((5, 2)), HIDDEN),
        lambda: FeatureSet(np.ma.masked_array(np.ones((5, 2)), np.eye(5, 2)), IDS),
        lambda: balance((np.ones((5, 2)), HIDDEN)),
        lambda: shot_accuracy(HIDDEN, IDS, [3, 2]),
        lambda: shot_accuracy(IDS, IDS, np.ma.masked_array([3, 2], [0, 1])),
    ],
)
def test_what_a_mask_hides_is_not_taken_for_what_is_there(door):
    with pytest.raises(ValueError, match=r"must have all of its values: .* Received: a masked array, \d+ of \d+ "):
        door()


def test_a_masked_array_without_a_masked_value_is_an_array():
    np.testing.assert_array_equal(class_ids(np.ma.masked_equal(IDS, 7), 2), IDS)


@pytest.mark.parametrize("names", [{"a", "b"}, frozenset("ab"), {"a": 1, "b": 0}])
def test_names_without_the_order_of_the_labels_are_refused(names):
    split = Split(IMAGES, IDS)
    with pytest.raises(ValueError, match=r"class_names must be a list, in the order of the labels\. Received: "):
        LongTailed("x", split, split, split, class_names=names)


@every_loss
@some_classes
def test_every_loss_takes_ids_a_column_and_one_hot_rows_alike(name, classes):
    loss, logits = loss_of(name, classes), logits_of(classes)
    expected = loss(IDS, logits)
    assert np.isfinite(expected).all()
    np.testing.assert_array_equal(loss(IDS[:, np.newaxis], logits), expected)
    np.testing.assert_array_equal(loss(np.eye(classes)[IDS], logits), expected)
    np.testing.assert_array_equal(loss(np.eye(classes, dtype=bool)[IDS], logits), expected)


@every_loss
@pytest.mark.parametrize("classes", some_of([2, 3, 4], 3))
@pytest.mark.parametrize("form", some_of(["ids", "one-hot"], "ids"))
def test_every_loss_has_a_finite_gradient_in_a_compiled_step(name, classes, form):
    loss = loss_of(name, classes, reduction="sum_over_batch_size")
    labels = IDS if form == "ids" else np.eye(classes)[IDS]

    @tf.function(jit_compile=True)
    def gradient(logits):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = loss(labels, logits)
        return tape.gradient(value, logits)

    found = gradient(tf.constant(logits_of(classes)))
    assert np.isfinite(found).all()
    assert np.abs(found).max() > 0


@pytest.mark.parametrize("name", [name for name, entry in LOSSES.items() if not entry.compares])
@some_classes
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "mean_with_sample_weight"])
def test_every_loss_of_mixed_labels_is_the_weighted_mean_of_both_classes(name, classes, reduction):
    logits, of_each = logits_of(classes), loss_of(name, classes)
    by_hand = WEIGHT * of_each(IDS, logits) + (1 - WEIGHT) * of_each(OTHERS, logits)
    model = OnMixedLabels(keras.Sequential([keras.Input((classes,)), keras.layers.Identity()]))
    model.compile(loss=loss_of(name, classes, reduction=reduction))
    mixed = MixedLabels(*map(tf.constant, (IDS, OTHERS, WEIGHT)))
    assert float(model.compute_loss(y=mixed, y_pred=logits)) == pytest.approx(np.mean(by_hand), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_of_each_example_by_itself_where_its_entry_says_so(name):
    loss, logits = loss_of(name, 3), logits_of(3)
    alone = np.concatenate([loss(IDS[i : i + 1], logits[i : i + 1]) for i in range(len(IDS))])
    assert np.allclose(loss(IDS, logits), alone, rtol=1e-5) != LOSSES[name].compares


def test_rows_that_are_not_one_hot_give_no_number():
    loss = tf.function(PerExampleLoss(cross_entropy, reduction=None))  # elsewhere they are refused
    losses = loss(np.float32([[0.9, 0.1], [0, 1], [1, 1]]), np.zeros((3, 2)))
    np.testing.assert_allclose(losses, [np.nan, np.log(2), np.nan], rtol=1e-6)


@pytest.mark.parametrize("shape", [(5, 3), (5, 4, 1), ()])
def test_labels_of_another_shape_are_refused(shape):
    message = r"class ids, \[B\] or \[B, 1\], or one-hot rows, \[B, 4\]. Received: labels of shape \("
    with pytest.raises(ValueError, match=message):
        class_ids(np.zeros(shape), 4)
    with pytest.raises(ValueError, match=message):
        PerExampleLoss(cross_entropy)(np.zeros(shape), np.zeros((5, 4)))


def test_a_single_class_is_refused():
    with pytest.raises(ValueError, match=r"two classes or more. Received: 1"):
        PerExampleLoss(cross_entropy)(np.zeros((5, 1)), np.zeros((5, 1)))


IN_ANY_DOOR = {
    "loss": lambda labels: focal(labels, np.zeros((len(labels), 3), "f"), 2.0),
    "lifted": lambda labels: lifted_structured(labels, np.ones((len(labels), 2), "f")),
    "range": lambda labels: range_loss(labels, np.ones((len(labels), 2), "f")),
    "centroids": lambda labels: oltr.centroid_loss(labels, np.ones((len(labels), 2), "f"), np.eye(3, 2, dtype="f")),
    "margins": lambda labels: ldam(labels, np.zeros((len(labels), 3), "f"), [3, 2, 1]),
    "metric": lambda labels: ShotAccuracy([3, 2, 1]).update_state(labels, np.zeros((len(labels), 3), "f")),
    "features": lambda labels: FeatureSet(np.zeros((len(labels), 2), "f"), labels),
    "split": lambda labels: Split(np.zeros((len(labels), 2), "f"), labels),
    "balance": lambda labels: balance((np.zeros(len(labels)), labels)),
    "counting": lambda labels: count_classes([labels]),
    "class means": lambda labels: NearestClassMean(3).adapt(np.zeros((len(labels), 2), "f"), labels),
}


@pytest.mark.parametrize("door", IN_ANY_DOOR)
@pytest.mark.parametrize(
    "labels",
    [["cat", "dog", "eel"], [0.5, 1.0, 2.0], [0.0, np.nan, 1.0], [0, 1, 5_000_000_000], [[0.5, 0.5, 0]] * 3],
    ids=["words", "halves", "nan", "huge", "shares"],
)
@pytest.mark.parametrize("of", [np.array, tf.constant])
def test_what_is_no_label_is_refused_in_plain_words(door, labels, of):
    with pytest.raises(ValueError, match=r"Received: "):
        IN_ANY_DOOR[door](of(labels))


FEATURES = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
COMPARED = {
    "lifted": lambda labels: lifted_structured(labels, FEATURES),
    "range": lambda labels: range_loss(labels, FEATURES),
    "centroids": lambda labels: oltr.centroid_loss(labels, FEATURES, np.eye(2, 3, dtype="f")),
}


@pytest.mark.parametrize("name", COMPARED)
def test_what_compares_examples_takes_labels_in_every_form_and_one_for_each(name):
    expected = COMPARED[name](IDS)
    for labels in (IDS[:, np.newaxis], np.eye(2)[IDS], IDS.astype("f"), IDS.astype(np.uint8), IDS.tolist()):
        np.testing.assert_array_equal(COMPARED[name](labels), expected)
    for labels in (IDS[:1], IDS[:4]):
        with pytest.raises(ValueError, match=r"one label per row of .*Received: \d labels, 5 of them"):
            COMPARED[name](labels)


@pytest.mark.parametrize("labels", [[0, 5, 1], [0, 0.5, 1], [0, np.nan, 1]])
def test_a_step_that_is_not_compiled_says_so_too(labels):
    """Where TensorFlow alone would say something else on a CPU, and nothing on a GPU."""
    with pytest.raises(ValueError, match=r"Class ids must .*Received: "):
        LOSSES["focal"]([3, 2, 1])(np.array(labels), np.zeros((3, 3), "f"))
    with pytest.raises(ValueError, match=r"class_counts must be finite and >= 0"):
        balanced_softmax(IDS, np.zeros((5, 2), "f"), tf.constant([3.0, labels[1] - 6]))


def test_losses_take_ids_a_column_and_one_hot_rows_as_functions_too():
    logits, experts = logits_of(3), {"class_counts": [3, 2, 1], "expert_logits": np.stack([logits_of(3)] * 3)}
    for loss in (
        lambda labels: focal(labels, logits, 2.0),
        lambda labels: ldam(labels, logits, [3, 2, 1]),
        lambda labels: balpoe.loss(labels, **experts, taus=[0.0, 1.0, 2.0]),
        lambda labels: sade.loss(labels, **experts, tau=1.0),
        lambda labels: ride.loss(labels, **experts, diversity=0.2, class_weights=[1, 2, 3]),
        lambda labels: oltr.centroid_loss(labels, logits, np.eye(3, dtype=np.float32)),
    ):
        assert loss(IDS).shape == (len(IDS),)
        for labels in (IDS[:, np.newaxis], np.eye(3)[IDS], IDS.astype(np.float32)):
            np.testing.assert_array_equal(loss(labels), loss(IDS))


def test_a_label_that_no_class_has_is_named_where_it_is_scored():
    with pytest.raises(ValueError, match=r"in 0\.\.2\. Received: 3"):
        score([np.zeros((2, 3), "f")], [0, 3], [3, 2, 1])
    for counts in ([3, -1], [0, 0], [np.nan, 1], 3):
        with pytest.raises(ValueError, match="class_counts must be"):
            effective_number_weights(counts, 0.99)
