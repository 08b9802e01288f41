"""RIDE: experts that are to differ from their mean (Wang et al., ICLR 2021, arXiv:2010.01809).

This is its first stage; the routing of its second, which saves computation, and its distillation are left out.
"""

import functools

import keras
import numpy as np
from keras import ops

from keras_lt.counts import check_counts, check_vector
from keras_lt.labels import MixedLabels, class_ids
from keras_lt.losses import ldam_of_logits
from keras_lt.methods.experts import SCALE, Experts, ExpertsLoss, expert_hooks, mean_loss
from keras_lt.recipe import Recipe
from keras_lt.registry import check_numbers
from keras_lt.stages import Hooks

MAX_MARGIN = 0.5


def class_temperatures(class_counts, *, factor: float) -> np.ndarray:
    """Temperatures v / max v of v_c = C pi_c factor + 1 - factor, [C]: the rarer a class the smaller."""
    counts = np.maximum(check_counts(class_counts), 1)
    raised = counts / counts.mean() * factor + 1 - factor
    return raised / raised.max()


def loss(
    labels,
    expert_logits,
    class_counts,
    *,
    diversity: float,
    max_margin: float = MAX_MARGIN,
    scale: float = SCALE,
    class_weights=None,
    temperatures=None,
):
    """The sum over experts of an LDAM loss and of diversity T^2 KL(mean || expert), T being the mean temperature.

    KL compares softmax(z_e / t) to that of the mean logits, which passes no gradient. With diversity 0 each expert
    learns for itself; the authors' code then trains the mean alone.

    Args:
      labels: class ids, [B].
      expert_logits: `scale` times cosines, [E, B, C].
      class_counts: training images per class, [C]; a class without images counts as one of a single image.
      diversity: below 0 experts are driven apart.
      max_margin, scale: as `losses.ldam`; without margins it is the cross-entropy.
      class_weights: of the LDAM losses alone, [C], as sum(w l) / sum(w) over the batch; None is of equal ones.
      temperatures: t of every class, [C], as `class_temperatures`; None is 1.
    Returns: loss per example in nats, [B], whose mean is the batch's.
    """
    ldam = of_margins(labels, expert_logits, class_counts, max_margin=max_margin, scale=scale)
    if class_weights is not None:
        weights = check_vector("class_weights", class_weights, classes=np.shape(expert_logits)[-1])
        weights = ops.take(weights.astype(np.float32), class_ids(labels, len(weights)))
        ldam = ldam * weights / ops.mean(weights)
    return ldam + disagreement(labels, expert_logits, diversity=diversity, temperatures=temperatures)


@keras.saving.register_keras_serializable("keras_lt", "ride_margins")
def of_margins(labels, expert_logits, class_counts, *, max_margin: float, scale: float = SCALE):
    """The LDAM losses' part of `loss`, [B]."""
    return sum(ldam_of_logits(labels, z, class_counts, max_margin, scale) for z in ops.unstack(expert_logits))


@keras.saving.register_keras_serializable("keras_lt", "ride_disagreement")
def disagreement(labels, expert_logits, *, diversity: float, temperatures=None):
    """The experts' part of `loss`, which does not depend on the labels, [B]."""
    logits = ops.cast(expert_logits, "float32")
    t = ops.convert_to_tensor(np.ones(logits.shape[-1]) if temperatures is None else temperatures, "float32")
    mean = ops.log_softmax(ops.stop_gradient(ops.mean(logits, axis=0)) / t, axis=-1)
    apart = ops.sum(ops.exp(mean) * (mean - ops.log_softmax(logits / t, axis=-1)), axis=(0, 2))
    return diversity * ops.square(ops.mean(t)) * apart


@keras.saving.register_keras_serializable("keras_lt")
class DiverseExperts(Experts):
    """Trains experts by a loss, to which class weights apply, and by their disagreement, to which none do.

    Args:
      model, expert_loss: as `Experts`.
      early, late: the loss of their disagreement, before and after the class weights have set in.
    """

    def __init__(
        self, model: keras.Model, expert_loss: keras.losses.Loss, early: keras.losses.Loss, late: keras.losses.Loss
    ):
        super().__init__(model, expert_loss)
        self.early, self.late = early, late
        self.is_late = self.add_weight(shape=(), initializer="zeros", trainable=False, autocast=False, name="is_late")

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Keras's hook: adds the disagreement."""
        labels = y.larger if isinstance(y, MixedLabels) else y
        apart = ops.where(self.is_late > 0, self.late(labels, y_pred), self.early(labels, y_pred))
        return super().compute_loss(x, y, y_pred, sample_weight, training) + apart


class Temperatures(keras.callbacks.Callback):
    """Lets the classes' temperatures set in with the class weights of a recipe; without these they never do."""

    def __init__(self, recipe: Recipe):
        super().__init__()
        self.recipe = recipe

    def on_epoch_begin(self, epoch: int, logs: dict | None = None):
        """Keras's hook."""
        late = self.recipe.weights_entry.weighs and epoch >= self.recipe.class_weights_from
        self.model.is_late.assign(float(late))


def hooks(
    *, experts: int = 3, diversity: float = -0.2, temperature: float = 0.02, max_margin: float = MAX_MARGIN
) -> Hooks:
    """What RIDE changes: experts on one trunk, of margins, and driven apart.

    Args:
      experts: E.
      diversity, max_margin: as in `loss`; the authors' diversity on CIFAR-100-LT is -.45.
      temperature: factor of `class_temperatures`, which set in with the class weights; the authors' on CIFAR-100-LT
        is .05, on iNaturalist .015.
    """
    check_numbers(diversity=diversity, at_least=-np.inf)
    check_numbers(max_margin=max_margin)
    check_numbers(temperature=temperature, below=1)
    settings = {"diversity": diversity, "temperature": temperature, "max_margin": max_margin}
    train = functools.partial(_training_model, **settings)
    return expert_hooks("ride", train, experts=experts, callbacks=lambda recipe: [Temperatures(recipe)])


def _training_model(model, class_counts, *, diversity, temperature, max_margin) -> DiverseExperts:
    temperatures = class_temperatures(class_counts, factor=temperature).tolist()
    return DiverseExperts(
        model,
        mean_loss(of_margins, class_counts, max_margin=max_margin),
        early=_apart(diversity=diversity),
        late=_apart(diversity=diversity, temperatures=temperatures),
    )


def _apart(**arguments) -> ExpertsLoss:
    return ExpertsLoss(disagreement, reduction="sum_over_batch_size", **arguments)
