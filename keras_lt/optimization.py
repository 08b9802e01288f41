"""How a model is trained: the recipe, its learning rate over the epochs, SGD with coupled weight decay."""

import dataclasses
import inspect
import math
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from keras_lt.losses import CLASS_WEIGHTS, FEATURE_LOSSES, LOSSES, class_weight_table
from keras_lt.resampling import RESAMPLING

JIT_COMPILE = ("auto", "true", "false")
_FINITE = (
    "learning_rate",
    "weight_decay",
    "momentum",
    "clip_norm",
    "ema_momentum",
    "label_smoothing",
    "focal_gamma",
    "class_weights_from",
    "class_weights_beta",
    "feature_loss_weight",
    "steps_per_epoch",
    "warmup_epochs",
    "decay_factor",
)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What one training run is made of; the defaults are the paper's on ImageNet-LT.

    Attributes:
      epochs: passes; one pass is `steps_per_epoch` batches.
      batch_size: images of one update, over all devices.
      learning_rate: at its highest.
      schedule: a name in `SCHEDULES`: what the learning rate does over the epochs.
      warmup_epochs: W; the k-th epoch, k < W, has k / W of its learning rate.
      decay_epochs, decay_factor: schedule "multistep" multiplies the learning rate by the factor after each of these.
      weight_decay: coefficient on every trainable weight, biases and batch norm included.
      momentum: of SGD, without Nesterov.
      clip_norm: largest norm of all gradients together; 0 does not clip.
      ema_momentum: above 0, validates and keeps the exponential moving average of the weights, not the weights.
      steps_per_epoch: 0 is floor(N / batch_size), whatever the sampler.
      sampler: a name in `samplers.SAMPLERS`, or (class_counts [C], progress) -> probabilities [C].
      engine: of `resampling.sample_indices`; "auto" is instance for instance-balanced, stratified for class-balanced,
        weighted otherwise.
      loss: a name in `losses.LOSSES`.
      label_smoothing: of the cross-entropy.
      focal_gamma: of the focal losses.
      class_weights: a name in `losses.CLASS_WEIGHTS`, "none" for none: what an example of each class counts.
      class_weights_from: epochs before the weights set in; above 0 that is deferred re-weighting (DRW).
      class_weights_beta: of the effective number of images.
      feature_loss, feature_loss_weight: a name in `losses.FEATURE_LOSSES`, empty for none, and its factor.
      resampling: what is done to the list of examples before any are drawn: a name in `resampling.RESAMPLING`.
      accumulate_steps: forward and backward passes of one update, each over batch_size / accumulate_steps images, for
        batches that do not fit into memory. Batch norm sees the smaller batches.
      steps_per_execution: updates that TensorFlow does between two looks at it from Python.
      jit_compile: "true", "false", or "auto", by which Keras compiles on a single GPU.
    """

    epochs: int = 90
    batch_size: int = 512
    learning_rate: float = 0.2
    schedule: str = "cosine"
    warmup_epochs: int = 0
    decay_epochs: tuple[int, ...] = ()
    decay_factor: float = 0.1
    weight_decay: float = 5e-4
    momentum: float = 0.9
    clip_norm: float = 0.0
    ema_momentum: float = 0.0
    steps_per_epoch: int = 0
    sampler: str | Callable = "instance_balanced"
    engine: str = "auto"
    loss: str = "cross_entropy"
    label_smoothing: float = 0.0
    focal_gamma: float = 2.0
    class_weights: str = "none"
    class_weights_from: int = 0
    class_weights_beta: float = 0.9999
    feature_loss: str = ""
    feature_loss_weight: float = 1.0
    resampling: str = "none"
    accumulate_steps: int = 1
    steps_per_execution: int = 1
    jit_compile: str = "auto"

    def __post_init__(self):
        for name in ("epochs", "batch_size", "accumulate_steps", "steps_per_execution"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1. Received: {name}={getattr(self, name)}")
        for name in _FINITE:
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and at least 0. Received: {name}={getattr(self, name)}")
        for name, valid in _CHOICES.items():
            if getattr(self, name) not in valid:
                raise ValueError(f"{name} must be one of {', '.join(valid)}. Received: {name}={getattr(self, name)!r}")
        for name in ("ema_momentum", "label_smoothing", "class_weights_beta"):
            if getattr(self, name) >= 1:
                raise ValueError(f"{name} must lie in [0, 1). Received: {name}={getattr(self, name)}")
        self._check_combinations()

    def _check_combinations(self):
        """Raises ValueError for values that contradict one another."""
        if bool(self.decay_epochs) != (self.schedule == "multistep"):
            raise ValueError(
                "decay_epochs belong to schedule=multistep, which needs them. "
                f"Received: schedule={self.schedule}, decay_epochs={self.decay_epochs}"
            )
        if self.class_weights_from and (self.class_weights == "none" or self.class_weights_from >= self.epochs):
            raise ValueError(
                "class_weights_from must be below epochs, and needs class_weights. Received: class_weights_from="
                f"{self.class_weights_from}, class_weights={self.class_weights}, epochs={self.epochs}"
            )
        if self.label_smoothing and self.loss != "cross_entropy":
            raise ValueError(
                "label_smoothing is of loss=cross_entropy. "
                f"Received: label_smoothing={self.label_smoothing}, loss={self.loss}"
            )
        if self.ema_momentum and self.accumulate_steps > 1:
            raise ValueError(
                "Keras averages weights after every pass, so ema_momentum needs accumulate_steps=1. "
                f"Received: ema_momentum={self.ema_momentum}, accumulate_steps={self.accumulate_steps}"
            )
        if self.batch_size % self.accumulate_steps:
            raise ValueError(
                "accumulate_steps must divide batch_size. "
                f"Received: accumulate_steps={self.accumulate_steps}, batch_size={self.batch_size}"
            )

    @property
    def loss_options(self) -> dict[str, float]:
        """What `loss` is told beside the class counts."""
        if "gamma" in inspect.signature(LOSSES[self.loss]).parameters:
            return {"gamma": self.focal_gamma}
        return {"label_smoothing": self.label_smoothing} if self.label_smoothing else {}

    def weight_table(self, class_counts: np.ndarray) -> np.ndarray | None:
        """What an example of every class counts in every epoch, float32 [E, C]; None where all count alike."""
        return class_weight_table(
            self.class_weights,
            class_counts,
            epochs=self.epochs,
            first_epoch=self.class_weights_from,
            beta=self.class_weights_beta,
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
                "steps_per_execution must divide the passes of an epoch; Keras would round the epoch up. Received: "
                f"steps_per_execution={self.steps_per_execution}, {steps * self.accumulate_steps} passes"
            )
        return steps

    @property
    def pass_size(self) -> int:
        """Images of one forward and backward pass, over all devices."""
        return self.batch_size // self.accumulate_steps

    def rate(self, epoch: float) -> float:
        """Learning rate after that many epochs."""
        warmup = min(1.0, (int(epoch) + 1) / self.warmup_epochs) if self.warmup_epochs else 1.0
        return self.learning_rate * warmup * SCHEDULES[self.schedule](self, epoch)


def _cosine(recipe: Recipe, epoch: float) -> float:
    """(1 + cos(pi k / T)) / 2 for epoch k = 0..T-1 of T (Loshchilov & Hutter, 2017), held within the epoch."""
    return _cosine_per_step(recipe, int(epoch))


def _cosine_per_step(recipe: Recipe, epoch: float) -> float:
    """The same cosine at every step."""
    return (1 + math.cos(math.pi * epoch / recipe.epochs)) / 2


def _multistep(recipe: Recipe, epoch: float) -> float:
    """LDAM-DRW's protocol (Cao et al., 2019): smaller by a factor once certain epochs are done."""
    return recipe.decay_factor ** sum(epoch >= done for done in recipe.decay_epochs)


SCHEDULES: dict[str, Callable[[Recipe, float], float]] = {
    "cosine": _cosine,
    "cosine_per_step": _cosine_per_step,
    "multistep": _multistep,
}
_CHOICES = {
    "schedule": SCHEDULES,
    "jit_compile": JIT_COMPILE,
    "loss": LOSSES,
    "feature_loss": ("", *FEATURE_LOSSES),
    "class_weights": ("none", *CLASS_WEIGHTS),
    "resampling": RESAMPLING,
}


@keras.saving.register_keras_serializable("keras_lt")
class CoupledSGD(keras.optimizers.Optimizer):
    """SGD with momentum as the reference's framework computes it.

    g <- g + coupled_weight_decay * w;  m <- momentum * m + g;  w <- w - learning_rate * m

    `keras.optimizers.SGD` decouples the decay from the momentum (about ten times weaker at momentum 0.9) and keeps the
    learning rate inside the momentum, which differs as soon as the learning rate changes.

    Args:
      learning_rate: a number or a schedule.
      momentum, coupled_weight_decay: as above; the decay is on every trainable weight.
      multipliers: path of a variable -> factor on its learning rate; others have 1.
    """

    def __init__(
        self,
        learning_rate: float = 0.1,
        *,
        momentum: float = 0.9,
        coupled_weight_decay: float = 0.0,
        multipliers: dict[str, float] | None = None,
        name: str = "coupled_sgd",
        **kwargs,
    ):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum = momentum
        self.coupled_weight_decay = coupled_weight_decay
        self.multipliers = dict(multipliers or {})

    def build(self, variables):
        """Makes one momentum per variable."""
        if self.built:
            return
        super().build(variables)
        self._factors = [self.multipliers.get(variable.path, 1.0) for variable in variables]
        self.momenta = [self.add_variable_from_reference(variable, name="momentum") for variable in variables]

    def update_step(self, gradient, variable, learning_rate):
        """One step on one variable."""
        index = self._get_variable_index(variable)
        rate = self._factors[index] * ops.cast(learning_rate, variable.dtype)
        momentum = self.momenta[index]
        gradient = ops.cast(gradient, variable.dtype) + self.coupled_weight_decay * variable
        self.assign(momentum, self.momentum * momentum + gradient)
        self.assign_sub(variable, rate * momentum)

    def get_config(self):
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "coupled_weight_decay": self.coupled_weight_decay,
            "multipliers": self.multipliers,
        }
