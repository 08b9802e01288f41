"""How a model is trained: the recipe, SGD with coupled weight decay, a cosine that steps once per epoch."""

import dataclasses
import math
from collections.abc import Callable

import keras
from keras import ops


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What one training run is made of; the defaults are the paper's on ImageNet-LT.

    Attributes:
      epochs: passes; one pass is `steps_per_epoch` batches.
      batch_size: images of one step, over all devices.
      learning_rate: at the first epoch.
      weight_decay: coefficient on every trainable weight, biases and batch norm included.
      momentum: of SGD, without Nesterov.
      steps_per_epoch: 0 is floor(N / batch_size), whatever the sampler.
      sampler: a name in `samplers.SAMPLERS`, or (class_counts [C], progress) -> probabilities [C].
      engine: of `resampling.sample_indices`; "auto" is instance for instance-balanced, stratified for class-balanced,
        weighted otherwise.
      loss: a name in `losses.LOSSES`.
    """

    epochs: int = 90
    batch_size: int = 512
    learning_rate: float = 0.2
    weight_decay: float = 5e-4
    momentum: float = 0.9
    steps_per_epoch: int = 0
    sampler: str | Callable = "instance_balanced"
    engine: str = "auto"
    loss: str = "cross_entropy"

    def __post_init__(self):
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1. Received: {name}={getattr(self, name)}")
        for name in ("learning_rate", "weight_decay", "momentum", "steps_per_epoch"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and at least 0. Received: {name}={getattr(self, name)}")

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
        return steps


def cosine_learning_rate(recipe: Recipe, epoch: int) -> float:
    """lr_0 (1 + cos(pi k / T)) / 2 for epoch k = 0..T-1 of T, held within the epoch (Loshchilov & Hutter, 2017)."""
    return recipe.learning_rate * (1 + math.cos(math.pi * epoch / recipe.epochs)) / 2


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
