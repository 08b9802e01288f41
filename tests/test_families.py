"""What holds for every member of a family, whichever it is. `test_new_members` adds some."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lt.backbones import TRAIN_PARTS
from keras_lt.classifiers import CLASSIFIERS, chunks, dense_of, fold
from keras_lt.features import FeatureSet
from keras_lt.input_pipeline import Stream, training_indices
from keras_lt.losses import CLASS_WEIGHTS, FEATURE_LOSSES, LOSSES, class_weight_table
from keras_lt.methods import METHODS
from keras_lt.metrics import ShotGroups
from keras_lt.optimization import OPTIMIZERS, make_optimizer
from keras_lt.recipe import SCHEDULES, Recipe
from keras_lt.registry import Entry, member
from keras_lt.resampling import RESAMPLING
from keras_lt.resampling.plans import ENGINES
from keras_lt.samplers import SAMPLERS, probability_table
from keras_lt.stages import HEADS, classifier_entry
from keras_lt.stages.choosing import as_chosen, scores_of

# Backbones and sources of data are told otherwise, and have tests of their own.
FAMILIES = {
    "sampler": SAMPLERS,
    "loss": LOSSES,
    "feature_loss": FEATURE_LOSSES,
    "class_weights": CLASS_WEIGHTS,
    "resampling": RESAMPLING,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "head": HEADS,
    "classifier": CLASSIFIERS,
    "method": METHODS,
    "train_parts": TRAIN_PARTS,
}
COUNTS = {"three classes": [80, 40, 20], "two": [30, 10], "a class without images": [8, 0, 2], "all alike": [1, 1]}

WORDS = {"concave": "linear", "counts": "effective", "": "0+1+1"}  # a parameter in words -> another value of it


def other(default):
    """Another value of the same kind that any parameter may have."""
    if isinstance(default, bool):
        return not default
    if isinstance(default, str):
        return WORDS[default]
    return default / 2 or 0.1 if isinstance(default, float) else default // 2


def in_other_words(family, name):
    """Every parameter of a member, and the member told another value of it in writing."""
    for parameter, default in family[name].parameters.items():
        yield parameter, member(family, f"{name}:{parameter}={other(default)}", what="member")


@pytest.mark.parametrize(("what", "name"), [(what, name) for what, family in FAMILIES.items() for name in family])
def test_a_member_is_an_entry_with_a_label_and_takes_its_parameters_in_writing(what, name):
    family, entry = FAMILIES[what], FAMILIES[what][name]
    assert isinstance(entry, Entry)
    assert entry.label not in ("", name)
    assert member(family, name, what=what) is entry
    for parameter, told in in_other_words(family, name):
        assert told.parameters == {**entry.parameters, parameter: other(entry.parameters[parameter])}
        assert (type(told), told.label) == (type(entry), entry.label)
    with pytest.raises(
        ValueError, match=rf"{name} has (no parameters|the parameters .*=).* Received: {what}={name}:x=1"
    ):
        member(family, f"{name}:x=1", what=what)


# Samplers


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
def test_a_sampler_gives_a_distribution_over_the_classes_with_images(name, counts):
    table = probability_table(name, counts, 3)
    np.testing.assert_allclose(table.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(table > 0, np.broadcast_to(np.array(counts) > 0, table.shape))
    if min(counts) == max(counts):
        np.testing.assert_allclose(table, 1 / len(counts))


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_parameter_reaches_the_sampler(name):
    for parameter, told in in_other_words(SAMPLERS, name):
        assert np.abs(told([80, 40, 20], 0.5) - SAMPLERS[name]([80, 40, 20], 0.5)).max() > 1e-4, parameter


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_draws_are_the_sampler_s(name):
    """2,100 of them in each of two epochs; the largest deviation that chance gives a share is about 0.01."""
    assert SAMPLERS[name].engine in ENGINES
    labels = np.repeat([0, 1, 3], [80, 40, 20])  # class 2 has no images
    recipe = Recipe(epochs=2, batch_size=100, steps_per_epoch=21, sampler=name)
    rows = training_indices(labels, Stream(recipe, np.bincount(labels))).take(42)
    drawn = labels[np.concatenate(list(rows.as_numpy_iterator()))].reshape(2, -1)
    shares = [np.bincount(epoch, minlength=4) / 2100 for epoch in drawn]
    np.testing.assert_allclose(shares, probability_table(name, np.bincount(labels), 2), atol=0.03)


# Losses and class weights; `test_labels` and `test_losses` have more that all losses do.


@pytest.mark.parametrize("name", LOSSES)
def test_every_parameter_reaches_the_loss(name):
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 3, 8), rng.normal(size=(8, 3))
    for parameter, told in in_other_words(LOSSES, name):
        others = {"shape": "power"} if parameter == "power" else {}  # the power is of that shape alone
        plain, moved = (float(entry([80, 40, 20], **others)(labels, logits)) for entry in (LOSSES[name], told))
        assert abs(moved - plain) > 1e-4, parameter


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
def test_what_a_loss_asks_of_the_classifier_there_is(name, counts):
    entry = LOSSES[name]
    assert not entry.needed_head or member(HEADS, entry.needed_head, what="head")
    assert entry.first_bias is None or np.isfinite(entry.first_bias(len(counts)))
    prior = entry.prior_beside(counts)
    assert prior.shape == (len(counts),)
    assert np.isfinite(prior).all()
    for _, told in in_other_words(LOSSES, name):
        assert not told.needed_head or member(HEADS, told.needed_head, what="head")


@pytest.mark.parametrize("name", FEATURE_LOSSES)
def test_every_parameter_reaches_the_loss_on_features(name):
    rng = np.random.default_rng(0)
    labels, features = np.repeat([0, 1, 2], 4), rng.normal(size=(12, 2))
    plain = np.asarray(FEATURE_LOSSES[name](labels, features))
    for parameter, told in in_other_words(FEATURE_LOSSES, name):
        assert not np.allclose(told(labels, features), plain, rtol=1e-5, atol=0), parameter


@pytest.mark.parametrize("name", CLASS_WEIGHTS)
@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
def test_class_weights_have_mean_one_over_the_classes_with_images(name, counts):
    entry, there = CLASS_WEIGHTS[name], np.array(counts) > 0
    if not entry.weighs:
        assert class_weight_table(name, counts, epochs=2) is None
        return
    weights = entry(np.array(counts))
    np.testing.assert_array_equal(weights > 0, there)
    np.testing.assert_allclose(weights[there].mean(), 1)
    assert (np.diff(weights[there][np.argsort(np.array(counts)[there])]) <= 0).all()  # the rarer, the more
    np.testing.assert_allclose(class_weight_table(name, counts, epochs=2), [weights] * 2, rtol=1e-6)


@pytest.mark.parametrize("name", CLASS_WEIGHTS)
def test_every_parameter_reaches_the_class_weights(name):
    counts = np.array([80, 40, 20])
    for parameter, told in in_other_words(CLASS_WEIGHTS, name):
        assert not np.allclose(told(counts), CLASS_WEIGHTS[name](counts)), parameter


# Heads


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("name", HEADS)
def test_a_head_is_a_layer_that_trains_and_survives_saving(name, classes, tmp_path):
    layer, again = (HEADS[name](4, classes, seed=3) for _ in range(2))
    np.testing.assert_array_equal(layer.get_weights()[0], again.get_weights()[0])  # by the seed
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layer(inputs))
    model.compile("sgd", LOSSES["cross_entropy"](np.ones(classes)))
    features = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    features[0] = 0  # has no direction
    before = layer.get_weights()[0].copy()
    model.train_on_batch(features, np.arange(8) % classes)
    assert np.isfinite(layer.get_weights()[0]).all()
    assert np.abs(layer.get_weights()[0] - before).max() > 0
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras")(features), model(features))
    if (affine := fold(layer)) is not None:
        np.testing.assert_allclose(features @ affine[0] + affine[1], model(features), rtol=1e-5, atol=1e-6)
    for parameter, told in in_other_words(HEADS, name):
        assert getattr(told(4, classes, seed=3), parameter) == told.parameters[parameter]


# Classifiers


FORMS = (*CLASSIFIERS, "logit_adjusted:prior=effective", "logit_adjusted:multiplicative=true")
WIDTH = 7


def stage_one(classes):
    """A classifier of so many classes on features of `WIDTH`, the first of which has no weights."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(WIDTH, classes)) * (np.arange(classes) > 0)
    return dense_of(kernel, rng.normal(size=classes))


def permuted(weights, order):
    """Weights with their axis of classes, if they have one, in another order."""
    axes = [axis for axis, length in enumerate(weights.shape) if length == len(order)]
    return np.take(weights, order, axis=axes[0]) if axes else weights


def settled(layer, choices, features, labels, *, recipe, batch):
    """A candidate as stage two makes it, if it is trained after a step of SGD on a batch; its last choice."""
    counts = np.bincount(labels)
    if hasattr(layer, "adapt"):
        layer.adapt(features, labels)
    if layer.trainable_weights:
        weights = recipe.weight_table(counts)
        weights = None if weights is None else weights[-1][labels[batch]]
        with tf.GradientTape() as tape:
            loss = recipe.loss_entry(counts)(labels[batch], layer(features[batch]), weights)
        variables = [variable.value for variable in layer.trainable_weights]
        for variable, slope in zip(variables, tape.gradient(loss, variables), strict=True):
            variable.assign_sub(0.1 * slope)
    tried = choices if isinstance(choices, list) else next(choices)
    return as_chosen(layer, tried[-1], WIDTH) if hasattr(layer, "shared") else layer


@pytest.mark.parametrize(
    "counts", [[3, 9, 5], [4, 4, 4, 4], [9, 4, 1], [2, 7]], ids=["unsorted", "alike", "one of a single image", "two"]
)
@pytest.mark.parametrize("name", FORMS)
def test_a_classifier_takes_classes_of_any_size_in_any_order(name, counts):
    """One is absent from its batch. In another order of the classes its logits are the same in that order."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    features = rng.normal(size=(len(labels), WIDTH)).astype(np.float32)
    entry, recipe = classifier_entry(name)
    training = {"recipe": recipe, "batch": labels != 1}
    order = np.roll(np.arange(len(counts)), 1)
    head = stage_one(len(counts))
    moved_head = dense_of(*(permuted(weights, order) for weights in head.get_weights()))
    for (choices, plain), (again, other_order) in zip(entry(head, seed=0), entry(moved_head, seed=0), strict=True):
        if not entry.starts_from:  # what is drawn, is drawn in the order of the classes
            other_order.set_weights([permuted(weights, order) for weights in plain.get_weights()])
        layer = settled(plain, choices, features, labels, **training)
        moved = settled(other_order, again, features, np.argsort(order)[labels], **training)
        logits = np.asarray(layer(features))
        assert np.isfinite(logits).all()
        close = {"rtol": 1e-4, "atol": 1e-5 * np.abs(logits).max()}
        np.testing.assert_allclose(moved(features), logits[:, order], **close)
        if (affine := fold(layer)) is not None:
            np.testing.assert_allclose(features @ affine[0] + affine[1], logits, **close)


@pytest.mark.parametrize("name", [name for name in FORMS if classifier_entry(name)[0].tau_split])
def test_a_grid_of_tau_costs_one_product_of_features_and_kernel(name, monkeypatch):
    """Of the features of val, in chunks; one row more tells how many classes there are."""
    rows, matmul = [], tf.matmul

    def counted(features, kernel, **options):
        rows.append(len(features))
        return matmul(features, kernel, **options)

    monkeypatch.setattr(chunks, "MOST_ROWS", 8)
    entry, _ = classifier_entry(name)
    rng = np.random.default_rng(0)
    val = FeatureSet(rng.normal(size=(20, WIDTH)), np.arange(20) % 5)
    ((choices, layer),) = entry(stage_one(5), seed=0)
    if hasattr(layer, "adapt"):
        layer.adapt(val.features, val.labels)
    monkeypatch.setattr(tf, "matmul", counted)
    tried = choices if isinstance(choices, list) else next(choices)
    scores_of(layer, val, ShotGroups([5] * 5), tried)
    assert len(tried) > 20
    assert rows == [1, 8, 8, 4]


# How weights are updated


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_trains_at_the_rates_that_it_is_told_and_survives_saving(name, tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(2)])
    still = [variable.path for variable in model.layers[0].variables]
    recipe = Recipe(epochs=2, optimizer=name, learning_rate=0.1, weight_decay=0.1, clip_norm=1.0)
    optimizer = make_optimizer(recipe, steps=2, multipliers=dict.fromkeys(still, 0.0))
    model.compile(optimizer, LOSSES["cross_entropy"]([1, 1]))
    before = [weight.copy() for weight in model.get_weights()]
    model.fit(np.eye(3), np.array([0, 1, 1]), epochs=2, steps_per_epoch=1, shuffle=False, verbose=0)
    moved = [np.abs(new - old).max() for new, old in zip(model.get_weights(), before, strict=True)]
    assert np.isfinite(moved).all()
    assert [amount > 0 for amount in moved] == [False, False, True, True]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").optimizer
    assert loaded.get_config() == optimizer.get_config()
    for ours, theirs in zip(loaded.variables, optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for parameter, told in in_other_words(OPTIMIZERS, name):
        assert getattr(told(0.1, weight_decay=0.0), parameter) == told.parameters[parameter]


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_stays_below_the_peak_and_is_what_the_optimizer_steps_by(name):
    decay = {"decay_epochs": (2, 3)} if SCHEDULES[name].by_decay_epochs else {}
    recipe = Recipe(epochs=4, batch_size=4, learning_rate=0.2, schedule=name, **decay)
    rates = np.array([recipe.rate(k / 5) for k in range(20)])
    assert rates[0] == pytest.approx(0.2)
    assert (rates > 0).all()
    assert (np.diff(rates) <= 1e-12).all()
    per_epoch = rates.reshape(4, 5)
    assert (np.ptp(per_epoch, axis=1) > 0).all() == SCHEDULES[name].every_step
    schedule = make_optimizer(recipe, steps=5)._learning_rate
    stepped = [float(schedule(step)) for step in range(20)]
    np.testing.assert_allclose(
        stepped, rates if SCHEDULES[name].every_step else per_epoch[:, [0] * 5].ravel(), rtol=1e-6
    )


# Balanced lists; what they give is known from the counts, as `test_resampling_lists` has it.


@pytest.mark.parametrize("classes", [[0, 1], [0, 2]], ids=["two classes", "a class without images"])
@pytest.mark.parametrize("name", RESAMPLING)
def test_a_balanced_list_has_every_class_that_was_there(name, classes):
    labels = np.repeat(classes, [6, 3])
    entry = RESAMPLING[name]
    if entry.makes_features:
        features, made = entry(np.random.default_rng(0).normal(size=(9, 2)), labels, seed=0)
        assert features.shape == (len(made), 2)
    else:
        made = labels[entry(labels, seed=0)]
    there, counts = np.unique(made, return_counts=True)
    assert there.tolist() == classes
    assert counts.tolist() == ([6, 3] if entry.size is None else [entry.size(np.array([6, 3]))] * 2)
