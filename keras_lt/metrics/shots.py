"""Accuracy over many-, medium- and few-shot classes, from arrays or as a Keras metric.

Groups go by the number of *training* images of a class. A group's accuracy is the unweighted mean of its
classes' accuracies; classes without an example in the evaluated split are left out, and a group with no class
left is NaN. The class mean, over all classes, is what others call balanced accuracy or macro recall.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence

import keras
import numpy as np

from keras_lt.arguments import as_array, as_numbers, as_operand, checked
from keras_lt.counts import number_per_class, refuse_shares
from keras_lt.labels import check_rows, ids_and_logits
from keras_lt.registry import check_numbers

UNNAMED = "shot_accuracy"  # what a metric is called whose keys stand alone
MANY_SHOT_ABOVE = 100  # training images; the paper's evaluation protocol
FEW_SHOT_BELOW = 20
# Cuts that papers group by, (many_above, few_below). Scores of groups that are cut otherwise do not compare.
SHOT_CUTS = {
    "kang": (MANY_SHOT_ABOVE, FEW_SHOT_BELOW),  # Kang et al. (ICLR 2020)
    "oltr": (99, 21),  # Liu et al. (CVPR 2019), by their code: many from 100 on, few up to 20
    "lvis": (100, 11),  # Gupta et al. (CVPR 2019): frequent above 100, rare up to 10
}


@checked
@dataclasses.dataclass(frozen=True, eq=False)
class ShotGroups(Mapping):
    """Which classes are many-, medium- and few-shot: a mapping from "many", "medium" and "few" to bool [C].

    >>> groups = keras_lt.ShotGroups([500, 50, 5])
    >>> groups["many"], groups.sizes
    (array([ True, False, False]), {'many': 1, 'medium': 1, 'few': 1})

    Attributes:
      class_counts: images per class of the training list, [C]; a class of which the number is not known, NaN, is in no
        group.
      many_above, few_below: both strict, so that by the defaults 100 and 20 images are medium-shot.
    Raises:
      ValueError: counts that are not a vector of numbers >= 0, or shares, or cuts that overlap.
    """

    class_counts: np.ndarray
    many_above: int = MANY_SHOT_ABOVE
    few_below: int = FEW_SHOT_BELOW

    def __post_init__(self):
        counts = number_per_class("class_counts", self.class_counts)
        if not counts.size or (counts < 0).any() or np.isinf(counts).any():
            expected = "[C], >= 0 and not infinite"
            raise ValueError(f"class_counts must be {expected}. Received: class_counts={self.class_counts}")
        refuse_shares("class_counts", counts)
        check_cuts(self.many_above, self.few_below)
        counts.flags.writeable = False
        object.__setattr__(self, "class_counts", counts)

    @classmethod
    def of(
        cls,
        groups: "ShotGroups | np.ndarray | Sequence[int]",
        *,
        many_above: int = MANY_SHOT_ABOVE,
        few_below: int = FEW_SHOT_BELOW,
    ) -> "ShotGroups":
        """The groups as they are, or those of training images per class, [C].

        Raises:
          ValueError: as for the constructor, or groups with cuts of their own are to have others.
        """
        if not isinstance(groups, ShotGroups):
            return cls(groups, many_above, few_below)
        cuts = many_above, few_below
        if cuts not in (groups.cuts, (MANY_SHOT_ABOVE, FEW_SHOT_BELOW)):
            raise ValueError(f"Groups have cuts of their own, {groups.cuts}. Received: many_above, few_below={cuts}")
        return groups

    @functools.cached_property
    def _members(self) -> dict[str, np.ndarray]:
        counts = self.class_counts
        return {
            "many": counts > self.many_above,
            "medium": (counts >= self.few_below) & (counts <= self.many_above),
            "few": counts < self.few_below,
        }

    def __getitem__(self, name: str) -> np.ndarray:
        return self._members[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ShotGroups) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple:
        return self.class_counts.astype(np.float64).tobytes(), self.cuts

    @property
    def cuts(self) -> tuple[int, int]:
        """`many_above` and `few_below`."""
        return self.many_above, self.few_below

    @property
    def sizes(self) -> dict[str, int]:
        """Classes in each group."""
        return {name: int(members.sum()) for name, members in self.items()}

    def accuracies(self, correct: np.ndarray, total: np.ndarray) -> dict[str, float]:
        """The accuracies of a split of which only per-class sums are left.

        Args:
          correct, total: evaluated examples per class, those predicted correctly and all, [C].
        Returns: {"many", "medium", "few", "all", "class_mean"} -> accuracy in [0, 1]. "all" is over examples, the
          others are unweighted means over classes with an example in the split, NaN where there is none.
        Raises:
          ValueError: shapes that differ, or counts that do not satisfy 0 <= correct <= total.
        """
        correct, total = as_numbers("correct", correct), as_numbers("total", total)
        if not correct.shape == total.shape == self.class_counts.shape:
            raise ValueError(
                "correct and total must be [C] as class_counts is. Received: "
                f"correct.shape={correct.shape}, total.shape={total.shape}, C={len(self.class_counts)}"
            )
        if not ((correct >= 0) & (correct <= total)).all():
            raise ValueError(f"0 <= correct <= total must hold. Received: correct={correct}, total={total}")
        with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN of an empty group
            accuracies = _accuracies(np, correct, total, self)
        return {name: float(accuracy) for name, accuracy in accuracies.items()}

    def of_predictions(self, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """The accuracies of a split, as `accuracies`.

        Args:
          predictions, labels: class ids of the evaluated split, [N].
        Raises:
          ValueError: lengths that differ, or ids outside of [0, C).
        """
        classes = len(self.class_counts)
        predictions, labels = as_array("predictions", predictions), as_array("labels", labels)
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
        return self.accuracies(
            np.bincount(labels[predictions == labels], minlength=classes), np.bincount(labels, minlength=classes)
        )


def check_cuts(many_above: int, few_below: int):
    """Raises ValueError where a class could be many- and few-shot at once."""
    check_numbers(many_above=many_above, few_below=few_below)
    if few_below > many_above:
        raise ValueError(
            f"few_below must not exceed many_above. Received: few_below={few_below}, many_above={many_above}"
        )


@checked
def shot_accuracy(
    predictions: np.ndarray,
    labels: np.ndarray,
    class_counts: ShotGroups | np.ndarray | Sequence[int],
    *,
    many_above: int = MANY_SHOT_ABOVE,
    few_below: int = FEW_SHOT_BELOW,
) -> dict[str, float]:
    """Mean per-class accuracy over many-, medium- and few-shot classes.

    >>> keras_lt.shot_accuracy([0, 0, 0, 2], [0, 0, 1, 2], class_counts=[500, 50, 5])
    {'many': 1.0, 'medium': 0.0, 'few': 1.0, 'all': 0.75, 'class_mean': 0.666...}

    Args:
      predictions, labels: class ids of the evaluated split, [N].
      class_counts: *training* images per class, [C], or the groups that were made of them.
    Returns: as `ShotGroups.accuracies`.
    Raises:
      ValueError: lengths that differ, or ids outside of [0, C).
    """
    return ShotGroups.of(class_counts, many_above=many_above, few_below=few_below).of_predictions(predictions, labels)


@keras.saving.register_keras_serializable("keras_lt")
@checked
class ShotAccuracy(keras.metrics.Metric):
    """`shot_accuracy` over batches of labels [B] and logits [B, C], for `model.compile(metrics=[...])`.

    Keeps sums per class and divides once, so that partial batches and replicas count for what they hold. In
    `weighted_metrics`, an example counts as much as its sample weight. It logs the keys of `shot_accuracy`. Labels may
    also be a column [B, 1], or one-hot rows [B, C].

    >>> metric = keras_lt.ShotAccuracy(class_counts=[500, 50, 5])
    >>> metric.update_state(y_true=[0, 1, 2], y_pred=[[9, 0, 0], [9, 0, 0], [0, 0, 9]])
    >>> {name: float(accuracy) for name, accuracy in metric.result().items()}
    {'many': 1.0, 'medium': 0.0, 'few': 1.0, 'all': 0.666..., 'class_mean': 0.666...}

    Args:
      class_counts: *training* images per class, [C], or the groups that were made of them.
      name: another than the default stands before the keys, "name_many": one of two metrics in a model needs it.
    """

    def __init__(
        self,
        class_counts: ShotGroups | np.ndarray | Sequence[int],
        *,
        many_above: int = MANY_SHOT_ABOVE,
        few_below: int = FEW_SHOT_BELOW,
        name: str = UNNAMED,
        dtype="float32",
    ):
        super().__init__(name=name, dtype=dtype)
        self.groups = ShotGroups.of(class_counts, many_above=many_above, few_below=few_below)
        classes = len(self.groups.class_counts)
        # Float32 counts to 2^24 and no further; JAX has no float64 unless it is told to.
        sums = {"shape": (classes,), "dtype": "float32" if keras.backend.backend() == "jax" else "float64"}
        self.correct = self.add_variable(initializer="zeros", name="correct", **sums)
        self.total = self.add_variable(initializer="zeros", name="total", **sums)

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Counts a batch."""
        classes = len(self.groups.class_counts)
        labels, y_pred = ids_and_logits(y_true, y_pred, classes=classes)
        # Not `==`, by which TensorFlow loses the shape where only one side's batch is known.
        is_correct = keras.ops.equal(keras.ops.cast(keras.ops.argmax(y_pred, axis=-1), "int32"), labels)
        weights = keras.ops.ones_like(labels) if sample_weight is None else as_operand("sample_weight", sample_weight)
        weights = keras.ops.reshape(weights, (-1,))
        check_rows(labels, weights.shape[0], "sample weight")
        weights = keras.ops.cast(weights, self.dtype)
        for sums, values in (self.total, weights), (self.correct, keras.ops.where(is_correct, weights, 0.0)):
            of_batch = keras.ops.segment_sum(values, labels, num_segments=classes)
            sums.assign_add(keras.ops.cast(of_batch, sums.dtype))

    def result(self):
        """The five accuracies of the examples so far."""
        correct, total = (keras.ops.cast(sums, self.dtype) for sums in (self.correct, self.total))
        accuracies = _accuracies(keras.ops, correct, total, self.groups)
        # Keras logs the keys of a dict as they are: another metric's would be taken for them.
        return accuracies if self.name == UNNAMED else {f"{self.name}_{key}": accuracies[key] for key in accuracies}

    def get_config(self):
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "class_counts": self.groups.class_counts.tolist(),
            "many_above": self.groups.many_above,
            "few_below": self.groups.few_below,
        }


def _accuracies(xp, correct, total, groups):
    """The five accuracies, in NumPy or keras.ops (`xp`); every mean is a sum divided by a sum."""
    accuracy = correct / xp.where(total > 0, total, 1.0)
    shown = xp.where(total > 0, xp.ones_like(accuracy), 0.0)

    def mean(members):
        return xp.sum(xp.where(members, accuracy, 0.0)) / xp.sum(xp.where(members, shown, 0.0))

    return {
        **{name: mean(members) for name, members in groups.items()},
        "all": xp.sum(correct) / xp.sum(total),
        "class_mean": xp.sum(accuracy) / xp.sum(shown),
    }
