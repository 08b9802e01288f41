"""OLTR: a memory of class centroids lends its knowledge to the features of rare classes (Liu et al., CVPR 2019).

Its first stage is plain softmax training, so what is here is the second: attention on the last feature map, and the
meta-embedding classifier with its memory. On OLTR's own stage one this is OLTR, on Kang et al.'s it is their OLTR**.
"""

import functools
import os

import keras
from keras import ops

from keras_lt.backbones import BackboneEntry, feature_map, pooled
from keras_lt.classifiers import NearestClassMean, fold
from keras_lt.classifiers.dense import Head, safe_norms
from keras_lt.datasets import LongTailed
from keras_lt.distribution import Strategy
from keras_lt.features import FeatureSet, extract_features
from keras_lt.labels import ids_and_features
from keras_lt.recipe import Recipe
from keras_lt.registry import check_numbers
from keras_lt.stages import (
    Classifier,
    Hooks,
    Representation,
    WithFeatureLoss,
    building,
    check_hosts,
    check_own_classifier,
    copy_of,
    fit_on_images,
    join,
)

REACH = 10.0  # over the distance to the nearest centroid: what a feature is multiplied by
SCALE = 16.0  # of the cosine-norm logits
REPEL_BELOW = 10.0  # mean squared distance to the other centroids
REPEL_WEIGHT = 0.01
CENTROID_LOSS_WEIGHT = 0.01


@keras.saving.register_keras_serializable("keras_lt")
class ModulatedAttention(keras.layers.Layer):
    """Adds to a feature map what its positions tell one another, where it matters: [B, h, w, D] -> [B, h, w, D].

    f + spatial * self_attention(f): the self-attention is an embedded Gaussian on D / 2 channels, `spatial` a softmax
    over the h * w positions, computed by one linear map of the whole feature map, whose size is therefore fixed.
    """

    def __init__(self, *, dtype="float32", **kwargs):
        super().__init__(dtype=dtype, **kwargs)

    def build(self, input_shape):
        """Makes the linear maps.

        Raises:
          ValueError: the size of the feature map is not known.
        """
        _, height, width, depth = input_shape
        if None in (height, width):
            raise ValueError(f"The feature map must have a fixed size [B, h, w, D]. Received: shape {input_shape}")
        self.value, self.query, self.key = (self._dense(depth // 2, name=name) for name in ("value", "query", "key"))
        self.context = self._dense(depth, name="context", use_bias=False)
        self.spatial = _linear(height * width, height * width * depth, name="spatial", dtype=self.dtype_policy)
        for layer in (self.value, self.query, self.key):
            layer.build((None, None, depth))
        self.context.build((None, None, depth // 2))
        self.spatial.build((None, height * width * depth))

    def call(self, feature_map):
        """Feature map [B, h, w, D] -> [B, h, w, D]."""
        _, height, width, depth = feature_map.shape
        positions = ops.reshape(feature_map, (-1, height * width, depth))
        alike = ops.matmul(self.query(positions), ops.transpose(self.key(positions), (0, 2, 1)))
        context = self.context(ops.matmul(ops.softmax(alike), self.value(positions)))
        spatial = ops.softmax(self.spatial(ops.reshape(feature_map, (-1, height * width * depth))))
        added = ops.expand_dims(spatial, -1) * context
        return feature_map + ops.reshape(added, (-1, height, width, depth))

    def _dense(self, units: int, **options) -> keras.layers.Dense:
        """Drawn as the reference draws all convolutions: it re-draws these too, so that none of them begins at zero."""
        initializer = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
        return keras.layers.Dense(units, kernel_initializer=initializer, dtype=self.dtype_policy, **options)


@keras.saving.register_keras_serializable("keras_lt")
class MetaEmbedding(Head):
    """OLTR's classifier, features [B, D] -> logits [B, C], on a memory of one centroid [D] per class.

    A feature v becomes reach * (v + tanh(selector(v)) * softmax(hallucinator(v)) @ centroids): the memory adds what it
    knows of the classes that v resembles, and features far from all centroids are made small. The cosine-norm
    classifier then scores 16 |v| / (1 + |v|) cos(v, class weights).

    The centroids are a trainable weight that logits have no gradient to: `centroid_loss` moves them.
    """

    def build(self, input_shape):
        """Makes the memory [C, D], hallucinator, selector and kernel [D, C]."""
        width = input_shape[-1]
        self.centroids = self.add_weight(shape=(self.units, width), initializer="zeros", name="centroids")
        self.hallucinator = _linear(self.units, width, name="hallucinator", dtype=self.dtype_policy)
        self.selector = _linear(width, width, name="selector", dtype=self.dtype_policy)
        self.hallucinator.build(input_shape)
        self.selector.build(input_shape)
        self.kernel = self.add_weight(shape=(width, self.units), initializer=_uniform(width), name="kernel")

    def call(self, features):
        """Features [B, D] -> logits [B, C]."""
        memory = self._memory()
        # The nearest centroid is found by products, so that no [B, C, D] is ever in memory; its distance is exact.
        squares = ops.sum(ops.square(memory), axis=-1) - 2 * ops.matmul(features, ops.transpose(memory))
        nearest = ops.take(memory, ops.argmin(squares, axis=-1), axis=0)
        reach = REACH / safe_norms(features - nearest, axis=-1)
        return self.cosine_norm(reach * (features + self.infused(features)))

    def infused(self, features):
        """What the memory adds to features, [B, D] -> [B, D]."""
        recalled = ops.matmul(ops.softmax(self.hallucinator(features)), self._memory())
        return ops.tanh(self.selector(features)) * recalled

    def cosine_norm(self, features):
        """The cosine-norm classifier alone, [B, D] -> [B, C]."""
        squashed = features / (1 + safe_norms(features, axis=-1))
        return SCALE * ops.matmul(squashed, self.kernel / safe_norms(self.kernel, axis=0))

    def _memory(self):
        return ops.stop_gradient(ops.convert_to_tensor(self.centroids))


def _uniform(width: int) -> keras.initializers.Initializer:
    limit = width**-0.5
    return keras.initializers.RandomUniform(-limit, limit)


def _linear(units: int, width: int, **options) -> keras.layers.Dense:
    """A dense layer on [B, width], its weights and bias U(-1/sqrt(width), 1/sqrt(width)) as the reference's."""
    return keras.layers.Dense(units, kernel_initializer=_uniform(width), bias_initializer=_uniform(width), **options)


def centroid_loss(labels, features, centroids):
    """Draws features and the centroids of their classes together, and away from the other centroids.

    ||f - c_y||^2 / 2 + .01 max(0, 10 - mean squared distance of features to the other centroids), where the second
    term, one number of the batch, divides by all C. A centroid's gradient from the first term is divided by 1 + the
    examples of its class in the batch (the reference's own rule, after center loss), so frequent classes do not hurry.

    Args:
      labels: class ids, [B].
      features: [B, D].
      centroids: [C, D].
    Returns: loss per example, [B]; its mean is the published loss of the batch.
    """
    centroids = ops.convert_to_tensor(centroids)
    classes = centroids.shape[0]
    labels, features = ids_and_features(labels, features, classes=classes)
    counts = ops.sum(ops.one_hot(labels, classes, dtype=centroids.dtype), axis=0)
    # The same value with 1 / (1 + count) of the gradient.
    slowed = ops.stop_gradient(centroids)
    slowed = slowed + (centroids - slowed) / (1 + ops.expand_dims(counts, -1))
    attract = _square(features - ops.take(slowed, labels, axis=0)) / 2
    # Squared distances to all centroids, summed without a [B, C] of them, less that to the own one.
    to_all = (
        classes * _square(features) + ops.sum(_square(centroids)) - 2 * ops.matmul(features, ops.sum(centroids, axis=0))
    )
    to_others = to_all - _square(features - ops.take(centroids, labels, axis=0))
    return attract + REPEL_WEIGHT * ops.relu(REPEL_BELOW - ops.mean(to_others) / classes)


def _square(vectors):
    return ops.sum(ops.square(vectors), axis=-1)


def hooks(*, train_backbone: bool = True, backbone_rate: float = 0.1, centroids_rate: float = 0.1) -> Hooks:
    """What OLTR changes: stage one is the plain one, its classifier is `learn_classifier`'s; arguments as there."""
    rates = {"backbone_rate": backbone_rate, "centroids_rate": centroids_rate}
    check_numbers(**rates)
    return Hooks(
        name="oltr",
        check_backbone=check_backbone,
        network=with_feature_map,
        fixed={"mixup": (0,), "cutmix": (0,), "accumulate_steps": (1,)},
        one_host=True,  # the centroid loss is of a whole batch
        check_classifier=functools.partial(check_own_classifier, "oltr", on_images=True),
        classifier=functools.partial(learn_classifier, train_backbone=train_backbone, **rates),
    )


def check_backbone(backbone: BackboneEntry):
    """Raises ValueError for a backbone that is known to pool no feature map, which attention is on."""
    if not backbone.pools_map:
        raise ValueError(
            "backbone of method=oltr must give a feature map [B,h,w,D], which is averaged. "
            f"Received: backbone={backbone.label}, pooling={backbone.pooling}"
        )


def with_feature_map(backbone: keras.Model, *, pretrained: bool) -> keras.Model:
    """The same backbone, once it is known to pool a feature map."""
    feature_map(backbone)
    return backbone


def learn_classifier(
    representation: Representation,
    data: LongTailed,
    *,
    features: dict[str, FeatureSet],
    recipe: Recipe,
    seed: int,
    strategy: Strategy,
    folder: str | os.PathLike | None,
    train_backbone: bool = True,
    backbone_rate: float = 0.1,
    centroids_rate: float = 0.1,
) -> Classifier:
    """OLTR's stage two: trains a copy of the backbone with attention, the memory and the classifier, end to end.

    The memory begins with the class means of the training features, the hallucinator with stage one's classifier.

    Args:
      features: of the representation's backbone, "train" among them.
      recipe: OLTR's has sampler class_balanced.
      seed, strategy, folder: as in `stages.learn_classifier`.
      train_backbone: or only the attention on it. What stage one froze stays frozen.
      backbone_rate, centroids_rate: learning rates, of the backbone with its attention and of the memory, over the
        classifier's. OLTR's are .1 and .1 on ImageNet-LT, and .01 and 1 on Places-LT, with the backbone not trained.
    Raises:
      ValueError: several hosts, images of two classes, or a recipe that does not fit.
    """
    own = hooks()
    check_hosts(strategy, recipe, own)
    own.check_classifier(recipe)
    mixing = {name: getattr(representation.preprocessing, name) for name in ("mixup", "cutmix")}
    own.check(accumulate_steps=recipe.accumulate_steps, **mixing)
    means = NearestClassMean(len(data.class_names), transform="un")
    means.adapt(features["train"].features, features["train"].labels)
    with building(strategy, seed=seed):
        backbone = with_attention(representation.backbone, trainable=train_backbone)
        head = MetaEmbedding(len(data.class_names), name="classifier")
        model = join(backbone, head)
        head.centroids.assign(means.means)
        if (affine := fold(representation.head)) is not None:
            head.hallucinator.set_weights(affine)
        trained = WithFeatureLoss(
            model, lambda labels, batch: centroid_loss(labels, batch, head.centroids), weight=CENTROID_LOSS_WEIGHT
        )
    rates = {variable.path: backbone_rate for variable in backbone.trainable_variables}
    fit_on_images(
        trained,
        data,
        representation.preprocessing,
        recipe=recipe,
        seed=seed,
        multipliers=rates | {head.centroids.path: centroids_rate},
        strategy=strategy,
        folder=folder,
    )
    val = extract_features(backbone, data.val, representation.preprocessing)
    return Classifier.settled(head, backbone, val, data.groups)


def with_attention(backbone: keras.Model, *, trainable: bool = True) -> keras.Model:
    """A copy of a backbone with fresh attention on its last feature map: images [B, S, S, 3] -> features [B, D].

    Args:
      trainable: whether any of the copy is; the attention is.
    """
    body = feature_map(copy_of(backbone))
    if not trainable:
        body.trainable = False
    return pooled(body.input, ModulatedAttention(name="attention")(body.output), name=backbone.name)
