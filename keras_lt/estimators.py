"""Classifiers on embeddings as scikit-learn estimators, for its pipelines and searches."""

import hashlib
import numbers

import keras
import numpy as np
import numpy.typing as npt

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError("Estimators need scikit-learn: pip install 'keras_lt[sklearn]'") from error

from keras_lt.arguments import check_kind
from keras_lt.classifiers import CLASSIFIERS, fold, fresh_dense
from keras_lt.classifiers.chunks import in_chunks
from keras_lt.features import FeatureSet
from keras_lt.metrics import softmax
from keras_lt.recipe import Recipe
from keras_lt.registry import check_numbers, split
from keras_lt.stages import JOINT, chooses, learn_classifier
from keras_lt.stages.checks import begins_by, classifier_entry, trains_on_images

LARGEST_BATCH, SMALLEST_BATCH, STEPS = 512, 8, 16  # an epoch of few examples has about that many steps
FEWEST_EPOCHS, MOST_EPOCHS, ENOUGH_STEPS = 5, 10, 400
POWER_STEPS = 10
NUMBERS = (np.float64, np.float32)  # others become the first
KEPT_HEADS = 32  # joint classifiers, of a search's folds
_heads: dict[tuple, keras.layers.Layer] = {}


class LongTailClassifier(ClassifierMixin, BaseEstimator):
    """A classifier on embeddings of classes with unevenly many examples: `learn_classifier` as an estimator.

    >>> from keras_lt.estimators import LongTailClassifier
    >>> classifier = LongTailClassifier("crt", epochs=2, random_state=0)
    >>> classifier = classifier.fit(features["train"].features, features["train"].labels)
    >>> classifier.predict_proba(features["test"].features).shape
    (5000, 10)

    Methods that start from stage one's classifier, such as "lws", first fit one on the examples as they come. Methods
    that choose something, such as tau, hold out a part of every class to choose it on; the others train on all. `score`
    is the accuracy, as with every classifier of scikit-learn; a search goes by the tail with
    scoring="balanced_accuracy". With an int for random_state, methods that a search tries on the same examples share
    their joint classifier.

    Args:
      method: in `classifiers.CLASSIFIERS`, of those that train no backbone, with parameters of its own or fields of the
        recipe: "crt", "lws:epochs=5", "logit_adjusted", "ncm", "lift:scale=30".
      epochs, weight_decay: of SGD with momentum 0.9, under a cosine schedule; "auto" is ten epochs, and where these are
        more than 400 steps fewer, but not below five.
      learning_rate: "auto" is (1 - momentum) min(C, B / 2) / λ, with λ the largest eigenvalue of the features' second
        moments and B the batch_size: the step 1 / L of gradient descent, where the loss begins with a curvature of at
        most L = λ / C, and shorter where a batch has fewer than two examples of a class.
      batch_size: examples per step; "auto" is 512, and of few examples a sixteenth of them.
      standardize: whether each feature is brought to mean 0 and standard deviation 1 over the training examples.
      validation_fraction: share of each class, rounded up, that is held out by methods that choose; in [0, 1). Of each
        class at least one example stays in training.
      random_state: of the hold-out, of fresh weights and of draws: an int, a `numpy.random.RandomState` or None.

    Attributes:
      classes_: labels in the order of the columns of `predict_proba`, [C].
      n_features_in_: D.
      mean_, scale_: what standardising takes away and divides by, [D]; 0 and 1 where it is off.
      chosen_: what was chosen on the held-out examples, such as {"tau": 0.7}.
      model_: a Keras model in float32, standardised features [B, D] -> logits [B, C].
    """

    def __init__(
        self,
        method: str = "crt",
        *,
        epochs: int | str = "auto",
        batch_size: int | str = "auto",
        learning_rate: float | str = "auto",
        weight_decay: float = 5e-4,
        standardize: bool = True,
        validation_fraction: float = 0.1,
        random_state: int | np.random.RandomState | None = None,
    ):
        self.method = method
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.standardize = standardize
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike) -> "LongTailClassifier":
        """Learns from embeddings [N, D] and their labels [N], numbers or strings.

        Raises:
          ValueError: numbers that are not finite, one class only, or a parameter that does not fit.
        """
        _check_method(self.method)
        check_numbers(validation_fraction=self.validation_fraction, below=1)
        check_kind("standardize", self.standardize, bool)
        X, y = validate_data(self, X, y, dtype=NUMBERS)
        try:
            check_classification_targets(y)
            self.classes_, first, labels = np.unique(y, return_index=True, return_inverse=True)
        except TypeError as error:  # of labels that cannot be sorted, and scikit-learn's of bytes
            raise ValueError(f"y must be all numbers or all strings. Received: {error}") from error
        if len(self.classes_) < 2:
            raise ValueError(f"Training needs two classes or more. Received: one class, {self.classes_.tolist()[0]!r}")
        rng = check_random_state(self.random_state)
        seed = int(rng.randint(np.iinfo(np.int32).max))
        self.mean_, self.scale_ = _moments(X) if self.standardize else (np.zeros(X.shape[1]), np.ones(X.shape[1]))
        train = FeatureSet(self._standardized(X), labels)
        val = _rows(train, first)  # which decides nothing: the last epoch is kept
        entry, _ = classifier_entry(self.method)
        if chooses(entry(fresh_dense(train.width, len(self.classes_), seed=seed), seed=seed)):
            held_out = _held_out(labels, self.validation_fraction, rng)
            if not held_out.any():
                raise ValueError(
                    f"{self.method} is chosen on held-out examples: it needs classes of two examples or more, and a "
                    f"validation_fraction. Received: validation_fraction={self.validation_fraction}, "
                    f"{len(labels)} examples of {len(self.classes_)} classes"
                )
            train, val = _rows(train, ~held_out), _rows(train, held_out)
        options = {"features": {"train": train, "val": val}, "recipe": self._recipe(train), "seed": seed}
        head = _joint_head(**options) if entry.starts_from else None
        learned = learn_classifier(self.method, head=head, **options)
        self.model_, self.chosen_ = learned.model, learned.chosen
        return self

    def decision_function(self, X: npt.ArrayLike) -> np.ndarray:
        """Logits of embeddings [N, D]: [N, C], or of two classes the second's less the first's, [N]."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: npt.ArrayLike) -> np.ndarray:
        """The softmax of the logits of embeddings [N, D], [N, C]."""
        return softmax(self._logits(X))

    def predict(self, X: npt.ArrayLike) -> np.ndarray:
        """The label with the largest logit, of embeddings [N, D], [N]."""
        best = self._logits(X).argmax(axis=1)
        return self.classes_[best]

    def _logits(self, X: npt.ArrayLike) -> np.ndarray:
        """Logits [N, C]; in float64, where a row's do not depend on the rows beside it."""
        check_is_fitted(self)
        X = self._standardized(validate_data(self, X, dtype=NUMBERS, reset=False))
        affine = fold(self.model_.layers[-1])
        if affine is not None:
            kernel, bias = affine
            return X.astype(np.float64) @ kernel + bias
        logits = [keras.ops.convert_to_numpy(self.model_(chunk)) for chunk in in_chunks(self.model_, X)]
        return np.concatenate(logits).astype(np.float64)

    def _standardized(self, X: np.ndarray) -> np.ndarray:
        """Features as the classifier takes them, float32, in memory."""
        with np.errstate(over="ignore", invalid="ignore"):  # said below
            standardized = np.asarray((X - self.mean_.astype(X.dtype)) / self.scale_.astype(X.dtype), np.float32)
        if not (np.isfinite(standardized).all() and np.isfinite(self.scale_).all()):
            raise ValueError(f"X must fit into float32. Received: values of up to {np.abs(X).max():g}")
        return standardized

    def _recipe(self, train: FeatureSet) -> Recipe:
        """The recipe of the parameters; those in `method` come after it."""
        batch_size, learning_rate, epochs = self.batch_size, self.learning_rate, self.epochs
        examples = len(train.labels)
        if batch_size == "auto":
            batch_size = min(examples, max(SMALLEST_BATCH, min(LARGEST_BATCH, examples // STEPS)))
        elif not isinstance(batch_size, numbers.Integral):
            raise ValueError(f"batch_size must be a whole number or 'auto'. Received: batch_size={batch_size!r}")
        if learning_rate == "auto":
            classes = min(len(self.classes_), batch_size / 2)
            learning_rate = (1 - Recipe.momentum) * classes / _largest_moment(train.features)
        elif not isinstance(learning_rate, numbers.Real):
            raise ValueError(f"learning_rate must be a number or 'auto'. Received: learning_rate={learning_rate!r}")
        if epochs == "auto":
            steps = max(1, examples // max(batch_size, 1))
            epochs = min(MOST_EPOCHS, max(FEWEST_EPOCHS, -(-ENOUGH_STEPS // steps)))
        elif not isinstance(epochs, numbers.Integral):
            raise ValueError(f"epochs must be a whole number or 'auto'. Received: epochs={epochs!r}")
        return Recipe(
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=self.weight_decay,
            sampler="class_balanced",
            kept_epoch="last",
        )


def _joint_head(features: dict[str, FeatureSet], recipe: Recipe, seed: int) -> keras.layers.Layer:
    """The joint classifier of these examples, which the next fit on the same finds again."""
    train = features["train"]
    content = hashlib.sha256(np.ascontiguousarray(train.features).data)
    content.update(train.labels.data)
    key = (content.digest(), train.features.shape, recipe, seed)
    if key not in _heads:
        while len(_heads) >= KEPT_HEADS:
            _heads.pop(next(iter(_heads)))
        _heads[key] = learn_classifier(JOINT, features=features, recipe=recipe, seed=seed).model.layers[-1]
    return _heads[key]


def _check_method(method: str):
    """Raises ValueError, with those that there are, for a classifier that does not exist or needs images."""
    methods = [
        name
        for name, entry in CLASSIFIERS.items()
        if not trains_on_images(entry, "features") and begins_by(*classifier_entry(name)) == "train"
    ]
    if not isinstance(method, str) or split(method)[0] not in methods:
        raise ValueError(f"method must be one of {', '.join(methods)}, with parameters. Received: method={method!r}")
    classifier_entry(method)


def _moments(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each feature, float64 [D]; 1 for one that does not vary."""
    with np.errstate(over="ignore", invalid="ignore"):  # `_standardized` says so
        mean, deviation = X.mean(axis=0, dtype=np.float64), X.std(axis=0, dtype=np.float64)
    constant = deviation <= 10 * np.finfo(X.dtype).eps * np.abs(mean)  # up to rounding
    return mean, np.where(constant, 1.0, deviation)


def _largest_moment(X: np.ndarray) -> float:
    """The largest eigenvalue of the second moments X'X / N, by the power method; often a few percent too small."""
    moments = np.einsum("nd,nd->d", X, X) / len(X)
    direction = np.sqrt(moments)
    largest = moments.max()
    for _ in range(POWER_STEPS):
        norm = np.linalg.norm(direction)
        if not norm:
            return 1.0  # of features that are all 0
        direction = X.T @ (X @ (direction / norm)) / len(X)
        largest = max(largest, np.linalg.norm(direction))
    return float(largest)


def _held_out(labels: np.ndarray, fraction: float, rng: np.random.RandomState) -> np.ndarray:
    """Which examples choose, bool [N]: of every class its share, rounded up, but never all of a class."""
    held_out = np.zeros(len(labels), bool)
    for label in range(labels.max() + 1):
        rows = rng.permutation(np.flatnonzero(labels == label))
        held_out[rows[: min(int(np.ceil(fraction * len(rows))), len(rows) - 1)]] = True
    return held_out


def _rows(features: FeatureSet, rows: np.ndarray) -> FeatureSet:
    """Some of the examples, by a mask or by indices."""
    return FeatureSet(features.features[rows], features.labels[rows])
