"""The systems that are more than a loss or a head: those that the paper compares with, and experts that came later.

`METHODS` maps a name to the entry of a function that gives its hooks into both stages. A method ends as everything here
ends: a backbone, images -> features, and a classifier, features -> logits.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal

import numpy as np

from keras_lt.methods import balpoe, bbn, experts, fslwf, oltr, ride, sade
from keras_lt.registry import Entry, member
from keras_lt.stages import DECOUPLING

__all__ = ["METHODS", "MethodEntry", "balpoe", "bbn", "experts", "fslwf", "method_entry", "oltr", "ride", "sade"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodEntry(Entry):
    """A method: (**parameters) -> `stages.Hooks`.

    Attributes:
      own_row: whether it has a classifier of its own beside those of `classifiers.CLASSIFIERS`.
      takes: what of stage two's recipe that is trained by, beside epochs and learning rate.
      prior: the class distribution that its own classifier's logits take for granted, as `ClassifierEntry.prior`.
      stage_one_prior: (class_counts [C], **parameters) -> the one that stage one's classifier does, up to a factor;
        None is what its recipe leaves.
      aggregated: (kernel [E D, C] of its classifier, features of two views of test images [N, 2, E D]) -> the kernel
        for these images, and the weights of its experts [E]; None of a method that has no such thing.
    """

    own_row: bool = True
    takes: tuple[str, ...] = ()
    prior: Literal["stage_one", "stage_two", "uniform"] = "uniform"
    stage_one_prior: Callable[..., np.ndarray] | None = None
    aggregated: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None


METHODS: dict[str, MethodEntry] = {
    "decoupling": MethodEntry(lambda: DECOUPLING, label="Decoupling", own_row=False),
    "bbn": MethodEntry(bbn.hooks, label="BBN", prior="stage_one", stage_one_prior=np.ones_like),
    "oltr": MethodEntry(
        oltr.hooks, label="OLTR", takes=("sampler", "loss", "class_weights", "resampling"), prior="stage_two"
    ),
    "fslwf": MethodEntry(fslwf.hooks, label="FSLwF", takes=("loss",), prior="stage_two"),
    "balpoe": MethodEntry(balpoe.hooks, label="BalPoE", prior="stage_one", stage_one_prior=balpoe.prior),
    "sade": MethodEntry(
        sade.hooks, label="SADE", prior="stage_one", stage_one_prior=sade.prior, aggregated=sade.aggregated
    ),
    "ride": MethodEntry(ride.hooks, label="RIDE", prior="stage_one"),
}


def method_entry(method: str) -> MethodEntry:
    """The entry of a name in `METHODS`, with parameters such as "oltr:backbone_rate=0.01"."""
    return member(METHODS, method, what="method")
