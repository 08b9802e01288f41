"""Stage one: backbone and dense classifier, trained together."""

import contextlib
import dataclasses
import functools
import os
import pathlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence

import keras
import numpy as np

from keras_lt import backbones
from keras_lt.arguments import checked
from keras_lt.checkpoints import read_history, write_history
from keras_lt.datasets import LongTailed
from keras_lt.distribution import Strategy, make_strategy
from keras_lt.features import FeatureSet, extract_features, extract_splits
from keras_lt.files import read_json, reading, write_json
from keras_lt.inspection import screen
from keras_lt.keras_settings import plain_settings
from keras_lt.preprocessing import NoPreprocessing, Preprocessing
from keras_lt.recipe import Recipe
from keras_lt.registry import member
from keras_lt.stages import checks
from keras_lt.stages.fitting import fit_on_features, fit_on_images, load_model, save_model
from keras_lt.stages.hooks import DECOUPLING, Hooks
from keras_lt.stages.training_models import WithFeatureLoss

STAGE_ONE = Recipe()
MODEL = "model.keras"  # of the files in its folder the last to be written


@dataclasses.dataclass(frozen=True, eq=False)
class Representation:
    """What stage one leaves behind.

    Attributes:
      model: images [B, S, S, 3] -> logits [B, C], a layer "backbone" and a layer "classifier"; of data that are
        features already, features [B, D] -> logits, the backbone being none.
      preprocessing: what the images go through.
      history: a row of logs per epoch; empty where it was not trained here.
    """

    model: keras.Model
    preprocessing: Preprocessing | NoPreprocessing
    history: list[dict[str, float]]

    @property
    def backbone(self) -> keras.Model:
        """Images [B, S, S, 3] -> features [B, D]."""
        return self.model.get_layer("backbone")

    @property
    def head(self) -> keras.layers.Layer:
        """Stage one's own classifier, features [B, D] -> logits [B, C]."""
        return self.model.get_layer("classifier")

    def save(self, folder: str | os.PathLike):
        """Writes `preprocessing.json` and `history.csv`, then `model.keras`: a folder with a model is complete."""
        folder = pathlib.Path(folder)
        write_json(folder / "preprocessing.json", dataclasses.asdict(self.preprocessing))
        write_history(folder / "history.csv", self.history)
        save_model(self.model, folder / MODEL)

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "Representation":
        """Reads what `save` wrote."""
        folder = pathlib.Path(folder)
        again = f"put back a copy, or remove {folder / MODEL}, and training goes on from its last checkpoint"
        model = load_model(folder / MODEL, instead=again)
        with reading(folder / "preprocessing.json", instead=again):
            preprocessing = read_preprocessing(folder)
        with reading(folder / "history.csv", instead=again):
            return cls(model, preprocessing, read_history(folder / "history.csv"))


def read_preprocessing(folder: str | os.PathLike) -> Preprocessing | NoPreprocessing:
    """The preprocessing of the representation in a folder."""
    settings = read_json(pathlib.Path(folder, "preprocessing.json"), needs=["image_size"])
    if not settings["image_size"]:
        return NoPreprocessing()
    return Preprocessing(**settings)


@checked
@plain_settings(dtype_policy="float32")
def learn_representation(
    data: LongTailed,
    *,
    backbone: str | keras.Model | backbones.BackboneEntry = "resnet8",
    recipe: Recipe = STAGE_ONE,
    head: str = "auto",
    image_size: int = 0,
    augmentation: str = "auto",
    pretrained: str = "",
    train_parts: str = "all",
    backbone_lr_multiplier: float = 1.0,
    precision: str = "float32",
    hooks: Hooks = DECOUPLING,
    stage_one: str = "images",
    extract: Callable[[keras.Model, Preprocessing], Mapping[str, FeatureSet]] | None = None,
    text: FeatureSet | None = None,
    seed: int = 0,
    strategy: Strategy | None = None,
    folder: str | os.PathLike | None = None,
    check_images: bool = True,
    **augmentations: float,
) -> Representation:
    """Stage one: trains backbone and classifier together, and keeps the epoch that validates best.

    >>> recipe = keras_lt.Recipe(epochs=1, steps_per_epoch=2, batch_size=64, loss="balanced_softmax")
    >>> representation = keras_lt.learn_representation(data, backbone="resnet8", recipe=recipe)
    2/2 - ...
    >>> representation.backbone.output_shape, representation.head.units
    ((None, 128), 10)

    Of data that are features already the classifier alone is learned, a linear probe; what is asked of images and
    backbones then keeps its default.

    Args:
      data: the data set.
      backbone: a name in `backbones.NAMES`, a Keras model from images to a feature map, tokens or a vector (it stays as
        it is), or what `backbones.of_model` makes of one.
      recipe: epochs, batch size, optimisation, sampler and losses.
      head: the classifier, a name in `HEADS`; "auto" is the one that the loss asks for, else "dense".
      image_size: pixels; 0 is the backbone's own where it takes one size only, else the data set's.
      augmentation: a name in `preprocessing.AUGMENTATIONS`; "auto" is the data set's own.
      pretrained: weights to begin with, "imagenet" or a file; empty is from scratch.
      train_parts: what is trained beside the classifier, a name in `backbones.TRAIN_PARTS` such as "all", "last_block",
        "classifier" for nothing, or "lora:rank=8"; the rest is frozen, batch norm included.
      backbone_lr_multiplier: the backbone's learning rate over the classifier's.
      precision: what the backbone computes in, a Keras dtype policy; weights, classifiers and losses are float32.
      hooks: what a method changes.
      stage_one: "images", or "features", which fits the classifier alone on features extracted once; that needs
        train_parts="classifier".
      extract: (backbone, preprocessing) -> features of "train" and "val", for stage_one="features"; None extracts them
        into memory, without augmentation.
      text: of the class names, one row each, for a head that begins by them; None is made by the backbone's text tower.
      seed: of initial weights, draws and augmentations.
      strategy: from `distribution.make_strategy`; default one device, or all GPUs where there are several.
      folder: for checkpoints and history; a run that was stopped goes on from there, and one of another recipe, seed
        or data set is refused. None keeps nothing on disk.
      **augmentations: randaugment, randaugment_magnitude, random_erasing, mixup and cutmix, as in `Preprocessing`.
      check_images: whether every image of every split is examined first, as `inspection.screen` does.
    Raises:
      ValueError: a name or number that does not fit, or an image that does not decode, before any training.
    """
    entry = backbones.find(backbone)
    checks.check_classes(data.class_names, data.name)
    asked = {"pretrained": pretrained, "train_parts": train_parts, "precision": precision, **augmentations}
    asked["backbone_lr_multiplier"] = backbone_lr_multiplier
    seen = {"image_size": image_size, "augmentation": augmentation}
    if data.of_features:
        checks.check_no_images(hooks, backbone=backbone, **seen, **asked)
        stage_one, asked["train_parts"] = "features", "classifier"
    checks.check_stage_one(recipe, hooks, backbone=entry, head=head, stage_one=stage_one, seed=seed, **asked)
    entry = entry.available()
    parts = member(backbones.TRAIN_PARTS, asked["train_parts"], what="train_parts")
    parts.check(entry)
    make_head = hooks.head or checks.head_entry(head, recipe)
    preprocessing = make_preprocessing(data, backbone=entry, **seen, **augmentations)
    strategy = strategy or make_strategy()
    checks.check_hosts(strategy, recipe, hooks)
    learned = hooks.data(data)
    checks.check_epoch(recipe, learned.class_counts)
    by_text = checks.begins_by(make_head, recipe) == "text"
    start = (text or text_features(entry, data.class_names, pretrained=pretrained)) if by_text else None
    if check_images:
        screen(data)
    with building(strategy, seed=seed, precision=precision):
        network = parts(_network(data, entry, preprocessing, pretrained, hooks), classes=len(learned.class_names))
        classifier = make_head(network.output_shape[-1], len(learned.class_names), seed=seed)
        model = _joined(network, classifier, first_bias=recipe.loss_entry.first_bias)
    fitting = {"recipe": recipe, "seed": seed, "strategy": strategy, "folder": folder}
    fitting |= {"callbacks": hooks.callbacks(recipe), "made_of": {"head": head, **asked}}
    extract = extract or functools.partial(extract_splits, data=learned, splits=("train", "val"))
    features = extract(network, preprocessing) if stage_one == "features" else {}
    if hasattr(classifier, "adapt"):
        start = start or features.get("train") or extract_features(network, learned.train, preprocessing)
        classifier.adapt(start.features, start.labels)
    if features:
        history = fit_on_features(classifier, features, groups=learned.groups, **fitting)
    else:
        history = _fit_on_images(model, learned, preprocessing, hooks, backbone_lr_multiplier, **fitting)
    return Representation(hooks.finished(model, data), preprocessing, history)


def _network(
    data: LongTailed,
    entry: backbones.BackboneEntry,
    preprocessing: Preprocessing | NoPreprocessing,
    pretrained: str,
    hooks: Hooks,
) -> keras.Model:
    """The method's backbone of images, or none of data that are features."""
    if data.of_features:
        return backbones.of_features(*data.train.examples.shape)
    network = entry(image_size=preprocessing.image_size, pretrained=pretrained)
    return hooks.network(network, pretrained=bool(pretrained))


def _fit_on_images(
    model: keras.Model, data: LongTailed, preprocessing: Preprocessing, hooks: Hooks, multiplier: float, **fitting
) -> list[dict[str, float]]:
    """`fit_on_images` of what a method trains of a model, with the recipe's loss on features; options as there."""
    recipe = fitting["recipe"]
    fitting["multipliers"] = {v.path: multiplier for v in model.get_layer("backbone").trainable_variables}
    with fitting["strategy"].scope():
        trained = hooks.training_model(model, data.class_counts)
        if added := recipe.feature_loss_entry:
            trained = WithFeatureLoss(trained, added, weight=recipe.feature_loss_weight)
    return fit_on_images(trained, data, preprocessing, batches=hooks.batches, **fitting)


def _joined(
    network: keras.Model, classifier: keras.layers.Layer, *, first_bias: Callable[[int], float] | None
) -> keras.Model:
    """Both as one model; the classifier's bias begins where a loss wants it."""
    if first_bias:
        classifier.bias.assign(np.full(classifier.bias.shape, first_bias(*classifier.bias.shape)))
    network.name, classifier.name = "backbone", "classifier"
    return keras.Model(network.input, classifier(network(network.input)), name="representation")


def text_features(backbone: backbones.Backbone, class_names: Sequence[str], *, pretrained: str) -> FeatureSet:
    """What a backbone's text tower says of the class names, a row each.

    Args:
      pretrained: as in `learn_representation`.
    Raises:
      ValueError: it has none, its weights are others, or the classes have no names.
    """
    entry = backbones.find(backbone).available()
    entry.check_text_start(class_names, pretrained)
    return FeatureSet(entry.text_tower(class_names), np.arange(len(class_names)))


def make_preprocessing(
    data: LongTailed,
    *,
    backbone: str | keras.Model | backbones.BackboneEntry,
    image_size: int = 0,
    augmentation: str = "auto",
    **augmentations: float,
) -> Preprocessing | NoPreprocessing:
    """The preprocessing of a data set for a backbone; "auto" is the data set's own augmentation.

    Args: as `learn_representation`.
    Raises:
      ValueError: the backbone takes no images of this size.
    """
    if data.of_features:
        return NoPreprocessing()
    entry = backbones.find(backbone).available()
    image_size = image_size or entry.image_size or data.image_size
    entry.check_image_size(image_size)
    own = entry.normalization
    statistics = dataclasses.asdict(own) if own else {"mean": data.mean, "std": data.std}
    return Preprocessing(
        image_size=image_size,
        crop_fraction=data.crop_fraction if entry.resizing.resize == "crop" else 1.0,
        **dataclasses.asdict(entry.resizing),
        augmentation=data.augmentation if augmentation == "auto" else augmentation,
        **augmentations,
        **statistics,
    )


@contextlib.contextmanager
def building(strategy: Strategy, *, seed: int, precision: str = "float32") -> Iterator[None]:
    """Where models are made: on the strategy's devices, with weights that depend on the seed alone."""
    with strategy.scope(), _seeded_initializers(seed), plain_settings(dtype_policy=precision):
        yield


@contextlib.contextmanager
def _seeded_initializers(seed: int) -> Iterator[None]:
    """Initial weights drawn inside depend on `seed` alone: Keras seeds its initialisers from Python's generator."""
    state = random.getstate()
    random.seed(int(seed))  # which knows no other library's numbers
    try:
        yield
    finally:
        random.setstate(state)
