"""Stage two: a balanced classifier on a fixed representation."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
import numpy.typing as npt

from keras_lt import compat
from keras_lt.arguments import checked
from keras_lt.backbones import TRAIN_PARTS, is_frozen
from keras_lt.classifiers import ClassifierEntry, fresh_dense
from keras_lt.classifiers.chunks import classify
from keras_lt.datasets import LongTailed
from keras_lt.distribution import Strategy, make_strategy
from keras_lt.features import FeatureSet, extract_features, extract_splits
from keras_lt.keras_settings import plain_settings
from keras_lt.metrics import ShotGroups
from keras_lt.recipe import Recipe
from keras_lt.resampling.indices import SEED, check_integers
from keras_lt.stages import checks
from keras_lt.stages.choosing import as_chosen, best_of, chooses, each_judged, scores_of
from keras_lt.stages.fitting import fit_on_features, fit_on_images, load_model, on_features, save_model
from keras_lt.stages.given import FEATURES, check_features, check_given, check_splits, own_head
from keras_lt.stages.in_memory import fit_in_memory, trains_in_memory
from keras_lt.stages.one_pass import OnePass, fit_through_frozen
from keras_lt.stages.representation import Representation

JOINT = "crt:sampler=instance_balanced"  # a fresh dense layer on the examples as they come, as stage one trains it


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
    """What stage two leaves behind.

    Attributes:
      model: features [B, D] -> logits [B, C].
      backbone: images -> features; stage one's, unless some of it was trained or its batch norm updated; None of
        features without a representation.
      chosen: what was chosen on val, such as {"tau": 0.7}.
      val: its accuracies on val, as `metrics.shot_accuracy`.
      candidates: every choice with its accuracies on val, in the order tried.
    """

    model: keras.Model
    backbone: keras.Model | None
    chosen: dict
    val: dict[str, float]
    candidates: list[dict]

    @classmethod
    def settled(
        cls, layer: keras.layers.Layer, backbone: keras.Model, val: FeatureSet, groups: ShotGroups
    ) -> "Classifier":
        """One built layer with nothing to choose, scored on the features of val by that backbone."""
        scores = groups.of_predictions(classify(layer, val.features), val.labels)
        return cls(on_features(layer, val.width), backbone, {}, scores, [scores])

    def save(self, folder: str | os.PathLike, representation: Representation | None = None):
        """Writes `model.keras`, and `backbone.keras` where that is not the representation's."""
        folder = pathlib.Path(folder)
        if self.backbone is not None and self.backbone is not representation.backbone:
            save_model(self.backbone, folder / "backbone.keras")
        save_model(self.model, folder / "model.keras")


def load_classifier(folder: str | os.PathLike, representation: Representation) -> tuple[keras.Model, keras.Model]:
    """What `Classifier.save` wrote: (backbone images -> features, model features -> logits)."""
    own, model = (pathlib.Path(folder) / name for name in ("backbone.keras", "model.keras"))
    backbone = load_model(own) if own.exists() else representation.backbone
    return backbone, load_model(model)


@checked
@plain_settings()
def join(backbone: keras.Model, classifier: keras.layers.Layer) -> keras.Model:
    """One model, images or what else the backbone takes -> logits, of a backbone and a classifier on its features.

    >>> model = keras_lt.join(classifier.backbone, classifier.model)
    >>> model.input_shape, model.output_shape
    ((None, 28, 28, 3), (None, 10))
    """
    images = keras.Input(backbone.input_shape[1:], name="images" if len(backbone.input_shape) == 4 else "features")
    return keras.Model(images, classifier(backbone(images)))


@checked(representation="stage one's; features are given by features=", features=FEATURES)
@plain_settings(dtype_policy="float32")
def learn_classifier(
    name: str,
    representation: Representation | None = None,
    data: LongTailed | None = None,
    *,
    features: Mapping[str, FeatureSet] | None = None,
    head: keras.layers.Layer | None = None,
    groups: ShotGroups | npt.ArrayLike | None = None,
    recipe: Recipe = checks.STAGE_TWO,
    stage_two: str = "features",
    batch_norm: str = "frozen",
    tau_split: str = "val",
    seed: int = 0,
    strategy: Strategy | None = None,
    folder: str | os.PathLike | None = None,
    one_pass: OnePass | None = None,
) -> Classifier:
    """Stage two: a classifier on the fixed representation; whatever is chosen is chosen on val.

    >>> ncm = keras_lt.learn_classifier("ncm", representation, data, features=features)
    >>> ncm.chosen
    {'transform': ..., 'distance': ...}

    Features alone will do, of whatever network, where a classifier trains nothing else:

    >>> crt = keras_lt.learn_classifier("crt:epochs=1", features={split: features[split] for split in ("train", "val")})

    Those in memory are trained on an epoch in one call, which says little; with `folder`, or features of another kind,
    by `model.fit`.

    Args:
      name: in `classifiers.CLASSIFIERS`, such as "lws", with parameters: its own, or fields of the recipe, such as
        "lws:epochs=5".
      representation: stage one's; None where the features are somebody else's.
      data: the data set that the representation was learned on.
      features: of "train", "val" and `tau_split`; with a representation they are extracted here where None. In memory,
        those of "train" will do where nothing is to be chosen: the last epoch is then kept, and the accuracies are NaN.
        Where the classifier begins by text also of "text", one row per class: what a backbone's `text_tower` gives.
      head: stage one's classifier, for those that start from it, features [B, D] -> logits [B, C], such as the model
        of another classifier; None is the representation's.
      groups: the classes' groups, by which accuracies are reported, or their training images, [C]; None is the data
        set's, or that of the training features' counts.
      recipe: for classifiers that are trained; "joint", "ncm" and "tau_norm" are not.
      stage_two: "features" trains on those once extracted; "images" on augmented images through the backbone, as those
        that train parts of it always are.
      batch_norm: "frozen" keeps the representation truly fixed; "update", only with images, leaves batch norm in
        training mode with its statistics drifting, as the reference does.
      tau_split: what tau is chosen on, "val" or "test"; the second makes the test scores optimistic.
      seed: of fresh weights, draws and augmentations.
      strategy, folder: as in `learn_representation`.
      one_pass: where classifiers on images of a frozen backbone share its features; each numbers as alone.
    Raises:
      ValueError: a name or number that does not fit, before any training.
    """
    entry, recipe = checks.classifier_entry(name, recipe)
    check_integers(seed=(seed, *SEED))
    checks.check_stage_two(name, recipe, stage_two=stage_two, batch_norm=batch_norm, tau_split=tau_split)
    on_images = checks.trains_on_images(entry, stage_two)
    without_images = on_images and (representation is None or (data is not None and data.of_features))
    check_given(name, representation, features, without_images=without_images)
    if features is None:
        if entry.trained:
            checks.check_epoch(recipe, data.class_counts)
        splits = dict.fromkeys(("train", "val", tau_split))
        features = extract_splits(representation.backbone, representation.preprocessing, data=data, splits=splits)
    strategy = strategy or make_strategy()
    alone = "train" in features and "val" not in features and tau_split == "val" and not on_images
    alone = alone and trains_in_memory(features["train"], recipe, strategy=strategy, folder=folder)
    if alone:
        features = {**features, "val": FeatureSet(features["train"].features[:0], features["train"].labels[:0])}
    begins = checks.begins_by(entry, recipe)
    head, groups = _start(
        name,
        entry,
        features,
        splits=("train", begins) if alone else ("train", "val", tau_split if entry.tau_split else "val", begins),
        head=head,
        representation=representation,
        groups=groups if groups is not None or data is None else data.groups,
    )
    with strategy.scope():
        options = entry(head, seed=seed)
    if alone and chooses(options):
        raise ValueError(f"{name} is chosen on val: features must be of train, val. Received: train alone")
    fitting = {"representation": representation, "data": data, "features": features, "start": features[begins]}
    fitting |= {"train_parts": entry.train_parts if on_images else "", "batch_norm": batch_norm, "one_pass": one_pass}
    fitting |= {"recipe": dataclasses.replace(recipe, learning_rate=entry.rate * recipe.learning_rate), "seed": seed}
    fitted = functools.partial(_fitted, groups=groups, strategy=strategy, **fitting)
    judged = features[tau_split] if entry.tau_split else None
    tried = _tried(options, fitted, judged=judged, groups=groups, folder=folder)
    candidates = [{**chosen, **scores} for chosen, *_, scores in tried]
    preferred = entry.preferred and entry.preferred(**entry.parameters)
    chosen, layer, backbone, val, scores = best_of(tried, preferred, len((judged or features["val"]).labels))
    layer = as_chosen(layer, chosen, val.width) if hasattr(layer, "shared") else layer
    if entry.tau_split and tau_split != "val":  # val scores are of val, whatever tau was chosen on
        scores = groups.of_predictions(classify(layer, val.features), val.labels)
    return Classifier(on_features(layer, val.width), backbone, chosen, scores, candidates)


def _start(
    name: str,
    entry: ClassifierEntry,
    features: Mapping[str, FeatureSet],
    *,
    splits: Sequence[str],
    head: keras.layers.Layer | None,
    representation: Representation | None,
    groups: ShotGroups | Sequence[int] | None,
) -> tuple[keras.layers.Layer, ShotGroups]:
    """The classifier that stage two starts from, and the groups of the classes, once the features fit them."""
    check_splits(features, splits)
    groups = None if groups is None else ShotGroups.of(groups)
    if head is not None:
        head = own_head(head, width=features["train"].width)
    elif representation is not None:
        head = representation.head
    if head is None and entry.starts_from:
        raise ValueError(
            f"{name} starts from stage one's classifier: give it by head=, such as the model of a {JOINT} on the same "
            "features. Received: head=None"
        )
    classes = [] if head is None else [head.units]
    classes += [] if groups is None else [len(groups.class_counts)]
    if len(set(classes)) > 1:
        raise ValueError(f"head and groups must be of the same classes. Received: {classes[0]} and {classes[1]}")
    check_features(features, splits, classes=max(classes, default=None), trusted=representation is not None)
    train = features["train"]
    if groups is None:
        groups = ShotGroups(np.bincount(train.labels, minlength=max(classes, default=0)))
    return head or fresh_dense(train.width, len(groups.class_counts), seed=0), groups


def _tried(
    options: Sequence[tuple],
    fitted: Callable,
    *,
    judged: FeatureSet | None,
    groups: ShotGroups,
    folder: str | os.PathLike | None,
) -> list[tuple]:
    """Every choice of every option: (choice, layer, its backbone, that one's features of val, the choice's scores).

    Args:
      fitted: `_fitted` of a layer and a folder.
      judged: what choices are scored on; None is the features of val.
      folder: None, or where the options keep their checkpoints, each in one of its own where there are several.
    """
    tried = []
    for number, (choices, layer) in enumerate(options):
        own = pathlib.Path(folder, str(number)) if folder and len(options) > 1 else folder
        backbone, val = fitted(layer, folder=own)
        learned = layer.get_config() if layer.trainable_weights else {}  # such as tau, where it is trained
        scored = functools.partial(scores_of, layer, judged or val, groups)
        for choice, scores in each_judged(choices, scored):
            chosen = {argument: learned.get(argument, value) for argument, value in choice.items()}
            tried.append((chosen, layer, backbone, val, scores))
    return tried


def _fitted(
    layer,
    *,
    representation: Representation | None,
    data: LongTailed | None,
    features: Mapping[str, FeatureSet],
    start: FeatureSet,
    groups: ShotGroups,
    train_parts: str,
    batch_norm: str,
    strategy: Strategy,
    folder: pathlib.Path | None,
    one_pass: OnePass | None,
    **training,
) -> tuple[keras.Model | None, FeatureSet]:
    """Fits what is to be fitted of a layer; returns the backbone that then belongs to it, and its features of val.

    Args:
      start: what a layer that has `adapt` begins by.
      train_parts: what is trained on images; "" trains the layer on features.
    """
    backbone = None if representation is None else representation.backbone
    training["multipliers"] = getattr(layer, "multipliers", None)
    where = {"strategy": strategy, "folder": folder}
    made_of = {"classifier": type(layer).__name__, "train_parts": train_parts, "batch_norm": batch_norm}
    options = {**training, **where, "made_of": made_of}
    if hasattr(layer, "adapt"):
        layer.adapt(start.features, start.labels)
    if layer.trainable_weights and train_parts:
        if is_frozen(train_parts) and batch_norm == "frozen":
            options |= {"val": features["val"], "one_pass": one_pass}
            fit_through_frozen(backbone, layer, data, representation.preprocessing, **options)
            return backbone, features["val"]
        with strategy.scope():
            backbone = _to_train(backbone, train_parts=train_parts, batch_norm=batch_norm, classes=layer.units)
            model = join(backbone, layer)
        fit_on_images(model, data, representation.preprocessing, **options)
        return backbone, extract_features(backbone, data.val, representation.preprocessing)
    if layer.trainable_weights and trains_in_memory(features["train"], training["recipe"], **where):
        fit_in_memory(layer, features, groups=groups, **training)
    elif layer.trainable_weights:
        fit_on_features(layer, features, groups=groups, **options)
    return backbone, features["val"]


def _to_train(backbone: keras.Model, *, train_parts: str, batch_norm: str, classes: int) -> keras.Model:
    """A copy of the backbone, of which these parts are trained or the statistics move."""
    copy = TRAIN_PARTS[train_parts](copy_of(backbone), classes=classes)
    for part in compat.layers_within(copy) if batch_norm == "update" else ():
        if isinstance(part, keras.layers.BatchNormalization) and not part.trainable:
            part.trainable = True  # by which Keras runs it in training mode
            for variable in part.trainable_variables:
                variable.trainable = False  # its statistics move, its scale and shift do not
    return copy


def copy_of(backbone: keras.Model) -> keras.Model:
    """The same network with weights of its own."""
    copy = keras.models.clone_model(backbone)
    copy.set_weights(backbone.get_weights())
    return copy
