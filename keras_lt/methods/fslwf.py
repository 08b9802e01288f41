"""FSLwF: a generator writes the classifier's weights of rare classes (Gidaris & Komodakis, CVPR 2018).

"Dynamic Few-Shot Visual Learning without Forgetting" knows base classes, with many images, and novel ones, with few.
Stage one learns backbone and cosine classifier on the base classes alone. Stage two, on features, plays episodes in
which some base classes are taken for novel: the generator is to write weights for them that stand beside the others'.
At the end it writes those of the classes that are novel indeed, from all of their images.

The reference's last block has no ReLU, so that cosines can be negative; the backbones here keep theirs.
"""

import dataclasses
import functools
import os

import keras
import numpy as np
from keras import ops

from keras_lt.classifiers import HeadEntry
from keras_lt.classifiers.dense import Head, copied, safe_norms
from keras_lt.datasets import LongTailed, Split
from keras_lt.distribution import Strategy, is_first, make_strategy
from keras_lt.features import FeatureSet
from keras_lt.input_pipeline import Stream
from keras_lt.methods.episodes import EXEMPLARS, episode_batches
from keras_lt.recipe import Recipe
from keras_lt.saving import SavedByArguments
from keras_lt.stages import Classifier, Hooks, Representation, building, check_own_classifier, fit, join

SCALE = 10.0  # of the classifier, at first
ATTENTION_SCALE = 30.0  # at first; the reference's on ImageNet
NOWHERE = -1e9  # logit of a class that plays no part
CLASSES_AT_ONCE = 64  # whose examples are in memory when their weights are generated


@keras.saving.register_keras_serializable("keras_lt")
class CosineHead(Head):
    """Logits scale * (cos(features, class weights) + bias), [B, D] -> [B, C], with a scale and a bias for all classes.

    All three are trained. A softmax does not see the bias, which therefore stays at 0.
    """

    def build(self, input_shape):
        """Makes scale, bias and room for the kernel [D, C]; `fresh_head` fills it."""
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), initializer="zeros", name="kernel")
        self.scale = self.add_weight(shape=(), initializer=keras.initializers.Constant(SCALE), name="scale")
        self.bias = self.add_weight(shape=(), initializer="zeros", name="bias")

    def call(self, features):
        """Features [B, D] -> logits [B, C]."""
        return self.score(features, self.kernel)

    def score(self, features, kernel):
        """Logits [B, C] by other class weights, kernel [D, C]."""
        cosines = ops.matmul(features / safe_norms(features, axis=-1), kernel / safe_norms(kernel, axis=0))
        return self.scale * (cosines + self.bias)


@keras.saving.register_keras_serializable("keras_lt")
class WeightGenerator(SavedByArguments, keras.layers.Layer):
    """Class weights from a few examples of each class, and from the weights of the base classes that these resemble.

    phi_avg * mean of the examples' directions + phi_att * mean of what they attend to: each example asks, by a linear
    map of its direction, the learned keys of the base classes, and gets their weights' directions, mixed.

    Args:
      base_classes: K, those with a key.
    """

    def __init__(self, base_classes: int, *, dtype="float32", **kwargs):
        super().__init__(dtype=dtype, **kwargs)
        self.base_classes = base_classes

    def build(self, input_shape):
        """Makes the map to queries, at first almost the identity, keys [K, D], attention scale and both phi [D]."""
        width = input_shape[-1]
        noise, drawn = (keras.initializers.RandomNormal(stddev=stddev) for stddev in (0.001, (2 / width) ** 0.5))
        self.query_kernel = self.add_weight(
            shape=(width, width),
            initializer=lambda shape, dtype: ops.eye(*shape, dtype=dtype) + noise(shape, dtype),
            name="query_kernel",
        )
        self.query_bias = self.add_weight(shape=(width,), initializer="zeros", name="query_bias")
        self.keys = self.add_weight(shape=(self.base_classes, width), initializer=drawn, name="keys")
        self.attention_scale = self.add_weight(
            shape=(), initializer=keras.initializers.Constant(ATTENTION_SCALE), name="attention_scale"
        )
        self.phi_avg = self.add_weight(shape=(width,), initializer="ones", name="phi_avg")
        self.phi_att = self.add_weight(shape=(width,), initializer="ones", name="phi_att")

    def call(self, features, one_hot, base_weights, present=None):
        """Generates class weights.

        Args:
          features: of the examples, [M, D].
          one_hot: their classes, [M, K_novel].
          base_weights: [K, D].
          present: the base classes to attend to, bool [K]; None for all.
        Returns: [K_novel, D]; zeros for a class without an example.
        """
        directions = features / safe_norms(features, axis=-1)
        queries = ops.matmul(directions, self.query_kernel) + self.query_bias
        keys = self.keys / safe_norms(self.keys, axis=-1)
        alike = self.attention_scale * ops.matmul(queries / safe_norms(queries, axis=-1), ops.transpose(keys))
        if present is not None:
            alike = ops.where(present, alike, NOWHERE)
        shares = ops.transpose(one_hot / ops.maximum(ops.sum(one_hot, axis=0), 1))  # [K_novel, M]
        attention = ops.matmul(shares, ops.softmax(alike))
        attended = ops.matmul(attention, base_weights / safe_norms(base_weights, axis=-1))
        return self.phi_avg * ops.matmul(shares, directions) + self.phi_att * attended


class Episodes(keras.Model):
    """Trains head and generator: an episode, or plain features [B, D] to validate the head, -> logits [B, C].

    Args:
      base: bool [C].
    """

    def __init__(self, head: CosineHead, generator: WeightGenerator, base: np.ndarray):
        super().__init__(name="episodes")
        self.head = head
        self.generator = generator
        self.base = base
        self.built = True

    def call(self, inputs):
        """In an episode {queries [B, D], support [M, D], support_labels [M]}, classes with support are novel ones."""
        if not isinstance(inputs, dict):
            return self.head(inputs)
        weights = ops.transpose(self.head.kernel)
        one_hot = ops.one_hot(inputs["support_labels"], len(self.base), dtype=weights.dtype)
        novel = ops.any(one_hot > 0, axis=0)
        present = ops.logical_and(self.base, ops.logical_not(novel))
        generated = self.generator(inputs["support"], one_hot, weights, present)
        weights = ops.where(ops.expand_dims(novel, -1), generated, weights)
        return ops.where(self.base, self.head.score(inputs["queries"], ops.transpose(weights)), NOWHERE)


def base_classes(data: LongTailed) -> np.ndarray:
    """Which classes are base classes, the many-shot ones, bool [C].

    Raises:
      ValueError: fewer than two are, or all; one has too few images for an episode; or a split has no image of one.
    """
    base = data.groups["many"]
    if base.sum() < 2 or base.all():
        raise ValueError(
            f"method=fslwf needs two or more base classes, with more than {data.many_above} training images each, and "
            f"classes with fewer. Received: {base.sum()} base classes of {len(base)} in {data.name}"
        )
    fewest = data.class_counts[base].min()
    if fewest <= EXEMPLARS:
        raise ValueError(
            f"method=fslwf needs more than {EXEMPLARS} training images of every base class: so many are an episode's "
            f"examples of a class. Received: {fewest} of one in {data.name}"
        )
    for name, split in data.splits.items():
        if not base[split.labels].any():
            raise ValueError(
                "method=fslwf needs images of base classes in every split. "
                f"Received: none among the {len(split)} of {name} in {data.name}"
            )
    return base


def hooks() -> Hooks:
    """What FSLwF changes: backbone and cosine head learn the base classes alone; a generator knows the others."""
    return Hooks(
        name="fslwf",
        fixed={"accumulate_steps": (1,)},  # a step is one episode
        data=lambda data: only_classes(data, base_classes(data)),
        head=HeadEntry(fresh_head, label="FSLwF's cosine"),
        finished=with_room_for_novel_classes,
        check_classifier=functools.partial(check_own_classifier, "fslwf"),
        classifier=learn_classifier,
    )


def with_room_for_novel_classes(model: keras.Model, data: LongTailed) -> keras.Model:
    """A model of the base classes, images -> logits, with logits of all C classes; the novel ones' weights are zero."""
    base = base_classes(data)
    base_kernel, *scale_and_bias = model.get_layer("classifier").get_weights()
    kernel = np.zeros((len(base_kernel), len(base)), np.float32)
    kernel[:, base] = base_kernel
    whole = CosineHead(len(base), name="classifier")
    whole.build((None, len(kernel)))
    whole.set_weights([kernel, *scale_and_bias])
    return join(model.get_layer("backbone"), whole)


def fresh_head(width: int, units: int, *, seed: int) -> CosineHead:
    """A trainable cosine head on features [B, width], with weights N(0, 2 / width) as the reference's."""
    head = CosineHead(units)
    head.build((None, width))
    head.kernel.assign(np.random.default_rng(seed).normal(0, (2 / width) ** 0.5, head.kernel.shape))
    return head


def only_classes(data: LongTailed, chosen: np.ndarray) -> LongTailed:
    """The data set of some of the classes, bool [C], which are numbered anew."""
    numbers = np.cumsum(chosen) - 1

    def part(split: Split) -> Split:
        kept = split.subset(np.flatnonzero(chosen[split.labels]))
        return dataclasses.replace(kept, labels=numbers[kept.labels])

    names = tuple(name for name, kept in zip(data.class_names, chosen, strict=True) if kept)
    splits = {name: part(split) for name, split in data.splits.items()}
    return dataclasses.replace(data, class_names=names, listed_counts=data.listed_counts[chosen], **splits)


def learn_classifier(
    representation: Representation,
    data: LongTailed,
    *,
    features: dict[str, FeatureSet],
    recipe: Recipe,
    seed: int,
    strategy: Strategy,
    folder: str | os.PathLike | None,
) -> Classifier:
    """Stage two: trains base weights, scale and generator by episodes, then generates the novel classes' weights.

    Args:
      representation: of `learn_representation`; its backbone stays as it is.
      features: of the representation's backbone, "train" and "val".
      recipe: a step is an episode of `batch_size` queries. Episodes draw classes in their own way, so sampler and
        class weights play no part.
      seed: of the generator's initial weights and of the episodes.
      strategy: an episode is not divided; one device trains.
      folder: as in `stages.learn_classifier`.
    Raises:
      ValueError: as `base_classes`, a representation without FSLwF's head, or a recipe that does not fit.
    """
    base = base_classes(data)
    check_own_classifier("fslwf", recipe)
    hooks().check(accumulate_steps=recipe.accumulate_steps)
    if not isinstance(representation.head, CosineHead):
        raise ValueError(
            "method=fslwf needs a representation that it has learned itself. "
            f"Received: one with a head of type {type(representation.head).__name__}"
        )
    width, classes = representation.head.kernel.shape
    one_device = make_strategy("none")
    with building(one_device, seed=seed):
        head = copied(representation.head, trainable=True)
        generator = WeightGenerator(classes, name="generator")
        generator.build((None, width))
        model = Episodes(head, generator, base)

    def add_novel_classes(logs: dict | None = None):
        head.kernel.assign(with_novel_classes(head, generator, features["train"], base))

    fit(
        model,
        functools.partial(episode_batches, features["train"], base),
        lambda batch_size: features["val"].evaluation_batches(batch_size=batch_size),
        stream=Stream(recipe, data.class_counts, seed),
        groups=data.groups,
        val_examples=len(data.val),
        strategy=one_device,
        folder=folder if is_first(strategy) else None,
        trained_on=features["train"].as_split,
        callbacks=[keras.callbacks.LambdaCallback(on_test_begin=add_novel_classes)],
    )
    add_novel_classes()  # by the weights that were kept, which a moving average may have replaced
    return Classifier.settled(head, representation.backbone, features["val"], data.groups)


def with_novel_classes(head: CosineHead, generator: WeightGenerator, train: FeatureSet, base: np.ndarray) -> np.ndarray:
    """The head's kernel [D, C] with the columns of novel classes generated from all of their training features."""
    kernel = np.array(ops.convert_to_numpy(head.kernel))
    novel = np.flatnonzero(~base)
    for group in np.array_split(novel, -(-len(novel) // CLASSES_AT_ONCE)):
        rows = np.flatnonzero(np.isin(train.labels, group))
        one_hot = (train.labels[rows, np.newaxis] == group).astype(np.float32)
        support = np.asarray(train.features[rows], np.float32)
        kernel[:, group] = ops.convert_to_numpy(generator(support, one_hot, kernel.T, base)).T
    return kernel
