"""The recipe: what one training run is made of. Its fields are flags, of both stages, and are described here alone.

Keras is not imported before a recipe is made, so that --help can list the fields at once.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_lt.arguments import checked
from keras_lt.registry import Entry, check_choice, check_numbers, member, names_in
from keras_lt.samplers import SamplerEntry, sampler_entry

JIT_COMPILE = ("auto", "true", "false")
KEPT_EPOCHS = ("best", "last")
ENGINES = ("auto", *names_in("resampling/plans.py", "ENGINES"))
MOST_EPOCHS = 100_000  # tables have a row of each
HEAD_STARTS = ("class_means", "text")
SAME = "same"  # stage two takes what stage one has
# Topics of --help.
SAMPLING, LOSSES, STEPS, MACHINE = "Sampling", "Losses and class weights", "Optimisation", "Precision and devices"
SYSTEM = "The system"


def _field(
    topic: str, default: Any, help_text: str, *, stage_two: Any = SAME, choices: Sequence[str] = (), more: str = ""
):
    """A field that is a flag.

    Args:
      help_text: with {stage} where the stage's name belongs, and {choices}.
      more: what is to be said of stage two's own flag beside that.
      stage_two: the default of a flag `--classifier_<name>` of its own; `SAME` without one, for what both stages share;
        `None` for what is of stage one alone.
    """
    return dataclasses.field(
        default=default,
        metadata={"topic": topic, "help": help_text, "stage_two": stage_two, "choices": tuple(choices), "more": more},
    )


@checked
@dataclasses.dataclass(frozen=True)
class Recipe:
    """What one training run is made of; the defaults are the paper's on ImageNet-LT.

    Attributes:
      epochs, batch_size, learning_rate, ...: flags, each described by its `help` below and by --help. Names of families
        take parameters, such as sampler="power:q=0.33" or loss="ldam:max_margin=0.3:scale=30"; a sampler may be a
        function of one's own.

    Raises:
      ValueError: a name, a parameter or a number that cannot be, or values that contradict one another.
    """

    epochs: int = _field(STEPS, 90, "Epochs of {stage}; one epoch has steps_per_epoch steps.", stage_two=10)
    steps_per_epoch: int = _field(
        STEPS, 0, "Steps per epoch; 0 is the number of training images divided by batch_size, rounded down."
    )
    batch_size: int = _field(STEPS, 512, "Images per step, over all devices together.")
    accumulate_steps: int = _field(
        STEPS, 1, "Micro-batches per step, whose gradients are added; batch norm has the statistics of a micro-batch."
    )
    optimizer: str = _field(
        STEPS, "sgd", "Optimiser of both stages: {choices}.", choices=names_in("optimization.py", "OPTIMIZERS")
    )
    learning_rate: float = _field(
        STEPS, 0.2, "Peak learning rate of {stage}.", stage_two=0.0, more="0 is --learning_rate."
    )
    schedule: str = _field(
        STEPS,
        "cosine",
        "Learning-rate schedule of {stage}: {choices}.",
        stage_two="cosine",
        choices=names_in("recipe.py", "SCHEDULES"),
    )
    warmup_epochs: int = _field(
        STEPS, 0, "First epochs of {stage}, over which the learning rate rises to its peak.", stage_two=0
    )
    decay_epochs: tuple[int, ...] = _field(
        STEPS,
        (),
        "Epochs of {stage} after which the schedule multistep lowers the learning rate, comma-separated.",
        stage_two=(),
    )
    decay_factor: float = _field(STEPS, 0.1, "Factor on the learning rate at each of the decay_epochs.")
    weight_decay: float = _field(
        STEPS, 5e-4, "Weight decay on every trainable weight: coupled (L2) with sgd, decoupled with adamw."
    )
    momentum: float = _field(STEPS, 0.9, "Momentum of sgd.")
    nesterov: bool = _field(STEPS, False, "Use Nesterov momentum in sgd.")
    clip_norm: float = _field(STEPS, 0.0, "Clips the global norm of the gradients to this; 0 does not clip.")
    ema_momentum: float = _field(
        STEPS,
        0.0,
        "Momentum of an exponential moving average of the weights, which is then validated and kept; 0 is none.",
    )
    kept_epoch: str = _field(
        STEPS,
        "best",
        "Epoch whose weights are kept: {choices}; best has the highest mean class accuracy on val, last is for a val "
        "split of a few hundred images, which cannot tell.",
        choices=KEPT_EPOCHS,
    )
    sampler: str | Callable = _field(  # noqa: RUF009 - it is `dataclasses.field`
        SAMPLING,
        "instance_balanced",
        "Sampler of {stage}, which gives the probability of each class: {choices}.",
        stage_two="class_balanced",
        choices=names_in("samplers.py", "SAMPLERS"),
    )
    engine: str = _field(
        SAMPLING,
        "auto",
        "How stage one draws example indices: {choices}; auto is the sampler's own way.",
        stage_two=None,
        choices=ENGINES,
    )
    resampling: str = _field(
        SAMPLING,
        "none",
        "Balances the training list of {stage} before sampling: {choices}; smote makes new features, in stage two.",
        stage_two="none",
        choices=names_in("resampling/lists.py", "RESAMPLING"),
    )
    loss: str = _field(
        LOSSES,
        "cross_entropy",
        "Loss of {stage}: {choices}.",
        stage_two="cross_entropy",
        choices=names_in("losses/__init__.py", "LOSSES"),
    )
    feature_loss: str = _field(
        LOSSES,
        "",
        "Loss on the features, added to the loss of stage one: {choices}; empty is none.",
        stage_two=None,
        choices=names_in("losses/on_features.py", "FEATURE_LOSSES"),
    )
    feature_loss_weight: float = _field(LOSSES, 1.0, "Weight of feature_loss beside the loss.", stage_two=None)
    class_weights: str = _field(
        LOSSES,
        "none",
        "Class weights in the loss of {stage}: {choices}.",
        stage_two="none",
        choices=names_in("losses/class_weights.py", "CLASS_WEIGHTS"),
    )
    class_weights_from: int = _field(
        LOSSES, 0, "Epochs before the class weights of stage one set in: deferred re-weighting (DRW).", stage_two=None
    )
    head_start: str = _field(
        SYSTEM,
        "class_means",
        "Directions that the heads class_mean_cosine and lift begin as: {choices}; text is of the class names by the "
        "text tower of a CLIP or SigLIP of keras_hub, and with a frozen net adds the classifier zero_shot.",
        choices=HEAD_STARTS,
    )
    steps_per_execution: int = _field(
        MACHINE, 1, "Micro-batches that TensorFlow trains on per call from Python, as in Keras's compile."
    )
    jit_compile: str = _field(
        MACHINE,
        "auto",
        "Compile with XLA: {choices}; auto is Keras's choice. With true, runs on a GPU are not reproducible.",
        choices=JIT_COMPILE,
    )

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if isinstance(value := getattr(self, field.name), np.generic):  # with which Keras computes in part only
                object.__setattr__(self, field.name, value.item())
            elif hasattr(value, "__len__") and not isinstance(value, str):  # a list; recipes are compared
                object.__setattr__(self, field.name, tuple(value))
        names = ("epochs", "batch_size", "accumulate_steps", "steps_per_execution")
        check_numbers(**{name: getattr(self, name) for name in names}, at_least=1)
        if self.epochs > MOST_EPOCHS:
            raise ValueError(f"epochs must be at most {MOST_EPOCHS:,}. Received: epochs={self.epochs}")
        names = ("learning_rate", "weight_decay", "clip_norm", "decay_factor", "feature_loss_weight")
        check_numbers(**{name: getattr(self, name) for name in names})
        names = ("class_weights_from", "warmup_epochs", "steps_per_epoch")
        check_numbers(**{name: getattr(self, name) for name in names}, below=2**31)
        check_numbers(momentum=self.momentum, ema_momentum=self.ema_momentum, below=1)
        check_choice(JIT_COMPILE, jit_compile=self.jit_compile)
        check_choice(ENGINES, engine=self.engine)
        check_choice(KEPT_EPOCHS, kept_epoch=self.kept_epoch)
        check_choice(HEAD_STARTS, head_start=self.head_start)
        two = np.ones(2)  # parameters are refused by what they are for
        _ = self.resampling_entry, self.feature_loss_entry
        self.loss_entry(two)
        self.weights_entry(two)
        if isinstance(self.sampler, str):
            self.sampler_entry(two, 0.0)
        self._check_combinations()

    def _check_combinations(self):
        """Raises ValueError for values that contradict one another."""
        if bool(self.decay_epochs) != self.schedule_entry.by_decay_epochs:
            raise ValueError(
                "decay_epochs belong to schedule=multistep, which needs them. "
                f"Received: schedule={self.schedule}, decay_epochs={self.decay_epochs}"
            )
        if self.class_weights_from and not (self.weights_entry.weighs and self.class_weights_from < self.epochs):
            raise ValueError(
                "class_weights_from must be below epochs, and needs class_weights. Received: class_weights_from="
                f"{self.class_weights_from}, class_weights={self.class_weights}, epochs={self.epochs}"
            )
        if self.engine == "instance" and self.sampler_entry.engine != "instance":
            raise ValueError(
                "engine=instance draws every image once an epoch, which no other sampler than instance_balanced asks "
                f"for. Received: engine=instance, sampler={self.sampler}"
            )
        if self.ema_momentum and self.accumulate_steps > 1:
            raise ValueError(
                "Keras averages weights after every micro-batch, so ema_momentum needs accumulate_steps=1. "
                f"Received: ema_momentum={self.ema_momentum}, accumulate_steps={self.accumulate_steps}"
            )
        compares = {"feature_loss": bool(self.feature_loss), "loss": self.loss_entry.compares}
        for name in (name for name, does in compares.items() if does and self.accumulate_steps > 1):
            raise ValueError(
                f"{name}={getattr(self, name)} compares all examples of an update, so it needs accumulate_steps=1. "
                f"Received: accumulate_steps={self.accumulate_steps}"
            )
        if self.batch_size % self.accumulate_steps:
            raise ValueError(
                "accumulate_steps must divide batch_size. "
                f"Received: accumulate_steps={self.accumulate_steps}, batch_size={self.batch_size}"
            )

    @functools.cached_property
    def schedule_entry(self) -> "ScheduleEntry":
        """The entry of `schedule`."""
        return member(SCHEDULES, self.schedule, what="schedule")

    @functools.cached_property
    def sampler_entry(self) -> SamplerEntry:
        """The entry of `sampler`."""
        return sampler_entry(self.sampler)

    @functools.cached_property
    def resampling_entry(self):
        """The entry of `resampling`, a `resampling.Resampling`."""
        from keras_lt.resampling import RESAMPLING  # noqa: PLC0415 - imports Keras, for which --help does not wait

        return member(RESAMPLING, self.resampling, what="resampling")

    @functools.cached_property
    def loss_entry(self):
        """The entry of `loss`, a `losses.LossEntry`."""
        return _losses().loss_entry(self.loss)

    @functools.cached_property
    def feature_loss_entry(self) -> Entry | None:
        """The entry of `feature_loss`; None without one."""
        return member(_losses().FEATURE_LOSSES, self.feature_loss, what="feature_loss") if self.feature_loss else None

    @functools.cached_property
    def weights_entry(self):
        """The entry of `class_weights`, a `losses.WeightsEntry`."""
        return member(_losses().CLASS_WEIGHTS, self.class_weights, what="class_weights")

    @property
    def corrects_twice(self) -> bool:
        """Whether the loss takes the classes' sizes into account, and the sampler or the weights do it once more."""
        counts = np.array([3.0, 1.0])
        draws = np.stack([self.sampler_entry(counts, progress) for progress in (0.0, 1.0)])
        balanced = self.weights_entry.weighs or not np.allclose(draws, counts / counts.sum())
        return balanced and self.loss_entry.prior is not None

    def weight_table(self, class_counts: np.ndarray) -> np.ndarray | None:
        """What an example of every class counts in every epoch, float32 [E, C]; None where all count alike."""
        return _losses().class_weight_table(
            self.class_weights, class_counts, epochs=self.epochs, first_epoch=self.class_weights_from
        )

    def steps(self, examples: int) -> int:
        """Steps of one epoch over that many training examples.

        Raises:
          ValueError: the examples do not fill one batch.
        """
        steps = self.steps_per_epoch or examples // self.batch_size
        if not steps:
            raise ValueError(
                "An epoch needs at least one full batch: lower batch_size or set steps_per_epoch. "
                f"Received: batch_size={self.batch_size}, {examples} training images"
            )
        if steps * self.accumulate_steps % self.steps_per_execution:
            raise ValueError(
                "steps_per_execution must divide the micro-batches of an epoch; Keras would round the epoch up. "
                f"Received: steps_per_execution={self.steps_per_execution}, {steps * self.accumulate_steps} of them"
            )
        return steps

    @property
    def micro_batch(self) -> int:
        """Images of one forward and backward pass, over all devices."""
        return self.batch_size // self.accumulate_steps

    def rate(self, epoch: float) -> float:
        """Learning rate after that many epochs."""
        warmup = min(1.0, (int(epoch) + 1) / self.warmup_epochs) if self.warmup_epochs else 1.0
        return self.learning_rate * warmup * self.schedule_entry(self, epoch)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleEntry(Entry):
    """What the learning rate does: (recipe, epochs behind it) -> factor on the peak learning rate.

    Attributes:
      by_decay_epochs: whether it goes by `decay_epochs`.
      every_step: whether it changes within an epoch.
    """

    by_decay_epochs: bool = False
    every_step: bool = False


def _cosine(recipe: Recipe, epoch: float) -> float:
    """(1 + cos(pi k / T)) / 2 for epoch k = 0..T-1 of T (Loshchilov & Hutter, 2017), held within the epoch."""
    return _cosine_per_step(recipe, int(epoch))


def _cosine_per_step(recipe: Recipe, epoch: float) -> float:
    """The same cosine at every step."""
    return (1 + math.cos(math.pi * epoch / recipe.epochs)) / 2


def _multistep(recipe: Recipe, epoch: float) -> float:
    """LDAM-DRW's protocol (Cao et al., 2019): smaller by a factor once certain epochs are done."""
    return recipe.decay_factor ** sum(epoch >= done for done in recipe.decay_epochs)


SCHEDULES: dict[str, ScheduleEntry] = {
    "cosine": ScheduleEntry(_cosine, label="Cosine"),
    "cosine_per_step": ScheduleEntry(_cosine_per_step, label="Cosine, every step", every_step=True),
    "multistep": ScheduleEntry(_multistep, label="Multistep", by_decay_epochs=True),
}


def _losses():
    from keras_lt import losses  # noqa: PLC0415 - imports Keras, for which --help does not wait

    return losses
