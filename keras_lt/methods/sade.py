"""SADE: experts for long-tailed, uniform and reversed data, weighed at test time (Zhang et al., NeurIPS 2022).

arXiv:2107.09249. How the test images are distributed is not known: the weights are those by which two augmented views
of an image are predicted most alike, for which no label is needed.
"""

import functools

import keras
import numpy as np
from keras import ops

from keras_lt.counts import check_counts
from keras_lt.losses import cross_entropy, logit_adjustment
from keras_lt.methods.experts import BALANCED, expert_hooks, expert_logits, trained_by
from keras_lt.metrics import softmax
from keras_lt.registry import check_numbers
from keras_lt.stages import Hooks

EXPERTS = 3  # for long-tailed, uniform and reversed data
# How the weights of the experts are found; the authors'.
RATE, MOMENTUM, WEIGHT_DECAY, SMALLEST_WEIGHT, BATCH_SIZE = 0.1, 0.9, 5e-4, 0.05, 128


def inverse_prior(class_counts) -> np.ndarray:
    """The classes' shares in reversed order: the k-th rarest class has that of the k-th most frequent, [C].

    Classes of one size have the mean of what falls to them, where the authors leave it to the order of sorting.
    """
    counts = np.maximum(check_counts(class_counts), 1)
    ordered = np.sort(counts)
    _, size, sizes = np.unique(counts, return_inverse=True, return_counts=True)
    by_size = np.add.reduceat(ordered[::-1], np.cumsum(sizes) - sizes) / sizes
    return by_size[size] / counts.sum()


@keras.saving.register_keras_serializable("keras_lt", "sade_loss")
def loss(labels, expert_logits, class_counts, *, tau: float):
    """The sum of three cross-entropies: of z_1, of z_2 + log pi, and of z_3 + log pi - tau log `inverse_prior`.

    Args:
      labels: class ids, [B].
      expert_logits: [3, B, C].
      class_counts: training images per class, [C]; a class without images counts as one of a single image.
      tau: how far the third expert is drawn to the rare classes.
    Returns: loss per example in nats, [B].
    """
    expert_logits = ops.convert_to_tensor(expert_logits)
    if expert_logits.shape[0] != EXPERTS:
        raise ValueError(f"expert_logits must be of three experts, [3, B, C]. Received: shape {expert_logits.shape}")
    long_tailed, uniform, inverse = ops.unstack(expert_logits)
    reversed_ = tau * np.log(inverse_prior(class_counts))
    return (
        cross_entropy(labels, long_tailed)
        + logit_adjustment(labels, uniform, class_counts)
        + logit_adjustment(labels, ops.cast(inverse, "float32") - reversed_.astype(np.float32), class_counts)
    )


def prior(class_counts, *, tau: float, **_) -> np.ndarray:
    """What the mean of the logits takes for granted, up to a factor: the geometric mean of what the three experts do.

    The first has the classes' shares in it, the second nothing, the third `inverse_prior` to the power tau.
    """
    return (np.maximum(class_counts, 1.0) * inverse_prior(class_counts) ** tau) ** (1 / EXPERTS)


def hooks(*, experts: int = EXPERTS, tau: float = 2.0, cosine: bool = True) -> Hooks:
    """What SADE changes: three experts on one trunk, each for another class distribution; their mean is the classifier.

    Args:
      experts: 3.
      tau: as in `loss`.
      cosine: whether their classifiers are of cosines, as the authors', or plain linear ones.
    """
    check_numbers(tau=tau)
    if experts != EXPERTS:
        raise ValueError(
            "method=sade has three experts, for long-tailed, uniform and reversed data; balpoe and ride take other "
            f"numbers. Received: experts={experts}"
        )
    train = functools.partial(trained_by, loss, tau=tau)
    return expert_hooks("sade", train, experts=experts, cosine=cosine, fixed=BALANCED)


def aggregated(kernel: np.ndarray, views: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The classifier of a run, each of its experts with the weight that `aggregation_weights` finds.

    Args:
      kernel: of the dense layer that is the mean of all experts, [E D, C].
      views: features of two augmented views of each test image, [N, 2, E D].
    Returns: the kernel [E D, C] of the weighed mean, and the weights [E].
    """
    of_two = [expert_logits(views[:, view], kernel, experts=EXPERTS) for view in range(2)]
    weights = aggregation_weights(np.stack(of_two, axis=1), batch_size=BATCH_SIZE)
    return np.repeat(EXPERTS * weights, len(kernel) // EXPERTS)[:, np.newaxis] * kernel, weights


def aggregation_weights(view_logits, *, batch_size: int | None = None, epochs: int = 5) -> np.ndarray:
    """Weights of the experts by which two views of each image are predicted most alike.

    The mean cosine similarity of the two views' probabilities is raised by steps of SGD with Nesterov momentum on the
    softmax's parameters; after an epoch that leaves an expert less than .05 it ends.

    Args:
      view_logits: of every expert for two augmented views of the test images, [E, 2, N, C]; a memory map will do.
      batch_size: images of a step; None is half of them. The authors' is 128.
    Returns: weights [E], of sum one.
    """
    shape = np.shape(view_logits)
    if len(shape) != 4 or shape[1] != 2 or not shape[2]:
        raise ValueError(f"view_logits must be of two views of some images, [E, 2, N, C]. Received: shape {shape}")
    images = shape[2]
    batch_size = batch_size or max(images // 2, 1)
    check_numbers(batch_size=batch_size, epochs=epochs, at_least=1)
    parameters, momentum = np.full(shape[0], 1 / shape[0]), np.zeros(shape[0])
    for _ in range(epochs):
        for start in range(0, images, batch_size):
            views = np.asarray(view_logits[:, :, start : start + batch_size], np.float64)
            gradient = _slope(views, parameters) + WEIGHT_DECAY * parameters
            momentum = MOMENTUM * momentum + gradient
            parameters = parameters - RATE * (gradient + MOMENTUM * momentum)
        if softmax(parameters).min() < SMALLEST_WEIGHT:
            break
    return softmax(parameters)


def _slope(views: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """Gradient by the parameters of minus the mean cosine similarity, [E]."""
    weights = softmax(parameters)
    both = softmax(np.einsum("e,evnc->vnc", weights, views))
    norms = np.maximum(np.linalg.norm(both, axis=-1, keepdims=True), 1e-6)
    directions = both / norms
    similarity = (directions[0] * directions[1]).sum(axis=-1, keepdims=True)
    by_probabilities = -(directions[::-1] - similarity * directions) / norms / views.shape[2]
    by_logits = both * (by_probabilities - (both * by_probabilities).sum(axis=-1, keepdims=True))
    by_weights = np.einsum("evnc,vnc->e", views, by_logits)
    return weights * (by_weights - weights @ by_weights)
