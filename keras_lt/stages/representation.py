"""Stage one: backbone and dense classifier, trained together."""

import contextlib
import dataclasses
import functools
import os
import pathlib
import random
import warnings
from collections.abc import Callable, Iterator

import keras
import numpy as np

from keras_lt import backbones
from keras_lt.checkpoints import read_history, read_json, write_history, write_json
from keras_lt.classifiers import fresh_cosine, fresh_dense
from keras_lt.datasets import LongTailed
from keras_lt.distribution import Strategy, hosts, make_strategy
from keras_lt.losses import COSINE_HEAD, FEATURE_LOSSES, FIRST_BIAS, LDAM_SCALE, PRIOR_CORRECTED
from keras_lt.optimization import Recipe
from keras_lt.preprocessing import Preprocessing
from keras_lt.resampling import RESAMPLING
from keras_lt.stages.feature_losses import WithFeatureLoss
from keras_lt.stages.fitting import check_choice, fit_on_images, save_model

TRAIN_PARTS = ("all", "last_block", "classifier")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
STAGE_ONE = Recipe()
# What stage one trains on the backbone: (width D, units C, *, seed) -> built layer.
HEADS: dict[str, Callable[..., keras.layers.Layer]] = {
    "dense": fresh_dense,
    "cosine": functools.partial(fresh_cosine, scale=LDAM_SCALE),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Representation:
    """What stage one leaves behind.

    Attributes:
      model: images [B, S, S, 3] -> logits [B, C], a layer "backbone" and a layer "classifier".
      preprocessing: what the images go through.
      history: a row of logs per epoch; empty where it was not trained here.
    """

    model: keras.Model
    preprocessing: Preprocessing
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
        save_model(self.model, folder / "model.keras")

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "Representation":
        """Reads what `save` wrote."""
        folder = pathlib.Path(folder)
        model = keras.saving.load_model(folder / "model.keras", compile=False)
        return cls(model, read_preprocessing(folder), read_history(folder / "history.csv"))


def read_preprocessing(folder: str | os.PathLike) -> Preprocessing:
    """The preprocessing of the representation in a folder."""
    settings = read_json(pathlib.Path(folder, "preprocessing.json"))
    return Preprocessing(**{name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()})


def learn_representation(
    data: LongTailed,
    *,
    backbone: str = "resnet8",
    recipe: Recipe = STAGE_ONE,
    head: str | Callable = "auto",
    image_size: int = 0,
    augmentation: str = "auto",
    pretrained: str = "",
    train_parts: str = "all",
    backbone_lr_multiplier: float = 1.0,
    precision: str = "float32",
    seed: int = 0,
    strategy: Strategy | None = None,
    folder: str | os.PathLike | None = None,
    **augmentations: float,
) -> Representation:
    """Stage one: trains backbone and classifier together, and keeps the epoch that validates best.

    >>> recipe = keras_lt.Recipe(epochs=1, steps_per_epoch=2, batch_size=64, loss="balanced_softmax")
    >>> representation = keras_lt.learn_representation(data, backbone="resnet8", recipe=recipe)
    2/2 - ...
    >>> representation.backbone.output_shape, representation.head.units
    ((None, 128), 10)

    Args:
      data: the data set.
      backbone: a name `backbones.build` knows.
      recipe: epochs, batch size, optimisation, sampler and losses.
      head: the classifier, a name in `HEADS` or a function (width, units, *, seed) -> built layer; "auto"
        is the one that the loss asks for, else "dense".
      image_size: pixels; 0 is the data set's own.
      augmentation: a name in `preprocessing.AUGMENTATIONS`; "auto" is the data set's own.
      pretrained: weights to begin with, "imagenet" or a file; empty is from scratch.
      train_parts: "all", "last_block" (and the classifier) or "classifier"; the rest is frozen, batch norm included.
      backbone_lr_multiplier: the backbone's learning rate over the classifier's.
      precision: what the backbone computes in, a Keras dtype policy; weights, classifiers and losses are float32.
      seed: of initial weights, draws and augmentations.
      strategy: from `distribution.make_strategy`; default one device, or all GPUs where there are several.
      folder: for checkpoints and history; a run that was stopped goes on from there. None keeps nothing on disk.
      **augmentations: randaugment, randaugment_magnitude, random_erasing, mixup and cutmix, as in `Preprocessing`.
    Raises:
      ValueError: a name or number that does not fit, before any training.
    """
    check_choice("train_parts", train_parts, TRAIN_PARTS)
    check_choice("precision", precision, PRECISIONS)
    make_head = head if callable(head) else HEADS[choose_head(head, recipe.loss)]
    if recipe.loss in PRIOR_CORRECTED and recipe.sampler != "instance_balanced":
        warnings.warn(
            f"loss={recipe.loss} corrects for the class sizes already, so it wants sampler=instance_balanced: "
            f"sampler={recipe.sampler} corrects a second time.",
            stacklevel=2,
        )
    if RESAMPLING[recipe.resampling].makes_features:
        raise ValueError(
            "Stage one resamples images; what makes new features is of stage two. "
            f"Received: resampling={recipe.resampling}"
        )
    strategy = strategy or make_strategy()
    if recipe.feature_loss and not hosts(strategy).one_host:
        raise ValueError(f"A loss on features trains on one host. Received: feature_loss={recipe.feature_loss}")
    preprocessing = make_preprocessing(
        data, backbone=backbone, image_size=image_size, augmentation=augmentation, **augmentations
    )
    if preprocessing.mixes and recipe.class_weights != "none":
        raise ValueError(
            "class_weights are of one class per image, and mixup and cutmix give it two. "
            f"Received: class_weights={recipe.class_weights}, mixup={preprocessing.mixup}, "
            f"cutmix={preprocessing.cutmix}"
        )
    with building(strategy, seed=seed, precision=precision):
        network = backbones.build(backbone, image_size=preprocessing.image_size, pretrained=pretrained)
        train_only(network, train_parts)
        classifier = make_head(network.output_shape[-1], len(data.class_names), seed=seed)
        if recipe.loss in FIRST_BIAS:
            classifier.bias.assign(np.full(classifier.bias.shape, FIRST_BIAS[recipe.loss](len(data.class_names))))
        network.name, classifier.name = "backbone", "classifier"
        model = keras.Model(network.input, classifier(network(network.input)), name="representation")
        added = FEATURE_LOSSES.get(recipe.feature_loss)
        trained = WithFeatureLoss(model, added, weight=recipe.feature_loss_weight) if added else model
    history = fit_on_images(
        trained,
        data,
        preprocessing,
        recipe=recipe,
        seed=seed,
        multipliers={variable.path: backbone_lr_multiplier for variable in network.trainable_variables},
        strategy=strategy,
        folder=folder,
    )
    return Representation(model, preprocessing, history)


def make_preprocessing(
    data: LongTailed, *, backbone: str, image_size: int = 0, augmentation: str = "auto", **augmentations: float
) -> Preprocessing:
    """The preprocessing of a data set for a backbone; 0 and "auto" are the data set's own size and augmentation.

    Args: as `learn_representation`.
    """
    own = backbones.normalization(backbone)
    statistics = dataclasses.asdict(own) if own else {"mean": data.mean, "std": data.std}
    return Preprocessing(
        image_size=image_size or data.image_size,
        crop_fraction=data.crop_fraction,
        augmentation=data.augmentation if augmentation == "auto" else augmentation,
        **augmentations,
        **statistics,
    )


def choose_head(head: str, loss: str) -> str:
    """A name in `HEADS`: the one that was asked for, or for "auto" that of the loss.

    Raises:
      ValueError: there is no such head, or the loss does not go with it.
    """
    check_choice("head", head, ("auto", *HEADS))
    wanted = "cosine" if loss in COSINE_HEAD else "dense"
    if head == "auto":
        return wanted
    if loss in {*COSINE_HEAD, *FIRST_BIAS} and head != wanted:
        raise ValueError(f"loss={loss} needs a {wanted} head. Received: head={head}")
    return head


def train_only(network: keras.Model, train_parts: str):
    """Freezes the backbone but for what `train_parts` names: "all", "last_block", or "classifier" for none of it."""
    for stage in network.layers:
        stage.trainable = train_parts == "all"
    for stage in backbones.last_block(network) if train_parts == "last_block" else ():
        stage.trainable = True


@contextlib.contextmanager
def building(strategy: Strategy, *, seed: int, precision: str = "float32") -> Iterator[None]:
    """Where models are made: on the strategy's devices, with weights that depend on the seed alone."""
    with strategy.scope(), _seeded_initializers(seed), _dtype_policy(precision):
        yield


@contextlib.contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    """Layers made inside have this policy, unless they say otherwise."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@contextlib.contextmanager
def _seeded_initializers(seed: int) -> Iterator[None]:
    """Initial weights drawn inside depend on `seed` alone: Keras seeds its initialisers from Python's generator."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
