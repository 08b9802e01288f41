"""What holds for every backbone: our own nets, adapted ones, and models of whoever comes with one."""

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

import keras_lt
from keras_lt import backbones
from keras_lt.backbones import BACKBONES, BEFORE_POOL, BackboneEntry, of_model
from keras_lt.methods.oltr import with_attention
from keras_lt.stages.classifier import copy_of
from tests.conftest import some_of
from tests.journeys import saved_and_exported
from tests.tiny_backbone import tiny

SIZE = 32
IMAGES = np.random.default_rng(0).standard_normal((2, SIZE, SIZE, 3)).astype(np.float32)


@keras.saving.register_keras_serializable("tests")
class PatchTokens(keras.Model):
    """Patches of 8 x 8 pixels as tokens, a class token before them, as a ViT has them; or their mean."""

    def __init__(self, width=6, mean=False, **kwargs):
        super().__init__(**kwargs)
        self.width, self.mean = width, mean
        self.patches = keras.layers.Conv2D(width, 8, strides=8)
        self.norm = keras.layers.LayerNormalization()

    def build(self, input_shape):
        self.patches.build(input_shape)
        self.norm.build((None, None, self.width))
        self.token = self.add_weight(shape=(1, 1, self.width), initializer="random_normal", name="token")

    def call(self, images):
        patches = keras.ops.reshape(self.patches(images), (-1, images.shape[1] * images.shape[2] // 64, self.width))
        token = keras.ops.broadcast_to(
            keras.ops.cast(self.token, patches.dtype), (keras.ops.shape(patches)[0], 1, self.width)
        )
        tokens = self.norm(keras.ops.concatenate([token, patches], axis=1))
        return keras.ops.mean(tokens, axis=1) if self.mean else tokens

    def get_config(self):
        return {**super().get_config(), "width": self.width, "mean": self.mean}


def patch_tokens(**options):
    model = PatchTokens(**options)
    model(IMAGES)
    return model


def functional(image_size=SIZE, *, named=False):
    """Three convolutions and batch norms; `named` takes {"pixels": images}."""
    inputs = x = keras.Input((image_size, image_size, 3), name="pixels")
    for i in range(3):
        x = keras.layers.Conv2D(4 + i, 3, strides=2, use_bias=False, name=f"convolution_{i}")(x)
        x = keras.layers.BatchNormalization(name=f"norm_{i}")(x)
    return keras.Model({"pixels": inputs} if named else inputs, x, name="functional")


def sequential():
    layers = [keras.layers.Conv2D(4, 3, strides=2), keras.layers.Conv2D(5, 3, name="second")]
    return keras.Sequential([keras.Input((SIZE, SIZE, 3)), *layers], name="sequential")


def preset(folder):
    sizes = {"stackwise_num_filters": [64, 128], "stackwise_num_blocks": [1, 1], "stackwise_num_strides": [1, 2]}
    stem = {"input_conv_filters": [64], "input_conv_kernel_sizes": [7]}
    keras_hub.models.ResNetBackbone(**stem, **sizes, block_type="basic_block").save_to_preset(folder)
    return f"keras_hub/{folder}"


# A member: () -> what `backbones.find` takes, its width, and whether its last block is known.
MEMBERS = {
    "resnet8": (lambda folder: "resnet8", 128, True),
    "resnet10": (lambda folder: "resnet10", 512, True),
    "resnet32": (lambda folder: "resnet32", 64, True),
    "tiny": (lambda folder: "tiny", 4, True),
    "efficientnet_lite0": (lambda folder: "efficientnet_lite0", 1280, True),
    "application": (lambda folder: "keras_applications/ResNet50", 2048, True),
    "preset": (preset, 128, True),
    "functional": (lambda folder: functional(), 6, False),
    "functional, cut": (lambda folder: of_model(functional(), last_block="convolution_2"), 6, True),
    "any size": (lambda folder: functional(None), 6, False),
    "named inputs": (lambda folder: functional(named=True), 6, False),
    "sequential": (lambda folder: sequential(), 5, False),
    "sequential, cut": (lambda folder: of_model(sequential(), last_block="second"), 5, True),
    "tokens": (lambda folder: patch_tokens(), 6, False),
    "class token": (lambda folder: of_model(patch_tokens(), pooling="first"), 6, False),
    "vector": (lambda folder: patch_tokens(mean=True), 6, False),
    "a backbone": (lambda folder: backbones.build("resnet8", image_size=SIZE), 128, True),
}


ALSO = ("resnet10", "resnet32", "efficientnet_lite0", "application", "preset", "a backbone")


@pytest.fixture(params=some_of(MEMBERS, *(name for name in MEMBERS if name not in ALSO)))
def member(request, tmp_path):
    """What `find` takes, its width, and whether its last block is known."""
    make, width, cut = MEMBERS[request.param]
    return make(tmp_path / "preset"), width, cut


def outputs(model):
    return keras.ops.convert_to_numpy(model(IMAGES, training=False))


def test_a_member_is_built_trained_copied_saved_and_loaded(member, tmp_path):
    given, width, cut = member
    entry = backbones.find(given).available()
    assert entry.label
    assert bool(entry.last_block) == cut
    model = entry(image_size=SIZE)
    assert model.input_shape == (None, SIZE, SIZE, 3)
    assert model.output_shape == (None, width)

    target = np.random.default_rng(1).standard_normal((2, width))
    model.compile(keras.optimizers.SGD(0.01), "mse", run_eagerly=True)
    before = [weight.numpy() for weight in model.trainable_weights]
    assert np.isfinite(model.train_on_batch(IMAGES, target))
    moved = [np.abs(weight.numpy() - old).max() for weight, old in zip(model.trainable_weights, before, strict=True)]
    assert np.isfinite(moved).all()
    assert max(moved) > 0

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(outputs(loaded), outputs(model))
    copy = copy_of(model)
    np.testing.assert_array_equal(outputs(copy), outputs(model))
    for kept in (model, loaded, copy):
        if cut:
            [last] = backbones.last_block(kept)
            assert 0 < last.count_params() < kept.count_params()
        else:
            with pytest.raises(ValueError, match=r"last block is known\. Received: "):
                backbones.last_block(kept)


def test_a_member_computes_in_half_precision_and_ends_in_single(member):
    given, width, _ = member
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = backbones.build(given, image_size=SIZE)
    finally:
        keras.config.set_dtype_policy(before)
    assert model.layers[-1].input.dtype == "bfloat16"
    features = model(IMAGES)
    assert (keras.backend.standardize_dtype(features.dtype), features.shape) == ("float32", (2, width))
    assert {keras.backend.standardize_dtype(weight.dtype) for weight in model.trainable_weights} == {"float32"}


def test_a_member_has_a_feature_map_where_it_pools_one(member):
    given, width, _ = member
    model = backbones.build(given, image_size=SIZE)
    if len(model.layers[-1].input.shape) == 4:
        feature_map = backbones.feature_map(model)
        np.testing.assert_allclose(outputs(feature_map).mean((1, 2)), outputs(model), rtol=1e-4, atol=1e-5)
        assert with_attention(model).output_shape == (None, width)
    else:
        with pytest.raises(ValueError, match=r"pools a feature map \[B,h,w,D\]\. Received: "):
            backbones.feature_map(model)


@pytest.mark.parametrize("name", [*BACKBONES, *backbones.EFFICIENTNET_LITE, *backbones.APPLICATIONS])
def test_the_facts_of_named_nets(name):
    """Without building any: some are large."""
    entry = backbones.find(name)
    assert entry.available() is entry
    assert entry.label != name
    assert entry.last_block
    assert backbones.find(entry) is entry
    assert bool(entry.imagenet) == (name not in BACKBONES)
    assert entry.can_branch == (name in BACKBONES)
    assert (entry.normalization is None) == (name in BACKBONES)
    entry.check_last_block()
    backbones.check(name)
    if name in backbones.APPLICATIONS:
        backbones.check(name, pretrained="imagenet")


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        (
            "resnet152",
            r"file for ResNet-152: .* fit it; use --backbone=keras_applications/ResNet152 --pretrained=imagenet",
        ),
        ("resnext50", r"file for ResNeXt-50: no published weights fit it\. Received: pretrained=imagenet"),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_those_that_do(name, advice):
    with pytest.raises(ValueError, match=advice):
        backbones.check(name, pretrained="imagenet")
    instead = BACKBONES[name].imagenet_instead
    if instead:
        backbones.check(instead, pretrained="imagenet")


def test_a_new_member_is_one_line(monkeypatch, data):
    monkeypatch.setitem(BACKBONES, "mine", BackboneEntry(functional))
    recipe = keras_lt.Recipe(epochs=1, steps_per_epoch=1, batch_size=8)
    learned = keras_lt.learn_representation(data, backbone="mine", recipe=recipe, image_size=16)
    assert learned.backbone.output_shape == (None, 6)


def test_a_members_own_last_block_must_be_there():
    entry = BackboneEntry(functional, last_block=BEFORE_POOL)
    with pytest.raises(ValueError, match=r"must end in the sub-model before pool\. Received: functional"):
        entry(image_size=SIZE)


@pytest.mark.exhaustive
@pytest.mark.parametrize("make", [functional, sequential, patch_tokens], ids=["functional", "sequential", "class"])
def test_a_model_of_ones_own_goes_from_training_to_export(make, data, tmp_path):
    given = make()
    before, name = [weight.numpy() for weight in given.weights], given.name
    recipe = keras_lt.Recipe(epochs=2, batch_size=16, learning_rate=0.05)
    learned = keras_lt.learn_representation(data, backbone=given, recipe=recipe, image_size=SIZE)
    assert given.name == name
    for weight, old in zip(given.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), old)
    _, features, classifier, path = saved_and_exported(learned, data, recipe, tmp_path)
    images = np.repeat(np.asarray(data.test.images), 3, axis=-1)
    served = tf.saved_model.load(path).signatures["images"](images=tf.constant(images))["logits"]
    np.testing.assert_allclose(served, classifier.model(features["test"].features), rtol=1e-4, atol=1e-4)


def test_the_last_block_of_ones_own_model_trains_alone(data):
    entry = of_model(functional(), last_block="convolution_2")
    recipe = keras_lt.Recipe(epochs=1, steps_per_epoch=2, batch_size=8)
    options = {"recipe": recipe, "image_size": SIZE, "train_parts": "last_block"}
    model = keras_lt.learn_representation(data, backbone=entry, **options).backbone
    trained = [weight.path.split("/")[-2] for weight in model.trainable_weights]
    assert trained == ["convolution_2", "norm_2", "norm_2"]
    with pytest.raises(ValueError, match=r"train_parts=last_block needs .*Received: backbone=functional"):
        keras_lt.learn_representation(data, backbone=functional(), **options)


def test_a_copy_begins_with_the_models_weights_and_goes_its_own_way():
    given = functional()
    copy = backbones.build(given, image_size=SIZE)
    np.testing.assert_allclose(outputs(copy), outputs(given).mean((1, 2)), rtol=1e-5, atol=1e-6)
    copy.trainable_weights[0].assign(copy.trainable_weights[0] + 1)
    assert np.abs(copy.trainable_weights[0].numpy() - given.trainable_weights[0].numpy()).min() > 0.9


def test_the_class_token_is_the_first():
    given = patch_tokens()
    model = backbones.build(of_model(given, pooling="first"), image_size=SIZE)
    np.testing.assert_allclose(outputs(model), outputs(given)[:, 0], rtol=1e-5)
    model = backbones.build(given, image_size=SIZE)
    np.testing.assert_allclose(outputs(model), outputs(given).mean(1), rtol=1e-5, atol=1e-6)


def test_files_of_the_first_version_are_cut_as_they_were(tmp_path):
    """Own stages before a pool, or body and last_block, as its models end."""
    images = keras.Input((SIZE, SIZE, 3), name="images")
    net = functional()
    body = keras.Model(net.input, net.get_layer("norm_1").output, name="body")
    last = keras.Model(net.get_layer("norm_1").output, net.output, name="last_block")
    pool = keras.layers.GlobalAveragePooling2D(name="pool", dtype="float32")
    keras.Model(images, pool(last(body(images))), name="backbone").save(tmp_path / "adapted.keras")
    tiny(SIZE).save(tmp_path / "own.keras")
    for file, name in (("adapted", "last_block"), ("own", "layer1")):
        loaded = keras.saving.load_model(tmp_path / f"{file}.keras")
        assert [layer.name for layer in backbones.last_block(loaded)] == [name]
        assert backbones.feature_map(loaded).output_shape[-1] == loaded.output_shape[-1]
