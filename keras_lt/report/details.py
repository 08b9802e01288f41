"""What the report shows beyond results.json."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from keras_lt.evaluation import Scores
from keras_lt.metrics import ShotGroups


@dataclasses.dataclass(frozen=True)
class RunDetails:
    """What a run's report draws; what is empty is left out of it.

    Attributes:
      class_names, class_counts: name and training examples of every class, [C].
      groups: many-, medium- and few-shot classes; classes are ranked by the list that these go by.
      per_class: classifier -> test accuracy per class in [0, 1], [C]; NaN for a class without a test example.
      curves: classifier -> points `{"tau", "many", "medium", "few", "all"}` measured on val.
      weight_norms: linear classifier -> norm of every class's weights, [C].
      flags: the resolved flags of the run, as a flag file has them.
      scores: classifier -> what it says of every test example, all of the same examples.
      exported: the classifier whose confidence and mistakes are shown; empty is the best.
      thumbnails: rows of the test split -> their images, small, uint8 [H, W, 3] each.
      val_examples: how many the val split has; 0 is not known.
      duplicates: two splits -> examples of the second that are in the first too.
    """

    class_names: Sequence[str]
    class_counts: np.ndarray
    groups: ShotGroups
    per_class: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    curves: Mapping[str, Sequence[Mapping[str, float | None]]] = dataclasses.field(default_factory=dict)
    weight_norms: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    flags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    scores: Mapping[str, Scores] = dataclasses.field(default_factory=dict)
    exported: str = ""
    thumbnails: Callable[[Sequence[int]], Sequence[np.ndarray]] | None = None
    val_examples: int = 0
    duplicates: Mapping[tuple[str, str], int] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        classes = len(self.class_counts)
        lengths = {"class_names": len(self.class_names), "groups": len(self.groups.class_counts)}
        lengths |= {f"per_class[{name!r}]": len(values) for name, values in self.per_class.items()}
        lengths |= {f"weight_norms[{name!r}]": len(values) for name, values in self.weight_norms.items()}
        for field, length in lengths.items():
            if length != classes:
                raise ValueError(
                    f"{field} must have one value per class, as class_counts has. "
                    f"Received: {length} values, {classes} class counts"
                )
        labels = [scored.labels for scored in self.scores.values()]
        for name, other in zip(self.scores, labels, strict=True):
            if not np.array_equal(other, labels[0]):
                raise ValueError(
                    "scores must all be of the same test examples. Received: other labels for "
                    f"'{name}' than for '{next(iter(self.scores))}'"
                )
