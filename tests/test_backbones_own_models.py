"""What cannot be a backbone, of names, presets and models of one's own, is refused before any work."""

import keras
import keras_hub
import pytest

from keras_lt import backbones
from keras_lt.backbones import of_model
from tests.test_backbones_family import IMAGES, SIZE, PatchTokens, functional, patch_tokens


@keras.saving.register_keras_serializable("tests")
class ForgetsItsWidth(keras.Model):
    """Without a get_config of its own."""

    def __init__(self, activation="linear", **kwargs):
        super().__init__(**kwargs)
        self.convolution = keras.layers.Conv2D(4, 3, activation=activation)

    def call(self, images):
        return self.convolution(images)


def with_inputs(*shapes):
    inputs = [keras.Input(shape) for shape in shapes]
    return keras.Model(inputs, [keras.layers.Flatten()(x) for x in inputs], name="flat")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PatchTokens(name="fresh"), "must be built: call it once on images. Received: fresh"),
        (
            lambda: with_inputs((8,)),
            r"must take images \[B,H,W,3\] and nothing else. Received: flat taking \(None, 8\)",
        ),
        (lambda: with_inputs((8, 8, 3), (8, 8, 3)), "must take images .*nothing else"),
        (lambda: with_inputs((8, 8, 1)), "must take images"),
        (lambda: of_model(functional(), last_block="conv"), "must be a layer of .*Received: conv in functional"),
        (lambda: of_model(patch_tokens(name="vit"), last_block="conv2d"), "Functional or Sequential model.* in vit"),
        (lambda: of_model(patch_tokens(), pooling="average"), "pooling must be mean or first.* for .*pooling=average"),
        (lambda: of_model(functional(), pooling="none"), "pooling must be average for a net that gives"),
        (lambda: functional(16), r"image_size must be 16, as functional has it\. Received: image_size=32"),
        (lambda: "resnet51", "backbone must be one of resnet10.*or a Keras model. Received: backbone=resnet51"),
    ],
)
def test_what_cannot_be_a_backbone_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        backbones.build(make(), image_size=SIZE)


def test_a_model_of_several_outputs_is_refused():
    inputs = keras.Input((SIZE, SIZE, 3))
    two = keras.Model(inputs, {"a": keras.layers.Flatten()(inputs), "b": inputs}, name="two")
    with pytest.raises(ValueError, match=r"must give one feature map .*Received: two that gives {'a'"):
        backbones.build(two, image_size=SIZE)


def test_a_model_that_would_not_load_again_is_refused():
    class Local(keras.Model):
        def call(self, images):
            return images

    local, forgets = Local(name="local"), ForgetsItsWidth(activation="relu")
    lambdas = keras.Sequential([keras.Input((SIZE, SIZE, 3)), keras.layers.Lambda(lambda x: x)], name="lambdas")
    for model in (local, forgets):
        model(IMAGES)
    for model, message in (
        (local, r"can be saved and loaded: of registered classes.*Received: local: Could not locate class"),
        (lambdas, r"Received: lambdas: .*`Lambda`"),
        (forgets, "must give the same again when it is made from its get_config"),
    ):
        with pytest.raises(ValueError, match=message):
            backbones.build(model, image_size=SIZE)


@pytest.mark.parametrize(
    ("preset", "kind"),
    [
        ("sam_base_sa1b", "SAMBackbone"),
        ("bert_tiny_en_uncased", "BertBackbone"),
    ],
)
def test_a_preset_that_cannot_be_taken_is_refused_before_anything_is_fetched(preset, kind, monkeypatch):
    def fetched(*arguments, **options):
        raise AssertionError("fetched")

    monkeypatch.setattr(keras_hub.models.Backbone, "from_preset", fetched)
    monkeypatch.setattr(keras_hub.layers.ImageConverter, "from_preset", fetched)
    backbones.check(f"keras_hub/{preset}", pretrained="imagenet")  # loads no library
    entry = backbones.find(f"keras_hub/{preset}")
    for ask in (entry.available, entry):
        with pytest.raises(ValueError, match=rf"ResNetBackbone.*Received: backbone=keras_hub/{preset}, a {kind}$"):
            ask()
