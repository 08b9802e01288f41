"""Checks of a run before any work: flags against one another, against the data set, against the machine."""

import dataclasses

from keras_lt import backbones, datasets
from keras_lt.arguments import check_kind
from keras_lt.classifiers import CLASSIFIERS, HeadEntry
from keras_lt.config.paths import placed_flags
from keras_lt.config.run_config import RunConfig
from keras_lt.datasets import LongTailed
from keras_lt.distribution import Strategy
from keras_lt.files import check_loadable
from keras_lt.methods import METHODS
from keras_lt.metrics import check_cuts
from keras_lt.preprocessing import MOST_PIXELS, NO_AUGMENTATION, Preprocessing
from keras_lt.registry import check_choice, member, split
from keras_lt.resampling.indices import SEED
from keras_lt.serving import read_prior
from keras_lt.stages import checks, make_preprocessing
from keras_lt.work_folder import WorkFolder

MOST = {"seed": SEED[1] - 1, "feature_views": 1000}  # what TensorFlow takes; what anybody has room for


def check(config: RunConfig):
    """Raises ValueError for flags that cannot be, that contradict one another, or of which one would do nothing."""
    for field in dataclasses.fields(config):
        value, most = getattr(config, field.name), MOST.get(field.name, 2**31 - 1)
        check_kind(f"--{field.name}", value, field.type)
        if field.metadata["choices"]:
            check_choice(field.metadata["choices"], **{f"--{field.name}": value})
        if isinstance(field.default, int) and not 0 <= value <= most:
            raise ValueError(f"--{field.name} must be at least 0 and at most {most:,}. Received: {value}")
    for name, value in config.as_flags().items():
        line = f"--{name}={value}"
        if line.encode(errors="replace").decode().strip().splitlines() != [line]:
            raise ValueError(
                f"--{name} must be one line of UTF-8 without a blank at its end, to be kept. Received: {value!r}"
            )
    if config.image_size**2 > MOST_PIXELS:
        raise ValueError(f"--image_size squared must be at most {MOST_PIXELS:,}. Received: {config.image_size}")
    datasets.check(config.dataset, **config.data_options)
    check_cuts(**config.cuts)
    backbones.check(config.backbone, pretrained="" if _has_learned(config) else config.pretrained)
    _check_names(config)
    _check_stage_one(config)
    _check_stage_two(config)
    _check_unused(config)
    if config.tau_split == "test" and not config.i_know_this_is_test:
        raise ValueError(
            "--tau_split=test chooses tau by the images that it is then scored on: the score is no estimate of "
            "other images. Take --tau_split=val, or say --i_know_this_is_test. Received: --tau_split=test"
        )
    if config.devices and config.strategy != "mirrored":
        raise ValueError(f"--devices belong to --strategy=mirrored. Received: --strategy={config.strategy}")


def check_with_data(config: RunConfig, data: LongTailed, strategy: Strategy):
    """Raises ValueError for what of a run does not fit its data set or the machine."""
    check_loadable(config.folder)
    learned = [*config.systems, *WorkFolder(config.folder).finished_classifiers]
    if config.export_classifier and config.export_classifier not in learned:
        raise ValueError(
            f"--export_classifier must be one that the run learns, {', '.join(learned)}. "
            f"Received: --export_classifier={config.export_classifier}"
        )
    checks.check_classes(data.class_names, data.name)
    if data.of_features:
        asked = {name: getattr(config, name) for name in checks.NO_IMAGES}
        checks.check_no_images(config.method_entry(), classifiers=config.classifiers, **asked)
    read_prior(config.target_prior, data.class_counts)  # refuses one that does not fit
    datasets.check_outside(config.folder, "workdir", config.dataset, config.data_dir, **config.data_options)
    backbone = backbones.find(config.backbone).available()
    for parts in (config.train_parts, *(checks.classifier_entry(name)[0].train_parts for name in config.classifiers)):
        member(backbones.TRAIN_PARTS, parts, what="train_parts").check(backbone)
    preprocessing = make_preprocessing(data, backbone=backbone, **config.preprocessing_options)
    if config.feature_views > 1 and not preprocessing.augments and not _begun_with(config, "feature_views"):
        raise ValueError(
            "--feature_views would all be the same: no image is augmented. "
            f"Received: --feature_views={config.feature_views}, --augmentation={config.augmentation}"
        )
    if config.pretrained not in ("", "imagenet") and not _has_learned(config):
        backbone(image_size=preprocessing.image_size, pretrained=config.pretrained)  # refuses another net's file
    if config.begins_by_text:
        backbone.check_text_start(data.class_names, config.pretrained)
    hooks = config.method_entry()
    hooks.data(data)  # a method may need classes of some size
    checks.check_hosts(strategy, config.stage_one_recipe, hooks)
    for recipe in config.recipes:
        checks.check_epoch(recipe, data.class_counts)
        checks.check_devices(strategy, recipe)


def _check_names(config: RunConfig):
    """The classifiers, and the one to export."""
    unknown = [name for name in config.classifiers if split(name)[0] not in CLASSIFIERS]
    if unknown or not config.systems:
        raise ValueError(f"--classifiers must name some of {', '.join(CLASSIFIERS)}. Received: {unknown or 'none'}")
    twice = {name for name in config.classifiers if config.classifiers.count(name) > 1}
    if twice:
        raise ValueError(f"--classifiers must name each once. Received: {', '.join(sorted(twice))} twice")
    exportable = (*CLASSIFIERS, *METHODS)
    if config.export_classifier and split(config.export_classifier)[0] not in exportable:
        raise ValueError(
            f"--export_classifier must be one of {', '.join(exportable)}. Received: {config.export_classifier!r}"
        )


def _check_stage_one(config: RunConfig):
    hooks, backbone = config.method_entry(), backbones.find(config.backbone)
    checks.check_stage_one(config.stage_one_recipe, hooks, backbone=backbone, **config.stage_one_options)
    of_some_data = {"image_size": config.image_size or 1, "augmentation": NO_AUGMENTATION}
    Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, **{**config.preprocessing_options, **of_some_data})
    head = stage_one_head(config)
    for name in config.classifiers:
        entry = checks.classifier_entry(name)[0]
        checks.check_start(name, entry, head)
        if entry.class_start and not entry.trained and not backbones.is_frozen(config.train_parts):
            raise ValueError(
                f"{name} is of the net as it is trained with its texts: --train_parts=classifier. "
                f"Received: --classifiers={name}, --train_parts={config.train_parts}"
            )


def stage_one_head(config: RunConfig) -> HeadEntry:
    """The entry of stage one's classifier, the method's own or that of `head`."""
    return config.method_entry().head or checks.head_entry(config.head, config.stage_one_recipe)


def _check_stage_two(config: RunConfig):
    if config.feature_views > 1 and config.stage_two == "images":
        raise ValueError(
            "--feature_views belong to --stage_two=features; images are augmented anew each time. "
            f"Received: --feature_views={config.feature_views}, --stage_two=images"
        )
    for name in config.classifiers:
        checks.check_stage_two(
            name,
            config.stage_two_recipe(name),
            stage_two=config.stage_two,
            batch_norm=config.batch_norm,
            tau_split=config.tau_split,
            mixes=bool(config.mixup or config.cutmix),
        )
    config.method_entry().check_classifier(config.stage_two_recipe(config.method))
    _ = config.recipes  # a recipe checks its own numbers


def _check_unused(config: RunConfig):
    """Refuses flags that nothing of the run would take, where they have another value than their default.

    A run that was begun with such a flag keeps it: what is added later need not take it, and 0.1 refused none. Epochs,
    rate and schedule of stage two, and what it is trained on, stay in a flag file of which some classifiers are taken.
    """
    entries = {name: checks.classifier_entry(name)[0] for name in config.systems if name != config.method}
    trained = {name: entry for name, entry in entries.items() if entry.trained}
    on_features = [entry for entry in trained.values() if not checks.trains_on_images(entry, config.stage_two)]

    def takes(field: str) -> bool:
        value = getattr(config, f"classifier_{field}")
        ours = (getattr(config.stage_two_recipe(name), field) for name in trained)
        return field in config.method_entry.takes or value in ours

    makes_features = config.stage_two_recipe(config.method).resampling_entry.makes_features
    on_images = len(on_features) < len(trained)
    has_views = config.stage_one == "features" or (on_features and not makes_features)
    augmented = config.stage_one == "images" or config.feature_views > 1 or on_images
    class_start = any(entry.class_start for entry in (*entries.values(), stage_one_head(config)))
    for name, used, why in (
        ("head_start", class_start, "no head of it begins as directions of classes"),
        ("classifier_sampler", takes("sampler"), "no classifier of it is trained on batches so drawn"),
        ("classifier_class_weights", takes("class_weights"), "no classifier of it is trained with them"),
        ("classifier_resampling", takes("resampling"), "no classifier of it is trained on such a list"),
        ("classifier_loss", takes("loss"), "no classifier of it is trained by it"),
        ("tau_split", any(entry.tau_split for entry in entries.values()), "no classifier of it chooses tau"),
        ("i_know_this_is_test", config.tau_split == "test", "it belongs to --tau_split=test"),
        ("batch_norm", on_images, "no classifier of it is trained on images"),
        ("feature_views", has_views, "nothing of it is trained on features of images"),
        ("feature_loss_weight", config.feature_loss, "it belongs to --feature_loss"),
        ("decay_factor", config.decay_epochs or config.classifier_decay_epochs, "it belongs to multistep schedules"),
        ("randaugment_magnitude", config.randaugment, "it belongs to --randaugment"),
        ("backbone_lr_multiplier", not backbones.is_frozen(config.train_parts), "nothing of the backbone is trained"),
        *(
            (name, augmented, "no image of it is augmented")
            for name in ("randaugment", "random_erasing", "augmentation")
        ),
    ):
        if not used and getattr(config, name) != getattr(RunConfig, name) and not _begun_with(config, name):
            raise ValueError(
                f"--{name} would do nothing in this run: {why}. "
                f"Received: --{name}={getattr(config, name)}, --classifiers={','.join(config.classifiers)}"
            )


def _has_learned(config: RunConfig) -> bool:
    """Whether the representation that these weights began is there, which needs them no more."""
    return WorkFolder(config.folder).has_representation and _begun_with(config, "pretrained")


def _begun_with(config: RunConfig, name: str) -> bool:
    """Whether a run lies in the work folder that has this flag with this value."""
    lines = [f"--{name}={flags[name]}" for flags in (config.as_flags(), placed_flags(config))]
    return not config.overwrite and not set(lines).isdisjoint(WorkFolder(config.folder).flag_lines)
