"""Classifiers on embeddings as scikit-learn estimators."""

import pickle

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer
from sklearn.utils.estimator_checks import check_estimator

from keras_lt import estimators
from keras_lt.estimators import JOINT, LongTailClassifier, _held_out, _largest_moment, _moments
from keras_lt.features import FeatureSet
from keras_lt.stages import learn_classifier

COUNTS, NAMES = (200, 60, 20), np.array(["ant", "bee", "cat"])


def embeddings(counts, seed):
    """Three round clouds with their means at the corners of a triangle, X [N, 6] and names [N]."""
    labels = np.repeat(np.arange(3), counts)
    noise = np.random.default_rng(seed).normal(size=(len(labels), 6))
    return 2.5 * np.eye(3, 6)[labels] + noise, NAMES[labels]


@pytest.fixture(scope="module")
def train():
    return embeddings(COUNTS, 0)


@pytest.fixture(scope="module")
def test():
    return embeddings((100, 100, 100), 1)


@pytest.fixture(scope="module")
def crt(train):
    return LongTailClassifier(random_state=0).fit(*train)


@pytest.mark.exhaustive
def test_it_keeps_to_scikit_learns_conventions():
    """Among them: pickles, clones, subsets predicted alike, parameters untouched, errors of bad input.

    The steps of an epoch are set, so that fits of several lengths share their compiled function.
    """
    check_estimator(LongTailClassifier("crt:steps_per_epoch=12", epochs=3, batch_size=8), on_skip=None)


def test_a_fitted_one_is_as_scikit_learns_are(crt, test):
    X, y = test
    assert crt.n_features_in_ == 6
    np.testing.assert_array_equal(crt.classes_, NAMES)
    odds = crt.predict_proba(X)
    np.testing.assert_allclose(odds.sum(axis=1), 1)
    np.testing.assert_array_equal(crt.predict(X), NAMES[odds.argmax(axis=1)])
    assert crt.score(X, y) == np.mean(crt.predict(X) == y)
    np.testing.assert_allclose(np.diff(np.log(odds)), np.diff(crt.decision_function(X)), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(crt)).predict_proba(X), odds)


def test_it_is_near_the_bayes_classifier_where_that_of_the_examples_as_they_come_is_not(crt, train, test):
    """Classes alike, the nearest corner is Bayes's choice."""
    X, y = test
    bayes = np.mean(NAMES[X[:, :3].argmax(axis=1)] == y)
    joint = LongTailClassifier("crt:sampler=instance_balanced", random_state=0).fit(*train)
    assert crt.score(X, y) > bayes - 0.06
    assert joint.score(X, y) < crt.score(X, y)


@pytest.mark.parametrize(("method", "chosen"), [("lws", set()), ("logit_adjusted", {"tau"}), ("ncm", {"transform"})])
def test_methods_start_from_a_joint_classifier_and_choose_on_what_they_hold_out(method, chosen, train, test):
    fitted = LongTailClassifier(method, epochs=3, random_state=0).fit(*train)
    assert chosen <= set(fitted.chosen_)
    assert balanced_accuracy_score(test[1], fitted.predict(test[0])) > 0.75


def test_a_share_of_each_class_is_held_out_but_never_all_of_it():
    labels = np.repeat(np.arange(4), (21, 10, 2, 1))
    held_out = _held_out(labels, 0.1, np.random.RandomState(0))
    np.testing.assert_array_equal(np.bincount(labels[held_out], minlength=4), (3, 1, 1, 0))
    assert not _held_out(labels, 0.0, np.random.RandomState(0)).any()


def test_features_are_standardised_and_a_constant_one_is_left():
    mean, deviation = _moments(np.array([[1.0, 0.1, 0.0], [3.0, 0.1, 0.0], [5.0, 0.1, 0.0]]))
    np.testing.assert_allclose(mean, (3, 0.1, 0))
    np.testing.assert_allclose(deviation, ((8 / 3) ** 0.5, 1, 1))


def test_the_learning_rate_goes_by_the_features_largest_moment():
    """(9 + 9) / 4 along the first feature, and along (1, 1) of two that are equal: (2 + 2) / 2."""
    assert _largest_moment(np.array([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])) == pytest.approx(4.5)
    assert _largest_moment(np.array([[1.0, 1.0], [-1.0, -1.0]])) == pytest.approx(2)
    assert _largest_moment(np.zeros((2, 3))) == 1


def test_a_joint_classifier_is_fitted_once_for_all_methods_on_the_same_examples(train, monkeypatch):
    """Two folds and the refit are three sets of examples, whatever is started from their classifiers."""
    fitted = []

    def noting(method, **options):
        fitted.append(method)
        return learn_classifier(method, **options)

    monkeypatch.setattr(estimators, "learn_classifier", noting)
    monkeypatch.setattr(estimators, "_heads", {})
    grid = {"method": ["logit_adjusted", "tau_norm"]}
    search = GridSearchCV(LongTailClassifier(epochs=2, random_state=0), grid, cv=2, error_score="raise").fit(*train)
    assert fitted.count(JOINT) == 3
    assert len(fitted) == 3 + 2 * 2 + 1
    alone = LongTailClassifier(epochs=2, random_state=0, **search.best_params_)
    monkeypatch.setattr(estimators, "_heads", {})
    np.testing.assert_array_equal(alone.fit(*train).predict_proba(train[0]), search.predict_proba(train[0]))
    LongTailClassifier("tau_norm", epochs=2, random_state=1).fit(*train)
    LongTailClassifier("tau_norm", epochs=2, random_state=1, weight_decay=0.0).fit(*train)
    assert fitted.count(JOINT) == 3 + 3  # another seed, another recipe


@pytest.mark.parametrize(
    ("examples", "classes", "options", "epochs", "classes_in_the_rate"),
    [
        (280, 3, {}, 10, 3),  # 16 steps of 17
        (50_000, 1000, {}, 5, 256),  # 97 steps of 512
        (32_768, 100, {}, 7, 100),  # 64 steps an epoch
        (280, 3, {"batch_size": 4, "epochs": 2}, 2, 2),
    ],
)
def test_epochs_and_rate_go_by_the_steps_and_by_what_a_batch_has_of_a_class(
    examples, classes, options, epochs, classes_in_the_rate
):
    estimator = LongTailClassifier(**options)
    estimator.classes_ = np.arange(classes)
    recipe = estimator._recipe(FeatureSet(np.ones((examples, 1), np.float32), np.zeros(examples, int)))
    assert recipe.epochs == epochs
    assert recipe.learning_rate == pytest.approx(0.1 * classes_in_the_rate)  # the largest moment is 1


def test_it_is_searched_in_a_pipeline(train, test):
    pipeline = make_pipeline(Normalizer(), LongTailClassifier(epochs=2, random_state=0))
    grid = {"longtailclassifier__method": ["crt", "ncm"]}
    search = GridSearchCV(pipeline, grid, cv=2, scoring="balanced_accuracy", error_score="raise").fit(*train)
    assert search.best_score_ > 0.6
    assert search.score(*test) == balanced_accuracy_score(test[1], search.predict(test[0]))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"method": "svm"}, "method must be one of joint, ncm, crt, .* Received: method='svm'"),
        ({"method": "crt_all"}, "method must be one of .* Received: method='crt_all'"),  # trains a backbone
        ({"method": None}, "method must be one of .* Received: method=None"),
        ({"method": "crt:colour=red"}, "colour"),
        ({"batch_size": "all"}, "batch_size must be a whole number or 'auto'. Received: batch_size='all'"),
        ({"learning_rate": "low"}, "learning_rate must be a number or 'auto'. Received: learning_rate='low'"),
        ({"epochs": 0}, "epochs"),
        ({"epochs": "many"}, "epochs must be a whole number or 'auto'. Received: epochs='many'"),
        ({"batch_size": 0}, "batch_size"),
        ({"standardize": "no"}, "standardize must be True or False. Received: standardize='no'"),
        ({"validation_fraction": 1.0}, r"validation_fraction must lie in \[0, 1\). Received: validation_fraction=1.0"),
        ({"method": "ncm", "validation_fraction": 0.0}, "ncm is chosen on held-out examples: .* 280 examples of 3"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(parameters, message, train):
    with pytest.raises(ValueError, match=message):
        LongTailClassifier(**parameters).fit(*train)


@pytest.mark.parametrize("standardize", [True, False])
def test_numbers_that_float32_has_no_room_for_are_refused(standardize, train):
    """Their deviation is infinite, and every example would be the same."""
    with pytest.raises(ValueError, match=r"X must fit into float32\. Received: values of up to \d"):
        LongTailClassifier(standardize=standardize).fit(train[0].astype("f8") * 1e300, train[1])


@pytest.mark.parametrize("other", [None, 7, b"bytes"])
def test_labels_of_several_kinds_are_refused_in_a_line(other, train):
    labels = np.array(["one"] * len(train[1]), object)
    labels[-3:] = other
    with pytest.raises(ValueError, match=r"y must be all numbers or all strings|Unknown label type"):
        LongTailClassifier().fit(train[0], labels)
