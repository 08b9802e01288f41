"""The systems that the paper compares with and that are more than a loss or a head.

`METHODS` maps a name to how its representation is learned and how its own classifier is, on that representation. A
method ends as everything here ends: a backbone, images -> features, and a classifier, features -> logits.
"""

import dataclasses
import functools
from collections.abc import Callable

from keras_lt.methods import bbn, fslwf, oltr
from keras_lt.stages import learn_representation


@dataclasses.dataclass(frozen=True)
class Method:
    """How a system is learned.

    Attributes:
      learn_representation: as `stages.learn_representation`.
      learn_classifier: (representation, data, *, features, recipe, seed, strategy, folder) -> `stages.Classifier`, the
        method's row in the table; None where there is no other than those of `classifiers.CLASSIFIERS`.
      head: (width, units, *, seed) -> the classifier of its representation; None is the dense one, or the loss's.
    """

    learn_representation: Callable
    learn_classifier: Callable | None
    head: Callable | None = None

    @property
    def has_own_representation(self) -> bool:
        """Whether stage one is another than that of `stages`."""
        return self.learn_representation is not learn_representation


METHODS: dict[str, Method] = {
    "decoupling": Method(learn_representation, None),
    "bbn": Method(bbn.learn_representation, bbn.learn_classifier),
    "oltr": Method(learn_representation, oltr.learn_classifier),
    "oltr_frozen": Method(  # as OLTR on Places-LT
        learn_representation,
        functools.partial(oltr.learn_classifier, train_backbone=False, backbone_rate=0.01, centroids_rate=1.0),
    ),
    "fslwf": Method(fslwf.learn_representation, fslwf.learn_classifier, fslwf.fresh_head),
}
