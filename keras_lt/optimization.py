"""How weights are updated: the recipe's optimiser, with its learning rate over the steps inside."""

import dataclasses
from collections.abc import Callable, Sequence

import keras
import numpy as np
from keras import ops

from keras_lt.compat import ClippedTogether, variable_index
from keras_lt.recipe import Recipe
from keras_lt.registry import Entry, member
from keras_lt.saving import SavedByArguments


@keras.saving.register_keras_serializable("keras_lt")
class SteppedRate(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that takes one value after another, each for so many passes; the last one stays.

    Args:
      rates: the values, [K].
      passes: forward and backward passes of each.
    """

    def __init__(self, rates: Sequence[float], passes: int):
        self.rates = [float(rate) for rate in rates]
        self.passes = passes

    def __call__(self, step):
        """The rate after that many passes, float32."""
        index = ops.minimum(ops.floor_divide(ops.cast(step, "int32"), self.passes), len(self.rates) - 1)
        return ops.take(ops.convert_to_tensor(np.array(self.rates, np.float32)), index)

    def get_config(self):
        """The constructor's arguments."""
        return {"rates": self.rates, "passes": self.passes}


class WithMultipliers(SavedByArguments, ClippedTogether):
    """An optimiser with a learning rate of their own for some variables.

    Args:
      multipliers: path of a variable -> factor on its learning rate; others have 1.
    """

    def __init__(self, learning_rate, *, multipliers: dict[str, float] | None = None, **kwargs):
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.multipliers = dict(multipliers or {})

    def build(self, variables):
        """Knows the factor of each."""
        super().build(variables)
        self._factors = [self.multipliers.get(variable.path, 1.0) for variable in variables]

    def rate_of(self, variable, learning_rate):
        """A variable's own learning rate, in its dtype."""
        return self._factors[variable_index(self, variable)] * ops.cast(learning_rate, variable.dtype)


@keras.saving.register_keras_serializable("keras_lt")
class CoupledSGD(WithMultipliers, keras.optimizers.Optimizer):
    """SGD with momentum as the reference's framework computes it.

    g <- g + coupled_weight_decay * w;  m <- momentum * m + g;  w <- w - learning_rate * m

    `keras.optimizers.SGD` decouples the decay from the momentum (about ten times weaker at momentum 0.9) and keeps the
    learning rate inside the momentum, which differs as soon as the learning rate changes.

    Args:
      learning_rate: a number or a schedule.
      momentum, coupled_weight_decay: as above; the decay is on every trainable weight.
      nesterov: steps by g + momentum * m in place of m.
      multipliers: as of `WithMultipliers`.
    """

    def __init__(
        self,
        learning_rate: float = 0.1,
        *,
        momentum: float = 0.9,
        nesterov: bool = False,
        coupled_weight_decay: float = 0.0,
        name: str = "coupled_sgd",
        **kwargs,
    ):
        super().__init__(learning_rate, name=name, **kwargs)
        self.momentum = momentum
        self.nesterov = nesterov
        self.coupled_weight_decay = coupled_weight_decay

    def build(self, variables):
        """Makes one momentum per variable."""
        if self.built:
            return
        super().build(variables)
        self.momenta = [self.add_variable_from_reference(variable, name="momentum") for variable in variables]

    def update_step(self, gradient, variable, learning_rate):
        """One step on one variable."""
        momentum, rate = self.momenta[variable_index(self, variable)], self.rate_of(variable, learning_rate)
        gradient = ops.cast(gradient, variable.dtype) + self.coupled_weight_decay * variable
        self.assign(momentum, self.momentum * momentum + gradient)
        self.assign_sub(variable, rate * (gradient + self.momentum * momentum if self.nesterov else momentum))


@keras.saving.register_keras_serializable("keras_lt")
class AdamW(WithMultipliers, keras.optimizers.Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter, ICLR 2019), and a rate of their own for some variables.

    w <- w - rate * decay * w, then Adam's step; `rate` is the learning rate times the variable's multiplier.

    Args:
      learning_rate: a number or a schedule.
      decoupled_weight_decay: on every trainable weight.
      multipliers: as of `WithMultipliers`.
    """

    def __init__(
        self, learning_rate: float = 0.001, *, decoupled_weight_decay: float = 0.0, name: str = "adamw", **kwargs
    ):
        super().__init__(learning_rate, name=name, **kwargs)
        self.decoupled_weight_decay = decoupled_weight_decay

    def update_step(self, gradient, variable, learning_rate):
        """One step on one variable."""
        rate = self.rate_of(variable, learning_rate)
        self.assign_sub(variable, rate * self.decoupled_weight_decay * variable)
        super().update_step(gradient, variable, rate)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerEntry(Entry):
    """An optimiser: (learning_rate, *, weight_decay, multipliers, ...) -> keras.optimizers.Optimizer.

    Attributes:
      rate: examples per step -> peak learning rate where nobody says one.
      settings: the recipe's fields that it takes beside these.
    """

    rate: Callable[[int], float] = lambda batch_size: 1e-3

    settings: tuple[str, ...] = ()


def _sgd(learning_rate, *, weight_decay, **options) -> CoupledSGD:
    return CoupledSGD(learning_rate, coupled_weight_decay=weight_decay, **options)


def _adamw(learning_rate, *, weight_decay, beta_1: float = 0.9, beta_2: float = 0.999, **options) -> AdamW:
    return AdamW(learning_rate, decoupled_weight_decay=weight_decay, beta_1=beta_1, beta_2=beta_2, **options)


OPTIMIZERS: dict[str, OptimizerEntry] = {
    "sgd": OptimizerEntry(
        _sgd,
        label="SGD",
        rate=lambda batch_size: 0.2 if batch_size >= 512 else 0.1 * min(1.0, batch_size / 64),
        settings=("momentum", "nesterov"),
    ),
    "adamw": OptimizerEntry(_adamw, label="AdamW"),
}


def check_optimizer(recipe: Recipe) -> OptimizerEntry:
    """The entry of the recipe's optimiser.

    Raises:
      ValueError: there is none of that name, it has no such setting, or one would do nothing.
    """
    entry = member(OPTIMIZERS, recipe.optimizer, what="optimizer")
    for owner, other in OPTIMIZERS.items():
        for setting in other.settings:
            if setting not in entry.settings and getattr(recipe, setting) != getattr(Recipe, setting):
                raise ValueError(
                    f"{setting} belongs to optimizer={owner}. "
                    f"Received: optimizer={recipe.optimizer}, {setting}={getattr(recipe, setting)}"
                )
    if recipe.nesterov and not recipe.momentum:
        raise ValueError("nesterov steps ahead by the momentum: it needs one above 0. Received: momentum=0")
    return entry


def make_optimizer(
    recipe: Recipe, *, steps: int, multipliers: dict[str, float] | None = None
) -> keras.optimizers.Optimizer:
    """The recipe's optimiser.

    Args:
      steps: of one epoch.
      multipliers: path of a variable -> factor on its learning rate.
    """
    entry = check_optimizer(recipe)
    per_epoch = steps if recipe.schedule_entry.every_step else 1
    return entry(
        SteppedRate(
            [recipe.rate(k / per_epoch) for k in range(recipe.epochs * per_epoch)],
            steps // per_epoch * recipe.accumulate_steps,
        ),
        weight_decay=recipe.weight_decay,
        multipliers=multipliers,
        global_clipnorm=recipe.clip_norm or None,
        use_ema=recipe.ema_momentum > 0,
        ema_momentum=recipe.ema_momentum,
        gradient_accumulation_steps=recipe.accumulate_steps if recipe.accumulate_steps > 1 else None,
        **{setting: getattr(recipe, setting) for setting in entry.settings},
    )
