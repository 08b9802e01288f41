"""Every flag of the commands, as one frozen `RunConfig`.

A field of `RunConfig` is a flag of the same name: its type, default and help stand there and nowhere else.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Iterable

from absl import flags

from keras_lt import backbones
from keras_lt.checkpoints import atomic
from keras_lt.classifiers import CLASSIFIERS
from keras_lt.datasets import DATASETS
from keras_lt.distribution import STRATEGIES
from keras_lt.losses import LOSSES
from keras_lt.optimization import Recipe
from keras_lt.preprocessing import AUGMENTATIONS
from keras_lt.resampling import ENGINES
from keras_lt.samplers import SAMPLERS
from keras_lt.stages import BATCH_NORMS, STAGE_TWO_INPUTS, TRAIN_PARTS, check_stage_two


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

    dataset: str = _flag("fashion_lt", "Data set.", choices=DATASETS)
    data_dir: str = _flag("", "Folder with the data set's lists, images or arrays.", of_the_run=False)
    workdir: str = _flag("", "Folder of the run; empty is runs/<dataset>.", of_the_run=False)
    overwrite: bool = _flag(False, "Empty the work folder first.", of_the_run=False)
    seed: int = _flag(0, "Of initial weights, draws and augmentations.")

    backbone: str = _flag("resnet8", f"Network from images to features: {', '.join(backbones.NAMES)}.")
    pretrained: str = _flag("", "Weights to begin with: imagenet, or a file; empty is from scratch.")
    image_size: int = _flag(0, "Side of the network's input, pixels; 0 is the data set's own.")
    augmentation: str = _flag(
        "auto", "Of training images; auto is the data set's own.", choices=("auto", *AUGMENTATIONS)
    )
    train_parts: str = _flag("all", "What stage one trains; the rest is frozen.", choices=TRAIN_PARTS)
    backbone_lr_multiplier: float = _flag(1.0, "The backbone's learning rate over the classifier's.")

    sampler: str = _flag("instance_balanced", "Sampling of stage one.", choices=SAMPLERS)
    engine: str = _flag(
        "auto",
        "How indices are drawn; auto: instance for instance_balanced, stratified for class_balanced, else weighted.",
        choices=("auto", *ENGINES),
    )
    loss: str = _flag("cross_entropy", "Loss of stage one.", choices=LOSSES)
    epochs: int = _flag(90, "Of stage one.")
    steps_per_epoch: int = _flag(0, "Batches per epoch; 0 is training images // batch_size.")
    batch_size: int = _flag(512, "Images per step, over all devices.")
    learning_rate: float = _flag(0.2, "Of both stages, at the first epoch; a cosine takes it to 0.")
    weight_decay: float = _flag(5e-4, "Coupled, on every trainable weight.")

    classifiers: tuple[str, ...] = _flag(
        ("joint", "ncm", "crt", "tau_norm", "lws"),
        f"Classifiers of stage two, comma-separated: {', '.join(CLASSIFIERS)}.",
        of_the_run=False,
    )
    stage_two: str = _flag("features", "What stage two is trained on.", choices=STAGE_TWO_INPUTS)
    classifier_epochs: int = _flag(10, "Of stage two.")
    classifier_sampler: str = _flag("class_balanced", "Sampling of stage two.", choices=SAMPLERS)
    batch_norm: str = _flag(
        "frozen", "Statistics of batch norm in stage two; update takes --stage_two=images.", choices=BATCH_NORMS
    )

    strategy: str = _flag("auto", "Devices; auto mirrors where there are several GPUs.", choices=STRATEGIES)
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
        backbones.check(self.backbone, pretrained=self.pretrained)
        check_stage_two(self.stage_two, self.batch_norm)
        if self.image_size < 0:
            raise ValueError(f"--image_size must be at least 0 pixels. Received: {self.image_size}")
        _ = self.stage_one_recipe, self.stage_two_recipe  # a recipe checks its own numbers

    @property
    def folder(self) -> pathlib.Path:
        """The work folder."""
        return pathlib.Path(self.workdir or f"runs/{self.dataset}")

    @property
    def stage_one_recipe(self) -> Recipe:
        """How the representation is trained."""
        return Recipe(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            steps_per_epoch=self.steps_per_epoch,
            sampler=self.sampler,
            engine=self.engine,
            loss=self.loss,
        )

    @property
    def stage_two_recipe(self) -> Recipe:
        """How classifiers are trained."""
        return dataclasses.replace(
            self.stage_one_recipe,
            epochs=self.classifier_epochs,
            sampler=self.classifier_sampler,
            engine="auto",
            loss="cross_entropy",
        )

    def save(self, path: pathlib.Path):
        """Writes the resolved flags as a flag file that replays the run."""
        with atomic(path) as scratch:
            scratch.write_text("".join(f"--{name}={value}\n" for name, value in self.as_flags().items()), "utf-8")

    def as_flags(self) -> dict[str, str]:
        """Every flag as it would be written, without the dashes."""
        values = dataclasses.asdict(self)
        return {
            k: ",".join(v) if isinstance(v, tuple) else str(v).lower() if isinstance(v, bool) else str(v)
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
    return RunConfig(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})


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
