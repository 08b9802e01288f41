"""Every choice of a run, as one frozen dataclass; a field is a flag of the same name.

The fields of the recipe are flags, of both stages, and stand there. Keras is not imported before a `RunConfig` is made,
so that --help can list the flags at once.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Iterable

from keras_lt import files
from keras_lt.recipe import LOSSES, MACHINE, SAME, SAMPLING, STEPS, SYSTEM, Recipe
from keras_lt.registry import names_in

DATA, RUN, NETWORK, AUGMENTATION = "Data", "The run", "Network", "Augmentation"
STAGE_TWO, EXPORT = "Stage two", "Export"
TOPICS = (DATA, RUN, NETWORK, AUGMENTATION, SYSTEM, SAMPLING, LOSSES, STEPS, STAGE_TWO, MACHINE, EXPORT)
STAGE_TWO_PREFIX = "classifier_"  # of stage two's own flags of the recipe


def _flag(topic: str, default, help_text: str, *, choices: Iterable[str] = (), of_the_run: bool = True):
    """A field that is a flag; `of_the_run` flags decide a run's numbers, so a work folder has one value of them.

    Args:
      choices: all that the value may be; a member of a family, which may have parameters, is checked elsewhere.
    """
    metadata = {"topic": topic, "help": help_text, "choices": tuple(choices), "of_the_run": of_the_run}
    return dataclasses.field(default=default, metadata=metadata)


def _flag_of(field: dataclasses.Field, stage: str, **changes) -> tuple:
    """Type and flag of a recipe's field, for one stage or both."""
    settings = {"topic": field.metadata["topic"], "default": field.default, **changes}
    text = field.metadata["help"].format(stage=stage, choices=", ".join(field.metadata["choices"]))
    text = " ".join(filter(None, (text, settings.get("more"))))
    return str if isinstance(field.default, str) else field.type, _flag(settings["topic"], settings["default"], text)


def _both_stages() -> Iterable[tuple]:
    """The flags that are fields of the recipe: stage one's, then those that stage two has of its own."""
    for field in dataclasses.fields(Recipe):
        own, of_both = field.metadata["stage_two"], field.metadata["stage_two"] == SAME
        yield field.name, *_flag_of(field, "both stages" if of_both else "stage one")
        if own is not None and not of_both:
            name = f"{STAGE_TWO_PREFIX}{field.name}"
            yield name, *_flag_of(field, "stage two", topic=STAGE_TWO, default=own, more=field.metadata["more"])


_RecipeFlags = dataclasses.make_dataclass("_RecipeFlags", _both_stages(), frozen=True)

_data, _run, _network, _augmentation, _system, _stage_two, _machine, _export = (
    functools.partial(_flag, topic) for topic in (DATA, RUN, NETWORK, AUGMENTATION, SYSTEM, STAGE_TWO, MACHINE, EXPORT)
)


def _listed(path: str, family: str, *more: str) -> str:
    return ", ".join((*names_in(path, family), *more))


def folder_of(workdir: str, dataset: str) -> pathlib.Path:
    """The work folder of a run by its flags."""
    return files.expanded(workdir or f"runs/{dataset}")


@dataclasses.dataclass(frozen=True)
class RunConfig(_RecipeFlags):
    """One run: the resolved flags.

    Raises:
      ValueError: values that cannot be, or that contradict one another, as `check` says.
    """

    dataset: str = _data(
        "fashion_lt",
        f"Data set: {_listed('datasets/__init__.py', 'DATASETS')}; tfds:<name> is one of TensorFlow Datasets, "
        "hf:<name or folder> one of the Hugging Face Hub or a folder that its `datasets` library reads.",
    )
    data_dir: str = _data(
        "", "Folder with the data set's lists, images or arrays, or with what keras_lt.prepare made.", of_the_run=False
    )
    imbalance_ratio: float = _data(
        0.0, "Imposes a long tail: images of the largest class divided by those of the smallest; 0 imposes none."
    )
    profile: str = _data(
        "auto",
        "Shape of an imposed long tail; auto is exponential.",
        choices=("auto", *names_in("datasets/profiles.py", "PROFILES")),
    )
    allow_modified_lists: bool = _data(False, "Only warn where the image lists differ from the published ones.")
    shot_cuts: str = _data(
        "kang",
        "Paper whose limits define many-, medium- and few-shot classes.",
        choices=names_in("metrics/shots.py", "SHOT_CUTS"),
    )
    many_above: int = _data(0, "A many-shot class has more training images than this; 0 is that of --shot_cuts.")
    few_below: int = _data(0, "A few-shot class has fewer training images than this; 0 is that of --shot_cuts.")
    on_bad_image: str = _data(
        "error",
        "What a missing or corrupt image does: end the run (error), or be left out (skip).",
        choices=names_in("inspection.py", "ON_BAD_IMAGE"),
    )

    workdir: str = _run("", "Folder of the run; empty is runs/<dataset>.", of_the_run=False)
    overwrite: bool = _run(False, "Empty the work folder first.", of_the_run=False)
    seed: int = _run(0, "Random seed of initial weights, sampling and augmentation.")

    backbone: str = _network(
        "resnet8",
        "Network from images to features: "
        f"{_listed('backbones/__init__.py', 'BACKBONES')}, "
        f"{_listed('backbones/efficientnet_lite.py', 'EFFICIENTNET_LITE')}, keras_applications/<net>, "
        "keras_hub/<preset>, such as keras_hub/dinov2_small, keras_cv/<preset>.",
    )
    pretrained: str = _network(
        "", "Initial weights: imagenet (a preset's own, or an installed package's), or a file; empty is random."
    )
    image_size: int = _network(
        0, "Side of the network's input in pixels; 0 is the net's own where it takes one only, else the data set's."
    )
    train_parts: str = _network(
        "all",
        "Parts of the network that stage one trains beside the classifier: "
        f"{_listed('backbones/trained_parts.py', 'TRAIN_PARTS')}; the rest is frozen. lora:rank=8 and "
        "adaptformer:bottleneck=16 are adapters in a net of tokens; by default their size is by LIFT's rule.",
    )
    backbone_lr_multiplier: float = _network(1.0, "Learning rate of the backbone divided by that of the classifier.")

    augmentation: str = _augmentation(
        "auto",
        "Augmentation of training images; auto is the data set's own.",
        choices=("auto", *names_in("preprocessing/augmentations.py", "AUGMENTATIONS")),
    )
    randaugment: int = _augmentation(0, "RandAugment operations per image, in place of colour jitter; 0 is none.")
    randaugment_magnitude: float = _augmentation(9.0, "Largest strength of a RandAugment operation, 0 to 10.")
    random_erasing: float = _augmentation(0.0, "Probability that a random rectangle of a training image is erased.")
    mixup: float = _augmentation(
        0.0, "Alpha of MixUp's Beta(alpha, alpha); 0 is none. With --cutmix, each batch has one of the two."
    )
    cutmix: float = _augmentation(0.0, "Alpha of CutMix's Beta(alpha, alpha); 0 is none.")

    method: str = _system(
        "decoupling",
        "Method; those other than decoupling bring a representation or a classifier of their own: "
        f"{_listed('methods/__init__.py', 'METHODS')}.",
    )
    head: str = _system(
        "auto",
        f"Classifier of stage one: {_listed('classifiers/__init__.py', 'HEADS')}; auto is the one that the loss needs.",
    )
    stage_one: str = _system(
        "images",
        "What stage one is trained on: images, or features that are extracted once, for --train_parts=classifier.",
        choices=names_in("stages/checks.py", "STAGE_ONE_INPUTS"),
    )
    base_batch_size: int = _flag(
        STEPS,
        0,
        "Batch size that --learning_rate is for: it is scaled by batch_size / base_batch_size. 0 does not scale.",
    )

    classifiers: tuple[str, ...] = _stage_two(
        ("joint", "ncm", "crt", "tau_norm", "lws"),
        f"Classifiers, comma-separated: {_listed('classifiers/__init__.py', 'CLASSIFIERS')}; with parameters, their "
        "own or those of stage two's recipe, such as lws:epochs=5.",
        of_the_run=False,
    )
    stage_two: str = _stage_two(
        "features",
        "What stage two is trained on: features that are extracted once, or augmented images.",
        choices=names_in("stages/checks.py", "STAGE_TWO_INPUTS"),
    )
    tau_split: str = _stage_two(
        "val",
        "Split that tau is chosen on; test needs --i_know_this_is_test.",
        choices=names_in("stages/checks.py", "TAU_SPLITS"),
    )
    i_know_this_is_test: bool = _stage_two(False, "Allows --tau_split=test; the results say so.")
    feature_views: int = _stage_two(
        1, "Augmented views of each training image to extract features of; 0 and 1 take the plain image."
    )
    feature_dtype: str = _stage_two(
        "float32",
        "Precision in which features are stored; float16 takes half the space.",
        choices=names_in("features.py", "FEATURE_DTYPES"),
    )
    batch_norm: str = _stage_two(
        "frozen",
        "Batch-norm statistics in stage two: kept as they are, or updated, with --stage_two=images.",
        choices=names_in("stages/checks.py", "BATCH_NORMS"),
    )

    precision: str = _machine(
        "float32",
        "Precision of the backbone; classifiers compute in float32.",
        choices=names_in("stages/checks.py", "PRECISIONS"),
    )
    strategy: str = _machine(
        "auto",
        "Devices to train on: auto is every GPU of this machine (mirrored), multi_host those of several hosts, on JAX.",
        choices=names_in("distribution.py", "STRATEGIES"),
    )
    devices: tuple[str, ...] = _machine(
        (), "Devices of --strategy=mirrored, such as GPU:0,GPU:1; empty is every GPU.", of_the_run=False
    )

    export_classifier: str = _export(
        "", "Classifier to export; empty is the best on the validation set.", of_the_run=False
    )
    target_prior: str = _export(
        "",
        "Class distribution where the SavedModel is used: uniform, train, forward:ratio=25 (long-tailed as in "
        "training), backward:ratio=25, or a file of one probability per class; empty leaves the logits as learned. "
        "keras_lt.evaluate takes it too, and em: estimated from the images, whose labels it does not look at.",
        of_the_run=False,
    )
    calibrate: str = _export(
        "none",
        "Whether logits are divided by the temperature that makes their softmax probabilities, by the images of val.",
        choices=names_in("serving/priors.py", "CALIBRATIONS"),
        of_the_run=False,
    )
    on_bad_request: str = _export(
        "error",
        "What a corrupt image in a request to the SavedModel does: fail the request, or get NaN and ok=false.",
        choices=names_in("serving/saved_model.py", "ON_BAD_REQUEST"),
        of_the_run=False,
    )
    export_onnx: bool = _export(False, "Also write an ONNX model beside the SavedModel.", of_the_run=False)

    def __post_init__(self):
        from keras_lt.config.checks import check  # noqa: PLC0415 - imports Keras, for which --help does not wait

        check(self)

    @property
    def folder(self) -> pathlib.Path:
        """The work folder."""
        return folder_of(self.workdir, self.dataset)

    @property
    def data_options(self) -> dict:
        """Options of the data set that are given as flags."""
        given = {name: getattr(self, name) for name in ("allow_modified_lists", "imbalance_ratio", "profile")}
        return {name: value for name, value in given.items() if value not in (0, "auto")}

    @property
    def cuts(self) -> dict[str, int]:
        """Above and below which numbers of training images classes are many- and few-shot."""
        from keras_lt.metrics import SHOT_CUTS  # noqa: PLC0415 - imports Keras

        many_above, few_below = SHOT_CUTS[self.shot_cuts]
        return {"many_above": self.many_above or many_above, "few_below": self.few_below or few_below}

    def load_data(self):
        """The data set, a `datasets.LongTailed`, its images not looked at."""
        from keras_lt import datasets  # noqa: PLC0415 - imports Keras

        return dataclasses.replace(datasets.load(self.dataset, self.data_dir, **self.data_options), **self.cuts)

    @property
    def preprocessing_options(self) -> dict:
        """What `stages.make_preprocessing` is told beside data and backbone."""
        names = (field.name for field in dataclasses.fields(self) if field.metadata["topic"] == AUGMENTATION)
        return {"image_size": self.image_size, **{name: getattr(self, name) for name in names}}

    @property
    def stage_one_options(self) -> dict:
        """What stage one is told beside data, backbone and recipe, as `learn_representation` takes it."""
        names = ("head", "pretrained", "train_parts", "backbone_lr_multiplier", "precision", "stage_one")
        return {**{name: getattr(self, name) for name in names}, **self.preprocessing_options}

    @functools.cached_property
    def stage_one_recipe(self) -> Recipe:
        """How the representation is trained."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(Recipe)}
        return Recipe(**{**fields, "learning_rate": self._scaled(self.learning_rate)})

    @functools.cached_property
    def _stage_two_recipe(self) -> Recipe:
        """What stage two trains by, but for what a classifier changes of it."""
        own = {}
        for field in dataclasses.fields(Recipe):
            if field.metadata["stage_two"] is None:
                own[field.name] = field.default
            elif field.metadata["stage_two"] != SAME:
                own[field.name] = getattr(self, f"{STAGE_TWO_PREFIX}{field.name}")
        rate = self._scaled(self.classifier_learning_rate or self.learning_rate)
        try:
            return dataclasses.replace(self.stage_one_recipe, **{**own, "learning_rate": rate})
        except ValueError as error:
            raise ValueError(f"In stage two: {error}") from error

    def stage_two_recipe(self, name: str) -> Recipe:
        """How a classifier, or a method's own, is trained."""
        from keras_lt.stages import classifier_entry  # noqa: PLC0415 - imports Keras

        return self._stage_two_recipe if name == self.method else classifier_entry(name, self._stage_two_recipe)[1]

    def _scaled(self, learning_rate: float) -> float:
        return learning_rate * self.batch_size / self.base_batch_size if self.base_batch_size else learning_rate

    @property
    def recipes(self) -> list[Recipe]:
        """Every recipe of the run."""
        return [self.stage_one_recipe, *map(self.stage_two_recipe, self.systems)]

    @property
    def method_entry(self):
        """The entry of `method`, a `methods.MethodEntry`."""
        from keras_lt.methods import method_entry  # noqa: PLC0415 - imports Keras

        return method_entry(self.method)

    @property
    def systems(self) -> list[str]:
        """The rows of its table: the method's own classifier, `classifiers`, and what a text start gives untrained."""
        from keras_lt.backbones import is_frozen  # noqa: PLC0415 - imports Keras
        from keras_lt.classifiers import CLASSIFIERS  # noqa: PLC0415 - imports Keras

        own, starts = [self.method] * self.method_entry.own_row, []
        if self.head_start == "text" and is_frozen(self.train_parts):
            starts = [name for name, entry in CLASSIFIERS.items() if entry.class_start and not entry.trained]
        return list(dict.fromkeys([*own, *self.classifiers, *starts]))

    @property
    def begins_by_text(self) -> bool:
        """Whether a head of the run begins by texts of the class names."""
        return any(recipe.head_start == "text" for recipe in self.recipes)

    def save(self, path: pathlib.Path):
        """Writes the resolved flags as a flag file that replays the run."""
        files.write_text(path, "".join(f"--{name}={value}\n" for name, value in self.as_flags().items()))

    def as_flags(self) -> dict[str, str]:
        """Every flag as it would be written, without the dashes."""
        return {
            k: ",".join(map(str, v)) if isinstance(v, tuple) else str(v).lower() if isinstance(v, bool) else str(v)
            for k, v in dataclasses.asdict(self).items()
        }
