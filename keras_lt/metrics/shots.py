"""Accuracy over many-, medium- and few-shot classes, from arrays or as a Keras metric.

Groups go by the number of *training* images of a class. A group's accuracy is the unweighted mean of its
classes' accuracies; classes without an example in the evaluated split are left out, and a group with no class
left is NaN. The class mean, over all classes, is what others call balanced accuracy or macro recall.
"""

from collections.abc import Sequence

import keras
import numpy as np

MANY_SHOT_ABOVE = 100  # training images; the paper's evaluation protocol
FEW_SHOT_BELOW = 20


def shot_groups(
    class_counts: np.ndarray | Sequence[int],
    *,
    many_above: int = MANY_SHOT_ABOVE,
    few_below: int = FEW_SHOT_BELOW,
) -> dict[str, np.ndarray]:
    """Which classes are many-, medium- and few-shot.

    Args:
      class_counts: training images per class, [C]; a class of which the number is not known, NaN, is in no group.
      many_above, few_below: both strict, so 100 and 20 images are medium-shot.
    Returns: {"many", "medium", "few"} -> bool [C].
    Raises:
      ValueError: counts that are not a vector of numbers >= 0, or thresholds that overlap.
    """
    counts = np.asarray(class_counts)
    if counts.ndim != 1 or (counts < 0).any():
        raise ValueError(f"class_counts must be [C] and >= 0. Received: class_counts={class_counts}")
    if few_below > many_above:
        raise ValueError(
            f"few_below must not exceed many_above. Received: few_below={few_below}, many_above={many_above}"
        )
    return {
        "many": counts > many_above,
        "medium": (counts >= few_below) & (counts <= many_above),
        "few": counts < few_below,
    }


def shot_accuracy(
    predictions: np.ndarray,
    labels: np.ndarray,
    class_counts: np.ndarray | Sequence[int],
    *,
    many_above: int = MANY_SHOT_ABOVE,
    few_below: int = FEW_SHOT_BELOW,
) -> dict[str, float]:
    """Mean per-class accuracy over many-, medium- and few-shot classes.

    >>> keras_lt.shot_accuracy([0, 0, 0, 2], [0, 0, 1, 2], class_counts=[500, 50, 5])
    {'many': 1.0, 'medium': 0.0, 'few': 1.0, 'all': 0.75, 'class_mean': 0.666...}

    Args:
      predictions, labels: class ids of the evaluated split, [N].
      class_counts: *training* images per class, [C].
    Returns: as `shot_accuracy_from_counts`.
    Raises:
      ValueError: lengths that differ, or ids outside of [0, C).
    """
    classes = len(class_counts)
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    if predictions.ndim != 1 or predictions.shape != labels.shape:
        raise ValueError(
            "predictions and labels must both be [N]. "
            f"Received: predictions.shape={predictions.shape}, labels.shape={labels.shape}"
        )
    for name, ids in {"predictions": predictions, "labels": labels}.items():
        if not np.issubdtype(ids.dtype, np.integer):
            raise ValueError(f"{name} must be integer class ids. Received: {name}.dtype={ids.dtype}")
        if ids.size and not (ids.min() >= 0 and ids.max() < classes):
            raise ValueError(f"{name} must be in [0, {classes}). Received: [{ids.min()}, {ids.max()}]")
    return shot_accuracy_from_counts(
        np.bincount(labels[predictions == labels], minlength=classes),
        np.bincount(labels, minlength=classes),
        class_counts,
        many_above=many_above,
        few_below=few_below,
    )


def shot_accuracy_from_counts(
    correct: np.ndarray,
    total: np.ndarray,
    class_counts: np.ndarray | Sequence[int],
    *,
    many_above: int = MANY_SHOT_ABOVE,
    few_below: int = FEW_SHOT_BELOW,
) -> dict[str, float]:
    """The accuracies of a split of which only per-class sums are left.

    Args:
      correct, total: evaluated examples per class, those predicted right and all, [C].
      class_counts: *training* images per class, [C].
    Returns: {"many", "medium", "few", "all", "class_mean"} -> accuracy in [0, 1]. "all" is over examples, the
      others are unweighted means over classes with an example in the split, NaN where there is none.
    Raises:
      ValueError: shapes that differ, or counts that do not satisfy 0 <= correct <= total.
    """
    groups = shot_groups(class_counts, many_above=many_above, few_below=few_below)
    correct, total = np.asarray(correct), np.asarray(total)
    if not correct.shape == total.shape == groups["many"].shape:
        raise ValueError(
            "correct and total must be [C] as class_counts is. Received: "
            f"correct.shape={correct.shape}, total.shape={total.shape}, C={len(groups['many'])}"
        )
    if not ((correct >= 0) & (correct <= total)).all():
        raise ValueError(f"0 <= correct <= total must hold. Received: correct={correct}, total={total}")
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN of an empty group
        accuracies = _accuracies(np, correct, total, groups)
    return {name: float(accuracy) for name, accuracy in accuracies.items()}


@keras.saving.register_keras_serializable("keras_lt")
class ShotAccuracy(keras.metrics.Metric):
    """`shot_accuracy` over batches of labels [B] and logits [B, C], for `model.compile(metrics=[...])`.

    Keeps sums per class and divides once, so that partial batches and replicas count for what they hold. In
    `weighted_metrics`, an example counts as much as its sample weight. It logs the keys of `shot_accuracy`.

    >>> metric = keras_lt.ShotAccuracy(class_counts=[500, 50, 5])
    >>> metric.update_state(y_true=[0, 1, 2], y_pred=[[9, 0, 0], [9, 0, 0], [0, 0, 9]])
    >>> {name: float(accuracy) for name, accuracy in metric.result().items()}
    {'many': 1.0, 'medium': 0.0, 'few': 1.0, 'all': 0.666..., 'class_mean': 0.666...}

    Args:
      class_counts: *training* images per class, [C].
    """

    def __init__(
        self,
        class_counts: np.ndarray | Sequence[int],
        *,
        many_above: int = MANY_SHOT_ABOVE,
        few_below: int = FEW_SHOT_BELOW,
        name: str = "shot_accuracy",
        dtype="float32",
    ):
        super().__init__(name=name, dtype=dtype)
        self._groups = shot_groups(class_counts, many_above=many_above, few_below=few_below)
        self.class_counts = [int(count) for count in class_counts]
        self.many_above = many_above
        self.few_below = few_below
        classes = len(self.class_counts)
        self.correct = self.add_variable(shape=(classes,), initializer="zeros", name="correct")
        self.total = self.add_variable(shape=(classes,), initializer="zeros", name="total")

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Counts a batch; a mixed label [B, 3] (`preprocessing.mixing`) as its larger part's class."""
        labels = keras.ops.cast(y_true, "int32")
        labels = labels[:, 0] if len(labels.shape) == 2 else labels
        # Not `==`, by which TensorFlow loses the shape where only one side's batch is known.
        hits = keras.ops.equal(keras.ops.cast(keras.ops.argmax(y_pred, axis=-1), "int32"), labels)
        weights = keras.ops.ones_like(labels) if sample_weight is None else keras.ops.reshape(sample_weight, (-1,))
        weights = keras.ops.cast(weights, self.dtype)
        for sums, values in (self.total, weights), (self.correct, keras.ops.where(hits, weights, 0.0)):
            sums.assign_add(keras.ops.segment_sum(values, labels, num_segments=len(self.class_counts)))

    def result(self):
        """The five accuracies of the examples so far."""
        correct, total = keras.ops.convert_to_tensor(self.correct), keras.ops.convert_to_tensor(self.total)
        return _accuracies(keras.ops, correct, total, self._groups)

    def get_config(self):
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "class_counts": self.class_counts,
            "many_above": self.many_above,
            "few_below": self.few_below,
        }


def _accuracies(xp, correct, total, groups):
    """The five accuracies, in NumPy or keras.ops (`xp`); every mean is a sum divided by a sum."""
    shown = xp.where(total > 0, 1.0, 0.0)
    accuracy = correct / xp.where(total > 0, total, 1.0)

    def mean(members):
        return xp.sum(xp.where(members, accuracy, 0.0)) / xp.sum(xp.where(members, shown, 0.0))

    return {
        **{name: mean(members) for name, members in groups.items()},
        "all": xp.sum(correct) / xp.sum(total),
        "class_mean": xp.sum(accuracy) / xp.sum(shown),
    }
