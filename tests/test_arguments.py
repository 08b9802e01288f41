"""What public functions are given: an argument of another kind is one line, an array may be whatever holds one."""

import inspect
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lt
from keras_lt import classifiers, losses, resampling, samplers, serving
from keras_lt.config import RunConfig
from keras_lt.labels import ids_and_logits
from keras_lt.preprocessing import Preprocessing

LABELS, LOGITS = np.array([0, 1, 2, 0]), np.eye(4, 3, dtype=np.float32)
IMAGES = np.zeros((4, 2, 2), np.uint8)
SPLIT, FEATURES = keras_lt.Split(IMAGES, LABELS), keras_lt.FeatureSet(LOGITS, LABELS)
DATA = keras_lt.LongTailed("x", SPLIT, SPLIT, SPLIT, ("a", "b", "c"))
NET = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
COUNTS, SHARES = [5, 3, 2], [0.5, 0.25, 0.25]

# Public functions, each with arguments that it takes.
DOORS = {
    keras_lt.Split: (IMAGES, LABELS),
    keras_lt.FeatureSet: (LOGITS, LABELS),
    keras_lt.LongTailed: ("x", SPLIT, SPLIT, SPLIT, ("a", "b", "c")),
    keras_lt.Recipe: (),
    keras_lt.ShotGroups: (COUNTS,),
    keras_lt.balance: ((LOGITS, LABELS),),
    keras_lt.evaluate_classifier: (keras.layers.Identity(), FEATURES, COUNTS),
    keras_lt.extract_features: (NET, SPLIT, Preprocessing(8, [0.5], [0.2])),
    keras_lt.join: (NET, keras.layers.Dense(3)),
    keras_lt.learn_classifier: ("ncm", None, None),
    keras_lt.learn_representation: (DATA,),
    keras_lt.load: ("fashion_lt",),
    keras_lt.plot_class_counts: (DATA,),
    keras_lt.plot_tau_curve: (None,),
    keras_lt.shot_accuracy: (LABELS, LABELS, COUNTS),
    Preprocessing: (8, (0.5,) * 3, (0.2,) * 3),
    classifiers.adjust_logits: (LOGITS, COUNTS),
    classifiers.max_norm_radius: (LOGITS, 0.5),
    classifiers.project_max_norm: (LOGITS, 0.5),
    classifiers.tau_normalize: (LOGITS, 0.5),
    classifiers.NearestClassMean: (3,),
    losses.balanced_softmax: (LABELS, LOGITS, COUNTS),
    losses.effective_number_weights: (COUNTS, 0.9),
    losses.power_weights: (COUNTS, 0.5),
    resampling.rejection_resample: (tf.data.Dataset.range(2),),
    resampling.sample_indices: (LABELS, SHARES),
    samplers.power_probabilities: (COUNTS, 0.5),
    samplers.probability_table: ("square_root", COUNTS, 2),
    samplers.progressive_probabilities: (COUNTS, 0.5),
}
NEEDED = {"tau": 1.0, "num_samples": 4, "seed": 0, "class_counts": [2, 1, 1], "probabilities": SHARES}
WRONG = {"object": object(), "ragged": [[1], [1, 2]], "generator": iter("ab"), "objects": np.array([None, {}])}


def arguments_of(door):
    """Those that it takes by name, but for a Keras layer's own."""
    named = (p for p in inspect.signature(door).parameters.values() if p.kind is not p.VAR_KEYWORD)
    return {p.name: p.default is p.empty for p in named if p.name != "dtype" or p.default != "float32"}


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
@pytest.mark.parametrize("wrong", WRONG)
def test_an_argument_of_another_kind_is_refused_in_one_line(door, wrong):
    arguments = arguments_of(door)
    given = dict(zip(arguments, DOORS[door], strict=False))
    given |= {name: NEEDED[name] for name, needed in arguments.items() if needed and name not in given}
    for name in arguments:
        with pytest.raises(ValueError, match=r"^[^\n]*Received: [^\n]+$"):
            door(**{**given, name: WRONG[wrong]})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: keras_lt.LongTailed("x", (IMAGES, LABELS), SPLIT, SPLIT, "ab"),
            "train must be a Split. Received: a tuple",
        ),
        (
            lambda: keras_lt.LongTailed("x", SPLIT, None, SPLIT, ["a"]),
            "val must be a Split; LongTailed.from_splits can carve one. Received: val=None",
        ),
        (
            lambda: keras_lt.LongTailed.from_splits("x", {"train": (IMAGES, LABELS), "test": SPLIT}, class_names="ab"),
            "train must be a Split. Received: a tuple",
        ),
        (
            lambda: keras_lt.LongTailed.from_splits("x", {"val": SPLIT}, class_names="ab"),
            "splits must have train and test. Received: val, no test",
        ),
        (
            lambda: keras_lt.LongTailed.from_splits("x", [SPLIT, SPLIT], class_names="ab"),
            'splits must be a dict such as {"train": Split(images, labels), "test": ...}. Received: a list',
        ),
        (lambda: keras_lt.learn_representation((IMAGES, LABELS)), "data must be a LongTailed. Received: a tuple"),
        (
            lambda: keras_lt.learn_representation(DATA, recipe={"epochs": 1}),
            "recipe must be a Recipe. Received: a dict",
        ),
        (
            lambda: keras_lt.learn_representation(DATA, backbone=None),
            "backbone must be a text or a Model or a BackboneEntry. Received: backbone=None",
        ),
        (lambda: keras_lt.Recipe(learning_rate="0.1"), "learning_rate must be a number. Received: learning_rate='0.1'"),
        (lambda: keras_lt.Recipe(epochs=2.5), "epochs must be a whole number. Received: epochs=2.5"),
        (lambda: keras_lt.Recipe(decay_epochs=("a",)), "decay_epochs must be a list of numbers. Received: a tuple"),
        (lambda: keras_lt.Recipe(nesterov="yes"), "nesterov must be True or False. Received: nesterov='yes'"),
        (
            lambda: keras_lt.learn_classifier("crt", features={"train": FEATURES, "val": None}),
            'must be a dict such as {"train": FeatureSet(features, labels), "val": ...}. Received: features=None',
        ),
        (lambda: keras_lt.Split("photos", [0]), "Images must be uint8"),
        (
            lambda: keras_lt.FeatureSet(LOGITS, LABELS, np.ones((4, 2))),
            "views must be [N, V, D], with features of (4, 3)",
        ),
        (lambda: ids_and_logits(LABELS[:3], LOGITS), "one label per row of logits. Received: 3 labels, 4 of them"),
        (
            lambda: keras_lt.ShotAccuracy(COUNTS).update_state(LABELS, LOGITS, [1.0, 2.0]),
            "one label per sample weight. Received: 4 labels, 2 of them",
        ),
        (lambda: keras_lt.ShotGroups([]), "class_counts must be [C], >= 0 and not infinite. Received: class_counts=[]"),
        (lambda: keras_lt.ShotGroups([np.inf, 1]), "[C], >= 0 and not infinite. Received: class_counts=[inf, 1]"),
        (lambda: classifiers.LogitAdjustment(3), "head must be a Layer. Received: head=3"),
        (lambda: keras_lt.Run("runs/x").classifier(5), "name must be a text. Received: name=5"),
        (lambda: keras_lt.Run("runs/x").features(None), "split must be a text. Received: split=None"),
        (lambda: keras_lt.Run("runs/x").export("joint", epochs=3), "opened with other data_dir, "),
        (lambda: RunConfig(export_onnx="yes"), "--export_onnx must be True or False. Received: --export_onnx='yes'"),
        (lambda: RunConfig(target_prior=[0.5, 0.5]), "--target_prior must be a text. Received: a list"),
        (lambda: Preprocessing(8, (0.5,), (0.0,)), "std above 0. Received: (0.5,), (0.0,)"),
        (
            lambda: serving.export_saved_model(NET, "x", class_names="abc", temperature=0),
            "temperature must be at least 1e-30. Received: temperature=0",
        ),
        (lambda: losses.focal(LABELS, LABELS, 2.0), "Logits must be [B, C]. Received: shape (4,)"),
    ],
)
def test_the_line_says_what_was_expected(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_lists_in_a_recipe_are_as_tuples():
    asked = {"schedule": "multistep", "epochs": 4}
    recipe = keras_lt.Recipe(decay_epochs=[1, 2], **asked)
    assert (
        recipe
        == keras_lt.Recipe(decay_epochs=np.array([1, 2]), **asked)
        == keras_lt.Recipe(decay_epochs=(1, 2), **asked)
    )
    assert hash(recipe) == hash(keras_lt.Recipe(decay_epochs=(1, 2), **asked))


def apart(array):
    """The same numbers with others between them."""
    return np.repeat(array, 2, axis=0)[::2]


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


FORMS = {
    "list": np.ndarray.tolist,
    "big-endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "apart": apart,
    "read only": read_only,
    "Fortran": np.asfortranarray,
    "objects": lambda array: array.astype(object),
    "tensor": tf.constant,
    "bfloat16": lambda array: array.astype(tf.bfloat16.as_numpy_dtype) if array.dtype.kind == "f" else array,
    "variable": lambda array: keras.Variable(array, dtype=array.dtype.name),
}


@pytest.mark.parametrize("form", FORMS)
def test_an_array_may_be_whatever_holds_one(form):
    of, counts = FORMS[form], np.array([500, 50, 5])
    features = keras_lt.FeatureSet(of(LOGITS), of(LABELS))
    np.testing.assert_array_equal(features.features, LOGITS)
    np.testing.assert_array_equal(features.labels, LABELS)
    assert keras_lt.shot_accuracy(of(LABELS), of(LABELS), of(counts))["all"] == 1
    np.testing.assert_allclose(samplers.power_probabilities(of(counts), 0), 1 / 3)
    np.testing.assert_allclose(losses.focal(of(LABELS), of(LOGITS), 2.0), losses.focal(LABELS, LOGITS, 2.0))
    np.testing.assert_array_equal(next(iter(keras_lt.balance((of(LOGITS), of(LABELS)))))[0].shape, LOGITS.shape)
    metric = keras_lt.ShotAccuracy(of(counts))
    metric.update_state(of(LABELS), of(LOGITS), of(np.ones(4)))
    assert metric.result()["all"] == 1
    learned = keras_lt.learn_classifier("ncm", features={"train": features, "val": features})
    assert learned.val["all"] == 1


@pytest.mark.parametrize("form", ["big-endian", "apart", "read only", "Fortran", "tensor"])
def test_so_may_images(form):
    images = np.arange(16, dtype=np.uint8).reshape(4, 2, 2)
    read = keras_lt.Split(FORMS[form](images), LABELS).examples.reader()
    np.testing.assert_array_equal(read([1, 3])[..., 0], images[[1, 3]])
