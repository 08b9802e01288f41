"""Stage two: a balanced classifier on a fixed representation."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Generator, Iterator

import keras
import numpy as np

from keras_lt.classifiers import BACKBONE_PARTS, CLASSIFIERS, TauNormalizedDense
from keras_lt.datasets import LongTailed
from keras_lt.distribution import Strategy, hosts, make_strategy
from keras_lt.features import CHUNK, Features, classify, extract_features
from keras_lt.metrics import shot_accuracy
from keras_lt.optimization import Recipe
from keras_lt.stages.fitting import CHOSEN_BY, check_choice, fit, fit_on_images, save_model
from keras_lt.stages.representation import Representation, train_only

TAU_SPLITS = ("val", "test")
STAGE_TWO_INPUTS = ("features", "images")
BATCH_NORMS = ("frozen", "update")
STAGE_TWO = Recipe(epochs=10, sampler="class_balanced")


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
    """What stage two leaves behind.

    Attributes:
      model: features [B, D] -> logits [B, C].
      backbone: images -> features; stage one's, unless some of it was trained or its batch norm updated.
      chosen: what was chosen on val, such as {"tau": 0.7}.
      val: its accuracies on val, as `metrics.shot_accuracy`.
      candidates: every choice with its accuracies on val, in the order tried.
    """

    model: keras.Model
    backbone: keras.Model
    chosen: dict
    val: dict[str, float]
    candidates: list[dict]

    @classmethod
    def settled(
        cls, layer: keras.layers.Layer, backbone: keras.Model, val: Features, class_counts: np.ndarray
    ) -> "Classifier":
        """One built layer with nothing to choose, scored on the features of val by that backbone."""
        scores = shot_accuracy(classify(layer, val.features), val.labels, class_counts)
        return cls(on_features(layer, backbone.output_shape[-1]), backbone, {}, scores, [scores])

    def save(self, folder: str | os.PathLike, representation: Representation):
        """Writes `model.keras`, and `backbone.keras` where that is not the representation's."""
        folder = pathlib.Path(folder)
        if self.backbone is not representation.backbone:
            save_model(self.backbone, folder / "backbone.keras")
        save_model(self.model, folder / "model.keras")


def load_classifier(folder: str | os.PathLike, representation: Representation) -> tuple[keras.Model, keras.Model]:
    """What `Classifier.save` wrote: (backbone images -> features, model features -> logits)."""
    own = pathlib.Path(folder) / "backbone.keras"
    backbone = keras.saving.load_model(own, compile=False) if own.exists() else representation.backbone
    return backbone, keras.saving.load_model(pathlib.Path(folder) / "model.keras", compile=False)


def join(backbone: keras.Model, classifier: keras.layers.Layer) -> keras.Model:
    """One model, images -> logits, of a backbone and a classifier on its features.

    >>> model = keras_lt.join(classifier.backbone, classifier.model)
    >>> model.input_shape, model.output_shape
    ((None, 28, 28, 3), (None, 10))
    """
    images = keras.Input(backbone.input_shape[1:], name="images")
    return keras.Model(images, classifier(backbone(images)))


def learn_classifier(
    name: str,
    representation: Representation,
    data: LongTailed,
    *,
    features: dict[str, Features] | None = None,
    recipe: Recipe = STAGE_TWO,
    stage_two: str = "features",
    batch_norm: str = "frozen",
    tau_split: str = "val",
    seed: int = 0,
    strategy: Strategy | None = None,
    folder: str | os.PathLike | None = None,
) -> Classifier:
    """Stage two: a classifier on the fixed representation; whatever is chosen is chosen on val.

    >>> ncm = keras_lt.learn_classifier("ncm", representation, data, features=features)
    >>> ncm.chosen
    {'transform': ..., 'distance': ...}

    Args:
      name: in `classifiers.CLASSIFIERS`, such as "lws".
      representation: stage one's.
      data: the data set that the representation was learned on.
      features: of "train", "val" and `tau_split`, from `extract_features`; extracted here where None.
      recipe: for classifiers that are trained; "joint", "ncm" and "tau_norm" are not.
      stage_two: "features" trains on those once extracted; "images" on augmented images through the backbone, as those
        of `classifiers.BACKBONE_PARTS` always are.
      batch_norm: "frozen" keeps the representation truly fixed; "update", only with images, leaves batch norm in
        training mode with its statistics drifting, as the reference does.
      tau_split: what tau is chosen on, "val" or "test"; the second makes the test scores optimistic.
      seed: of fresh weights, draws and augmentations.
      strategy, folder: as in `learn_representation`.
    Raises:
      ValueError: a name or number that does not fit, before any training.
    """
    check_choice("name", name, CLASSIFIERS)
    check_stage_two(stage_two, batch_norm)
    check_choice("tau_split", tau_split, TAU_SPLITS)
    strategy = strategy or make_strategy()
    preprocessing = representation.preprocessing
    if features is None:
        features = {
            split: extract_features(representation.backbone, data.splits[split], preprocessing)
            for split in dict.fromkeys(("train", "val", tau_split))
        }
    with strategy.scope():
        options = CLASSIFIERS[name](representation.head, seed=seed)
    train_parts, factor = BACKBONE_PARTS.get(name, ("classifier", 1.0))
    on_images = stage_two == "images" or train_parts != "classifier"
    tried = []
    for number, (choices, layer) in enumerate(options):
        backbone, val = representation.backbone, features["val"]
        training = {
            "recipe": dataclasses.replace(recipe, learning_rate=factor * recipe.learning_rate),
            "seed": seed,
            "strategy": strategy,
            # Of several candidates each has checkpoints of its own.
            "folder": pathlib.Path(folder, str(number)) if folder and len(options) > 1 else folder,
        }
        if hasattr(layer, "adapt"):
            layer.adapt(features["train"].features, features["train"].labels)
        if layer.trainable_weights and on_images:
            backbone = _fit_on_images(
                layer, representation, data, train_parts=train_parts, batch_norm=batch_norm, **training
            )
            if backbone is not representation.backbone:
                val = extract_features(backbone, data.val, preprocessing)
        elif layer.trainable_weights:
            _fit_on_features(layer, features, data, **training)
        learned = layer.get_config() if layer.trainable_weights else {}  # such as tau, where it is trained
        judged = features[tau_split] if isinstance(layer, TauNormalizedDense) else val
        for choice, scores in _judged(choices, functools.partial(_scores, layer, judged, data.listed_counts)):
            chosen = {argument: learned.get(argument, value) for argument, value in choice.items()}
            tried.append((chosen, layer, backbone, scores))
    candidates = [{**chosen, **scores} for chosen, *_, scores in tried]
    chosen, layer, backbone, scores = max(tried, key=lambda option: option[-1][CHOSEN_BY])  # the first of the best
    width = backbone.output_shape[-1]
    layer = _settled(layer, chosen, width) if hasattr(layer, "sweep") else layer
    if judged is not val:  # val scores are of val, whatever tau was chosen on
        scores = shot_accuracy(classify(layer, val.features), val.labels, data.listed_counts)
    return Classifier(on_features(layer, width), backbone, chosen, scores, candidates)


def check_stage_two(stage_two: str, batch_norm: str):
    """Raises ValueError where these are no input and batch norm of stage two, or contradict one another."""
    check_choice("stage_two", stage_two, STAGE_TWO_INPUTS)
    check_choice("batch_norm", batch_norm, BATCH_NORMS)
    if batch_norm == "update" and stage_two == "features":
        raise ValueError(
            "batch_norm=update needs stage_two=images: features are extracted once, with fixed statistics. "
            "Received: batch_norm=update, stage_two=features"
        )


def _fit_on_features(layer, features: dict[str, Features], data: LongTailed, *, recipe, seed, strategy, folder):
    train = features["train"].resampled(recipe.resampling, seed=seed)
    class_counts = np.bincount(train.labels, minlength=len(data.class_names))
    with strategy.scope():
        model = on_features(layer, features["train"].features.shape[1])
    stream = {"class_counts": class_counts, "seed": seed, **hosts(strategy).share}
    share = hosts(strategy).evaluation_share
    fit(
        model,
        lambda start_step: train.training_batches(recipe, **stream, start_step=start_step),
        lambda batch_size: features["val"].evaluation_batches(batch_size=batch_size, **share),
        data=data,
        class_counts=class_counts,
        recipe=recipe,
        strategy=strategy,
        folder=folder,
    )


def _fit_on_images(
    layer, representation: Representation, data: LongTailed, *, train_parts, batch_norm, recipe, seed, strategy, folder
) -> keras.Model:
    """Fits the layer, and maybe parts of the backbone, through a copy of it; returns what then belongs to the layer.

    That is the copy where its weights or statistics moved, else the representation's own.
    """
    with strategy.scope():
        backbone = copy_of(representation.backbone)
        train_only(backbone, train_parts)
        if batch_norm == "update":
            for part in _leaves(backbone):
                if isinstance(part, keras.layers.BatchNormalization) and not part.trainable:
                    part.trainable = True  # by which Keras runs it in training mode
                    for variable in part.trainable_variables:
                        variable.trainable = False  # its statistics move, its scale and shift do not
        model = join(backbone, layer)
    fit_on_images(model, data, representation.preprocessing, recipe=recipe, seed=seed, strategy=strategy, folder=folder)
    moved = batch_norm == "update" or train_parts != "classifier"
    return backbone if moved else representation.backbone


def copy_of(backbone: keras.Model) -> keras.Model:
    """The same network with weights of its own."""
    copy = keras.models.clone_model(backbone)
    copy.set_weights(backbone.get_weights())
    return copy


def _judged(
    choices: list[dict] | Generator, judge: Callable[[list[dict]], list[dict]]
) -> Iterator[tuple[dict, dict[str, float]]]:
    """Every choice with its scores, of a list or of all that a search asks for."""
    asked = choices if isinstance(choices, list) else next(choices, None)
    while asked:
        scores = judge(asked)
        yield from zip(asked, scores, strict=True)
        try:
            asked = None if isinstance(choices, list) else choices.send([one[CHOSEN_BY] for one in scores])
        except StopIteration:
            return


def _scores(layer, judged: Features, class_counts: np.ndarray, choices: list[dict]) -> list[dict[str, float]]:
    """The accuracies of each choice."""
    predictions = _predict(layer, choices, judged.features)
    return [shot_accuracy(predicted, judged.labels, class_counts) for predicted in predictions]


def _predict(layer: keras.layers.Layer, choices: list[dict], features: np.ndarray) -> list[np.ndarray]:
    """Predicted classes [N] under each choice, in chunks: neither all features nor all logits are ever in memory."""
    if len(choices) == 1:
        return [classify(layer, features)]
    chunks = []
    for start in range(0, len(features), CHUNK):
        chunk = keras.ops.convert_to_tensor(np.asarray(features[start : start + CHUNK], np.float32))
        logits = layer.sweep(chunk, choices)  # of one choice at a time
        chunks.append([keras.ops.convert_to_numpy(keras.ops.argmax(one, axis=-1)) for one in logits])
    return list(np.concatenate(chunks, axis=1))


def _settled(layer: keras.layers.Layer, chosen: dict, width: int) -> keras.layers.Layer:
    """A layer that stood for several choices, as the one with these arguments of its constructor."""
    settled = type(layer).from_config({**layer.get_config(), **chosen})
    settled.build((None, width))
    settled.set_weights(layer.get_weights())
    return settled


def on_features(layer: keras.layers.Layer, width: int) -> keras.Model:
    """A built classifier as a model, features [B, width] -> logits [B, C]."""
    inputs = keras.Input((width,), name="features")
    return keras.Model(inputs, layer(inputs))


def _leaves(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers of a model and of the models nested in it."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _leaves(layer)
        else:
            yield layer
