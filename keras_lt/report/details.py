"""What the report shows beyond results.json."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class RunDetails:
    """The arrays of one run that its plots draw; an empty mapping leaves its plot out.

    Attributes:
      class_names, class_counts: name and training images of every class, [C].
      per_class: classifier -> test accuracy per class in [0, 1], [C]; NaN for a class without a test image.
      curves: classifier -> points `{"tau", "many", "medium", "few", "all"}` measured on val, in order of tau.
      weight_norms: linear classifier -> norm of every class's weights, [C].
      flags: the resolved flags of the run.
    """

    class_names: Sequence[str]
    class_counts: np.ndarray
    per_class: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    curves: Mapping[str, Sequence[Mapping[str, float | None]]] = dataclasses.field(default_factory=dict)
    weight_norms: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    flags: Mapping[str, object] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        classes = len(self.class_counts)
        lengths = {"class_names": len(self.class_names)}
        lengths |= {f"per_class[{name!r}]": len(values) for name, values in self.per_class.items()}
        lengths |= {f"weight_norms[{name!r}]": len(values) for name, values in self.weight_norms.items()}
        for field, length in lengths.items():
            if length != classes:
                raise ValueError(
                    f"{field} must have one value per class, as class_counts has. "
                    f"Received: {length} values, {classes} class counts"
                )
