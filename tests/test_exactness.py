"""The same numbers, however a batch is divided: over two devices, and into four and sixteen micro-batches.

One program trains every option whole and divided, and prints how far apart the weights end, relative to how far they
have moved. Its backbone has no batch norm, whose statistics are of a micro-batch; two devices share them, so there the
tests' tiny backbone is an option of its own.
"""

PROGRAM = """
import dataclasses
import sys
import keras
import numpy as np
from keras_lt import Recipe, backbones, learn_classifier, learn_representation
from keras_lt.datasets import LongTailed, Split
from keras_lt.distribution import make_strategy
from keras_lt.features import extract_features
from keras_lt.methods import METHODS
from tests.tiny_backbone import TINY

def plain(image_size=8):
    images = x = keras.Input((image_size, image_size, 3))
    for name in ("stem", "layer1"):
        inputs = keras.Input(x.shape[1:])
        convolved = keras.layers.Conv2D(4, 3, strides=2, activation="relu", padding="same")(inputs)
        x = keras.Model(inputs, convolved, name=name)(x)
    return backbones.pooled(images, x, name="plain")

backbones.BACKBONES["tiny"] = TINY
backbones.BACKBONES["plain"] = dataclasses.replace(TINY, function=plain, label="plain")
rng = np.random.default_rng(0)

def split(*counts):
    labels = rng.permutation(np.repeat(np.arange(3), counts))
    return Split((60 * labels[:, None, None] + rng.integers(0, 130, (len(labels), 8, 8))).astype(np.uint8), labels)

data = LongTailed(
    "squares", split(130, 110, 16), split(8, 8, 8), split(8, 8, 8), class_names="abc", augmentation="none",
    crop_fraction=1.0, mean=(0.4,) * 3, std=(0.2,) * 3,
)
BASE = Recipe(epochs=2, steps_per_epoch=2, batch_size=32, learning_rate=0.05, weight_decay=1e-3)

def weights_of(options, strategy, passes):
    options = dict(options)
    of_stage_one = {"backbone": options.pop("backbone", "plain"), "strategy": strategy}
    for argument in ("mixup", "cutmix", "train_parts", "backbone_lr_multiplier", "head", "precision"):
        if argument in options:
            of_stage_one[argument] = options.pop(argument)
    method = METHODS[options.pop("method", "decoupling")]()
    classifier = options.pop("classifier", "")
    of_stage_two = {key: options.pop(key) for key in ("stage_two", "batch_norm") if key in options}
    recipe = dataclasses.replace(BASE, accumulate_steps=passes, **options)
    if not classifier and method.name in ("decoupling", "bbn"):
        return learn_representation(data, recipe=recipe, hooks=method, **of_stage_one).model.get_weights()
    first = learn_representation(
        data, recipe=BASE, hooks=method, **of_stage_one | {"strategy": make_strategy("none")}
    )
    if not classifier:
        features = {s: extract_features(first.backbone, data.splits[s], first.preprocessing) for s in ("train", "val")}
        learned = method.classifier(
            first, data, features=features, recipe=recipe, seed=0, strategy=strategy, folder=None
        )
    else:
        learned = learn_classifier(classifier, first, data, recipe=recipe, strategy=strategy, **of_stage_two)
    return learned.model.get_weights() + learned.backbone.get_weights()

TWO = make_strategy("mirrored", ["CPU:0", "CPU:1"])  # a second one would take the collective keys of the first

def compare(options):
    name = ",".join(f"{key}={value}" for key, value in options.items()) or "plain"
    ways = {"two": (TWO, 1)}
    ways |= {str(passes): (make_strategy("none"), passes) for passes in (4, 16)}
    whole = weights_of(options, make_strategy("none"), 1)
    scale = max(np.abs(array).max() for array in whole)
    for way in sys.argv[1].split(","):
        try:
            divided = weights_of(options, *ways[way])
            apart = max(np.abs(a - b).max() for a, b in zip(whole, divided, strict=True)) / scale
        except ValueError as error:
            apart = f"refused: {error}"
        print("COMPARED", name, way, apart, sep="|", flush=True)
"""
