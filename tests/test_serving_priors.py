import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from keras_lt.config import RunConfig
from keras_lt.methods import balpoe, sade
from keras_lt.optimization import Recipe
from keras_lt.run import source_prior
from keras_lt.serving import estimate_prior, fit_temperature, logit_offset, read_prior, trained_prior

COUNTS = [80, 40, 20, 20]
AS_TRAINED = [0.5, 0.25, 0.125, 0.125]


@pytest.mark.parametrize(
    ("target", "prior"),
    [
        ("", None),
        ("uniform", [0.25] * 4),
        ("train", AS_TRAINED),
        ("forward:ratio=8", [8 / 15, 4 / 15, 2 / 15, 1 / 15]),  # a half from class to class; of equal counts in order
        ("backward:ratio=8", [1 / 15, 2 / 15, 4 / 15, 8 / 15]),
        ("backward:ratio=1", [0.25] * 4),
    ],
)
def test_priors_with_a_name(target, prior):
    found = read_prior(target, COUNTS)
    assert prior == (None if found is None else pytest.approx(found, rel=1e-12))


def test_a_tail_goes_by_training_images_in_whatever_order_classes_are():
    assert read_prior("forward:ratio=4", [5, 500, 50]) == pytest.approx([1 / 7, 4 / 7, 2 / 7])
    with pytest.raises(ValueError, match="ratio must be a number of at least 1"):
        read_prior("forward:ratio=0.5", COUNTS)
    with pytest.raises(ValueError, match="target_prior=forward:tau=2"):
        read_prior("forward:tau=2", COUNTS)


@pytest.mark.parametrize("text", ["0.1\n0.2\n0.3\n0.4\n", "[0.1, 0.2, 0.3, 0.4]"])
def test_priors_in_a_file(tmp_path, text):
    (tmp_path / "prior").write_text(text)
    assert read_prior(str(tmp_path / "prior"), COUNTS).tolist() == [0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.5 0.5", r"must be 4 probabilities.*shape \(2,\)"),
        ("0.5 0.5 0.5 0.5", r"sum to 1.*sum 2"),
        ("0.5 0.5 0 0", r"above 0.*smallest 0"),
        ("1.1 0.2 -0.2 -0.1", r"above 0.*smallest -0.2"),
        ("nan 0.5 0.25 0.25", r"above 0.*smallest nan"),
        ("cat 0.4", r"a number per line.*cat"),
        ("[0.5, 0.5", r"a JSON list of numbers"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, text, message):
    (tmp_path / "prior").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_prior(str(tmp_path / "prior"), COUNTS)


def test_a_name_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"must be uniform, train, forward, backward, or a file.*'balanced'"):
        read_prior("balanced", COUNTS)


@pytest.mark.parametrize(
    ("recipe", "prior"),
    [
        ({}, AS_TRAINED),
        ({"sampler": "class_balanced"}, [0.25] * 4),
        ({"sampler": "progressive", "epochs": 3}, [0.25] * 4),  # where it ends
        ({"sampler": "progressive", "epochs": 1}, AS_TRAINED),
        ({"class_weights": "inverse_frequency"}, [0.25] * 4),
        ({"loss": "balanced_softmax"}, [0.25] * 4),
        ({"loss": "balanced_softmax", "sampler": "class_balanced"}, [1 / 11, 2 / 11, 4 / 11, 4 / 11]),  # twice: 1 / n
    ],
)
def test_what_training_leaves_in_the_logits(recipe, prior):
    np.testing.assert_allclose(trained_prior(Recipe(**recipe), COUNTS), prior, rtol=1e-6)


def at_log_posteriors(loss, logits, labels, weights):
    """Largest slope, by the logits [C] of one image, of its mean loss where it is of each label by these weights."""
    logits = tf.constant(logits, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        losses = loss(labels, tf.broadcast_to(logits, (len(labels), *logits.shape)))
        mean = tf.reduce_sum(losses * tf.constant(weights, tf.float32))
    return np.abs(tape.gradient(mean, logits)).max()


LIKELIHOODS = np.array([0.2, 0.05, 0.4, 0.1])  # p(x|c) of some image x


@pytest.mark.parametrize("class_weights", ["none", "power:rho=0.7"])
@pytest.mark.parametrize(
    "loss",
    [
        "cross_entropy",
        "balanced_softmax",
        "logit_adjustment:tau=0.5",
        "lade:weight=0",
        "class_balanced_binary:beta=0.99",
    ],
)
def test_a_loss_is_smallest_at_log_likelihoods_and_the_prior_that_it_leaves(loss, class_weights):
    recipe = Recipe(loss=loss, class_weights=class_weights)
    joint = LIKELIHOODS * COUNTS * recipe.weights_entry(COUNTS)
    logits = np.log(LIKELIHOODS * trained_prior(recipe, COUNTS))
    slope = at_log_posteriors(recipe.loss_entry(COUNTS).call, logits, np.arange(4), joint / joint.sum())
    assert slope < 1e-6
    assert at_log_posteriors(recipe.loss_entry(COUNTS).call, logits[::-1], np.arange(4), joint / joint.sum()) > 1e-3


@pytest.mark.parametrize(
    ("method", "loss", "settings", "inside"),
    [
        ("sade:tau=1.5", sade.loss, {"tau": 1.5}, lambda pi: [pi, 1 + 0 * pi, sade.inverse_prior(COUNTS) ** 1.5]),
        ("balpoe:experts=2:taus=0+1.5", balpoe.loss, {"taus": [0, 1.5]}, lambda pi: [pi, pi**-0.5]),
        ("balpoe:experts=2", balpoe.loss, {"taus": [0, 2]}, lambda pi: [pi, 1 / pi]),
        ("balpoe", balpoe.loss, {"taus": [0, 1, 2]}, lambda pi: [pi, 1 + 0 * pi, 1 / pi]),
    ],
)
def test_experts_leave_the_prior_of_their_mean(method, loss, settings, inside):
    """Each expert's loss is smallest at log-likelihoods and a prior of its own; the classifier is their mean."""
    pi = np.array(AS_TRAINED)
    logits = np.log(LIKELIHOODS * np.stack(inside(pi)))
    joint = LIKELIHOODS * pi

    def of_experts(labels, logits):
        return loss(labels, tf.transpose(logits, (1, 0, 2)), COUNTS, **settings)

    assert at_log_posteriors(of_experts, logits, np.arange(4), joint / joint.sum()) < 1e-6
    config = RunConfig(dataset="arrays", method=method, classifiers=("joint",))
    left = logits.mean(axis=0) - np.log(source_prior("joint", config, np.array(COUNTS)))
    np.testing.assert_allclose(left - np.log(LIKELIHOODS), (left - np.log(LIKELIHOODS))[0], atol=1e-6)


def test_episodes_draw_classes_alike_whatever_other_classifiers_do():
    config = RunConfig(dataset="arrays", method="fslwf", classifiers=("crt",), classifier_sampler="instance_balanced")
    np.testing.assert_allclose(source_prior("fslwf", config, np.array(COUNTS)), [0.25] * 4)
    config = dataclasses.replace(config, classifier_loss="balanced_softmax")
    np.testing.assert_allclose(source_prior("fslwf", config, np.array(COUNTS)), np.array([1, 2, 4, 4]) / 11)


def test_a_class_without_images_has_no_share_of_what_a_balanced_loss_leaves():
    np.testing.assert_allclose(trained_prior(Recipe(loss="balanced_softmax"), [10, 0, 5]), [0.5, 0, 0.5])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"weights": [0, 0]}, r"weights must be 2 finite numbers >= 0, not all 0\. Received: \[0\. 0\.\]"),
        ({"weights": [1, -1]}, "weights must be"),
        ({"weights": [1, np.nan]}, "weights must be"),
        ({"weights": [1, 1, 1]}, "weights must be"),
        ({"rounds": -1}, "rounds must be at least 0"),
        ({"log_posteriors": [[0.0, np.inf]] * 2}, r"log_posteriors must be finite numbers \[N, C\]"),
    ],
)
def test_what_no_prior_can_be_estimated_by_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        estimate_prior(**{"log_posteriors": [[0.0, 1.0]] * 2, **wrong})


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((0, 2)), [], r"logits must be finite numbers \[N, C\]\. Received: shape \(0, 2\)"),
        ([[np.nan, 0.0]], [0], "logits must be finite numbers"),
        ([[1.0, 0.0]], [2], r"class ids, whole numbers in \[0, 2\)"),
        ([[1.0, 0.0]], [0, 1], "one label per example"),
    ],
)
def test_what_no_temperature_can_be_fitted_to_is_refused(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        fit_temperature(logits, labels)


def test_the_offset_turns_one_posterior_into_the_other():
    """Two classes, p(x|c) of 0.6 and 0.3 at some x: Bayes's rule under either prior, by hand."""
    source, target = np.array([0.5, 0.5]), np.array([0.2, 0.8])
    logits = np.log([0.6 * 0.5, 0.3 * 0.5])
    moved = np.exp(logits + logit_offset(target, source, classes=2))
    np.testing.assert_allclose(moved / moved.sum(), [0.12 / 0.36, 0.24 / 0.36], rtol=1e-6)


def test_the_same_prior_or_none_leaves_logits_as_they_are():
    assert logit_offset(AS_TRAINED, AS_TRAINED, classes=4).tolist() == [0.0] * 4
    assert logit_offset(None, AS_TRAINED, classes=4).tolist() == [0.0] * 4
    np.testing.assert_allclose(logit_offset(AS_TRAINED, classes=4), np.log([2, 1, 0.5, 0.5]), rtol=1e-6)


@pytest.mark.parametrize("scale", [0.02, 1.0, 50.0])
def test_the_temperature_is_what_log_posteriors_were_multiplied_by(scale):
    """Labels drawn from softmax(z) themselves, under balanced classes: scores scale * z have the temperature scale."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 20_000)
    features = rng.normal(0, 1, (20_000, 4)) + 1.5 * np.eye(4)[labels]
    assert fit_temperature(scale * 1.5 * features, labels) == pytest.approx(scale, rel=0.05)


@pytest.mark.parametrize(("examples", "margin"), [(2, 1.0), (40, 1e3), (400, 1e-3)])
def test_where_all_are_correct_no_probability_is_surer_than_their_number(examples, margin):
    """N are right by a margin, one may be of either class, so 1 / (2 N + 2) are wrong: T = margin / log(2 N + 1)."""
    labels = np.arange(examples) % 2
    temperature = fit_temperature(margin * np.eye(2)[labels], labels)
    assert temperature == pytest.approx(margin / np.log(2 * examples + 1), rel=2e-3)  # float32, where the loss is flat


def test_a_temperature_sees_through_the_prior_that_scores_have_in_them():
    """The same normals on classes as 8 : 1 : 1, whose log posteriors are under that prior; validated on even ones."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 20_000)
    source = np.array([0.8, 0.1, 0.1])
    posteriors = 1.5 * (rng.normal(0, 1, (20_000, 3)) + 1.5 * np.eye(3)[labels]) + np.log(source)
    assert fit_temperature(posteriors, labels, source) == pytest.approx(1, rel=0.05)


def test_training_as_target_loses_nothing_on_the_training_distribution():
    """Distances to class means, squeezed as NCM's are: the prior improves them once they are divided."""
    rng = np.random.default_rng(2)
    prior = 0.6 ** np.arange(10) / (0.6 ** np.arange(10)).sum()
    means = rng.normal(0, 0.7, (10, 8))

    def scored(labels):
        features = means[labels] + rng.normal(0, 1, (len(labels), 8))
        return -0.05 * ((features[:, None] - means) ** 2).sum(-1)

    val, test = rng.integers(0, 10, 2000), rng.choice(10, 5000, p=prior)
    logits = scored(test)
    offset = logit_offset(prior, classes=10)
    temperature = fit_temperature(scored(val), val)
    before, naive, after = (
        np.mean(scores.argmax(1) == test) for scores in (logits, logits + offset, logits / temperature + offset)
    )
    assert naive < before < after


def test_a_distribution_of_names_is_told_the_order_and_by_its_own_flag(tmp_path):
    (tmp_path / "prior").write_text("ant 0.5\nbee 0.5\n")
    with pytest.raises(ValueError, match=r"4 probabilities in the order of the classes, .*Received: .*'ant'$"):
        read_prior(str(tmp_path / "prior"), COUNTS)
    with pytest.raises(ValueError, match=r"^test_distribution must be uniform, .*'unifrom' \(No such file"):
        read_prior("unifrom", COUNTS, flag="test_distribution")
