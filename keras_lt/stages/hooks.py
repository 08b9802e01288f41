"""What a method changes of the two stages; without a change they are the paper's."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_lt import backbones
from keras_lt.classifiers import HeadEntry
from keras_lt.datasets import LongTailed
from keras_lt.input_pipeline import training_batches
from keras_lt.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Hooks:
    """Where a method comes in.

    Attributes:
      name: the method's.
      data: the data set -> what stage one learns of it.
      check_backbone: raises ValueError for a backbone that will not do.
      network: (the backbone, images -> features; *, whether it is pretrained) -> the one that is trained in its place;
        it may refuse what only the built net says.
      head: the classifier of stage one; None is the one that is asked for.
      training_model: (the model, images -> logits; class_counts [C]) -> the model around it that is fitted; the first
        is what is kept.
      batches: of stage one's training images, as `input_pipeline.training_batches`.
      callbacks: of stage one, by its recipe.
      finished: (stage one's model, the whole data set) -> the model that is kept.
      fixed: fields of stage one's recipe and arguments of `learn_representation` -> the values that the method takes.
      one_host: whether it trains on one host alone.
      check_classifier: raises ValueError for a recipe that its own classifier cannot be trained by.
      classifier: (representation, data, *, features, recipe, seed, strategy, folder) -> `stages.Classifier`, the
        method's own row in the table; None without one.
    """

    name: str = "decoupling"
    data: Callable[[LongTailed], LongTailed] = lambda data: data
    check_backbone: Callable[[backbones.BackboneEntry], None] = lambda backbone: None
    network: Callable[..., keras.Model] = lambda backbone, *, pretrained: backbone
    head: HeadEntry | None = None
    training_model: Callable[[keras.Model, np.ndarray], keras.Model] = lambda model, class_counts: model
    batches: Callable[..., tf.data.Dataset] = training_batches
    callbacks: Callable[[Recipe], Sequence[keras.callbacks.Callback]] = lambda recipe: ()
    finished: Callable[[keras.Model, LongTailed], keras.Model] = lambda model, data: model
    fixed: Mapping[str, Sequence] = dataclasses.field(default_factory=dict)
    one_host: bool = False
    check_classifier: Callable[[Recipe], None] = lambda recipe: None
    classifier: Callable | None = None

    @property
    def needs_images(self) -> bool:
        """Whether stage one is more than a classifier on the features of all training images."""
        changed = ("data", "network", "training_model", "batches")
        return any(getattr(self, hook) is not getattr(DECOUPLING, hook) for hook in changed)

    def check(self, **values):
        """Raises ValueError for the first value, of a recipe's field or an argument, that the method does not take."""
        for field, value in values.items():
            taken = self.fixed.get(field, (value,))
            if value not in taken:
                taken = " or ".join(map(repr, taken))
                raise ValueError(f"method={self.name} has {field}={taken} and no other. Received: {field}={value!r}")


DECOUPLING = Hooks()
