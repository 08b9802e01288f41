"""Seconds of the whole classifier study: as the reference goes about it, and on features extracted once."""

import argparse
import dataclasses
import functools
import tempfile
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

import keras_lt
from keras_lt.forward import forward_pass
from keras_lt.input_pipeline import as_many_as, evaluation_batches
from keras_lt.stages import OnePass
from tools.benchmarks.timing import timed

IMAGENET_LT = {"train": 115_846, "val": 20_000, "test": 50_000}
Study = dict[str, tuple[float, float, dict[str, float]]]  # part -> wall seconds, CPU seconds, test accuracies


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command line."""
    parser.add_argument("--backbone", default="resnet10")
    parser.add_argument("--image_size", type=int, default=96, help="pixels that Fashion-MNIST is enlarged to")
    parser.add_argument("--stage_one_epochs", type=int, default=3, help="outside the measured time")
    parser.add_argument("--crt_epochs", type=int, default=10)
    parser.add_argument("--lws_epochs", type=int, default=5)
    parser.add_argument("--fraction", type=float, default=1.0, help="of the images")


def run(arguments: argparse.Namespace) -> None:
    """Both ways through the same stage one, images, epochs and draws; both without augmentation."""
    keras.utils.disable_interactive_logging()
    data = _fashion(arguments.fraction)
    print(
        f"{', '.join(f'{len(split)} {name}' for name, split in data.splits.items())} images; stage one ...", flush=True
    )
    representation = keras_lt.learn_representation(
        data,
        backbone=arguments.backbone,
        image_size=arguments.image_size,
        augmentation="none",
        recipe=keras_lt.Recipe(epochs=arguments.stage_one_epochs, batch_size=32, learning_rate=0.05),
    )
    recipe = keras_lt.Recipe(batch_size=64, learning_rate=0.2, sampler="class_balanced")
    recipes = {
        "crt": dataclasses.replace(recipe, epochs=arguments.crt_epochs),
        "lws": dataclasses.replace(recipe, epochs=arguments.lws_epochs),
    }
    theirs = _reference(representation, data, recipes)
    with tempfile.TemporaryDirectory() as folder:
        passes = {"crt": OnePass(folder, [recipes["lws"]]), "lws": OnePass(folder)}
        together = _reference(representation, data, recipes, passes)
    ours = _ours(representation, data, recipes)
    print(f"{'':26}{'wall s':>9}{'CPU s':>9}{'test all':>10}{'class mean':>12}")
    for title, study in (("reference", theirs), ("one pass", together), ("ours", ours)):
        for part, (wall, cpu, accuracies) in study.items():
            scores = f"{accuracies['all']:10.4f}{accuracies['class_mean']:12.4f}" if accuracies else ""
            print(f"{title + ', ' + part:26}{wall:9.1f}{cpu:9.1f}{scores}")
    totals = [np.sum([row[:2] for row in study.values()], axis=0) for study in (theirs, ours)]
    for title, (wall, cpu) in zip(("reference", "ours"), totals, strict=True):
        print(f"{title + ', all of it':26}{wall:9.1f}{cpu:9.1f}")
    wall, cpu = totals[0] / totals[1]
    print(f"{'times less, on features':26}{wall:9.1f}{cpu:9.1f}")
    apart, at_once = (np.sum([study[name][:2] for name in together], axis=0) for study in (theirs, together))
    wall, cpu = apart / at_once
    print(f"{'times less, on images':26}{wall:9.2f}{cpu:9.2f}")
    epochs = [recipes[name].epochs for name in together]
    print(f"{'its epochs, times less':26}{sum(epochs) / max(epochs):9.2f}")


def _reference(representation, data, recipes: dict, passes: dict | None = None) -> Study:
    """The backbone runs in each epoch of cRT and LWS, in each test, and again for what NCM and tau-norm need.

    Args:
      passes: name -> `OnePass` of the classifiers to train, in our own way on images; None trains all, each for itself.
    """

    def extract(split: str):
        return keras_lt.extract_features(representation.backbone, data.splits[split], representation.preprocessing)

    def learn(name: str, splits: tuple[str, ...]) -> dict[str, float]:
        features = {"train": unread, "val": val, **{split: extract(split) for split in splits}}
        of = {"representation": representation, "data": data, "stage_two": "images", "one_pass": passes.get(name)}
        return _learn(name, data.groups, features, recipes, **of)

    # Our interface asks for features of train and val. cRT and LWS train on images and validate inside `fit`, and Joint
    # is not fitted: to them those of train are rows that nobody reads. One pass validates on the features of val, the
    # reference through the backbone in every epoch.
    val = extract("val")
    if not passes:
        images = functools.partial(evaluation_batches, data.val, representation.preprocessing)
        size = representation.preprocessing.image_size
        forward = forward_pass(representation.backbone, (size, size, 3))
        val = _ThroughBackbone(val.features, val.labels, images=images, forward=forward)
    unread = keras_lt.FeatureSet(np.broadcast_to(np.float32(0), (len(data.train), val.width)), data.train.labels)
    splits = {"joint": ("test",), "ncm": ("train", "test"), "crt": ("test",), "tau_norm": tuple(data.splits)}
    splits["lws"] = splits["crt"]
    names, passes = passes or splits, passes or {}
    return {name: timed(lambda name=name: learn(name, splits[name])) for name in names}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _ThroughBackbone(keras_lt.FeatureSet):
    """Features that are computed from images whenever they are evaluated.

    Attributes:
      images: the arguments of `evaluation_batches` -> batches of images and labels.
      forward: images [B, S, S, 3] -> features [B, D].
    """

    images: Callable[..., tf.data.Dataset]
    forward: Callable[[tf.Tensor], np.ndarray]

    def evaluation_batches(self, **how) -> tf.data.Dataset:
        """(features [B, D], labels [B]), as `FeatureSet` gives them."""
        images, spec = self.images(**how), super().evaluation_batches(**how).element_spec
        batches = tf.data.Dataset.from_generator(
            lambda: ((self.forward(batch), labels) for batch, labels in images), output_signature=spec
        )
        return batches.apply(as_many_as(images))  # Keras warns of the end of what does not say how long it is


def _ours(representation, data, recipes: dict) -> Study:
    """Features once, then every classifier on them."""
    features = {}

    def extract():
        for name, split in data.splits.items():
            features[name] = keras_lt.extract_features(representation.backbone, split, representation.preprocessing)

    study = {"features": timed(extract)}
    for name in ("joint", "ncm", "crt", "tau_norm", "lws"):
        study[name] = timed(lambda name=name: _learn(name, data.groups, features, recipes, head=representation.head))
    return study


def _learn(name: str, groups, features: dict, recipes: dict, **options) -> dict[str, float]:
    """Accuracies on test of a classifier; of its trained ones, `recipes` holds the recipes."""
    if name in recipes:
        options["recipe"] = recipes[name]
    classifier = keras_lt.learn_classifier(name, features=features, groups=groups, **options)
    return keras_lt.evaluate_classifier(classifier.model, features["test"], groups).accuracies


def _fashion(fraction: float):
    """Fashion-MNIST's long tail with val and test in ImageNet-LT's proportion to train."""
    data = keras_lt.load("fashion_lt", "")
    rng = np.random.default_rng(0)

    def some(split, number: float):
        return split.subset(np.sort(rng.permutation(len(split))[: max(1, round(number))]))

    train = some(data.train, fraction * len(data.train))
    val, test = (
        some(data.splits[name], len(train) * IMAGENET_LT[name] / IMAGENET_LT["train"]) for name in ("val", "test")
    )
    return dataclasses.replace(data, train=train, val=val, test=test, listed_counts=None)
