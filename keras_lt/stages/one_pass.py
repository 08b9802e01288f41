"""Stage two on images: a frozen backbone runs once for all classifiers that are trained on the same images."""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_lt.compat import layers_within
from keras_lt.datasets import LongTailed, Split
from keras_lt.distribution import Strategy, hosts
from keras_lt.features import FeatureSet, backbone_hash, examples_hash
from keras_lt.files import atomic, expanded
from keras_lt.forward import forward_pass
from keras_lt.input_pipeline import Stream, draws, mapped, prefetched, training_batches, weighted
from keras_lt.preprocessing import Preprocessing
from keras_lt.recipe import Recipe
from keras_lt.saving import SavedByArguments
from keras_lt.stages.fitting import fit_on_images

IMAGES, FEATURES = "images", "features"  # what a `ThroughFrozen` takes
MOST_OF_THE_DISK = 0.5  # of what is free, for the features of an epoch


@dataclasses.dataclass(frozen=True)
class OnePass:
    """Where classifiers that are trained one after another leave one another the features of their augmented images.

        one_pass = keras_lt.stages.OnePass("drawn", others=[recipe])
        keras_lt.learn_classifier("crt", representation, data, recipe=recipe, stage_two="images", one_pass=one_pass)

    An epoch is a file, which whoever comes to the epoch first writes while it is trained, and others read: the backbone
    runs as often as for the longest of them. Epochs that are not on the disk are computed, to the same numbers.

    Attributes:
      folder: of the files, 4 D bytes for each image of an epoch. They may be removed when all are trained.
      others: the recipes of the classifiers still to come; epochs in which one of them draws the same are left to it.
    """

    folder: str | os.PathLike
    others: Sequence[Recipe] = ()


def fit_through_frozen(
    backbone: keras.Model,
    layer: keras.layers.Layer,
    data: LongTailed,
    preprocessing: Preprocessing,
    *,
    val: FeatureSet,
    strategy: Strategy,
    one_pass: OnePass | None,
    **options,
) -> list[dict[str, float]]:
    """`fit_on_images` of a built classifier, features -> logits, on a backbone that stays as it is.

    Args:
      val: the backbone's features of val.
      one_pass: where other classifiers find the features of the same images; None leaves none.
    """
    # Data parallelism over hosts runs a net in a fit alone, and other backends none beside one.
    if not hosts(strategy).one_host or keras.backend.backend() != "tensorflow":
        one_pass = None

    def val_batches(split, preprocessing, **share):
        return _named(FEATURES, val.evaluation_batches(**share))

    with _frozen(backbone):
        with strategy.scope():
            model = ThroughFrozen(backbone, layer)
        batches = functools.partial(_batches, backbone=backbone, strategy=strategy, one_pass=one_pass)
        return fit_on_images(
            model, data, preprocessing, batches=batches, val_batches=val_batches, strategy=strategy, **options
        )


@contextlib.contextmanager
def _frozen(model: keras.Model) -> Iterator[None]:
    """Inside, nothing of the model is trained, neither weights nor statistics; afterwards what was trained before."""
    parts = [model, *layers_within(model), *model.variables]
    trained = [part.trainable for part in parts]
    model.trainable = False
    try:
        yield
    finally:
        for part, before in zip(parts, trained, strict=True):
            part.trainable = before


@keras.saving.register_keras_serializable("keras_lt")
class ThroughFrozen(SavedByArguments, keras.Model):
    """Trains a classifier on images through a frozen backbone, or on features of it.

    Args:
      backbone: images [B, S, S, 3] -> features [B, D], always in inference mode.
      classifier: a built layer, features -> logits [B, C].
    """

    def __init__(self, backbone: keras.Model, classifier: keras.layers.Layer):
        super().__init__(autocast=False)
        self.backbone, self.classifier = backbone, classifier
        self.built = True

    def call(self, inputs, training=False):
        """{IMAGES: [B, S, S, 3]} or {FEATURES: [B, D]} -> logits [B, C]."""
        if FEATURES in inputs:
            features = inputs[FEATURES]
        else:
            features = keras.ops.stop_gradient(self.backbone(inputs[IMAGES], training=False))
        return self.classifier(features, training=training)


def _named(name: str, batches: tf.data.Dataset) -> tf.data.Dataset:
    """Batches whose inputs go by a name."""
    return mapped(batches, lambda inputs, *rest: ({name: inputs}, *rest))


def _batches(
    split: Split,
    preprocessing: Preprocessing,
    stream: Stream,
    *,
    backbone: keras.Model,
    strategy: Strategy,
    one_pass: OnePass | None,
) -> tf.data.Dataset:
    """`input_pipeline.training_batches`, of {IMAGES: ...} or of the {FEATURES: ...} of the same images."""
    recipe = stream.recipe
    first, inside = divmod(stream.start_step, recipe.steps(len(split)))
    epochs = None
    if one_pass is not None and not inside:  # inside an epoch begins nothing but a look at a bad batch
        epochs = _shared_epochs(one_pass, backbone, split, preprocessing, stream)
    if epochs is None:
        return _named(IMAGES, training_batches(split, preprocessing, stream))
    unweighted = dataclasses.replace(recipe, class_weights="none", class_weights_from=0)

    def images_of(start_step):
        own = dataclasses.replace(stream, recipe=unweighted, start_step=start_step)
        return training_batches(split, preprocessing, own)

    labels_spec = images_of(stream.start_step).element_spec[1]
    features_spec = tf.TensorSpec((recipe.micro_batch, backbone.output_shape[-1]), tf.float32)
    forward = _forward(backbone, preprocessing.image_size, strategy)

    def computed(start_step):
        for images, labels in images_of(start_step):
            yield [forward(images), *(part.numpy() for part in tf.nest.flatten(labels))]

    def drawn():
        for features, *labels in epochs.batches(computed, first=first, parts=1 + len(tf.nest.flatten(labels_spec))):
            yield {FEATURES: features}, tf.nest.pack_sequence_as(labels_spec, labels)

    batches = tf.data.Dataset.from_generator(drawn, output_signature=({FEATURES: features_spec}, labels_spec))
    count = (recipe.epochs - first) * epochs.steps * recipe.accumulate_steps
    batches = batches.apply(tf.data.experimental.assert_cardinality(count))
    return prefetched(weighted(batches, split.labels, stream))


def _forward(backbone: keras.Model, size: int, strategy: Strategy) -> Callable[[tf.Tensor], np.ndarray]:
    """The backbone compiled, images [B, size, size, 3] -> features [B, D]; every device has its part of a batch."""
    if strategy.num_replicas_in_sync == 1:
        return forward_pass(backbone, (size, size, 3))

    def features(images):
        return tf.cast(backbone(images, training=False), tf.float32)

    on_devices = tf.function(lambda images: strategy.run(features, (images,)))

    def forward(images):
        parts = tf.split(images, strategy.num_replicas_in_sync)
        own = strategy.experimental_distribute_values_from_function(lambda of: parts[of.replica_id_in_sync_group])
        return np.concatenate([part.numpy() for part in strategy.experimental_local_results(on_devices(own))])

    return forward


@dataclasses.dataclass(frozen=True)
class _Epochs:
    """The epochs of one classifier.

    Attributes:
      folder, key: by which an epoch's file is found.
      recipe: the classifier's.
      steps: of an epoch.
      size: bytes of an epoch.
      wanted: the first epochs, as many as others are still to draw.
    """

    folder: pathlib.Path
    key: str
    recipe: Recipe
    steps: int
    size: int
    wanted: int

    def path(self, epoch: int) -> pathlib.Path:
        """An epoch's file: its batches one after the other, features and then labels."""
        return self.folder / f"{self.key}-{epoch + 1:05d}.npy"

    def batches(self, computed: Callable[[int], Iterator[list[np.ndarray]]], *, first: int, parts: int):
        """The batches of all epochs from one on, of so many parts each; those not on the disk are computed."""
        passes, going_on = self.steps * self.recipe.accumulate_steps, None
        for epoch in range(first, self.recipe.epochs):
            if _is_whole(self.path(epoch), passes=passes, parts=parts):
                going_on = None
                yield from _read(self.path(epoch), passes=passes, parts=parts)
                continue
            going_on = going_on or computed(epoch * self.steps)
            batches = itertools.islice(going_on, passes)
            yield from self._left(epoch, batches, passes) if epoch < self.wanted and self._has_room() else batches

    def _has_room(self) -> bool:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.size <= MOST_OF_THE_DISK * shutil.disk_usage(self.folder).free

    def _left(self, epoch: int, batches: Iterator[list[np.ndarray]], passes: int) -> Iterator[list[np.ndarray]]:
        """The batches, which are in the epoch's file when the last of them is given, unless the disk fills up."""
        given, kept = itertools.tee(batches)  # whichever cannot be written is given all the same
        try:
            for batch in self._written(epoch, given, passes):
                next(kept)
                yield batch
        except OSError as error:
            print(f"{self.folder} has no epoch {epoch + 1} for other classifiers, who compute their own: {error}")
            yield from kept

    def _written(self, epoch: int, batches: Iterator[list[np.ndarray]], passes: int) -> Iterator[list[np.ndarray]]:
        with contextlib.ExitStack() as writing:
            # On several devices Keras begins a stream, leaves it, and begins it anew: each of them has its own file.
            path = self.folder / f"{id(writing)}-{self.path(epoch).name}"
            file = writing.enter_context(writing.enter_context(atomic(path, size=self.size)).open("wb"))
            for number, batch in enumerate(batches, 1):
                for part in batch:
                    np.save(file, part)
                if number == passes:
                    writing.close()
                    os.replace(path, self.path(epoch))
                yield batch


def _read(path: pathlib.Path, *, passes: int, parts: int) -> Iterator[list[np.ndarray]]:
    """What `_Epochs` left in a file."""
    with path.open("rb") as file:
        for _ in range(passes):
            yield [np.load(file) for _ in range(parts)]


def _is_whole(path: pathlib.Path, *, passes: int, parts: int) -> bool:
    """Whether `_read` can read it: its batches are all as long as the first."""
    with contextlib.suppress(OSError, ValueError, EOFError), path.open("rb") as file:
        for _ in range(parts):
            np.load(file)
        return file.tell() * passes == path.stat().st_size
    return False


def _shared_epochs(
    one_pass: OnePass, backbone: keras.Model, split: Split, preprocessing: Preprocessing, stream: Stream
) -> _Epochs | None:
    """A classifier's epochs, where another one draws the same or has drawn it; else None."""
    folder, recipe, own = expanded(one_pass.folder), stream.recipe, _draws_hash(split.labels, stream)
    others = (dataclasses.replace(stream, recipe=other) for other in one_pass.others)
    same = (other.recipe for other in others if _draws_hash(split.labels, other) == own)
    wanted = max((other.epochs for other in same), default=0)
    if not wanted and not folder.is_dir():
        return None
    made_from = (backbone_hash(backbone), examples_hash(split), dataclasses.asdict(preprocessing), stream.seed, own)
    epochs = _Epochs(
        folder,
        hashlib.sha256(json.dumps(made_from).encode()).hexdigest(),
        recipe,
        recipe.steps(len(split)),
        recipe.steps(len(split)) * recipe.batch_size * 4 * (backbone.output_shape[-1] + 2),  # a label has 8 bytes
        wanted,
    )
    return epochs if wanted or any(folder.glob(f"{epochs.key}-*.npy")) else None


def _draws_hash(labels: np.ndarray, stream: Stream) -> str:
    """Of all by which a recipe decides what a batch consists of."""
    how = draws(labels, stream)
    table = how.pop("probabilities")
    table = table[:1] if (table == table[0]).all() else table  # one that changes is of all its epochs
    how |= {name: getattr(stream.recipe, name) for name in ("resampling", "batch_size", "accumulate_steps")}
    return hashlib.sha256(table.tobytes() + json.dumps(how).encode()).hexdigest()
