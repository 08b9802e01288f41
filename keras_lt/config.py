"""Every flag of the commands, as one frozen `RunConfig`.

A field of `RunConfig` is a flag of the same name: its type, default and help stand there and nowhere else.
"""

import dataclasses
import pathlib
import sys
import typing
from collections.abc import Iterable

from absl import flags

from keras_lt import backbones, datasets
from keras_lt.checkpoints import atomic
from keras_lt.classifiers import CLASSIFIERS
from keras_lt.datasets import PROFILES, LongTailed
from keras_lt.distribution import STRATEGIES
from keras_lt.features import FEATURE_DTYPES
from keras_lt.inspection import ON_BAD_IMAGE, screen
from keras_lt.losses import LOSSES
from keras_lt.optimization import JIT_COMPILE, SCHEDULES, Recipe
from keras_lt.preprocessing import AUGMENTATIONS, Preprocessing
from keras_lt.resampling import ENGINES
from keras_lt.samplers import SAMPLERS
from keras_lt.stages import BATCH_NORMS, PRECISIONS, STAGE_TWO_INPUTS, TAU_SPLITS, TRAIN_PARTS, check_stage_two


def _flag(default, help_text: str, *, choices: Iterable[str] = (), of_the_run: bool = True):
    """A field that is a flag; `of_the_run` flags decide a run's numbers, so a work folder has one value of them."""
    metadata = {"help": help_text, "choices": tuple(choices), "of_the_run": of_the_run}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """One run: the resolved flags.

    Raises:
      ValueError: values that contradict one another.
    """

    dataset: str = _flag("fashion_lt", f"Data set: {', '.join(datasets.DATASETS)}, or tfds:<name>.")
    data_dir: str = _flag(
        "", "Folder with the data set's lists, images or arrays, or with what tools.prepare made.", of_the_run=False
    )
    imbalance_ratio: float = _flag(
        0.0, "Imposes a long tail: images of the largest class over the smallest's; 0 is the data set's own."
    )
    profile: str = _flag("auto", "Shape of an imposed long tail; auto is exponential.", choices=("auto", *PROFILES))
    allow_modified_lists: bool = _flag(False, "Only warn where lists are not those published.")
    on_bad_image: str = _flag(
        "error", "What a missing or damaged image does: end the run, or be left out.", choices=ON_BAD_IMAGE
    )
    workdir: str = _flag("", "Folder of the run; empty is runs/<dataset>.", of_the_run=False)
    overwrite: bool = _flag(False, "Empty the work folder first.", of_the_run=False)
    seed: int = _flag(0, "Of initial weights, draws and augmentations.")

    backbone: str = _flag("resnet8", f"Network from images to features: {', '.join(backbones.NAMES)}.")
    pretrained: str = _flag(
        "", "Weights to begin with: imagenet (or a preset's own), or a file; empty is from scratch."
    )
    image_size: int = _flag(0, "Side of the network's input, pixels; 0 is the data set's own.")
    augmentation: str = _flag(
        "auto", "Of training images; auto is the data set's own.", choices=("auto", *AUGMENTATIONS)
    )
    randaugment: int = _flag(0, "RandAugment operations per image, in place of colour jitter; 0 is none.")
    randaugment_magnitude: float = _flag(9.0, "Largest strength of a RandAugment operation, 0 to 10.")
    random_erasing: float = _flag(0.0, "Probability that a window of a training image is erased.")
    mixup: float = _flag(0.0, "Alpha of MixUp's Beta(alpha, alpha); 0 is none. With --cutmix, one of both per batch.")
    cutmix: float = _flag(0.0, "Alpha of CutMix's Beta(alpha, alpha); 0 is none.")
    train_parts: str = _flag("all", "What stage one trains; the rest is frozen.", choices=TRAIN_PARTS)
    backbone_lr_multiplier: float = _flag(1.0, "The backbone's learning rate over the classifier's.")

    sampler: str = _flag("instance_balanced", "Sampling of stage one.", choices=SAMPLERS)
    engine: str = _flag(
        "auto",
        "How indices are drawn; auto: instance for instance_balanced, stratified for class_balanced, else weighted.",
        choices=("auto", *ENGINES),
    )
    loss: str = _flag("cross_entropy", "Loss of stage one.", choices=LOSSES)
    label_smoothing: float = _flag(0.0, "Of stage one's cross-entropy: share of the target spread over all classes.")
    epochs: int = _flag(90, "Of stage one.")
    steps_per_epoch: int = _flag(0, "Batches per epoch; 0 is training images // batch_size.")
    batch_size: int = _flag(512, "Images per step, over all devices.")
    accumulate_steps: int = _flag(1, "Passes of one step, each over batch_size / accumulate_steps images.")
    base_batch_size: int = _flag(
        0, "Batch size that --learning_rate is for; it is scaled by batch_size / base_batch_size. 0 does not scale."
    )
    learning_rate: float = _flag(0.2, "Of both stages, at its highest.")
    schedule: str = _flag(
        "cosine", "Learning rate of stage one, epoch by epoch; stage two takes a cosine.", choices=SCHEDULES
    )
    warmup_epochs: int = _flag(0, "Stage one's first epochs, over which the learning rate rises.")
    decay_epochs: tuple[int, ...] = _flag(
        (), "Epochs after which --schedule=multistep lowers the learning rate, comma-separated."
    )
    decay_factor: float = _flag(0.1, "What --schedule=multistep multiplies the learning rate by.")
    weight_decay: float = _flag(5e-4, "Coupled, on every trainable weight.")
    clip_norm: float = _flag(0.0, "Largest norm of all gradients together; 0 does not clip.")
    ema_momentum: float = _flag(0.0, "Above 0, an exponential moving average of the weights is what is kept.")

    classifiers: tuple[str, ...] = _flag(
        ("joint", "ncm", "crt", "tau_norm", "lws"),
        f"Classifiers of stage two, comma-separated: {', '.join(CLASSIFIERS)}.",
        of_the_run=False,
    )
    stage_two: str = _flag("features", "What stage two is trained on.", choices=STAGE_TWO_INPUTS)
    classifier_epochs: int = _flag(10, "Of stage two.")
    classifier_epochs_for: tuple[str, ...] = _flag(
        (), "Classifiers with another number of epochs, comma-separated, such as lws:5."
    )
    classifier_sampler: str = _flag("class_balanced", "Sampling of stage two.", choices=SAMPLERS)
    tau_split: str = _flag("val", "What tau is chosen on; test needs --i_know_this_is_test.", choices=TAU_SPLITS)
    i_know_this_is_test: bool = _flag(False, "Allows --tau_split=test; the results say so.")
    feature_views: int = _flag(
        1, "Augmented views per training image that --stage_two=features draws from; 0 and 1 take the plain image."
    )
    feature_dtype: str = _flag(
        "float32", "How features are stored; float16 takes half the space.", choices=FEATURE_DTYPES
    )
    batch_norm: str = _flag(
        "frozen", "Statistics of batch norm in stage two; update takes --stage_two=images.", choices=BATCH_NORMS
    )

    precision: str = _flag("float32", "What the backbone computes in; classifiers are float32.", choices=PRECISIONS)
    jit_compile: str = _flag(
        "auto", "XLA; auto is Keras's choice, true gives up the same numbers on a GPU.", choices=JIT_COMPILE
    )
    steps_per_execution: int = _flag(1, "Passes that TensorFlow does between two looks at it from Python.")
    strategy: str = _flag(
        "auto",
        "Devices; auto mirrors where there are several GPUs, multi_host takes every host's, on JAX.",
        choices=STRATEGIES,
    )
    devices: tuple[str, ...] = _flag(
        (), "What --strategy=mirrored mirrors on, such as GPU:0,GPU:1; empty is every GPU.", of_the_run=False
    )
    export_classifier: str = _flag("", "Classifier to export; empty is the best on val.", of_the_run=False)

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, valid = getattr(self, field.name), field.metadata["choices"]
            if valid and value not in valid:
                raise ValueError(f"--{field.name} must be one of {', '.join(valid)}. Received: {value!r}")
        unknown = [name for name in self.classifiers if name not in CLASSIFIERS]
        if unknown or not self.classifiers:
            raise ValueError(f"--classifiers must name some of {', '.join(CLASSIFIERS)}. Received: {unknown or 'none'}")
        if self.export_classifier and self.export_classifier not in CLASSIFIERS:
            raise ValueError(
                f"--export_classifier must be one of {', '.join(CLASSIFIERS)}. Received: {self.export_classifier!r}"
            )
        datasets.check(self.dataset, **self._data_options)
        backbones.check(self.backbone, pretrained=self.pretrained)
        check_stage_two(self.stage_two, self.batch_norm)
        for name in ("image_size", "base_batch_size", "feature_views"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name} must be at least 0. Received: {getattr(self, name)}")
        if self.feature_views > 1 and self.stage_two == "images":
            raise ValueError(
                "--feature_views belong to --stage_two=features; images are augmented anew each time. "
                f"Received: --feature_views={self.feature_views}, --stage_two=images"
            )
        if self.tau_split == "test" and not self.i_know_this_is_test:
            raise ValueError(
                "--tau_split=test chooses tau by the images that it is then scored on: the score is no estimate of "
                "other images. Take --tau_split=val, or say --i_know_this_is_test. Received: --tau_split=test"
            )
        if self.devices and self.strategy != "mirrored":
            raise ValueError(f"--devices belong to --strategy=mirrored. Received: --strategy={self.strategy}")
        _ = self.recipes  # a recipe checks its own numbers, as preprocessing does
        Preprocessing(image_size=self.image_size or 1, mean=(0.0,) * 3, std=(1.0,) * 3, **self.augmentations)

    @property
    def folder(self) -> pathlib.Path:
        """The work folder."""
        return pathlib.Path(self.workdir or f"runs/{self.dataset}")

    @property
    def _data_options(self) -> dict:
        given = {"allow_modified_lists": self.allow_modified_lists, "imbalance_ratio": self.imbalance_ratio}
        given |= {"profile": "" if self.profile == "auto" else self.profile}
        return {name: value for name, value in given.items() if value}

    def load_data(self) -> LongTailed:
        """The data set, its images not looked at."""
        return datasets.load(self.dataset, self.data_dir, **self._data_options)

    def open_data(self) -> LongTailed:
        """The data set, with every image on disk checked; the bad ones are listed in the work folder."""
        return screen(self.load_data(), on_bad_image=self.on_bad_image, report=self.folder / "bad_images.txt")

    @property
    def augmentations(self) -> dict[str, float]:
        """What is done to training images beyond `augmentation`, as `learn_representation` takes it."""
        names = ("randaugment", "randaugment_magnitude", "random_erasing", "mixup", "cutmix")
        return {name: getattr(self, name) for name in names}

    @property
    def stage_one_recipe(self) -> Recipe:
        """How the representation is trained."""
        return Recipe(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate * self.batch_size / (self.base_batch_size or self.batch_size),
            schedule=self.schedule,
            warmup_epochs=self.warmup_epochs,
            decay_epochs=self.decay_epochs,
            decay_factor=self.decay_factor,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
            ema_momentum=self.ema_momentum,
            accumulate_steps=self.accumulate_steps,
            steps_per_execution=self.steps_per_execution,
            jit_compile=self.jit_compile,
            steps_per_epoch=self.steps_per_epoch,
            sampler=self.sampler,
            engine=self.engine,
            loss=self.loss,
            label_smoothing=self.label_smoothing,
        )

    def stage_two_recipe(self, classifier: str) -> Recipe:
        """How a classifier is trained."""
        return dataclasses.replace(
            self.stage_one_recipe,
            epochs=self._classifier_epochs_for.get(classifier, self.classifier_epochs),
            schedule="cosine",
            warmup_epochs=0,
            decay_epochs=(),
            sampler=self.classifier_sampler,
            engine="auto",
            loss="cross_entropy",
            label_smoothing=0.0,
        )

    @property
    def recipes(self) -> list[Recipe]:
        """Every recipe of the run."""
        return [self.stage_one_recipe, *map(self.stage_two_recipe, self.classifiers)]

    @property
    def _classifier_epochs_for(self) -> dict[str, int]:
        epochs = dict(entry.partition(":")[::2] for entry in self.classifier_epochs_for)
        if not all(name in CLASSIFIERS and number.isdecimal() for name, number in epochs.items()):
            raise ValueError(
                "--classifier_epochs_for must be classifier:epochs, comma-separated, of "
                f"{', '.join(CLASSIFIERS)}. Received: {','.join(self.classifier_epochs_for)}"
            )
        return {name: int(number) for name, number in epochs.items()}

    def save(self, path: pathlib.Path):
        """Writes the resolved flags as a flag file that replays the run."""
        with atomic(path) as scratch:
            scratch.write_text("".join(f"--{name}={value}\n" for name, value in self.as_flags().items()), "utf-8")

    def as_flags(self) -> dict[str, str]:
        """Every flag as it would be written, without the dashes."""
        values = dataclasses.asdict(self)
        return {
            k: ",".join(map(str, v)) if isinstance(v, tuple) else str(v).lower() if isinstance(v, bool) else str(v)
            for k, v in values.items()
        }

    def differences(self, other: "RunConfig") -> list[str]:
        """The flags by which the other would be another run: "--seed=0 there, --seed=1 now"."""
        ours, theirs = self.as_flags(), other.as_flags()
        return [
            f"--{f.name}={ours[f.name]} there, --{f.name}={theirs[f.name]} now"
            for f in dataclasses.fields(self)
            if f.metadata["of_the_run"] and ours[f.name] != theirs[f.name]
        ]


def define_flags(flag_values: flags.FlagValues = flags.FLAGS):
    """Defines one absl flag per field of `RunConfig`."""
    for field in dataclasses.fields(RunConfig):
        keywords = {"flag_values": flag_values}
        if field.metadata["choices"]:
            define, keywords["enum_values"] = flags.DEFINE_enum, list(field.metadata["choices"])
        elif isinstance(field.default, bool):
            define = flags.DEFINE_bool
        elif isinstance(field.default, tuple):
            define = flags.DEFINE_list
        else:
            define = {str: flags.DEFINE_string, int: flags.DEFINE_integer, float: flags.DEFINE_float}[field.type]
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        define(name=field.name, default=default, help=field.metadata["help"], **keywords)
        flag_values.register_key_flag_for_module(sys.argv[0], flag_values[field.name])  # --help lists these


def from_flags(flag_values: flags.FlagValues = flags.FLAGS) -> RunConfig:
    """The parsed flags as a `RunConfig`."""
    values = {field.name: flag_values[field.name].value for field in dataclasses.fields(RunConfig)}
    for field in dataclasses.fields(RunConfig):
        if isinstance(field.default, tuple):
            values[field.name] = _parse(field, values[field.name])
    return RunConfig(**values)


def _parse(field: dataclasses.Field, words: list[str]) -> tuple:
    """The words of a list flag as its field takes them."""
    (item, _) = typing.get_args(field.type)
    try:
        return tuple(item(word) for word in words)
    except ValueError as error:
        raise ValueError(
            f"--{field.name} must be {item.__name__}s, comma-separated. Received: {','.join(words)}"
        ) from error


def read_flag_file(path: pathlib.Path) -> RunConfig:
    """The `RunConfig` of a flag file."""
    flag_values = flags.FlagValues()
    define_flags(flag_values)
    flag_values(["keras_lt", f"--flagfile={path}"])
    return from_flags(flag_values)


def from_workdir(flag_values: flags.FlagValues = flags.FLAGS) -> RunConfig:
    """The config of the finished run in `--workdir`, with what the command line says that is not of the run.

    Raises:
      FileNotFoundError: there is no such run.
    """
    given = from_flags(flag_values)
    saved = given.folder / "flags.cfg"
    if not saved.exists():
        raise FileNotFoundError(f"--workdir must be the folder of a run. Not found: {saved}")
    changes = {
        field.name: getattr(given, field.name)
        for field in dataclasses.fields(RunConfig)
        if not field.metadata["of_the_run"] and flag_values[field.name].present
    }
    return dataclasses.replace(read_flag_file(saved), **{**changes, "workdir": str(given.folder)})
