"""Checks of both stages before any work, and their choices by name."""

import dataclasses
import warnings
from collections.abc import Sequence

import tensorflow as tf

from keras_lt import backbones
from keras_lt.classifiers import CLASSIFIERS, HEADS, ClassifierEntry, HeadEntry
from keras_lt.distribution import Strategy, hosts
from keras_lt.optimization import check_optimizer
from keras_lt.recipe import Recipe
from keras_lt.registry import check_choice, check_numbers, member, parsed, split
from keras_lt.resampling import check_resampling, resampled_counts
from keras_lt.resampling.indices import SEED, check_integers
from keras_lt.stages.hooks import DECOUPLING, Hooks

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
STAGE_ONE_INPUTS = ("images", "features")
TAU_SPLITS = ("val", "test")
STAGE_TWO_INPUTS = ("features", "images")
BATCH_NORMS = ("frozen", "update")
STAGE_TWO = Recipe(epochs=10, sampler="class_balanced")


def head_entry(head: str, recipe: Recipe) -> HeadEntry:
    """The entry of stage one's classifier: of a name in `HEADS`, or for "auto" that which the loss asks for.

    Raises:
      ValueError: there is no such head, or the loss does not go with it.
    """
    needed = recipe.loss_entry.needed_head
    if head == "auto":
        return member(HEADS, needed or "dense", what="head")
    chosen = member(HEADS, head, what="head")
    if needed and not _same_head(head, needed):
        raise ValueError(f"loss={recipe.loss} needs head={needed}. Received: head={head}")
    return chosen


def _same_head(one: str, other: str) -> bool:
    """Whether two names of heads are of the same head with the same parameters."""
    first, second = ((split(text)[0], member(HEADS, text, what="head").parameters) for text in (one, other))
    return first == second


def check_stage_one(
    recipe: Recipe,
    hooks: Hooks = DECOUPLING,
    *,
    backbone: backbones.BackboneEntry,
    head: str = "auto",
    pretrained: str = "",
    train_parts: str = "all",
    backbone_lr_multiplier: float = 1.0,
    precision: str = "float32",
    stage_one: str = "images",
    seed: int = 0,
    **augmentations: float,
):
    """Raises ValueError for arguments of `learn_representation` that contradict one another; warns of a double balance.

    Args: as there.
    """
    member(backbones.TRAIN_PARTS, train_parts, what="train_parts")  # refuses what is none
    check_choice(PRECISIONS, precision=precision)
    check_choice(STAGE_ONE_INPUTS, stage_one=stage_one)
    check_numbers(backbone_lr_multiplier=backbone_lr_multiplier)
    check_integers(seed=(seed, *SEED))
    check_optimizer(recipe)
    hooks.check_backbone(backbone)
    fields = {field.name: getattr(recipe, field.name) for field in dataclasses.fields(recipe)}
    hooks.check(
        **fields, head=head, pretrained=pretrained, train_parts=train_parts, stage_one=stage_one, **augmentations
    )
    if hooks.head is None:
        head_entry(head, recipe)
    elif head != "auto" or recipe.loss_entry.needed_head:
        raise ValueError(
            f"method={hooks.name} has a classifier of its own: no head, and no loss that needs one. "
            f"Received: head={head}, loss={recipe.loss}"
        )
    mixes = {name: augmentations.get(name, 0) for name in ("mixup", "cutmix")}
    mixed = ", ".join(f"{name}={value}" for name, value in mixes.items() if value)
    if mixed:
        _check_mixes(recipe, mixed)
    if recipe.resampling_entry.makes_features:
        raise ValueError(
            "Stage one resamples images; what makes new features belongs to stage two. "
            f"Received: resampling={recipe.resampling}"
        )
    if stage_one == "features":
        _check_on_features(recipe, hooks, train_parts=train_parts, mixed=mixed)
    if recipe.corrects_twice:
        warnings.warn(
            f"loss={recipe.loss} corrects for the class sizes already, so it wants sampler=instance_balanced and no "
            f"class_weights: sampler={recipe.sampler}, class_weights={recipe.class_weights} correct a second time.",
            stacklevel=2,
        )


def _check_on_features(recipe: Recipe, hooks: Hooks, *, train_parts: str, mixed: str):
    """Raises ValueError where stage one on features would need images."""
    if hooks.needs_images:
        raise ValueError(
            f"stage_one=features fits a classifier alone, and method={hooks.name} more than that on images. "
            f"Received: stage_one=features, method={hooks.name}"
        )
    if not backbones.is_frozen(train_parts):
        raise ValueError(
            "stage_one=features trains nothing of the backbone: train_parts=classifier. "
            f"Received: train_parts={train_parts}"
        )
    if mixed or recipe.feature_loss:
        raise ValueError(
            "stage_one=features neither mixes images nor trains features. "
            f"Received: {mixed or f'feature_loss={recipe.feature_loss}'}"
        )


# The values, of flags and of arguments, that ask nothing of images or of a backbone.
NO_IMAGES: dict[str, tuple] = {
    "backbone": ("resnet8",),  # the default
    "pretrained": ("",),
    "image_size": (0,),
    "train_parts": ("all", "classifier"),
    "backbone_lr_multiplier": (1.0,),
    "precision": ("float32",),
    "head_start": ("class_means",),
    "augmentation": ("auto", "none"),
    "randaugment": (0,),
    "randaugment_magnitude": (9.0,),
    "random_erasing": (0,),
    "mixup": (0,),
    "cutmix": (0,),
    "feature_loss": ("",),
    "stage_one": STAGE_ONE_INPUTS,
    "stage_two": ("features",),
    "feature_views": (0, 1),
    "feature_dtype": ("float32",),
    "batch_norm": ("frozen",),
    "on_bad_image": ("error",),
    "on_bad_request": ("error",),
}


def check_no_images(hooks: Hooks = DECOUPLING, *, classifiers: Sequence[str] = (), **values):
    """Raises ValueError for what needs images, or would do nothing, where data are features already.

    Args:
      classifiers: those of stage two.
      **values: of names in `NO_IMAGES`.
    """
    if hooks.needs_images:
        raise ValueError(f"method={hooks.name} is trained on images. Received: a data set of features alone")
    for name in classifiers:
        if trains_on_images(classifier_entry(name)[0], "features"):
            raise ValueError(f"{name} is trained on images. Received: a data set of features alone")
    for name, value in values.items():
        if value not in NO_IMAGES[name]:
            raise ValueError(f"{name} is of images, and the data set is of features alone. Received: {name}={value}")


def check_classes(class_names: Sequence[str], name: str = "features"):
    """Raises ValueError where there is nothing to tell apart: one class, such as a folder that holds their folders."""
    if len(class_names) < 2:
        raise ValueError(
            "There must be two classes or more; of folders, --data_dir is the one that theirs lie in. "
            f"Received: {name} with {', '.join(map(str, class_names)) or 'none'}"
        )


def check_epoch(recipe: Recipe, class_counts: Sequence[int]):
    """Raises ValueError where an epoch of these training images, resampled as the recipe says, has no full batch."""
    check_resampling(recipe.resampling, class_counts)
    recipe.steps(int(resampled_counts(class_counts, recipe.resampling).sum()))


def check_hosts(strategy: Strategy, recipe: Recipe, hooks: Hooks = DECOUPLING):
    """Raises ValueError for what trains on one host alone."""
    if hosts(strategy).one_host:
        return
    asked = {"feature_loss": recipe.feature_loss, "ema_momentum": recipe.ema_momentum}
    if refused := ", ".join(f"{name}={value}" for name, value in asked.items() if value):
        raise ValueError(
            "A loss on features, and batch norm's statistics of averaged weights, are computed on one host. "
            f"Received: {refused}"
        )
    if hooks.one_host:
        raise ValueError(f"method={hooks.name} trains on one host. Received: several hosts")


def check_devices(strategy: Strategy, recipe: Recipe):
    """Raises ValueError for what Keras cannot do on several devices, where it would fail from inside."""
    replicas, passes = strategy.num_replicas_in_sync, recipe.accumulate_steps
    if recipe.micro_batch % replicas:
        raise ValueError(
            "The global batch, or each pass over it, must divide by the number of devices. Received: "
            f"batch_size={recipe.batch_size}{f', accumulate_steps={passes}' * (passes > 1)}, {replicas} devices"
        )
    names = ("accumulate_steps", "steps_per_execution", "jit_compile")
    asked = {name: getattr(recipe, name) for name in names}
    refused = ", ".join(f"{name}={value}" for name, value in asked.items() if value not in (1, "auto", "false"))
    mirrored = replicas > 1 or isinstance(strategy, tf.distribute.MirroredStrategy)  # of one device, too
    if refused and mirrored and hosts(strategy).one_host:
        raise ValueError(
            f"Keras can do this on one device only, by --strategy=none. Received: {refused}, {replicas} devices"
        )


def classifier_entry(name: str, recipe: Recipe = STAGE_TWO) -> tuple[ClassifierEntry, Recipe]:
    """The entry of a classifier with its parameters, and the recipe by which it is trained.

    Args:
      name: in `classifiers.CLASSIFIERS`, with parameters of its own or fields of the recipe.
      recipe: stage two's, of which the classifier may change fields.
    Raises:
      ValueError: there is no such classifier or parameter, or a recipe for one that is not trained.
    """
    text, given = split(name)
    entry = member(CLASSIFIERS, text, what="classifier")
    own = {key: value for key, value in given.items() if key in entry.parameters}
    fields = {
        field.name: field.default
        for field in dataclasses.fields(Recipe)
        if field.metadata["stage_two"] is not None and isinstance(field.default, bool | int | float | str)
    }
    if not entry.class_start:
        fields.pop("head_start")  # it would do nothing
    others = parsed(
        {key: value for key, value in given.items() if key not in own},
        {**entry.parameters, **(fields if entry.trained else {})},
        of=f"classifier={name}",
        name=text,
    )
    entry = entry.with_parameters(**parsed(own, entry.parameters, of=f"classifier={name}", name=text))
    own_recipe = {
        field: value.format(**entry.parameters) if isinstance(value, str) else value
        for field, value in entry.recipe.items()
    }
    changes = {**own_recipe, **others}
    return entry, dataclasses.replace(recipe, **changes) if changes else recipe


def begins_by(entry: ClassifierEntry | HeadEntry, recipe: Recipe) -> str:
    """Whose features a classifier that has `adapt` begins by: those of "train", or the "text" of the class names."""
    return "text" if entry.class_start and recipe.head_start == "text" else "train"


def trains_on_images(entry: ClassifierEntry, stage_two: str) -> bool:
    """Whether a classifier is trained on images through the backbone, and not on features."""
    return entry.trained and (stage_two == "images" or not backbones.is_frozen(entry.train_parts))


def trains_through_frozen(entry: ClassifierEntry, stage_two: str, batch_norm: str) -> bool:
    """Whether a classifier is trained on images while the whole backbone stays as it is."""
    return trains_on_images(entry, stage_two) and backbones.is_frozen(entry.train_parts) and batch_norm == "frozen"


def check_stage_two(
    name: str,
    recipe: Recipe,
    *,
    stage_two: str = "features",
    batch_norm: str = "frozen",
    tau_split: str = "val",
    mixes: bool = False,
):
    """Raises ValueError for what of stage two contradicts itself, or would do nothing.

    Args:
      name: of the classifier.
      recipe: stage two's, as `classifier_entry` gives it.
      mixes: whether training images are mixed.
    """
    entry, _ = classifier_entry(name, recipe)
    check_choice(STAGE_TWO_INPUTS, stage_two=stage_two)
    check_choice(BATCH_NORMS, batch_norm=batch_norm)
    check_choice(TAU_SPLITS, tau_split=tau_split)
    check_optimizer(recipe)
    on_images = trains_on_images(entry, stage_two)
    if batch_norm == "update" and stage_two == "features":
        raise ValueError(
            "batch_norm=update needs stage_two=images: features are extracted once, with fixed statistics. "
            "Received: batch_norm=update, stage_two=features"
        )
    if not entry.trained:
        return
    if on_images and recipe.resampling_entry.makes_features:
        raise ValueError(
            f"{name} is trained on images, and its resampling makes features. Received: resampling={recipe.resampling}"
        )
    if on_images and mixes:
        _check_mixes(recipe, f"{name} on images")
    needed = recipe.loss_entry.needed_head
    if needed and not _same_head(entry.gives.format(**entry.parameters), needed):
        raise ValueError(f"loss={recipe.loss} needs a classifier such as {needed}. Received: classifier={name}")


def _check_mixes(recipe: Recipe, mixed: str):
    """Raises ValueError for what of a recipe needs one class per image."""
    weighs = recipe.weights_entry.weighs
    if weighs or recipe.loss_entry.compares:
        raise ValueError(
            f"{'class_weights need' if weighs else 'A loss of a whole batch needs'} one class per image, and mixup and "
            f"cutmix give it two. Received: class_weights={recipe.class_weights}, loss={recipe.loss}, {mixed}"
        )


def check_start(name: str, entry: ClassifierEntry, head: HeadEntry):
    """Raises ValueError where a classifier cannot start from stage one's."""
    if entry.starts_from == "affine" and not head.affine:
        raise ValueError(
            f"{name} starts from a dense layer's weights; for another head take joint, ncm, crt or cosine. "
            f"Received: head={head.label}"
        )


def check_own_classifier(method: str, recipe: Recipe, *, on_images: bool = False):
    """Raises ValueError for a recipe that the classifier of a method, a layer of its own, cannot be trained by.

    Args:
      on_images: whether it is trained on images.
    """
    if recipe.loss_entry.needed_head:
        raise ValueError(
            f"method={method} has a classifier of its own, so no loss that needs another. Received: loss={recipe.loss}"
        )
    if on_images and recipe.resampling_entry.makes_features:
        raise ValueError(
            f"method={method} trains its classifier on images, and its resampling makes features. "
            f"Received: resampling={recipe.resampling}"
        )
