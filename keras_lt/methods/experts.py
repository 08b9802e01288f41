"""Experts: several last blocks on one trunk, each with a classifier of its own; their mean is what is kept.

RIDE, SADE and BalPoE have this net and differ in what each expert is to learn. Their cosine classifiers are linear in
features of a fixed length, so the mean of all logits is one dense layer on the experts' features side by side, and
whatever works on a dense layer works on it.
"""

import functools
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
from keras import ops

from keras_lt import backbones, stages
from keras_lt.classifiers import HeadEntry, dense_of, fold
from keras_lt.classifiers.dense import Head, safe_norms
from keras_lt.datasets import LongTailed
from keras_lt.losses import PerExampleLoss
from keras_lt.recipe import Recipe
from keras_lt.registry import check_numbers
from keras_lt.saving import SavedByArguments
from keras_lt.stages import Hooks, OnMixedLabels, join

SCALE = 30.0  # of the cosines; RIDE's
# Features and kernel have half of the scale each, so that a fresh dense layer on the features learns at ordinary rates.
LENGTH = SCALE**0.5
# What all experts are made of, and so nobody's to choose.
FIXED = {
    "sampler": ("instance_balanced",),
    "resampling": ("none",),
    "loss": ("cross_entropy",),
    "feature_loss": ("",),
    "head": ("auto",),
    "train_parts": ("all", "last_block"),  # frozen pretrained experts would all be one
}
BALANCED = {**FIXED, "class_weights": ("none",)}  # of losses that correct for the class sizes themselves


@keras.saving.register_keras_serializable("keras_lt")
class ExpertPooling(SavedByArguments, keras.layers.Layer):
    """Averages each expert's feature map and gives it the length sqrt(30): [B, h, w, E D] -> [B, E D]."""

    def __init__(self, experts: int, **kwargs):
        super().__init__(**kwargs)
        self.experts = experts

    def call(self, feature_maps):
        """Feature maps [B, h, w, E D] -> features [B, E D]."""
        features = ops.mean(feature_maps, axis=(1, 2))
        parts = ops.reshape(features, (-1, self.experts, features.shape[-1] // self.experts))
        return ops.reshape(LENGTH * parts / safe_norms(parts, axis=-1), (-1, features.shape[-1]))


@keras.saving.register_keras_serializable("keras_lt")
class ExpertHeads(Head):
    """The mean of the logits of E linear classifiers, each on its expert's features: [B, E D] -> [B, C].

    Args:
      units: C.
      experts: E.
      cosine: whether every class's weights count by their direction alone; with features of `ExpertPooling` logits are
        then 30 cos(features, class weights).
    """

    def __init__(self, units: int, experts: int, *, cosine: bool = True, **kwargs):
        super().__init__(units, **kwargs)
        self.experts = experts
        self.cosine = cosine

    def build(self, input_shape):
        """Makes room for the kernel [E, D, C]; `fresh_heads` fills it."""
        shape = (self.experts, input_shape[-1] // self.experts, self.units)
        self.kernel = self.add_weight(shape=shape, initializer="zeros", name="kernel")

    def expert_logits(self, features):
        """Features [B, E D] -> logits of every expert [B, E, C]."""
        parts = ops.reshape(features, (-1, *self.kernel.shape[:2]))
        return ops.einsum("bed,edc->bec", parts, self._weights())

    def call(self, features):
        """Features [B, E D] -> logits [B, C]."""
        return ops.mean(self.expert_logits(features), axis=1)

    def fold(self) -> tuple[np.ndarray, np.ndarray]:
        """Kernel [E D, C] and bias [C] of the one dense layer that computes the same."""
        weights = ops.convert_to_numpy(self._weights()) / self.experts
        return weights.reshape(-1, self.units), np.zeros(self.units, np.float32)

    def _weights(self):
        kernel = ops.convert_to_tensor(self.kernel)
        return LENGTH * kernel / safe_norms(kernel, axis=1) if self.cosine else kernel


def fresh_heads(width: int, units: int, *, seed: int, experts: int, cosine: bool) -> ExpertHeads:
    """Trainable heads on features [B, E D], drawn as `classifiers.fresh_dense` draws one."""
    heads = ExpertHeads(units, experts, cosine=cosine)
    heads.build((None, width))
    limit = heads.kernel.shape[1] ** -0.5
    heads.kernel.assign(np.random.default_rng(seed).uniform(-limit, limit, heads.kernel.shape))
    return heads


def expert_logits(features: np.ndarray, kernel: np.ndarray, *, experts: int) -> np.ndarray:
    """The logits of every expert, of features and of the dense layer that is their mean.

    Args:
      features: of the representation that a method of experts learned, [N, E D].
      kernel: of its classifier, [E D, C].
      experts: E.
    Returns: [E, N, C], whose mean over E is features @ kernel.
    """
    features, kernel = np.asarray(features), np.asarray(kernel)
    if features.shape[-1] != len(kernel) or len(kernel) % experts:
        raise ValueError(
            "features must be [N, E D] and kernel [E D, C]. "
            f"Received: features.shape={features.shape}, kernel.shape={kernel.shape}, experts={experts}"
        )
    pairs = zip(np.split(features, experts, axis=-1), np.split(kernel, experts), strict=True)
    return np.stack([experts * part @ weights for part, weights in pairs])


@keras.saving.register_keras_serializable("keras_lt")
class ExpertsLoss(PerExampleLoss):
    """A function of labels [B] and logits [E, B, C] -> [B], as the Keras loss of logits [B, E, C]."""

    def call(self, labels, logits):
        """Loss per example, [B]."""
        return super().call(labels, ops.transpose(logits, (1, 0, 2)))


@keras.saving.register_keras_serializable("keras_lt")
class Experts(OnMixedLabels):
    """Trains a model, images -> logits, by a loss of all experts' logits; the model itself is what is kept.

    Args:
      model: Functional, images [B, S, S, 3] -> logits [B, C]; its layer "classifier" is `ExpertHeads`.
      expert_loss: of labels [B] and logits [B, E, C], a mean over examples; it takes the place of the compiled one.
    """

    def __init__(self, model: keras.Model, expert_loss: keras.losses.Loss):
        super().__init__(model)
        self.expert_loss = expert_loss

    def compile(self, optimizer, loss=None, **options):
        """Keras's; metrics are of the mean logits."""
        super().compile(optimizer, self.expert_loss, **options)

    def compile_from_config(self, config):
        """Keras's hook: `stages.fit` compiles it, also one that was loaded."""

    def call(self, images, training=False):
        """Images [B, S, S, 3] -> logits [B, E, C]."""
        features = self.model.get_layer("backbone")(images, training=training)
        return self.model.get_layer("classifier").expert_logits(features)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Keras's hook: metrics of the mean logits."""
        return super().compute_metrics(x, y, ops.mean(y_pred, axis=1), sample_weight)


def mean_loss(function: Callable, class_counts: np.ndarray, **arguments) -> ExpertsLoss:
    """A method's function of labels, expert logits and class counts as a mean over examples."""
    counts = np.asarray(class_counts).tolist()
    return ExpertsLoss(function, reduction="sum_over_batch_size", class_counts=counts, **arguments)


def trained_by(function: Callable, model: keras.Model, class_counts: np.ndarray, **arguments) -> Experts:
    """What trains a model of experts by a method's function, as `mean_loss`, and by nothing else."""
    return Experts(model, mean_loss(function, class_counts, **arguments))


def check_backbone(backbone: backbones.BackboneEntry, *, method: str):
    """Raises ValueError where there cannot be several last blocks."""
    backbone = backbone.available()
    if not (backbone.last_block and backbone.pools_map):
        raise ValueError(
            f"backbone of method={method} must average a feature map, and its last block must be known, of which every "
            f"expert has its own: one of the reference's resnets or resnexts. Received: backbone={backbone.label}"
        )


def with_experts(backbone: keras.Model, *, pretrained: bool, experts: int, cosine: bool) -> keras.Model:
    """The backbone with several last blocks: images [B, S, S, 3] -> features [B, E D]; pretrained ones begin alike."""
    backbones.feature_map(backbone)  # refuses what gives no feature map, which only the built net says
    pooling = functools.partial(ExpertPooling, experts) if cosine else "average"
    return backbones.with_experts(backbone, experts, pooling=pooling, same_start=pretrained)


def with_dense_classifier(model: keras.Model, data: LongTailed) -> keras.Model:
    """The same model with one dense layer in the place of all heads."""
    dense = dense_of(*fold(model.get_layer("classifier")), name="classifier")
    return join(model.get_layer("backbone"), dense)


def check_experts(experts: int):
    """Raises ValueError for a number of them that cannot be, or that nobody has room for."""
    check_numbers(experts=experts, at_least=2, below=101)


def expert_hooks(
    name: str,
    training_model: Callable[[keras.Model, np.ndarray], keras.Model],
    *,
    experts: int,
    cosine: bool = True,
    fixed: Mapping[str, Sequence] = FIXED,
    callbacks: Callable[[Recipe], Sequence[keras.callbacks.Callback]] = lambda recipe: (),
) -> Hooks:
    """The hooks of a method of experts; its classifier is the one trained with them.

    Args: as `Hooks`; experts and cosine as `ExpertHeads`.
    """
    check_experts(experts)
    heads = functools.partial(fresh_heads, experts=experts, cosine=cosine)
    return Hooks(
        name=name,
        check_backbone=functools.partial(check_backbone, method=name),
        network=functools.partial(with_experts, experts=experts, cosine=cosine),
        head=HeadEntry(heads, label="Experts", affine=True),
        training_model=training_model,
        callbacks=callbacks,
        finished=with_dense_classifier,
        fixed=fixed,
        classifier=functools.partial(stages.learn_classifier, "joint"),
    )
