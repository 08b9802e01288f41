"""Stage one: backbone and dense classifier, trained together."""

import contextlib
import dataclasses
import os
import pathlib
import random
import warnings
from collections.abc import Iterator

import keras
import numpy as np

from keras_lt import backbones
from keras_lt.checkpoints import read_history, read_json, write_history, write_json
from keras_lt.classifiers import fresh_dense
from keras_lt.datasets import LongTailed
from keras_lt.distribution import Strategy, make_strategy
from keras_lt.losses import LOSSES, PRIOR_CORRECTED
from keras_lt.optimization import Recipe
from keras_lt.preprocessing import Preprocessing
from keras_lt.stages.fitting import check_choice, fit_on_images, save_model

TRAIN_PARTS = ("all", "last_block", "classifier")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
STAGE_ONE = Recipe()


@dataclasses.dataclass(frozen=True, eq=False)
class Representation:
    """What stage one leaves behind.

    Attributes:
      model: images [B, S, S, 3] -> logits [B, C], a layer "backbone" and a dense layer "classifier".
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
    def dense(self) -> tuple[np.ndarray, np.ndarray]:
        """Stage one's own classifier: kernel [D, C] and bias [C]."""
        return tuple(self.model.get_layer("classifier").get_weights())

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
        preprocessing = {
            k: tuple(v) if isinstance(v, list) else v for k, v in read_json(folder / "preprocessing.json").items()
        }
        model = keras.saving.load_model(folder / "model.keras", compile=False)
        return cls(model, Preprocessing(**preprocessing), read_history(folder / "history.csv"))


def learn_representation(
    data: LongTailed,
    *,
    backbone: str = "resnet8",
    recipe: Recipe = STAGE_ONE,
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
    """Stage one: trains backbone and dense classifier together, and keeps the epoch that validates best.

    Args:
      data: the data set.
      backbone: a name `backbones.build` knows.
      recipe: epochs, batch size, optimisation, sampler and loss.
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
    check_choice("loss", recipe.loss, LOSSES)
    check_choice("precision", precision, PRECISIONS)
    if recipe.loss in PRIOR_CORRECTED and recipe.sampler != "instance_balanced":
        warnings.warn(
            f"loss={recipe.loss} corrects for the class sizes already, so it wants sampler=instance_balanced: "
            f"sampler={recipe.sampler} corrects a second time.",
            stacklevel=2,
        )
    strategy = strategy or make_strategy()
    preprocessing = make_preprocessing(
        data, backbone=backbone, image_size=image_size, augmentation=augmentation, **augmentations
    )
    with strategy.scope(), _seeded_initializers(seed), _dtype_policy(precision):
        network = backbones.build(backbone, image_size=preprocessing.image_size, pretrained=pretrained)
        _train_only(network, train_parts)
        dense = fresh_dense(network.output_shape[-1], len(data.class_names), seed=seed)
        network.name, dense.name = "backbone", "classifier"
        model = keras.Model(network.input, dense(network(network.input)), name="representation")
    history = fit_on_images(
        model,
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


def _train_only(network: keras.Model, train_parts: str):
    """Freezes the backbone but for what `train_parts` names."""
    if train_parts == "all":
        return
    for stage in network.layers:
        stage.trainable = False
    for stage in backbones.last_block(network) if train_parts == "last_block" else ():
        stage.trainable = True


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
