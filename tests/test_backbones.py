import functools
import json
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch

from keras_lt import backbones
from keras_lt.backbones.resnets import bottleneck, resnet, zero_padded_shortcut
from tests import torch_resnet
from tests.conftest import some_of

GOLDEN = pathlib.Path(__file__).parent / "golden" / "backbones"


def golden_state(spec):
    """The golden weights, drawn as their README says: in the order of the keys, from one generator."""
    rng = np.random.default_rng(spec["seed"])

    def draw(name, shape):
        if name.endswith("num_batches_tracked"):
            return np.array(0)
        if name.endswith("running_var"):
            return rng.uniform(0.5, 1.5, shape)
        if name.endswith("running_mean"):
            return rng.normal(0, 0.1, shape)
        if len(shape) == 4:
            return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        return rng.uniform(0.2, 0.6, shape) if name.endswith(".weight") else rng.normal(0, 0.1, shape)

    return {name: draw(name, shape).astype(np.float32) for name, shape in spec["keys"]}


def golden_backbone(name):
    spec = json.loads((GOLDEN / f"{name}.json").read_text())
    model = backbones.build(name, image_size=224)
    backbones.load_torch_state(model, golden_state(spec))
    images = np.random.default_rng(spec["input_seed"]).standard_normal((2, 3, 224, 224)).astype(np.float32)
    return model, images.transpose(0, 2, 3, 1)


@pytest.mark.parametrize(
    "name",
    [
        *some_of(["resnet10", "resnet50", "resnext50"], "resnet10"),
        *(
            pytest.param(f"{family}{depth}", marks=pytest.mark.slow)
            for family in ("resnet", "resnext")
            for depth in (101, 152)
        ),
    ],
)
def test_features_are_the_references(name):
    """In inference and in training mode, to a thousandth of the largest feature."""
    model, images = golden_backbone(name)
    golden = np.load(GOLDEN / f"{name}.npz")
    for training, expected in ((False, golden["features_eval"]), (True, golden["features_train"])):
        features = keras.ops.convert_to_numpy(model(images, training=training))
        assert np.abs(features - expected).max() < 1e-3 * np.abs(expected).max()


def numpy_state(named_tensors):
    return {name: tensor.detach().numpy() for name, tensor in named_tensors}


@pytest.mark.parametrize(
    ("build", "twin", "image_size"),
    [
        pytest.param(backbones.BACKBONES["resnet10"], torch_resnet.resnet10, 64, marks=pytest.mark.exhaustive),
        (
            functools.partial(
                resnet, (1,) * 4, block=functools.partial(bottleneck, groups=32, group_width=4), name="resnext14"
            ),
            torch_resnet.resnext14,
            64,
        ),
        pytest.param(backbones.BACKBONES["resnet32"], torch_resnet.resnet32, 32, marks=pytest.mark.exhaustive),
    ],
    ids=["resnet10", "resnext14", "resnet32"],
)
def test_gradients_are_pytorchs(build, twin, image_size):
    """Of a random projection of the features by every trainable weight, in training mode."""
    rng = np.random.default_rng(2)  # of a seed where no ReLU stands so near zero that rounding turns it
    images = rng.standard_normal((2, 3, image_size, image_size)).astype(np.float32)
    theirs = torch_resnet.drawn(twin(), seed=2).train()
    initial = {name: array.copy() for name, array in numpy_state(theirs.state_dict().items()).items()}
    features = theirs(torch.from_numpy(images))
    weights = rng.standard_normal(features.shape).astype(np.float32)
    (features * torch.from_numpy(weights)).sum().backward()

    ours, expected = build(image_size=image_size), build(image_size=image_size)
    backbones.load_torch_state(ours, initial)
    gradients = numpy_state((name, parameter.grad) for name, parameter in theirs.named_parameters())
    backbones.load_torch_state(expected, initial | gradients)  # in Keras's layouts and order
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(ours(images.transpose(0, 2, 3, 1), training=True) * weights)
    computed = tape.gradient(loss, [weight.value for weight in ours.trainable_weights])
    assert len(computed) == len(gradients)
    for gradient, weight in zip(computed, expected.trainable_weights, strict=True):
        difference = np.linalg.norm(gradient - weight.numpy())
        assert difference <= 1e-3 * np.linalg.norm(weight.numpy()), weight.path


@pytest.mark.parametrize("name", some_of(sorted(path.stem for path in GOLDEN.glob("*.json")), "resnet10"))
def test_parameter_counts_are_the_references(name):
    model = backbones.build(name, image_size=64)
    spec = json.loads((GOLDEN / f"{name}.json").read_text())
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == spec["parameters"]


def test_resnet32_is_the_cifar_protocols():
    """31 convolutions 3x3: the stem 432, then 10 x 2304, 4608 + 9 x 9216, 18432 + 9 x 36864; batch norm 2 x 1136."""
    model = backbones.build("resnet32", image_size=32)
    convolutions = 432 + 10 * 2304 + (4608 + 9 * 9216) + (18432 + 9 * 36864)
    channels = 16 + 10 * 16 + 10 * 32 + 10 * 64
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert trainable == convolutions + 2 * channels
    assert model.output_shape == (None, 64)


def test_a_shortcut_without_parameters_keeps_every_second_pixel_between_zeros():
    inputs = keras.Input((4, 4, 2))
    model = keras.Model(inputs, zero_padded_shortcut(inputs, 4, strides=2, name="x"))
    images = np.arange(32, dtype=np.float32).reshape(1, 4, 4, 2)
    shortened = keras.ops.convert_to_numpy(model(images))
    np.testing.assert_array_equal(shortened[..., 1:3], images[:, ::2, ::2])
    np.testing.assert_array_equal(shortened[..., [0, 3]], 0)


@pytest.mark.parametrize(
    ("name", "width"), some_of([("resnet8", 128), ("resnet10", 512), ("resnet32", 64)], ("resnet8", 128))
)
def test_any_image_size_will_do(name, width):
    model = backbones.build(name, image_size=None)
    for size in (28, 45):
        assert model(np.zeros((2, size, size, 3), np.float32)).shape == (2, width)


@pytest.mark.parametrize("name", some_of(["resnet8", "resnet10", "resnet32", "keras_applications/ResNet50"], "resnet8"))
def test_backbones_survive_saving_and_loading(name, tmp_path):
    model = backbones.build(name, image_size=32)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    images = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)
    for ours, theirs in ((model, loaded), (backbones.feature_map(model), backbones.feature_map(loaded))):
        np.testing.assert_array_equal(ours(images), theirs(images))
    for ours, theirs in zip(backbones.last_block(model), backbones.last_block(loaded), strict=True):
        assert [weight.path for weight in ours.weights] == [weight.path for weight in theirs.weights]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # layer4 of ResNet-10: convolutions of 256x512x9, 512x512x9 and the shortcut's 256x512, three batch norms of 512
        ("resnet10", 256 * 512 * 9 + 512 * 512 * 9 + 256 * 512 + 3 * 2 * 512),
        # layer3 of ResNet-32: convolutions of 32x64x9 and nine of 64x64x9, ten batch norms of 64
        pytest.param("resnet32", 32 * 64 * 9 + 9 * 64 * 64 * 9 + 10 * 2 * 64, marks=pytest.mark.exhaustive),
        # conv5 of Keras's ResNet-50: three blocks of 512, 512 and 2048 channels on 1024, a shortcut, biases everywhere
        pytest.param(
            "keras_applications/ResNet50",
            (1024 + 2 * 2048) * 512 + 3 * (9 * 512 * 512 + 512 * 2048) + 1024 * 2048 + 3 * (3 * 3072) + 3 * 2048,
            marks=pytest.mark.exhaustive,
        ),
    ],
)
def test_the_last_block_trains_alone_and_goes_on_so_after_loading(name, expected, tmp_path):
    model = backbones.build(name, image_size=32)
    for layer in model.layers:
        layer.trainable = False
    for layer in backbones.last_block(model):
        layer.trainable = True
    model.save(tmp_path / "model.keras")
    for kept in (model, keras.saving.load_model(tmp_path / "model.keras")):
        assert sum(int(np.prod(weight.shape)) for weight in kept.trainable_weights) == expected


def test_parts_of_other_models_are_not_guessed():
    for part, message in (
        (backbones.last_block, r"whose last block is known\. Received: head"),
        (backbones.feature_map, r"that pools a feature map \[B,h,w,D\]\. Received: head"),
    ):
        with pytest.raises(ValueError, match=message):
            part(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="dense")], name="head"))


def test_the_pooled_feature_map_is_the_features():
    model = backbones.build("resnet8", image_size=32)
    images = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)
    feature_map = np.asarray(backbones.feature_map(model)(images))
    assert feature_map.shape == (2, 4, 4, 128)
    np.testing.assert_allclose(feature_map.mean((1, 2)), model(images), rtol=1e-5, atol=1e-6)


def test_initial_weights_have_the_references_spread():
    kernel = backbones.build("resnet10", image_size=32).get_layer("layer4").get_layer("layer4_0_conv2").kernel
    # N(0, sqrt(2 / (3 * 3 * 512))); a deviation over 2.4 million draws is within a thousandth
    np.testing.assert_allclose(np.std(kernel), np.sqrt(2 / (9 * 512)), rtol=5e-3)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("ResNet152", keras.applications.resnet),
        ("ResNet50V2", keras.applications.resnet_v2),
        ("DenseNet121", keras.applications.densenet),
        ("EfficientNetB0", keras.applications.efficientnet),
        ("ConvNeXtTiny", keras.applications.convnext),
        ("EfficientNetV2B0", keras.applications.efficientnet_v2),
        ("MobileNetV3Small", keras.applications.mobilenet_v3),
    ],
)
def test_normalisation_is_keras_own(name, module):
    images = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3)).astype(np.float32)
    expected = module.preprocess_input(images.copy())
    ours = backbones.normalization(f"keras_applications/{name}")
    normalized = (images / 255 - np.array(ours.mean)) / np.array(ours.std)
    in_order = normalized[..., ::-1] if ours.channel_order == "bgr" else normalized
    np.testing.assert_allclose(in_order, expected, atol=1e-4)


def test_our_own_nets_take_the_data_sets_normalisation():
    assert backbones.normalization("resnet50") is None


FEATURES_OF = ("ResNet50", "ResNet50V2", "DenseNet121", "EfficientNetB0", "EfficientNetV2B0", "MobileNetV3Small")


@pytest.mark.parametrize("name", some_of([*FEATURES_OF, "ConvNeXtTiny"], "MobileNetV3Small"))
def test_applications_give_keras_own_features(name, tmp_path):
    known = f"keras_applications/{name}"
    theirs = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg")
    theirs.save_weights(tmp_path / "local.weights.h5")
    ours = backbones.build(known, image_size=32, pretrained=str(tmp_path / "local.weights.h5"))
    images = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(ours(images), theirs(images), rtol=1e-4, atol=1e-5)
    assert 0 < backbones.last_block(ours)[0].count_params() < theirs.count_params()


@pytest.mark.exhaustive
def test_convnexts_features_are_normalised_after_the_mean(tmp_path):
    """Also with weights that were saved of the net without pooling, whose layer norm comes before it."""
    theirs = keras.applications.ConvNeXtTiny(include_top=False, weights=None, input_shape=(64, 64, 3))
    rng = np.random.default_rng(0)
    gamma, beta = rng.normal(1, 0.3, 768), rng.normal(0, 0.3, 768)
    theirs.layers[-1].set_weights([gamma, beta])
    theirs.save_weights(tmp_path / "local.weights.h5")
    ours = backbones.build(
        "keras_applications/ConvNeXtTiny", image_size=64, pretrained=str(tmp_path / "local.weights.h5")
    )
    images = rng.integers(0, 256, (2, 64, 64, 3)).astype(np.float32)
    mean = np.asarray(keras.Model(theirs.input, theirs.layers[-1].input)(images)).mean((1, 2))
    deviation = np.sqrt(mean.var(1, keepdims=True) + 1e-6)
    expected = (mean - mean.mean(1, keepdims=True)) / deviation * gamma + beta
    np.testing.assert_allclose(ours(images), expected, rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="pools a feature map"):
        backbones.feature_map(ours)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(backbones.APPLICATIONS))
def test_every_application_has_a_last_block(name):
    model = backbones.build(name)
    last, body = model.get_layer("last_block").count_params(), model.get_layer("body").count_params()
    assert last + body == backbones.APPLICATIONS[name].function().count_params()


def test_a_state_dict_that_does_not_fit_is_refused_whole():
    model = backbones.build("resnet10", image_size=32)
    state = golden_state(json.loads((GOLDEN / "resnet10.json").read_text()))
    before = [keras.ops.convert_to_numpy(weight) for weight in model.weights]
    del state["bn1.bias"]
    state["fc.weight"] = np.zeros((3, 512))
    state["conv1.weight"] = np.zeros((64, 3, 3, 3))
    problems = r"bn1.bias is missing; conv1.weight has shape \(3, 3, 3, 64\) .* \(7, 7, 3, 64\); fc.weight is unknown"
    with pytest.raises(ValueError, match=problems):
        backbones.load_torch_state(model, state)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


@pytest.mark.filterwarnings("ignore:Skipping nested container")  # Keras blames an older version for what is missing
def test_weights_of_another_net_are_refused(tmp_path):
    backbones.build("resnet10", image_size=32).save_weights(tmp_path / "other.weights.h5")
    with pytest.raises(ValueError, match="pretrained must hold the weights of resnet8"):
        backbones.build("resnet8", image_size=32, pretrained=str(tmp_path / "other.weights.h5"))


@pytest.mark.parametrize(
    ("name", "pretrained", "message"),
    [
        (
            "resnet51",
            "",
            "backbone must be one of resnet10, .*keras_applications/ResNet152.*Received: backbone=resnet51",
        ),
        ("resnet152", "imagenet", "--backbone=keras_applications/ResNet152 --pretrained=imagenet"),
        ("resnet152", "nowhere.h5", "must be 'imagenet' or a weights file. Not found: nowhere.h5"),
    ],
)
def test_wrong_names_are_answered_with_the_right_ones(name, pretrained, message):
    with pytest.raises(ValueError, match=message):
        backbones.build(name, image_size=32, pretrained=pretrained)


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("resnet32", 2 * 9 * 64 * 64 + 2 * 4 * 64),  # two convolutions, each with batch norm
        ("resnet50", 2048 * 512 + 9 * 512 * 512 + 512 * 2048 + 4 * (512 + 512 + 2048)),
        ("resnet8", 9 * 64 * 128 + 9 * 128 * 128 + 64 * 128 + 3 * 4 * 128),  # its only block has a projection
    ],
)
def test_a_branched_net_has_its_last_block_twice(name, block):
    plain = backbones.build(name, image_size=32)
    assert backbones.branched(plain).count_params() - plain.count_params() == block


@pytest.mark.parametrize("name", some_of(["resnet32", "resnet8"], "resnet8"))
def test_the_first_branch_is_the_nets_own_block_and_the_second_a_new_one(name, tmp_path):
    plain = backbones.build(name, image_size=32)
    net = backbones.branched(plain)
    images = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)
    features = net(images).numpy()
    first, second = np.split(features, 2, axis=1)
    np.testing.assert_allclose(first, plain(images), rtol=1e-4, atol=1e-5)
    assert np.abs(first - second).max() > 1e-3 * np.abs(first).max()
    net.save(tmp_path / "net.keras")
    again = keras.saving.load_model(tmp_path / "net.keras")
    for branch, expected in zip(backbones.branches(again), (first, second), strict=True):
        np.testing.assert_allclose(branch(images), expected, rtol=1e-5, atol=1e-6)
    assert backbones.feature_map(again).output_shape[-1] == features.shape[1]
