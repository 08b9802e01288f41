"""BBN: its schedule, its mixed logits and loss, what each branch sees and learns from, and whole runs."""

import dataclasses
import json

import keras
import numpy as np
import pytest

from keras_lt import Recipe, backbones
from keras_lt.datasets import LongTailed, Split
from keras_lt.features import extract_features
from keras_lt.input_pipeline import Stream
from keras_lt.losses import LOSSES
from keras_lt.methods import METHODS, bbn
from keras_lt.metrics import ShotAccuracy
from keras_lt.preprocessing import Preprocessing
from keras_lt.stages import Representation, learn_classifier, learn_representation
from tests.conftest import COUNTS
from tests.programs import NOISE, TWO_CPUS, lines_of
from tests.tiny_backbone import tiny

RECIPE = Recipe(epochs=3, batch_size=12, learning_rate=0.1, weight_decay=5e-4)


def stripes(counts, *, seed):
    """Horizontal stripes, vertical stripes and a chequerboard, with noise.

    The tests' grey squares would not do: pairs of batches differ in their classes, and so would in brightness, which
    batch norm takes away.
    """
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(3), counts))
    rows, columns = np.indices((8, 8)) // 2 % 2
    kinds = np.stack([rows, columns, rows ^ columns])
    return (60 + 100 * kinds[labels] + rng.integers(-40, 41, (len(labels), 8, 8))).astype(np.uint8), labels


@pytest.fixture(scope="module")
def striped():
    splits = [Split(*stripes(counts, seed=seed)) for seed, counts in enumerate((COUNTS, (10,) * 3, (7,) * 3))]
    return LongTailed("stripes", *splits, class_names="abc", augmentation="none", crop_fraction=1.0)


@pytest.fixture(scope="module")
def learned(striped):
    return learn(striped, backbone="tiny", recipe=dataclasses.replace(RECIPE, epochs=4))


def learn(data, **options):
    return learn_representation(data, hooks=METHODS["bbn"](), **options)


def bilateral(*, seed=0):
    """The training model of a tiny net, four features a branch and three classes, with drawn weights, compiled."""
    network = backbones.branched(tiny())
    classifier = keras.layers.Dense(3, name="classifier")
    network.name = "backbone"
    model = keras.Model(network.input, classifier(network(network.input)))
    rng = np.random.default_rng(seed)
    model.set_weights([rng.uniform(0.2, 1, weight.shape) for weight in model.get_weights()])
    trained = bbn.BilateralBranches(model)
    trained.compile(loss=LOSSES["cross_entropy"](COUNTS), weighted_metrics=[ShotAccuracy(COUNTS)])
    return trained


def pair(*, seed=1, size=4):
    rng = np.random.default_rng(seed)
    return tuple(rng.standard_normal((size, 8, 8, 3)).astype(np.float32) for _ in range(2))


def cross_entropy(labels, logits):
    logits = logits - logits.max(axis=1, keepdims=True)
    return np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels])


def test_alpha_falls_as_a_parabola():
    """Epoch T = 1, 101 and 200 of 200: 1 - (0 / 200)^2, 1 - (1 / 2)^2, 1 - (199 / 200)^2."""
    assert [bbn.cumulative_alpha(epoch, 200) for epoch in (0, 100, 199)] == pytest.approx([1, 0.75, 0.009975])
    # The reference's schedules for iNaturalist end a tenth early: epoch T = 180 has 1 - (179 / 200)^2.
    assert bbn.HORIZONS == {90: 100, 180: 200}


def test_logits_and_loss_of_a_pair_are_the_papers():
    model, (uniform, rebalanced) = bilateral(), pair()
    labels = np.array([0, 0, 1, 2]), np.array([2, 1, 2, 0])
    a = 0.75
    model.alpha.assign(a)
    kernel, bias = model.model.get_layer("classifier").get_weights()
    features = np.concatenate([1.5 * model.uniform(uniform), 0.5 * model.reversed(rebalanced)], axis=1)
    expected = features @ kernel + bias
    logits, alpha = model((uniform, rebalanced))
    np.testing.assert_allclose(logits, expected, rtol=1e-5)
    loss = model.compute_loss(y=labels, y_pred=(logits, alpha))
    np.testing.assert_allclose(
        loss, a * cross_entropy(labels[0], expected) + (1 - a) * cross_entropy(labels[1], expected), rtol=1e-5
    )


def test_training_accuracy_weighs_both_labels():
    """All four pairs are taken for class 0: right for three uniform labels and one reversed one."""
    model = bilateral()
    logits, labels = np.eye(3)[[0] * 4], (np.array([0, 0, 0, 1]), np.array([0, 1, 2, 2]))
    logs = model.compute_metrics(None, labels, (keras.ops.convert_to_tensor(logits), 0.75))
    assert float(logs.get("shot_accuracy", logs)["all"]) == pytest.approx((0.75 * 3 + 0.25 * 1) / 4)


def test_single_images_get_the_mean_of_both_branches():
    """Features are ReLUs of the batch norm's beta, 3 in one branch and 5 in the other, since gamma is 0."""
    model = bilateral()
    for branch, beta in zip((model.uniform, model.reversed), (3, 5), strict=True):
        norm = branch.get_layer(branch.name).layers[-2]
        norm.gamma.assign(np.zeros(4))
        norm.beta.assign(np.full(4, beta))
    kernel, bias = np.zeros((8, 3)), np.array([10, 20, 30])
    kernel[0], kernel[4] = [1, 0, 2], [0, 1, 4]
    model.model.get_layer("classifier").set_weights([kernel, bias])
    # Each branch alone, at full weight: 2 * 3 * [1, 0, 2] + bias and 2 * 5 * [0, 1, 4] + bias.
    alone = np.array([[16, 20, 42], [10, 30, 70]])
    images, _ = pair()
    np.testing.assert_allclose(model(images), np.tile(alone.mean(axis=0), (4, 1)), rtol=1e-6)
    np.testing.assert_array_equal(model(images), model.model(images))
    for a, expected in zip((1.0, 0.0), alone, strict=True):
        model.alpha.assign(a)
        np.testing.assert_allclose(model(pair())[0], np.tile(expected, (4, 1)), rtol=1e-6)


@pytest.mark.parametrize("a", [1.0, 0.75, 0.0])
def test_gradients_reach_the_branches_in_proportion(a):
    """Branches with equal weights, images and kernels differ in nothing but a and 1 - a."""
    import tensorflow as tf  # noqa: PLC0415

    model, (images, _) = bilateral(), pair()
    labels = np.array([0, 1, 2, 0]), np.array([2, 1, 0, 2])
    model.alpha.assign(a)
    uniform, reversed_ = (branch.get_layer(branch.name) for branch in (model.uniform, model.reversed))
    reversed_.set_weights(uniform.get_weights())
    kernel, bias = model.model.get_layer("classifier").get_weights()
    model.model.get_layer("classifier").set_weights([np.tile(kernel[:4], (2, 1)), bias])
    with tf.GradientTape() as tape:
        loss = model.compute_loss(y=labels, y_pred=model((images, images), training=True))
    weights = uniform.trainable_variables, reversed_.trainable_variables
    ours, theirs = tape.gradient(loss, [[v.value for v in part] for part in weights])
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose((1 - a) * mine.numpy(), a * other.numpy(), atol=1e-6)
    assert bool(np.any(ours[-1])) == (a > 0)
    assert bool(np.any(theirs[-1])) == (a < 1)


def test_each_half_has_its_own_batch_statistics():
    """The trunk's moving mean from 0 by 0.9: first the uniform half, then the reversed one."""
    model, (uniform, rebalanced) = bilateral(), pair()
    convolution, norm = model.model.get_layer("backbone").get_layer("stem").layers[1:3]
    norm.moving_mean.assign(np.zeros(4))
    model((uniform, rebalanced + 1), training=True)
    first, second = (np.mean(convolution(images), axis=(0, 1, 2)) for images in (uniform, rebalanced + 1))
    np.testing.assert_allclose(norm.moving_mean, 0.9 * (0.1 * first) + 0.1 * second, rtol=1e-4)


def batches(data, recipe, **options):
    preprocessing = Preprocessing(image_size=8, augmentation="none", crop_fraction=1.0, mean=(0,) * 3, std=(1,) * 3)
    return bbn.paired_batches(data.train, preprocessing, Stream(recipe, data.class_counts, **options))


def test_pairs_are_drawn_by_both_samplers(striped):
    """150 / n of 120, 24 and 6 images: the reversed sampler draws 1 : 5 : 20."""
    recipe = dataclasses.replace(RECIPE, epochs=1, batch_size=50, steps_per_epoch=120)
    pairs = list(batches(striped, recipe, seed=0).as_numpy_iterator())
    uniform, rebalanced = (np.concatenate([labels[side] for _, labels in pairs]) for side in (0, 1))
    assert len(uniform) == len(rebalanced) == 6000
    np.testing.assert_array_equal(np.bincount(uniform) / 6000, [0.8, 0.16, 0.04])  # 40 whole passes
    np.testing.assert_allclose(np.bincount(rebalanced) / 6000, np.array([1, 5, 20]) / 26, atol=0.02)
    # Labels are those of their images: only horizontal stripes (class 0) are alike in all columns, but for the noise.
    for side in (0, 1):
        images, labels = pairs[0][0][side][..., 0], pairs[0][1][side]
        assert ((images[:, :, ::2].mean(axis=1).std(axis=1) < 0.1) == (labels != 1)).all()


def test_a_pair_depends_on_its_position_and_the_seed_alone(striped):
    recipe = dataclasses.replace(RECIPE, epochs=2)

    def labels(**options):
        return [np.stack(pair_of_labels) for _, pair_of_labels in batches(striped, recipe, **options)]

    whole = labels(seed=3)
    np.testing.assert_array_equal(whole[7:], labels(seed=3, start_step=7))
    assert (np.array(whole) != np.array(labels(seed=4))).any(axis=(0, 2)).all()  # both streams have other draws


def test_a_tiny_net_learns_and_logs_alpha(learned, striped):
    assert max(row["val_class_mean"] for row in learned.history) > 0.9
    assert [row["alpha"] for row in learned.history] == [1, 15 / 16, 3 / 4, 7 / 16]
    assert learned.backbone.output_shape == (None, 8)
    assert learned.head.kernel.shape == (8, 3)


@pytest.mark.versions
def test_what_it_leaves_is_a_representation_like_any_other(learned, striped, tmp_path):
    learned.save(tmp_path)
    again = Representation.load(tmp_path)
    images = np.random.default_rng(0).standard_normal((3, 8, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(again.model(images), learned.model(images))
    features = {
        split: extract_features(again.backbone, striped.splits[split], again.preprocessing)
        for split in ("train", "val")
    }
    recipe = dataclasses.replace(RECIPE, sampler="class_balanced")
    options = {"features": features, "recipe": recipe, "seed": 0, "strategy": None, "folder": None}
    own = METHODS["bbn"]().classifier(again, striped, **options)
    assert own.val["class_mean"] == max(row["val_class_mean"] for row in learned.history)
    assert own.backbone is again.backbone
    np.testing.assert_allclose(own.model(again.backbone(images)), learned.model(images), rtol=1e-6)
    assert learn_classifier("crt", again, striped, **options).val["class_mean"] > 0.9


@pytest.mark.exhaustive
def test_a_stopped_run_ends_as_an_uninterrupted_one(striped, tmp_path):
    """The last epoch's checkpoint is taken away, as if the run had been killed before it."""
    recipe = dataclasses.replace(RECIPE, steps_per_epoch=3)
    last = tmp_path / "checkpoints" / f"epoch-{recipe.epochs:05d}.npz"

    def state():
        learn(striped, backbone="tiny", recipe=recipe, folder=tmp_path)
        with np.load(last) as saved:
            history = [{**row, "seconds": 0} for row in json.loads(str(saved["history"]))]
            return {name: saved[name] for name in saved.files if saved[name].dtype.kind != "U"}, history

    whole, history = state()
    last.unlink()
    resumed, again = state()
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        np.testing.assert_allclose(resumed[name], value, rtol=1e-5, atol=1e-6)
    assert [row["alpha"] for row in again] == [row["alpha"] for row in history]
    assert again[-1] == pytest.approx(history[-1], rel=1e-5)


ON_JAX = """
import os

os.environ |= {"KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
"""
TWO_DEVICES = """
from keras_lt.methods import METHODS, bbn

recipe = Recipe(epochs=2, steps_per_epoch=2, batch_size=8, learning_rate=0.02, weight_decay=0.01)
one, two = (
    learn_representation(
        data, hooks=METHODS["bbn"](), backbone="tiny", recipe=recipe, strategy=make_strategy(*strategy)
    )
    for strategy in (["none"], two_devices)
)
moved = [np.abs(a - b).max() for a, b in zip(one.model.get_weights(), two.model.get_weights())]
scores = [abs(one.history[1][name] - two.history[1][name]) for name in ("loss", "all", "val_class_mean")]
print(max(moved), max(scores))
"""


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "program",
    [
        (TWO_CPUS, NOISE, 'two_devices = ["mirrored", ["CPU:0", "CPU:1"]]', TWO_DEVICES),
        (ON_JAX, NOISE, 'two_devices = ["multi_host"]', TWO_DEVICES),
    ],
    ids=["mirrored", "multi_host"],
)
def test_two_devices_give_the_weights_and_scores_of_one(program):
    weights, scores = map(float, lines_of(*program)[-1].split())
    assert weights < 1e-4
    assert scores < 1e-4


def test_the_training_model_can_be_cloned():
    """As `MultiHost` does to put it on all devices."""
    model = bilateral()
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    np.testing.assert_array_equal(copy(pair())[0], model(pair())[0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"recipe": dataclasses.replace(RECIPE, sampler="class_balanced")}, "sampler='instance_balanced' and no other"),
        ({"recipe": dataclasses.replace(RECIPE, engine="weighted")}, "engine='auto'"),
        ({"recipe": dataclasses.replace(RECIPE, loss="focal")}, "loss='cross_entropy'.*Received: loss='focal'"),
        ({"recipe": dataclasses.replace(RECIPE, class_weights="effective_number")}, "class_weights='none'"),
        ({"recipe": dataclasses.replace(RECIPE, feature_loss="range")}, "feature_loss=''"),
        ({"head": "cosine"}, "head='auto'.*Received: head='cosine'"),
        ({"pretrained": "net.weights.h5"}, "pretrained=''"),
        ({"train_parts": "last_block"}, "train_parts='all'"),
        ({"mixup": 0.2}, "mixup=0 "),
        ({"cutmix": 1.0}, "cutmix=0 "),
        ({"backbone": "keras_applications/ResNet50"}, "backbone of method=bbn must be one of resnet10"),
        ({"precision": "float16"}, "precision must be one of"),
    ],
)
def test_what_is_not_bbn_is_refused(striped, options, words):
    with pytest.raises(ValueError, match=words):
        learn(striped, **options)
