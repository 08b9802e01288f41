"""Training on features in memory is what `model.fit` does, without its waits."""

import dataclasses

import numpy as np
import pytest

from keras_lt.features import FeatureSet
from keras_lt.recipe import Recipe
from keras_lt.stages import classifier as classifier_module
from keras_lt.stages import in_memory, learn_classifier

RECIPE = Recipe(epochs=3, batch_size=12, learning_rate=0.1, sampler="class_balanced")


@pytest.fixture(scope="module")
def embeddings():
    corners = 2 * np.eye(3, 5, dtype=np.float32)

    def around(counts, seed):
        labels = np.repeat(np.arange(3), counts)
        return FeatureSet(corners[labels] + np.random.default_rng(seed).normal(size=(len(labels), 5)), labels)

    return {"train": around((60, 20, 10), 0), "val": around((10, 10, 10), 1)}


def scaled(embeddings, factor):
    return {split: FeatureSet(factor * rows.features, rows.labels) for split, rows in embeddings.items()}


@pytest.fixture(scope="module")
def head(embeddings):
    return learn_classifier("crt:sampler=instance_balanced", features=embeddings, recipe=RECIPE).model.layers[-1]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("crt:schedule=cosine_per_step", marks=pytest.mark.exhaustive),
        "disalign:rho=1.2",  # class weights
        pytest.param("max_norm", marks=pytest.mark.exhaustive),  # projected after every epoch
        "mislas",  # rates of their own
    ],
)
def test_it_ends_with_the_weights_of_model_fit(embeddings, head, name, monkeypatch):
    arguments = {"features": embeddings, "head": head, "recipe": RECIPE, "seed": 3}
    ours = learn_classifier(name, **arguments)
    monkeypatch.setattr(classifier_module, "trains_in_memory", lambda *_, **__: False)
    fitted = learn_classifier(name, **arguments)
    assert ours.val == pytest.approx(fitted.val, nan_ok=True)
    for one, other in zip(ours.model.get_weights(), fitted.model.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_a_second_fit_of_that_shape_compiles_nothing_and_starts_afresh(embeddings):
    first = learn_classifier("crt", features=embeddings, recipe=RECIPE)
    traced = in_memory._compiled.cache_info().misses
    learn_classifier("crt", features=embeddings, recipe=RECIPE, seed=1)  # leaves its momentum behind
    again = learn_classifier("crt", features=embeddings, recipe=RECIPE)
    assert in_memory._compiled.cache_info().misses == traced
    for one, other in zip(first.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_weights_that_the_last_step_has_broken_are_an_error(embeddings):
    recipe = dataclasses.replace(RECIPE, learning_rate=3e38, epochs=1, steps_per_epoch=1)
    with pytest.raises(FloatingPointError, match=r"Weights are no longer finite in epoch 1, batch 1, at learning rate"):
        learn_classifier("crt", features=scaled(embeddings, 100), recipe=recipe)


def test_without_val_the_last_epoch_is_kept(embeddings):
    """The learning rate of the last epoch is 0.25 of the peak; that of the only one is the peak."""
    alone = {"train": embeddings["train"]}
    classifier = learn_classifier("crt", features=alone, recipe=RECIPE)
    assert np.isnan(classifier.val["class_mean"])
    judged = [learn_classifier("crt", features=embeddings, recipe=dataclasses.replace(RECIPE, epochs=1)), classifier]
    losses = [-np.log(softmax(one.model, embeddings["train"])).mean() for one in judged]
    assert losses[1] < losses[0]
    for name in ("ncm", "lws_tau_norm"):
        with pytest.raises(ValueError, match=f"{name} is chosen on val: .* Received: train alone"):
            learn_classifier(name, features=alone, head=classifier.model.layers[-1])


def softmax(model, examples):
    """The probability of the true class, [N]."""
    odds = np.exp(np.asarray(model(examples.features)))
    return odds[np.arange(len(odds)), examples.labels] / odds.sum(axis=1)


def test_a_loss_that_is_no_number_ends_training(embeddings):
    with pytest.raises(FloatingPointError, match=r"The loss is \w+ in epoch \d, batch \d+, at learning rate 1e\+30"):
        learn_classifier("crt:learning_rate=1e30", features=embeddings, recipe=RECIPE)
