"""Nets of keras_hub and keras_cv. Nothing is downloaded: presets are small folders."""

import json
import sys

import keras
import keras_cv
import keras_hub
import numpy as np
import pytest

from keras_lt import backbones
from keras_lt.config.renamed import RENAMED_VALUES
from tests.programs import run

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.float32)


def hub_resnet(blocks=(1, 1), **options):
    sizes = {"stackwise_num_filters": [64, 128], "stackwise_num_blocks": blocks, "stackwise_num_strides": [1, 2]}
    stem = {"input_conv_filters": [64], "input_conv_kernel_sizes": [7]}
    return keras_hub.models.ResNetBackbone(**stem, **sizes, block_type="basic_block", **options)


def hub_densenet():
    return keras_hub.models.DenseNetBackbone(stackwise_num_repeats=[1, 2, 1], growth_rate=8)


def cv_resnet(of=keras_cv.models.ResNetBackbone, *, blocks=(1, 1), include_rescaling=True):
    return of(
        stackwise_filters=[64, 128],
        stackwise_blocks=blocks,
        stackwise_strides=[1, 2],
        block_type="basic_block",
        include_rescaling=include_rescaling,
    )


def hub_converter(family):
    """(pixel / 255 - mean) / std, as keras_hub writes it."""
    return getattr(keras_hub.layers, f"{family}ImageConverter")(
        scale=[1 / (255 * std) for std in STD], offset=[-mean / std for mean, std in zip(MEAN, STD, strict=True)]
    )


def drawn(net):
    """The net with all its weights drawn, batch norm's statistics too."""
    rng = np.random.default_rng(1)
    for weight in net.weights:
        weight.assign(
            rng.uniform(0.5, 1.5, weight.shape) if len(weight.shape) == 1 else rng.normal(0, 0.05, weight.shape)
        )
    return net


def hub_folder(net, folder, *, family="ResNet"):
    """A preset folder of drawn weights; returns the net."""
    drawn(net).save_to_preset(folder)
    hub_converter(family).save_to_preset(folder)
    return net


def cv_folder(net, folder):
    """A preset folder in keras_cv's form; its public interface reads such folders but writes none."""
    folder.mkdir()
    net.save_weights(folder / "model.weights.h5")
    config = keras.saving.serialize_keras_object(net) | {"weights": "model.weights.h5"}
    (folder / "config.json").write_text(json.dumps(config))
    return net


def normalized(pixels, name):
    ours = backbones.normalization(name)
    return (pixels / 255 - np.array(ours.mean)) / np.array(ours.std)


def pooled(net, images):
    return np.asarray(net(images)).mean((1, 2))


@pytest.mark.parametrize(
    ("make", "family"),
    [
        (hub_resnet, "ResNet"),
        pytest.param(lambda: hub_resnet((2, 2), use_pre_activation=True), "ResNet", marks=pytest.mark.exhaustive),
        pytest.param(hub_densenet, "DenseNet", marks=pytest.mark.exhaustive),
    ],
    ids=["resnet", "resnet_v2", "densenet"],
)
def test_keras_hubs_features_are_its_own(make, family, tmp_path):
    theirs = hub_folder(make(), tmp_path, family=family)
    expected = pooled(theirs, hub_converter(family)(PIXELS))
    name = f"keras_hub/{tmp_path}"
    ours = backbones.build(name, image_size=64, pretrained="imagenet")
    assert ours.input_shape == (None, 64, 64, 3)
    np.testing.assert_allclose(ours(normalized(PIXELS, name)), expected, rtol=1e-4, atol=1e-4)


def test_keras_hubs_normalisation_is_its_converters(tmp_path):
    hub_folder(hub_resnet(), tmp_path)
    ours = backbones.normalization(f"keras_hub/{tmp_path}")
    np.testing.assert_allclose((ours.mean, ours.std), (MEAN, STD), rtol=1e-6)
    np.testing.assert_allclose(normalized(PIXELS, f"keras_hub/{tmp_path}"), hub_converter("ResNet")(PIXELS), atol=1e-5)


@pytest.mark.parametrize(("scale", "mean", "std"), [(1 / 255, 0.0, 1.0), (None, 0.0, 1 / 255)])
def test_a_converter_may_scale_all_channels_alike_or_not_at_all(scale, mean, std, tmp_path):
    hub_resnet().save_to_preset(tmp_path)
    keras_hub.layers.ResNetImageConverter(scale=scale).save_to_preset(tmp_path)
    ours = backbones.normalization(f"keras_hub/{tmp_path}")
    np.testing.assert_allclose((ours.mean, ours.std), ((mean,) * 3, (std,) * 3), rtol=1e-6)


def test_a_preset_that_says_nothing_of_its_images_takes_the_data_sets_normalisation(tmp_path):
    hub_resnet().save_to_preset(tmp_path)
    assert backbones.normalization(f"keras_hub/{tmp_path}") is None


@pytest.mark.exhaustive
def test_timms_folders_are_read(tmp_path):
    pretrained = {"input_size": [3, 224, 224], "mean": MEAN, "std": STD, "interpolation": "bicubic"}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18", "pretrained_cfg": pretrained}))
    ours = backbones.normalization(f"keras_hub/{tmp_path}")
    np.testing.assert_allclose((ours.mean, ours.std), (MEAN, STD), rtol=1e-6)
    assert backbones.build(f"keras_hub/{tmp_path}").output_shape == (None, 512)


def test_without_pretrained_the_weights_are_fresh(tmp_path):
    theirs = hub_folder(hub_resnet(), tmp_path)
    first, second = (backbones.build(f"keras_hub/{tmp_path}").weights[0].numpy() for _ in range(2))
    assert np.abs(first - second).max() > 0.01
    assert np.abs(first - theirs.weights[0].numpy()).max() > 0.01


def parts_of(block, *, shortcut):
    return {f"{block}_{i}_{kind}" for i in ((0, 1, 2) if shortcut else (1, 2)) for kind in ("conv", "bn")}


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (hub_resnet, parts_of("stack1_block0", shortcut=True)),
        (
            lambda: hub_resnet((2, 2), use_pre_activation=True),
            {f"stack1_block0_{name}" for name in ("0_conv", "pre_activation_bn", "1_conv", "1_bn", "2_conv")}
            | {f"stack1_block1_{name}" for name in ("pre_activation_bn", "1_conv", "1_bn", "2_conv")}
            | {"post_bn"},
        ),
        (
            hub_densenet,
            {f"transition2_{name}" for name in ("bn", "conv")}
            | {f"stack3_block1_{name}" for name in ("1_bn", "1_conv", "2_bn", "2_conv")}
            | {"bn"},
        ),
    ],
    ids=["resnet", "resnet_v2", "densenet"],
)
def test_keras_hubs_last_block_begins_with_the_last_downsampling(make, expected, tmp_path):
    hub_folder(make(), tmp_path, family="DenseNet" if make is hub_densenet else "ResNet")
    [last] = backbones.last_block(backbones.build(f"keras_hub/{tmp_path}"))
    assert {layer.name for layer in last.layers if layer.weights} == expected


def test_keras_cvs_last_block_begins_with_the_last_downsampling(tmp_path):
    cv_folder(cv_resnet(blocks=(1, 2)), tmp_path / "preset")
    [last] = backbones.last_block(backbones.build(f"keras_cv/{tmp_path / 'preset'}"))
    expected = parts_of("v2_stack_1_block1", shortcut=True) | parts_of("v2_stack_1_block2", shortcut=False)
    assert {layer.name for layer in last.layers if layer.weights} == expected


def test_keras_cvs_features_are_its_own(tmp_path):
    """Of its pixels of 0 to 255, which it rescales itself."""
    theirs = cv_folder(drawn(cv_resnet()), tmp_path / "preset")
    name = f"keras_cv/{tmp_path / 'preset'}"
    np.testing.assert_allclose(normalized(PIXELS, name), PIXELS, atol=1e-5)
    ours = backbones.build(name, image_size=64, pretrained="imagenet")
    np.testing.assert_allclose(ours(normalized(PIXELS, name)), pooled(theirs, PIXELS), rtol=1e-4, atol=1e-4)


@pytest.mark.exhaustive
def test_keras_cvs_second_version_takes_local_weights(tmp_path):
    theirs = cv_folder(cv_resnet(keras_cv.models.ResNetV2Backbone, blocks=(2, 2)), tmp_path / "preset")
    theirs.save_weights(tmp_path / "local.weights.h5")
    ours = backbones.build(f"keras_cv/{tmp_path / 'preset'}", pretrained=str(tmp_path / "local.weights.h5"))
    np.testing.assert_allclose(ours(PIXELS), pooled(theirs, PIXELS), rtol=1e-4, atol=1e-4)


def test_a_preset_is_asked_of_its_own_class(monkeypatch):
    asked = []

    def from_preset(preset, **options):
        asked.append((preset, options))
        return cv_resnet()

    monkeypatch.setattr(keras_cv.models.ResNetBackbone, "from_preset", from_preset)
    backbones.build("keras_cv/resnet50_imagenet", pretrained="imagenet")
    backbones.build("keras_cv/resnet18")
    assert asked == [("resnet50_imagenet", {"load_weights": True}), ("resnet18", {"load_weights": False})]


@pytest.mark.exhaustive
def test_adapted_nets_load_where_their_library_is_missing(tmp_path):
    hub_folder(hub_resnet(use_pre_activation=True, blocks=(2, 2)), tmp_path / "hub")
    cv_folder(drawn(cv_resnet()), tmp_path / "cv")
    for file in ("hub", "cv"):
        model = backbones.build(f"keras_{file}/{tmp_path / file}", image_size=64, pretrained="imagenet")
        model.save(tmp_path / f"{file}.keras")
        np.save(tmp_path / f"{file}.npy", model(PIXELS))
    np.save(tmp_path / "pixels.npy", PIXELS)
    code = """
import sys
sys.modules["keras_hub"] = sys.modules["keras_cv"] = None
import keras, numpy as np
from keras_lt import backbones
for file in ("hub", "cv"):
    backbones.check(f"keras_{file}/anything", pretrained="imagenet")
    model = keras.saving.load_model(f"{file}.keras")
    np.testing.assert_allclose(model(np.load("pixels.npy")), np.load(f"{file}.npy"), rtol=1e-5, atol=1e-5)
    assert backbones.last_block(model)[0].name == "last_block"
"""
    done = run(code, folder=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "pretrained", "message"),
    [
        ("keras_hub/resnet50_imagenet", "", r"near are resnet_50_imagenet.*Received: backbone=keras_hub/resnet50_im"),
        ("keras_hub/bert_tiny_en_uncased", "", "a preset of .*, ResNetBackbone.*bert_tiny_en_uncased, a BertBackbone"),
        ("keras_cv/ResNet50", "", "near are resnet50, "),
        ("keras_cv/DenseNet121Backbone", "", "near are densenet121, "),
        ("keras_cv/ResNet50Backbone", "imagenet", "near are resnet50, "),
        ("keras_hub/", "", "backbone must be one of .*keras_hub/<preset>, keras_cv/<preset>"),
        ("keras_hub/resnet_50_imagenet", "nowhere.h5", "Not found: nowhere.h5"),
    ],
)
def test_wrong_names_are_answered_with_near_ones(name, pretrained, message):
    with pytest.raises(ValueError, match=message):
        backbones.build(name, pretrained=pretrained)


@pytest.mark.parametrize("library", ["keras_hub", "keras_cv"])
def test_a_missing_library_is_named_with_its_extra(library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    backbones.check(f"{library}/resnet_50_imagenet", pretrained="imagenet")
    with pytest.raises(ModuleNotFoundError, match=rf"pip install 'keras_lt\[{library.replace('_', '-')}\]'"):
        backbones.build(f"{library}/resnet_50_imagenet")


def hub_mit():
    return keras_hub.models.MiTBackbone(
        layerwise_depths=[1, 1],
        num_layers=2,
        layerwise_num_heads=[1, 1],
        layerwise_sr_ratios=[2, 1],
        max_drop_path_rate=0.1,
        layerwise_patch_sizes=[7, 3],
        layerwise_strides=[4, 2],
        hidden_dims=[8, 16],
        image_shape=(64, 64, 3),
    )


@pytest.mark.exhaustive
def test_a_net_of_layers_that_could_not_be_loaded_again_is_one_layer(tmp_path):
    theirs = drawn(hub_mit())
    theirs.save_to_preset(tmp_path)
    ours = backbones.build(f"keras_hub/{tmp_path}", image_size=64, pretrained="imagenet")
    ours.save(tmp_path / "model.keras")
    for model in (ours, keras.saving.load_model(tmp_path / "model.keras")):
        np.testing.assert_allclose(model(PIXELS), pooled(theirs, PIXELS), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="last block is known"):
        backbones.last_block(ours)


@pytest.mark.exhaustive
def test_a_net_of_layers_that_could_not_be_loaded_again_is_not_cut():
    level = next(iter(hub_mit().pyramid_outputs))
    entry = backbones.BackboneEntry(lambda image_size: hub_mit(), last_block=lambda net: net.pyramid_outputs[level])
    with pytest.raises(ValueError, match=r"can be saved and loaded .*Received: .*, layer=hierarchical_encoder"):
        entry(image_size=64)


@pytest.mark.parametrize("name", backbones.APPLICATIONS)
def test_images_that_a_net_of_keras_is_too_deep_for_are_refused_before_it_is_built(name):
    """32 pixels is what keras.applications has for all of these."""
    with pytest.raises(ValueError, match=r"image_size must be at least 32 for .* Received: image_size=31"):
        backbones.find(name).check_image_size(31)
    backbones.find(name).check_image_size(32)


def test_a_net_that_wants_rescaled_images_is_refused(tmp_path):
    cv_folder(cv_resnet(include_rescaling=False), tmp_path / "preset")
    with pytest.raises(ValueError, match="include_rescaling=False"):
        backbones.build(f"keras_cv/{tmp_path / 'preset'}")


def test_a_deeper_presets_weights_are_refused(tmp_path):
    hub_resnet((1, 2)).save_weights(tmp_path / "deeper.weights.h5")
    hub_resnet((1, 1)).save_to_preset(tmp_path / "preset")
    with pytest.raises(ValueError, match="must hold the weights of res_net_backbone"):
        backbones.build(f"keras_hub/{tmp_path / 'preset'}", pretrained=str(tmp_path / "deeper.weights.h5"))


def test_the_classes_that_version_01_named_are_presets_now():
    now = RENAMED_VALUES["backbone"]
    assert {name.partition("/")[2] for name in now} <= set(dir(keras_cv.models))
    for old, new in now.items():
        of = keras_cv.models.ResNetV2Backbone if "V2" in old else keras_cv.models.ResNetBackbone
        assert new.partition("/")[2] in of.presets
