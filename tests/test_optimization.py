import keras
import numpy as np
import pytest

from keras_lt.optimization import AdamW, CoupledSGD, check_optimizer, make_optimizer
from keras_lt.recipe import Recipe


def test_three_steps_equal_hand_computed_ones():
    """w = 2, constant gradient 1, decay 0.1, momentum 0.5, rates 0.1, 0.1, 0.05: worked on paper."""
    weight = keras.Variable(2.0)
    optimizer = CoupledSGD(0.1, momentum=0.5, coupled_weight_decay=0.1)
    values = []
    for rate in (0.1, 0.1, 0.05):
        optimizer.learning_rate = rate
        optimizer.apply([keras.ops.convert_to_tensor(1.0)], [weight])
        values.append(float(weight))
    # step 1: g = 1 + .2 = 1.2,    m = 1.2,             w = 2 - .12         = 1.88
    # step 2: g = 1 + .188 = 1.188, m = .6 + 1.188 = 1.788, w = 1.88 - .1788 = 1.7012
    # step 3: g = 1.17012,          m = .894 + 1.17012,     w = 1.7012 - .05 * 2.06412 = 1.597994
    np.testing.assert_allclose(values, [1.88, 1.7012, 1.597994], rtol=1e-6)


def test_keras_own_sgd_differs_where_the_rate_changes():
    """The reason for an optimiser of our own: Keras keeps the old rate inside the momentum."""
    ours, theirs = keras.Variable(2.0), keras.Variable(2.0)
    optimizers = (CoupledSGD(0.1, momentum=0.5), keras.optimizers.SGD(0.1, momentum=0.5))
    for rate in (0.1, 0.01):
        for optimizer, weight in zip(optimizers, (ours, theirs), strict=True):
            optimizer.learning_rate = rate
            optimizer.apply([keras.ops.convert_to_tensor(1.0)], [weight])
    np.testing.assert_allclose(float(ours), 2 - 0.1 - 0.01 * 1.5)
    np.testing.assert_allclose(float(theirs), 2 - 0.1 - (0.05 + 0.01))


def test_decay_reaches_every_trainable_weight_of_a_model():
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(2), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
    )
    model.layers[-1].trainable = False
    before = [w.numpy() + 1.0 for w in model.weights]
    for weight, value in zip(model.weights, before, strict=True):
        weight.assign(value)
    optimizer = CoupledSGD(0.5, momentum=0.0, coupled_weight_decay=0.2)
    optimizer.apply([keras.ops.zeros_like(w) for w in model.trainable_variables], model.trainable_variables)
    trainable = {id(w) for w in model.trainable_variables}
    assert len(trainable) == 4  # kernel, bias, gamma, beta
    for weight, value in zip(model.weights, before, strict=True):
        factor = 0.9 if id(weight) in trainable else 1.0
        np.testing.assert_allclose(weight.numpy(), factor * value, rtol=1e-6)


@pytest.mark.versions
def test_multipliers_scale_the_rate_of_their_variables():
    fast, slow = keras.Variable(1.0, name="fast"), keras.Variable(1.0, name="slow")
    optimizer = CoupledSGD(0.1, momentum=0.0, multipliers={slow.path: 0.1})
    optimizer.apply([keras.ops.convert_to_tensor(1.0)] * 2, [fast, slow])
    np.testing.assert_allclose([float(fast), float(slow)], [0.9, 0.99], rtol=1e-6)


def test_optimizer_survives_its_config():
    optimizer = CoupledSGD(0.3, momentum=0.8, coupled_weight_decay=0.01, multipliers={"a": 0.5})
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert isinstance(again, CoupledSGD)
    assert (again.momentum, again.coupled_weight_decay, again.multipliers) == (0.8, 0.01, {"a": 0.5})
    np.testing.assert_allclose(float(again.learning_rate), 0.3)


def test_cosine_is_held_within_an_epoch_and_ends_above_zero():
    recipe = Recipe(epochs=4, learning_rate=0.2)
    # (1 + cos(pi k / 4)) / 2 for k = 0..3
    expected = [0.2, 0.2 * (2 + 2**0.5) / 4, 0.1, 0.2 * (2 - 2**0.5) / 4]
    np.testing.assert_allclose([recipe.rate(epoch) for epoch in range(4)], expected)


def test_ldam_drw_protocol_warms_up_and_steps_down_twice():
    """CIFAR-LT: 0.1, warm-up over 5 epochs, a hundredth after 160 and again after 180 epochs."""
    recipe = Recipe(
        epochs=200,
        learning_rate=0.1,
        schedule="multistep",
        warmup_epochs=5,
        decay_epochs=(160, 180),
        decay_factor=0.01,
    )
    epochs = [0, 1, 4, 5, 159, 160, 179, 180, 199]
    expected = [0.02, 0.04, 0.1, 0.1, 0.1, 1e-3, 1e-3, 1e-5, 1e-5]
    np.testing.assert_allclose([recipe.rate(epoch) for epoch in epochs], expected)


def test_warm_up_scales_a_cosine():
    recipe = Recipe(epochs=4, learning_rate=0.2, warmup_epochs=2)
    np.testing.assert_allclose(recipe.rate(0), 0.1)
    np.testing.assert_allclose(recipe.rate(2), 0.1)  # cos(pi / 2) is 0: half the rate, and no warm-up any more


def test_an_epoch_is_the_full_batches_of_the_training_set():
    assert Recipe(batch_size=512).steps(115_846) == 226
    assert Recipe(batch_size=512, steps_per_epoch=7).steps(115_846) == 7


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Recipe(batch_size=8).steps(7), "at least one full batch.*batch_size=8, 7 training images"),
        (lambda: Recipe(epochs=0), "epochs must be at least 1. Received: epochs=0"),
        (lambda: Recipe(learning_rate=float("nan")), "learning_rate must be finite"),
        (lambda: Recipe(schedule="exponential"), "schedule must be one of cosine, cosine_per_step, multistep"),
        (lambda: Recipe(schedule="multistep"), "decay_epochs belong to schedule=multistep, which needs them"),
        (lambda: Recipe(decay_epochs=(3,)), r"schedule=cosine, decay_epochs=\(3,\)"),
        (lambda: Recipe(batch_size=8, accumulate_steps=3), "accumulate_steps=3, batch_size=8"),
        (lambda: Recipe(accumulate_steps=2, ema_momentum=0.9), "averages weights after every micro-batch"),
        (lambda: Recipe(ema_momentum=1.0), r"ema_momentum must lie in \[0, 1\)"),
        (lambda: Recipe(batch_size=2, steps_per_execution=3).steps(8), "round the epoch up.*=3, 4 of them"),
        (lambda: Recipe(loss="cross_entropy:label_smoothing=1"), r"label_smoothing must lie in \[0, 1\)"),
        (lambda: Recipe(sampler="power:q=-1"), "q must be finite and at least 0"),
        (lambda: Recipe(class_weights="effective_number:beta=1"), r"beta must lie in \[0, 1\)"),
        (lambda: Recipe(engine="instance", sampler="square_root"), "engine=instance.*sampler=square_root"),
        (lambda: Recipe(feature_loss="ring"), "feature_loss must be one of lifted, range"),
        (lambda: Recipe(jit_compile="yes"), "jit_compile must be one of auto, true, false"),
        (lambda: Recipe(weight_decay=-1.0), "weight_decay must be finite and at least 0"),
    ],
)
def test_impossible_numbers_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_nesterov_steps_ahead_of_the_momentum():
    """Gradient 1, momentum 0.5, rate 0.1: m is 1, 1.5; the steps are 1 + .5 * 1 and 1 + .5 * 1.5 times the rate."""
    weight, optimizer = keras.Variable(2.0), CoupledSGD(0.1, momentum=0.5, nesterov=True)
    values = []
    for _ in range(2):
        optimizer.apply([keras.ops.convert_to_tensor(1.0)], [weight])
        values.append(float(weight))
    np.testing.assert_allclose(values, [2 - 0.15, 2 - 0.15 - 0.175], rtol=1e-6)


@pytest.mark.versions
def test_adamw_decays_apart_from_the_gradient_at_each_variables_own_rate():
    """Constant gradient 1: both moments' estimates are 1, so a step is rate / (1 + eps), after w (1 - rate 0.2)."""
    fast, slow = keras.Variable([2.0], name="fast"), keras.Variable([2.0], name="slow")
    optimizer = AdamW(0.1, decoupled_weight_decay=0.2, multipliers={slow.path: 0.1})
    expected = np.array([2.0, 2.0])
    for _ in range(3):
        optimizer.apply([keras.ops.convert_to_tensor([1.0])] * 2, [fast, slow])
        rates = np.array([0.1, 0.01])
        expected = expected * (1 - 0.2 * rates) - rates
        np.testing.assert_allclose(np.ravel([np.asarray(w) for w in (fast, slow)]), expected, rtol=1e-5)


@pytest.mark.versions
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_every_optimizer_of_a_recipe_survives_its_config(name):
    recipe = Recipe(epochs=2, optimizer=name, learning_rate=0.1)
    optimizer = make_optimizer(recipe, steps=3, multipliers={"a": 0.5})
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is type(optimizer)
    assert again.get_config() == optimizer.get_config()


@pytest.mark.parametrize("accumulate_steps", [1, 2])
@pytest.mark.parametrize(("schedule", "rates"), [("cosine", [0.2, 0.2, 0.1, 0.1]), ("cosine_per_step", None)])
def test_the_rate_goes_by_updates_inside_the_optimizer(schedule, rates, accumulate_steps):
    """Two epochs of two updates; the per-step cosine is 0.2 (1 + cos(pi k / 4)) / 2 at update k."""
    recipe = Recipe(epochs=2, learning_rate=0.2, schedule=schedule, batch_size=4, accumulate_steps=accumulate_steps)
    rates = rates or [0.1 * (1 + np.cos(np.pi * k / 4)) for k in range(4)]
    weight = keras.Variable(0.0)
    optimizer = make_optimizer(recipe, steps=2)
    optimizer.coupled_weight_decay, optimizer.momentum = 0.0, 0.0
    values = []
    for _ in range(4 * accumulate_steps):
        optimizer.apply([keras.ops.convert_to_tensor(-1.0)], [weight])
        values.append(float(weight))
    taken = np.diff([0.0, *values[accumulate_steps - 1 :: accumulate_steps]])
    np.testing.assert_allclose(taken, rates, rtol=1e-5)


def test_settings_of_another_optimizer_are_refused():
    check_optimizer(Recipe(nesterov=True))
    with pytest.raises(
        ValueError, match=r"nesterov belongs to optimizer=sgd\. Received: optimizer=adamw, nesterov=True"
    ):
        check_optimizer(Recipe(optimizer="adamw", nesterov=True))
    with pytest.raises(ValueError, match="optimizer must be one of sgd, adamw"):
        check_optimizer(Recipe(optimizer="adam"))
    with pytest.raises(ValueError, match=r"nesterov steps ahead by the momentum.*Received: momentum=0"):
        check_optimizer(Recipe(nesterov=True, momentum=0))
