"""Adapters in keras_hub's frozen nets of tokens: tiny random ones, so that nothing is downloaded."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lt import backbones
from keras_lt.backbones import TRAIN_PARTS, of_model
from keras_lt.backbones.adapters import Bottleneck, BottleneckNet, LowRankNet
from keras_lt.backbones.trained_parts import power_of_two
from keras_lt.config import RunConfig
from keras_lt.config.checks import check
from keras_lt.distribution import make_strategy
from keras_lt.recipe import Recipe
from keras_lt.registry import member
from keras_lt.stages import building, copy_of, learn_representation
from keras_lt.stages.fitting import save_model
from tests import tiny_presets
from tests.conftest import some_of

IMAGES = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)
CLASSES = ("vit", "clip", "dinov2", "dinov3", "deit", "siglip", "metaclip2")


def backbone_of(family, tmp_path):
    getattr(tiny_presets, family)().save_to_preset(tmp_path)
    return backbones.build(f"keras_hub/{tmp_path}", image_size=32, pretrained="imagenet")


def with_parts(backbone, text):
    return member(TRAIN_PARTS, text, what="train_parts")(backbone, classes=10)


def outputs(model):
    return np.asarray(model(IMAGES, training=False))


def moved(model):
    """Every trainable weight by another amount, so that none is zero."""
    rng = np.random.default_rng(1)
    for weight in model.trainable_weights:
        weight.assign(weight + 0.3 * rng.standard_normal(weight.shape))


def gradients_of(model):
    """Of a weighted sum of the outputs, by the trainable weights; behind a layer norm that of squares is constant."""
    with tf.GradientTape() as tape:
        given = model(IMAGES, training=True)
        loss = tf.reduce_sum(given * tf.cos(tf.range(given.shape[-1], dtype=tf.float32)))
    return [np.asarray(gradient) for gradient in tape.gradient(loss, model.trainable_weights)]


# The first is made anew with layers that are trainable; the next tests have others.
@pytest.mark.parametrize("family", some_of(CLASSES, "vit"))
def test_a_net_begins_as_it_is_trains_its_adapters_alone_and_is_saved_and_loaded(family, tmp_path):
    backbone = backbone_of(family, tmp_path / "preset")
    before, frozen = outputs(backbone), backbone.get_weights()
    for text, tensors in (("lora:rank=3", 4), ("adaptformer:bottleneck=4", 7)):
        adapted = with_parts(backbone, text)
        np.testing.assert_array_equal(outputs(adapted), before)
        trained = [weight.path for weight in adapted.trainable_weights]
        assert len(set(trained)) == len(trained) == tensors
        moved(adapted)
        assert all(np.abs(gradient).max() > 0 for gradient in gradients_of(adapted))
        after = outputs(adapted)
        assert np.abs(after - before).max() > 0.01
        save_model(adapted, tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(outputs(again), after)
        assert [weight.path for weight in again.trainable_weights] == trained
        np.testing.assert_allclose(outputs(backbones.folded(adapted)), after, atol=1e-5)
    for ours, theirs in zip(backbone.get_weights(), frozen, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("parts", "policy", "eps"),
    [
        pytest.param("lora:rank=4", "mixed_float16", 2**-11, marks=pytest.mark.exhaustive),
        pytest.param("adaptformer:bottleneck=4", "mixed_bfloat16", 2**-8, marks=pytest.mark.exhaustive),
        pytest.param("lora:rank=4", "mixed_bfloat16", 2**-8, marks=pytest.mark.exhaustive),
        pytest.param("adaptformer:bottleneck=4", "mixed_float16", 2**-11, marks=pytest.mark.exhaustive),
    ],
)
def test_adapters_of_half_precision_are_float32_weights_that_compute_in_it(parts, policy, eps, tmp_path):
    """Half a unit in the last place is `eps`; a twin in float32 has the same weights."""
    twin = with_parts(backbone_of("vit", tmp_path), parts)
    with building(make_strategy("none"), seed=0, precision=policy):
        plain = backbones.build(f"keras_hub/{tmp_path}", image_size=32, pretrained="imagenet")
    adapted = with_parts(plain, parts)
    np.testing.assert_array_equal(outputs(adapted), outputs(plain))
    moved(adapted)
    for weight, theirs in zip(twin.trainable_weights, adapted.trainable_weights, strict=True):
        weight.assign(theirs)
    assert {weight.dtype for weight in adapted.trainable_weights} == {"float32"}
    assert adapted.layers[1](IMAGES).dtype == policy.removeprefix("mixed_")
    np.testing.assert_allclose(outputs(adapted), outputs(twin), atol=32 * eps)
    gradients, expected = (gradients_of(model) for model in (adapted, twin))
    largest = max(np.abs(gradient).max() for gradient in expected)
    for ours, theirs in zip(gradients, expected, strict=True):
        assert ours.dtype == "float32"
        np.testing.assert_allclose(ours, theirs, atol=32 * eps * largest)
    np.testing.assert_allclose(outputs(backbones.folded(adapted)), outputs(adapted), atol=2 * eps)


def test_lora_adds_its_product_over_the_rank_to_queries_and_values(tmp_path):
    backbone = backbone_of("clip", tmp_path)
    adapted = with_parts(copy_of(backbone), "lora:rank=2")
    moved(adapted)
    adapted = copy_of(adapted)  # as stage two trains one
    attention = backbone.layers[1].encoder_layers[0].attention
    a_query, b_query, a_value, b_value = (weight.numpy() for weight in adapted.trainable_weights)
    assert (a_query.shape, b_query.shape) == ((16, 2), (2, 16))
    for dense, product in ((attention.query_dense, a_query @ b_query), (attention.value_dense, a_value @ b_value)):
        dense.kernel.assign(dense.kernel + product.reshape(16, 2, 8) / 2)
    np.testing.assert_allclose(outputs(adapted), outputs(backbone), atol=1e-5)
    folded = backbones.folded(adapted)
    assert not any(isinstance(layer, LowRankNet) for layer in folded.layers)
    np.testing.assert_allclose(folded.layers[1].get_weights()[8], backbone.layers[1].get_weights()[8], atol=1e-6)
    assert backbones.folded(backbone) is backbone

    whole = TRAIN_PARTS["all"](adapted, classes=10)  # as stage two's crt_all
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(whole(IMAGES, training=True) ** 2)
    gradients = tape.gradient(loss, [whole.layers[1].kernels[0], whole.layers[1].factors[0][0]])
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)


def test_a_bottleneck_adds_what_its_paper_says():
    layer = Bottleneck(2)
    tokens = np.random.default_rng(2).standard_normal((2, 3, 4)).astype(np.float32)
    assert not np.asarray(layer(tokens)).any()
    assert float(layer.scale) == 1
    assert np.abs(layer.down.kernel).max() <= 1 / 2  # 1 / sqrt(D)
    moved(layer)
    scale, gamma, beta, down, down_bias, up, up_bias = (weight.numpy() for weight in layer.trainable_weights)
    centred = tokens - tokens.mean(-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * gamma + beta
    expected = scale * (np.maximum(normed @ down + down_bias, 0) @ up + up_bias)
    np.testing.assert_allclose(layer(tokens), expected, rtol=1e-4, atol=1e-5)


def test_an_adapter_stands_beside_the_mlp(tmp_path):
    """A constant that the last block adds is seen before the last layer norm, whatever the tokens are."""
    backbone = backbone_of("vit", tmp_path)
    encoder = backbone.layers[1].layers[2]
    adapted = with_parts(backbone, "adaptformer:bottleneck=4")
    constant = np.arange(16, dtype=np.float32)
    adapted.layers[1].adapters[-1].up.bias.assign(constant)
    adapted.layers[1].adapters[-1].scale.assign(0.5)
    tokens = encoder.encoder_layers[0](backbone.layers[1].layers[1](IMAGES)) + constant / 2
    np.testing.assert_allclose(outputs(adapted), encoder.layer_norm(tokens)[:, 0], atol=1e-5)


def test_sizes_are_by_the_rule_of_lift():
    """Twelve blocks: as many numbers as in the head of 1,000, 100, 365 and 8,142 classes, or fewer."""
    assert [power_of_two(classes / 24) for classes in (1000, 100, 365, 8142, 10)] == [32, 4, 8, 256, 1]
    net = of_model(tiny_presets.vit())(image_size=32)
    assert net.layers[1].name == "body"
    adapted = TRAIN_PARTS["adaptformer"](net, classes=40)  # of one block
    assert isinstance(adapted.layers[1], BottleneckNet)
    assert adapted.layers[1].bottleneck == 16
    assert TRAIN_PARTS["lora"](net, classes=40).layers[1].rank == 8


def test_models_of_ones_own_are_asked_for_their_blocks():
    nets = (tiny_presets.vit(), tiny_presets.vgg())
    assert [of_model(net).takes_adapters for net in nets] == [True, False]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ("lora", r"train_parts=lora and adaptformer need a frozen net of tokens: a ViT,.*Received: backbone=swin"),
        ("adaptformer", r"need a frozen net of tokens.*Received: backbone=swin"),
        ("lora:rank=-1", r"rank must be at least 0\. Received: rank=-1"),
        ("lora:bottleneck=4", r"lora has the parameters rank=0\. Received: train_parts=lora:bottleneck=4"),
        ("adapters", r"train_parts must be one of all, .*lora, adaptformer\. Received: train_parts='adapters'"),
    ],
)
def test_what_has_no_adapters_is_refused(data, parts, message, monkeypatch):
    entry = dataclasses.replace(backbones.find("tiny"), label="swin")
    monkeypatch.setattr(type(entry), "__call__", lambda self, **options: pytest.fail("it was built"))
    with pytest.raises(ValueError, match=message):
        learn_representation(data, backbone=entry, train_parts=parts)


def test_adapters_need_images():
    with pytest.raises(ValueError, match=r"stage_one=features trains nothing of the backbone.*Received: .*lora"):
        check(RunConfig(stage_one="features", train_parts="lora"))


@pytest.mark.exhaustive
def test_a_killed_training_of_adapters_ends_where_an_uninterrupted_one_does(data, tmp_path):
    net = tiny_presets.vit()
    recipe = {"epochs": 2, "steps_per_epoch": 2, "batch_size": 16, "learning_rate": 0.01, "jit_compile": "false"}
    recipe = Recipe(**recipe, optimizer="adamw")
    arguments = {"backbone": of_model(net), "recipe": recipe, "train_parts": "lora:rank=2", "image_size": 32}
    arguments |= {"backbone_lr_multiplier": 0.5}
    whole = learn_representation(data, **arguments, folder=tmp_path)
    last = tmp_path / "checkpoints/epoch-00002.npz"
    expected = dict(np.load(last))
    last.unlink()
    resumed = learn_representation(data, **arguments, folder=tmp_path)
    for name, array in np.load(last).items():
        if name != "history":  # it has the seconds
            np.testing.assert_array_equal(array, expected[name])
    assert [row["val_loss"] for row in resumed.history] == [row["val_loss"] for row in whole.history]
    adapters = resumed.backbone.layers[1]
    assert all(np.abs(factor).max() > 0 for pair in adapters.factors for factor in pair)
    for ours, theirs in zip(adapters.net.get_weights(), net.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
