"""Every choice of a run, as one frozen dataclass; a field is a flag of the same name."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterable

from keras_lt import backbones, datasets
from keras_lt.checkpoints import atomic
from keras_lt.classifiers import CLASSIFIERS
from keras_lt.datasets import PROFILES, LongTailed
from keras_lt.distribution import STRATEGIES
from keras_lt.features import FEATURE_DTYPES
from keras_lt.inspection import ON_BAD_IMAGE, screen
from keras_lt.losses import CLASS_WEIGHTS, COSINE_HEAD, FEATURE_LOSSES, FIRST_BIAS, LOSSES
from keras_lt.methods import METHODS
from keras_lt.metrics import SHOT_CUTS, check_cuts
from keras_lt.optimization import JIT_COMPILE, SCHEDULES, Recipe
from keras_lt.preprocessing import AUGMENTATIONS, Preprocessing
from keras_lt.rebalancing import RESAMPLING, SMOTE
from keras_lt.resampling import ENGINES
from keras_lt.samplers import SAMPLERS
from keras_lt.serving import ON_BAD_REQUEST
from keras_lt.stages import (
    BATCH_NORMS,
    HEADS,
    PRECISIONS,
    STAGE_TWO_INPUTS,
    TAU_SPLITS,
    TRAIN_PARTS,
    check_stage_two,
    choose_head,
)

HEADED_LOSSES = (*COSINE_HEAD, *FIRST_BIAS)


def _flag(topic: str, default, help_text: str, *, choices: Iterable[str] = (), of_the_run: bool = True):
    """A field that is a flag; `of_the_run` flags decide a run's numbers, so a work folder has one value of them."""
    metadata = {"topic": topic, "help": help_text, "choices": tuple(choices), "of_the_run": of_the_run}
    return dataclasses.field(default=default, metadata=metadata)


_data = functools.partial(_flag, "Data")
_run = functools.partial(_flag, "The run")
_network = functools.partial(_flag, "Network")
_augmentation = functools.partial(_flag, "Augmentation")
_system = functools.partial(_flag, "System, sampling and losses of stage one")
_optimizer = functools.partial(_flag, "Optimisation")
_stage_two = functools.partial(_flag, "Stage two")
_machine = functools.partial(_flag, "Precision and devices")
_output = functools.partial(_flag, "Export")


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """One run: the resolved flags.

    Raises:
      ValueError: values that contradict one another.
    """

    dataset: str = _data("fashion_lt", f"Data set: {', '.join(datasets.DATASETS)}, or tfds:<name>.")
    data_dir: str = _data(
        "", "Folder with the data set's lists, images or arrays, or with what tools.prepare made.", of_the_run=False
    )
    imbalance_ratio: float = _data(
        0.0, "Imposes a long tail: images of the largest class over the smallest's; 0 is the data set's own."
    )
    profile: str = _data("auto", "Shape of an imposed long tail; auto is exponential.", choices=("auto", *PROFILES))
    allow_modified_lists: bool = _data(False, "Only warn where lists are not those published.")
    shot_cuts: str = _data("kang", "Paper whose cuts make classes many-, medium- and few-shot.", choices=SHOT_CUTS)
    many_above: int = _data(0, "A many-shot class has more training images than this; 0 is that of --shot_cuts.")
    few_below: int = _data(0, "A few-shot class has fewer training images than this; 0 is that of --shot_cuts.")
    on_bad_image: str = _data(
        "error", "What a missing or damaged image does: end the run, or be left out.", choices=ON_BAD_IMAGE
    )

    workdir: str = _run("", "Folder of the run; empty is runs/<dataset>.", of_the_run=False)
    overwrite: bool = _run(False, "Empty the work folder first.", of_the_run=False)
    seed: int = _run(0, "Of initial weights, draws and augmentations.")

    backbone: str = _network("resnet8", f"Network from images to features: {', '.join(backbones.NAMES)}.")
    pretrained: str = _network(
        "", "Weights to begin with: imagenet (or a preset's own), or a file; empty is from scratch."
    )
    image_size: int = _network(0, "Side of the network's input, pixels; 0 is the data set's own.")
    train_parts: str = _network("all", "What stage one trains; the rest is frozen.", choices=TRAIN_PARTS)
    backbone_lr_multiplier: float = _network(1.0, "The backbone's learning rate over the classifier's.")

    augmentation: str = _augmentation(
        "auto", "Of training images; auto is the data set's own.", choices=("auto", *AUGMENTATIONS)
    )
    randaugment: int = _augmentation(0, "RandAugment operations per image, in place of colour jitter; 0 is none.")
    randaugment_magnitude: float = _augmentation(9.0, "Largest strength of a RandAugment operation, 0 to 10.")
    random_erasing: float = _augmentation(0.0, "Probability that a window of a training image is erased.")
    mixup: float = _augmentation(
        0.0, "Alpha of MixUp's Beta(alpha, alpha); 0 is none. With --cutmix, one of both per batch."
    )
    cutmix: float = _augmentation(0.0, "Alpha of CutMix's Beta(alpha, alpha); 0 is none.")

    method: str = _system(
        "decoupling",
        "System; those other than decoupling bring a representation or a classifier of their own.",
        choices=METHODS,
    )
    sampler: str = _system("instance_balanced", "Sampling of stage one.", choices=SAMPLERS)
    engine: str = _system(
        "auto",
        "How indices are drawn; auto: instance for instance_balanced, stratified for class_balanced, else weighted.",
        choices=("auto", *ENGINES),
    )
    head: str = _system(
        "auto", "Classifier that stage one trains; auto is what the loss needs.", choices=("auto", *HEADS)
    )
    loss: str = _system("cross_entropy", "Loss of stage one.", choices=LOSSES)
    focal_gamma: float = _system(2.0, "Of the focal losses: more gives well-classified examples less weight.")
    feature_loss: str = _system(
        "", "Loss on the features, added to --loss; empty is none.", choices=("", *FEATURE_LOSSES)
    )
    feature_loss_weight: float = _system(1.0, "Factor on --feature_loss.")
    class_weights: str = _system(
        "none", "What an example of each class counts in stage one's loss.", choices=("none", *CLASS_WEIGHTS)
    )
    class_weights_from: int = _system(
        0, "Epochs before --class_weights set in; above 0 is deferred re-weighting (DRW)."
    )
    class_weights_beta: float = _system(0.9999, "Of --class_weights=effective_number, below 1.")
    resampling: str = _system("none", "Balances stage one's training list itself, before any draw.", choices=RESAMPLING)
    label_smoothing: float = _system(0.0, "Of stage one's cross-entropy: share of the target spread over all classes.")

    epochs: int = _optimizer(90, "Of stage one.")
    steps_per_epoch: int = _optimizer(0, "Batches per epoch; 0 is training images // batch_size.")
    batch_size: int = _optimizer(512, "Images per step, over all devices.")
    accumulate_steps: int = _optimizer(1, "Passes of one step, each over batch_size / accumulate_steps images.")
    base_batch_size: int = _optimizer(
        0, "Batch size that --learning_rate is for; it is scaled by batch_size / base_batch_size. 0 does not scale."
    )
    learning_rate: float = _optimizer(0.2, "Of both stages, at its highest.")
    schedule: str = _optimizer("cosine", "Learning rate of stage one, epoch by epoch.", choices=SCHEDULES)
    warmup_epochs: int = _optimizer(0, "Stage one's first epochs, over which the learning rate rises.")
    decay_epochs: tuple[int, ...] = _optimizer(
        (), "Epochs after which --schedule=multistep lowers the learning rate, comma-separated."
    )
    decay_factor: float = _optimizer(0.1, "What multistep schedules multiply the learning rate by.")
    weight_decay: float = _optimizer(5e-4, "Coupled, on every trainable weight.")
    clip_norm: float = _optimizer(0.0, "Largest norm of all gradients together; 0 does not clip.")
    ema_momentum: float = _optimizer(0.0, "Above 0, an exponential moving average of the weights is what is kept.")

    classifiers: tuple[str, ...] = _stage_two(
        ("joint", "ncm", "crt", "tau_norm", "lws"),
        f"Classifiers of stage two, comma-separated: {', '.join(CLASSIFIERS)}.",
        of_the_run=False,
    )
    stage_two: str = _stage_two("features", "What stage two is trained on.", choices=STAGE_TWO_INPUTS)
    classifier_epochs: int = _stage_two(10, "Of stage two.")
    classifier_epochs_for: tuple[str, ...] = _stage_two(
        (), "Classifiers with another number of epochs, comma-separated, such as lws:5."
    )
    classifier_sampler: str = _stage_two("class_balanced", "Sampling of stage two.", choices=SAMPLERS)
    classifier_class_weights: str = _stage_two(
        "none", "What an example of each class counts in stage two's loss.", choices=("none", *CLASS_WEIGHTS)
    )
    classifier_resampling: str = _stage_two(
        "none",
        "Balances stage two's training list itself; smote makes new features.",
        choices=(*RESAMPLING, SMOTE),
    )
    classifier_learning_rate: float = _stage_two(0.0, "Of stage two, at its highest; 0 is --learning_rate.")
    classifier_schedule: str = _stage_two("cosine", "Learning rate of stage two.", choices=SCHEDULES)
    classifier_decay_epochs: tuple[int, ...] = _stage_two(
        (), "Epochs after which --classifier_schedule=multistep lowers the learning rate, comma-separated."
    )
    tau_split: str = _stage_two("val", "What tau is chosen on; test needs --i_know_this_is_test.", choices=TAU_SPLITS)
    i_know_this_is_test: bool = _stage_two(False, "Allows --tau_split=test; the results say so.")
    feature_views: int = _stage_two(
        1, "Augmented views per training image that --stage_two=features draws from; 0 and 1 take the plain image."
    )
    feature_dtype: str = _stage_two(
        "float32", "How features are stored; float16 takes half the space.", choices=FEATURE_DTYPES
    )
    batch_norm: str = _stage_two(
        "frozen", "Statistics of batch norm in stage two; update takes --stage_two=images.", choices=BATCH_NORMS
    )

    precision: str = _machine("float32", "What the backbone computes in; classifiers are float32.", choices=PRECISIONS)
    jit_compile: str = _machine(
        "auto", "XLA; auto is Keras's choice, true gives up the same numbers on a GPU.", choices=JIT_COMPILE
    )
    steps_per_execution: int = _machine(1, "Passes that TensorFlow does between two looks at it from Python.")
    strategy: str = _machine(
        "auto",
        "Devices; auto mirrors where there are several GPUs, multi_host takes every host's, on JAX.",
        choices=STRATEGIES,
    )
    devices: tuple[str, ...] = _machine(
        (), "What --strategy=mirrored mirrors on, such as GPU:0,GPU:1; empty is every GPU.", of_the_run=False
    )

    export_classifier: str = _output("", "Classifier to export; empty is the best on val.", of_the_run=False)
    target_prior: str = _output(
        "",
        "Class distribution that the SavedModel is for: uniform, train, or a file of one probability per class; empty "
        "leaves logits as learned.",
        of_the_run=False,
    )
    on_bad_request: str = _output(
        "error",
        "What a damaged image does to a request of the SavedModel: refuse it, or get NaN and ok=false.",
        choices=ON_BAD_REQUEST,
        of_the_run=False,
    )
    export_onnx: bool = _output(False, "Also write an ONNX model beside the SavedModel.", of_the_run=False)

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, valid = getattr(self, field.name), field.metadata["choices"]
            if valid and value not in valid:
                raise ValueError(f"--{field.name} must be one of {', '.join(valid)}. Received: {value!r}")
        unknown = [name for name in self.classifiers if name not in CLASSIFIERS]
        if unknown or not self.systems:
            raise ValueError(f"--classifiers must name some of {', '.join(CLASSIFIERS)}. Received: {unknown or 'none'}")
        exportable = (*CLASSIFIERS, *METHODS)
        if self.export_classifier and self.export_classifier not in exportable:
            raise ValueError(
                f"--export_classifier must be one of {', '.join(exportable)}. Received: {self.export_classifier!r}"
            )
        head = METHODS[self.method].head or HEADS[choose_head(self.head, self.loss)]
        for name in self.classifiers if head is not HEADS["dense"] else ():
            CLASSIFIERS[name](head(1, 2, seed=0), seed=0)  # refuses a head that it cannot start from
        if METHODS[self.method].has_own_representation and (self.head != "auto" or self.loss in HEADED_LOSSES):
            raise ValueError(
                f"--method={self.method} has a classifier of its own: no --head, and no loss that needs one, as "
                f"{', '.join(HEADED_LOSSES)} do. Received: --head={self.head}, --loss={self.loss}"
            )
        if self.classifier_resampling == SMOTE and self.stage_two == "images":
            raise ValueError(
                "--classifier_resampling=smote makes features, so it needs --stage_two=features. "
                "Received: --stage_two=images"
            )
        datasets.check(self.dataset, **self._data_options)
        backbones.check(self.backbone, pretrained=self.pretrained)
        check_stage_two(self.stage_two, self.batch_norm)
        for name in ("image_size", "base_batch_size", "feature_views", "many_above", "few_below"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name} must be at least 0. Received: {getattr(self, name)}")
        check_cuts(**self._cuts)
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

    @property
    def _cuts(self) -> dict[str, int]:
        many_above, few_below = SHOT_CUTS[self.shot_cuts]
        return {"many_above": self.many_above or many_above, "few_below": self.few_below or few_below}

    def load_data(self) -> LongTailed:
        """The data set, its images not looked at."""
        return dataclasses.replace(datasets.load(self.dataset, self.data_dir, **self._data_options), **self._cuts)

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
            learning_rate=self._scaled(self.learning_rate),
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
            focal_gamma=self.focal_gamma,
            class_weights=self.class_weights,
            class_weights_from=self.class_weights_from,
            class_weights_beta=self.class_weights_beta,
            feature_loss=self.feature_loss,
            feature_loss_weight=self.feature_loss_weight,
            resampling=self.resampling,
        )

    def stage_two_recipe(self, classifier: str) -> Recipe:
        """How a classifier is trained."""
        return dataclasses.replace(
            self.stage_one_recipe,
            epochs=self._classifier_epochs_for.get(classifier, self.classifier_epochs),
            learning_rate=self._scaled(self.classifier_learning_rate or self.learning_rate),
            schedule=self.classifier_schedule,
            warmup_epochs=0,
            decay_epochs=self.classifier_decay_epochs,
            sampler=self.classifier_sampler,
            engine="auto",
            loss="cross_entropy",
            label_smoothing=0.0,
            class_weights=self.classifier_class_weights,
            class_weights_from=0,
            feature_loss="",
            resampling=self.classifier_resampling,
        )

    def _scaled(self, learning_rate: float) -> float:
        return learning_rate * self.batch_size / (self.base_batch_size or self.batch_size)

    @property
    def recipes(self) -> list[Recipe]:
        """Every recipe of the run."""
        return [self.stage_one_recipe, *map(self.stage_two_recipe, self.systems)]

    @property
    def systems(self) -> list[str]:
        """What the run's table has a row for: the method's own classifier, where it has one, and `classifiers`."""
        return [self.method] * (METHODS[self.method].learn_classifier is not None) + list(self.classifiers)

    @property
    def _classifier_epochs_for(self) -> dict[str, int]:
        epochs = dict(entry.partition(":")[::2] for entry in self.classifier_epochs_for)
        if not all(name in (*CLASSIFIERS, *METHODS) and number.isdecimal() for name, number in epochs.items()):
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
