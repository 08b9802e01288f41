"""Nets of keras_hub that have no feature pyramid. Nothing is downloaded: presets are folders of tiny nets."""

import dataclasses
import json

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

import keras_lt
from keras_lt import backbones
from keras_lt.compat import layers_within
from keras_lt.datasets import LongTailed, Split
from keras_lt.stages import make_preprocessing
from keras_lt.stages.fitting import save_model
from tests import tiny_presets
from tests.conftest import some_of
from tests.journeys import saved_and_exported

SIZE = 32
IMAGES = np.random.default_rng(0).standard_normal((2, SIZE, SIZE, 3)).astype(np.float32)


def class_token(tokens):
    return tokens[:, 0]


def class_token_and_patches(tokens):
    """Five tokens are no patches: the class token and four registers."""
    return np.concatenate([tokens[:, 0], tokens[:, 5:].mean(1)], axis=-1)


def layer_norm(net, tokens):
    norm = net.vision_post_layer_norm
    gamma, beta = (np.asarray(weight) for weight in (norm.gamma, norm.beta))
    centred = tokens - tokens.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * gamma + beta


def positions(feature_map):
    return feature_map.mean((1, 2))


# A class: its net, (net, what it gives) -> features, their width, whether it takes one size only.
CLASSES = {
    "vit": (tiny_presets.vit, lambda net, given: class_token(given), 16, True),
    "vit_without_class_token": (
        lambda: tiny_presets.vit(use_class_token=False),
        lambda net, given: given.mean(1),
        16,
        True,
    ),
    "deit": (tiny_presets.deit, lambda net, given: class_token(given), 16, True),
    "dinov2": (tiny_presets.dinov2, lambda net, given: class_token_and_patches(given), 32, False),
    "dinov3": (tiny_presets.dinov3, lambda net, given: class_token_and_patches(given), 32, False),
    "clip": (tiny_presets.clip, lambda net, given: class_token(given), 16, True),
    "metaclip2": (tiny_presets.metaclip2, lambda net, given: layer_norm(net, class_token(given)), 16, True),
    "siglip": (tiny_presets.siglip, lambda net, given: given, 16, True),
    "swin": (tiny_presets.swin, lambda net, given: given.mean(1), 16, True),
    "mobilenetv5": (tiny_presets.mobilenetv5, lambda net, given: positions(given), 16, False),
    "hgnetv2": (tiny_presets.hgnetv2, lambda net, given: positions(given["stage1"]), 16, False),
    "mobilenet": (tiny_presets.mobilenet, lambda net, given: positions(given), 16, False),
    "xception": (tiny_presets.xception, lambda net, given: positions(given), 16, False),
    "vgg": (tiny_presets.vgg, lambda net, given: positions(given), 8, False),
}


def given_by(net):
    """What a preset's net, or its image tower, gives of the images."""
    tower = getattr(net, "vision_encoder", net)
    takes = tower.input
    given = tower(dict.fromkeys(takes, IMAGES) if isinstance(takes, dict) else IMAGES)
    return keras.tree.map_structure(np.asarray, given)


def outputs(model):
    return np.asarray(model(IMAGES, training=False))


@pytest.mark.parametrize("name", some_of(list(CLASSES), "vit", "vgg"))
def test_a_class_is_built_trained_saved_and_loaded(name, tmp_path):
    make, features, width, one_size = CLASSES[name]
    theirs = make()
    theirs.save_to_preset(tmp_path / "preset")
    entry = backbones.find(f"keras_hub/{tmp_path / 'preset'}").available()
    assert entry.image_size == (SIZE if one_size else 0)
    model = entry(image_size=SIZE, pretrained="imagenet")
    assert model.input_shape == (None, SIZE, SIZE, 3)
    assert model.output_shape == (None, width)
    np.testing.assert_allclose(outputs(model), features(theirs, given_by(theirs)), rtol=1e-4, atol=1e-5)

    _, _, pool = model.layers  # one nested layer and its pooling
    assert pool.name == "pool"
    with pytest.raises(ValueError, match="last block is known"):
        backbones.last_block(model)
    with pytest.raises(ValueError, match=r"train_parts=last_block .*train_parts=all, classifier.*Received: "):
        entry.check_last_block()

    before = [weight.numpy() for weight in model.trainable_weights]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(IMAGES, training=True) ** 2)
    keras.optimizers.SGD(0.01).apply(tape.gradient(loss, model.trainable_weights), model.trainable_weights)
    moved = [np.abs(weight.numpy() - old).max() for weight, old in zip(model.trainable_weights, before, strict=True)]
    assert np.isfinite(moved).all()
    assert max(moved) > 0

    save_model(model, tmp_path / "model.keras")
    np.testing.assert_array_equal(outputs(keras.saving.load_model(tmp_path / "model.keras")), outputs(model))


MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
SCALES = {"scale": [1 / (255 * std) for std in STD], "offset": [-m / std for m, std in zip(MEAN, STD, strict=True)]}


def preset(family, folder, **resizing):
    """A preset of images of 32 pixels with its converter, which smooths as all evaluation does here."""
    getattr(tiny_presets, family.lower())().save_to_preset(folder)
    converter = getattr(keras_hub.layers, f"{family}ImageConverter")
    made = converter(image_size=(SIZE, SIZE), antialias=True, **SCALES, **resizing)
    made.save_to_preset(folder)
    return f"keras_hub/{folder}", made


@pytest.fixture(scope="module")
def wide():
    """36 training images of 24 x 48 pixels, two classes: bright on the left, or on the right."""
    rng = np.random.default_rng(0)

    def split(counts):
        labels = np.repeat(np.arange(2), counts)
        images = rng.integers(0, 120, (len(labels), 24, 48, 3))
        for image, label in zip(images, labels, strict=True):
            image[:, 24 * label : 24 * (label + 1)] += 120
        return Split(images.astype(np.uint8), labels)

    return LongTailed(
        "wide", split((28, 8)), split((4, 4)), split((3, 3)), class_names=("left", "right"), mean=MEAN, std=STD
    )


@pytest.mark.parametrize("crops", [True, False])
def test_images_come_to_a_net_as_its_converter_has_them(crops, wide, tmp_path):
    name, converter = preset("ViT", tmp_path, crop_to_aspect_ratio=crops, interpolation="bicubic")
    data = dataclasses.replace(wide, crop_fraction=1.0) if crops else wide
    ours = make_preprocessing(data, backbone=name, augmentation="none")
    assert ours.image_size == SIZE  # the net's, not the data set's
    images = np.asarray(data.test.images)
    expected = np.clip(converter.resizing(images.astype(np.float32)), 0, 255) * SCALES["scale"] + SCALES["offset"]
    inner = np.s_[:, :, 4:-4] if crops else np.s_[:]  # a crop that comes after resizing has neighbours at its edges
    np.testing.assert_allclose(ours.evaluate(images)[inner], expected[inner], atol=1e-4)
    for image in images:
        np.testing.assert_allclose(ours.train(image, (0, 1)), ours.evaluate(image), atol=1e-4)


FROZEN = {"stage_one": "features", "train_parts": "classifier"}


def goes_from_training_to_export(name, data, folder, **trained):
    """Train, features, save, load, export and serve: what is served is what the net and its classifier give."""
    recipe = keras_lt.Recipe(epochs=1, batch_size=18, learning_rate=0.05)
    options = {"backbone": name, "pretrained": "imagenet", "augmentation": "none", "image_size": SIZE, **trained}
    learned = keras_lt.learn_representation(data, recipe=recipe, **options)
    images = np.asarray(data.test.images)
    seen = learned.preprocessing.evaluate(images)
    loaded, features, classifier, path = saved_and_exported(learned, data, recipe, folder)
    assert loaded.preprocessing == learned.preprocessing
    np.testing.assert_allclose(features["test"].features, learned.backbone(seen), rtol=1e-4, atol=1e-5)
    served = tf.saved_model.load(path).signatures
    logits = np.asarray(classifier.model(features["test"].features))
    encoded = tf.stack([tf.io.encode_png(image) for image in images])
    for given in (served["images"](images=tf.constant(images)), served["serving_default"](image_bytes=encoded)):
        np.testing.assert_allclose(given["logits"], logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("family", "trained"),
    [
        pytest.param("CLIP", FROZEN, marks=pytest.mark.exhaustive),
        pytest.param("SigLIP", {}, marks=pytest.mark.exhaustive),
        pytest.param("CLIP", {"train_parts": "lora:rank=2"}, marks=pytest.mark.exhaustive),
        pytest.param(
            "ViT", {"train_parts": "adaptformer", "precision": "mixed_bfloat16"}, marks=pytest.mark.exhaustive
        ),
    ],
)
def test_a_net_of_tokens_goes_from_training_to_export(family, trained, wide, tmp_path):
    name, _ = preset(family, tmp_path / "preset", crop_to_aspect_ratio=False, interpolation="bicubic")
    goes_from_training_to_export(name, wide, tmp_path, **trained)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", CLASSES)
def test_every_class_goes_from_training_to_export_frozen(name, wide, tmp_path):
    CLASSES[name][0]().save_to_preset(tmp_path / "preset")
    goes_from_training_to_export(f"keras_hub/{tmp_path / 'preset'}", wide, tmp_path, **FROZEN)


def test_a_net_of_one_size_refuses_others_before_it_is_built(wide, tmp_path):
    name, _ = preset("ViT", tmp_path)
    with pytest.raises(ValueError, match=r"image_size must be 32, or 0 for that, as .* has it.*image_size=48"):
        keras_lt.learn_representation(wide, backbone=name, image_size=48)
    with pytest.raises(ValueError, match="image_size must be 32"):
        backbones.build(name, image_size=48)
    assert backbones.build(name).input_shape == (None, SIZE, SIZE, 3)


@pytest.mark.parametrize("family", ["dinov2", "dinov3"])
def test_nets_of_any_number_of_patches_are_built_for_the_size_asked(family, tmp_path):
    getattr(tiny_presets, family)().save_to_preset(tmp_path)
    name = f"keras_hub/{tmp_path}"
    model = backbones.build(name, image_size=48, pretrained="imagenet")
    assert model.input_shape == (None, 48, 48, 3)
    assert model.layers[-1].input.shape == (None, 1 + 4 + 9, 16)
    with pytest.raises(ValueError, match=r"image_size must be a multiple of 16, .*Received: image_size=40"):
        backbones.build(name, image_size=40)


def test_images_that_would_have_to_be_padded_are_refused(tmp_path):
    name, _ = preset("ViT", tmp_path, crop_to_aspect_ratio=False, pad_to_aspect_ratio=True)
    with pytest.raises(ValueError, match=r"cropped or stretched.*Received: .*pad_to_aspect_ratio=True"):
        backbones.find(name).available()


@pytest.mark.parametrize("family", some_of(["clip", "metaclip2"], "clip"))
def test_an_image_tower_computes_in_half_precision(family, tmp_path):
    getattr(tiny_presets, family)().save_to_preset(tmp_path)
    before, name = keras.config.dtype_policy(), f"keras_hub/{tmp_path}"
    single = backbones.build(name, pretrained="imagenet")
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = backbones.build(name, pretrained="imagenet")
    finally:
        keras.config.set_dtype_policy(before)
    assert {layer.compute_dtype for layer in layers_within(half) if layer.weights} == {"bfloat16"}
    np.testing.assert_allclose(outputs(half), outputs(single), atol=0.1)  # of features around 1
    assert keras.backend.standardize_dtype(outputs(half).dtype) == "float32"


def folder_of_text(folder):
    (folder / "config.json").write_text(json.dumps({"class_name": "BertBackbone", "config": {}}))


def folder_of_something_else(folder):
    (folder / "config.json").write_text(json.dumps({"learning_rate": 0.1}))


def folder_cut_short(folder):
    (folder / "config.json").write_text('{"class_name": "ViTBack')


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (lambda folder: None, r"a preset of .*, ViTBackbone.*a folder of one.*Received: .*, a folder without a config"),
        (folder_of_text, r"a preset of .*, ViTBackbone.*Received: .*, a BertBackbone$"),
        (folder_of_something_else, r"a preset of .*, ViTBackbone.*Received: .*: Unrecognized format for config\.json"),
        (folder_cut_short, r"config\.json of a preset must be JSON\. Received: "),
    ],
)
def test_a_folder_that_is_no_preset_is_refused(fill, message, tmp_path):
    fill(tmp_path)
    with pytest.raises(ValueError, match=message):
        backbones.build(f"keras_hub/{tmp_path}")
