"""How a fit goes: its rate, its batches, its weights and what ends it; by whole nets on the tests' squares."""

import dataclasses

import keras
import numpy as np
import pytest

from keras_lt import FeatureSet, Recipe, Split, learn_classifier, learn_representation
from keras_lt.checkpoints import EpochCheckpoints
from keras_lt.optimization import CoupledSGD
from keras_lt.stages.fitting import fit
from tests.conftest import some_of
from tests.programs import NOISE, TWO_CPUS, lines_of
from tests.tiny_backbone import tiny

RECIPE = Recipe(epochs=2, batch_size=12, learning_rate=0.02, weight_decay=1e-3, steps_per_epoch=3)


def linear(data, recipe, *, folder=None, train_batches=None, layer=keras.layers.Dense):
    """Fits a linear model on rows of pixels; returns it and its history."""
    import tensorflow as tf  # noqa: PLC0415

    from keras_lt.distribution import make_strategy  # noqa: PLC0415
    from keras_lt.input_pipeline import Stream  # noqa: PLC0415

    def rows(split):
        return (split.images.reshape(len(split), -1) / 255).astype(np.float32)

    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((64,)), layer(3)])
    inputs = tf.data.Dataset.from_tensor_slices((rows(data.train), data.train.labels)).repeat()
    passes = recipe.accumulate_steps
    history = fit(
        model,
        train_batches or (lambda stream: inputs.batch(recipe.micro_batch).skip(stream.start_step * passes)),
        lambda size: tf.data.Dataset.from_tensor_slices((rows(data.val), data.val.labels)).batch(size),
        stream=Stream(recipe, data.class_counts),
        groups=data.groups,
        val_examples=len(data.val),
        strategy=make_strategy("none"),
        folder=folder,
        trained_on=data.train,
    )
    return model, history


def difference(model, other):
    pairs = zip(model.get_weights(), other.get_weights(), strict=True)
    return max(np.abs(a - b).max() for a, b in pairs)


def test_averaged_weights_have_the_statistics_of_their_own_activations(data):
    """Batch norm's moving statistics are of the raw weights: far from those of weights averaged over a whole epoch."""

    class Normalized(keras.layers.Dense):
        def build(self, shape):
            super().build(shape)
            self.norm = keras.layers.BatchNormalization(momentum=0.9)
            self.norm.build((None, self.units))

        def call(self, inputs, training=None):
            return self.norm(super().call(inputs), training=training)

    recipe = dataclasses.replace(RECIPE, ema_momentum=0.9, learning_rate=0.5, kept_epoch="last")
    model, history = linear(data, recipe, layer=Normalized)
    layer = model.layers[-1]
    last = np.resize(np.arange(len(data.train)), 72)[36:]  # the second epoch's three batches of twelve
    pixels = (data.train.images[last].reshape(3, 12, -1) / 255).astype(np.float32)
    activations = pixels @ layer.kernel.numpy() + layer.bias.numpy()
    np.testing.assert_allclose(layer.norm.moving_mean, activations.mean(axis=1).mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(layer.norm.moving_variance, activations.var(axis=1).mean(axis=0), rtol=1e-3)
    val = (data.val.images.reshape(len(data.val), -1) / 255).astype(np.float32)
    predicted = np.asarray(model(val)).argmax(axis=1)
    assert history[-1]["val_all"] == pytest.approx(np.mean(predicted == data.val.labels))


def test_what_comes_after_an_epoch_is_done_to_weights_and_their_average(data):
    """Halved after each of two epochs of one step at rate 0, 1 is 1/2 and 1/4; the average .75 / 2 + .25 / 2 is 1/4."""

    class Halved(keras.layers.Dense):
        def after_epoch(self):
            self.kernel.assign(self.kernel / 2)

    recipe = dataclasses.replace(RECIPE, ema_momentum=0.75, learning_rate=0, steps_per_epoch=1, kept_epoch="last")
    model, _ = linear(data, recipe, layer=lambda units: Halved(units, kernel_initializer="ones"))
    np.testing.assert_allclose(model.get_weights()[0], 0.25)


def test_a_network_is_traced_once_to_train_and_once_to_validate(data):
    """A graph of a deep net takes a minute; Keras makes two where the optimizer's variables are not there yet."""
    traced = []

    class Counted(keras.layers.Dense):
        def call(self, inputs, training=None):
            traced.append(training)
            return super().call(inputs)

    linear(data, RECIPE, layer=Counted)
    assert traced.count(True) == traced.count(False) == 1


@pytest.mark.parametrize("schedule", ["cosine", "cosine_per_step"])
def test_the_learning_rate_of_each_epoch_is_logged(data, schedule):
    recipe = dataclasses.replace(RECIPE, schedule=schedule)
    _, history = linear(data, recipe)
    # Two epochs: cos(0) and cos(pi / 2), or their last of three steps, cos(2 pi / 6) and cos(5 pi / 6).
    expected = {"cosine": [0.02, 0.01], "cosine_per_step": [0.015, 0.01 * (1 - 3**0.5 / 2)]}
    np.testing.assert_allclose([row["learning_rate"] for row in history], expected[schedule], rtol=1e-6)


def test_accumulated_passes_are_one_batch(data):
    whole, _ = linear(data, RECIPE)
    for passes in (2, 3):
        parts, _ = linear(data, dataclasses.replace(RECIPE, accumulate_steps=passes))
        assert difference(whole, parts) < 1e-6


def test_several_steps_per_execution_are_the_same_steps(data):
    whole, history = linear(data, RECIPE)
    at_once, again = linear(data, dataclasses.replace(RECIPE, steps_per_execution=3))
    assert difference(whole, at_once) < 1e-6
    assert [row["loss"] for row in history] == pytest.approx([row["loss"] for row in again], rel=1e-5)


def test_gradients_are_clipped_by_their_common_norm():
    """Gradients (3, 4) and (0, 12) have norm 13; clipped to 1 they are a thirteenth. Two steps, momentum 0.5."""
    weights = [keras.Variable(np.zeros(2)), keras.Variable(np.zeros(2))]
    gradients = [keras.ops.convert_to_tensor([3.0, 4.0]), keras.ops.convert_to_tensor([0.0, 12.0])]
    optimizer = CoupledSGD(1.0, momentum=0.5, global_clipnorm=1.0)
    for _ in range(2):
        optimizer.apply(gradients, weights)
    np.testing.assert_allclose(weights[0], -2.5 * np.array([3, 4]) / 13, rtol=1e-6)
    np.testing.assert_allclose(weights[1], -2.5 * np.array([0, 12]) / 13, rtol=1e-6)


def test_the_kept_weights_are_the_moving_average(data):
    """One epoch of one, two and three steps give w1, w2, w3 and so the average by hand."""
    steps = [linear(data, dataclasses.replace(RECIPE, epochs=1, steps_per_epoch=n))[0] for n in (1, 2, 3)]
    averaged, _ = linear(data, dataclasses.replace(RECIPE, epochs=1, ema_momentum=0.75))
    w1, w2, w3 = (model.get_weights()[0] for model in steps)
    # Keras starts the average at the first weights it sees, those after step one.
    expected = 0.75 * (0.75 * w1 + 0.25 * w2) + 0.25 * w3
    np.testing.assert_allclose(averaged.get_weights()[0], expected, rtol=1e-5)


def stop_in_the_third(self, epoch, logs=None):
    if epoch == 2:
        raise KeyboardInterrupt


@pytest.mark.exhaustive
def test_the_moving_average_is_validated_and_survives_a_stop(data, tmp_path, monkeypatch):
    recipe = dataclasses.replace(RECIPE, ema_momentum=0.9, epochs=3)
    whole, history = linear(data, recipe)
    continued = dataclasses.replace(recipe, schedule="multistep", decay_epochs=(9,))
    monkeypatch.setattr(EpochCheckpoints, "on_epoch_begin", stop_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        linear(data, continued, folder=tmp_path)
    monkeypatch.undo()
    resumed, rows = linear(data, continued, folder=tmp_path)
    uninterrupted, expected = linear(data, continued)
    assert difference(resumed, uninterrupted) == 0
    assert [row["val_class_mean"] for row in rows] == [row["val_class_mean"] for row in expected]
    assert len(history) == 3
    assert difference(whole, resumed) > 0  # another schedule, so that the comparison above could fail


@pytest.mark.parametrize("other", ["recipe", "seed", "features", "labels", "classifier"])
def test_a_folder_of_another_training_is_refused_and_stays_as_it_is(tmp_path, other):
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(60, 4)).astype(np.float32), np.repeat([0, 1, 2], [40, 15, 5])
    recipe = Recipe(epochs=1, batch_size=20, learning_rate=np.float32(0.1), nesterov=np.bool_(True))
    arguments = {"features": dict.fromkeys(("train", "val"), FeatureSet(features, labels)), "recipe": recipe}
    first = learn_classifier("crt", **arguments, folder=tmp_path)
    again = learn_classifier("crt", **arguments, folder=tmp_path)
    np.testing.assert_array_equal(again.model.get_weights()[0], first.model.get_weights()[0])
    (checkpoint,) = tmp_path.glob("checkpoints/*.npz")
    before = checkpoint.read_bytes()
    changed = {
        "recipe": {"recipe": dataclasses.replace(recipe, learning_rate=0.2)},
        "seed": {"seed": np.int64(1)},
        "features": {"features": dict.fromkeys(("train", "val"), FeatureSet(features + 1, labels))},
        "labels": {"features": dict.fromkeys(("train", "val"), FeatureSet(features, labels[::-1].copy()))},
        "classifier": {},
    }
    said = {"recipe": r"learning_rate: 0\.1\d* there, 0\.2 now", "seed": "seed: 0 there, 1 now", "classifier": "Cosine"}
    name = "cosine" if other == "classifier" else "crt"
    with pytest.raises(OSError, match=rf"one with other .*{said.get(other, 'examples: ')}.*; give another folder"):
        learn_classifier(name, **{**arguments, **changed[other]}, folder=tmp_path)
    assert checkpoint.read_bytes() == before


def test_a_stage_one_of_other_images_is_refused(data, tmp_path):
    arguments = {"backbone": tiny(), "recipe": RECIPE, "folder": tmp_path}
    learn_representation(data, **arguments)
    others = dataclasses.replace(data, train=Split(255 - data.train.images, data.train.labels))
    with pytest.raises(OSError, match=r"one with other examples: \w+ there, \w+ now"):
        learn_representation(others, **arguments)
    with pytest.raises(OSError, match=r"one with other augmentation: none there, crop_flip now"):
        learn_representation(data, **arguments, augmentation="crop_flip")


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_batch(data, tmp_path):
    import tensorflow as tf  # noqa: PLC0415

    inputs = np.random.default_rng(0).random((72, 64)).astype(np.float32)
    inputs[12 * 4 + 5] = np.inf  # in the fifth batch: epoch 2, batch 2 of 3
    stream = tf.data.Dataset.from_tensor_slices((inputs, np.arange(72) % 3)).batch(12)
    with pytest.raises(FloatingPointError, match=r"epoch 2, batch 2, at learning rate 0\.01.*bad_batch\.npz"):
        linear(data, RECIPE, folder=tmp_path, train_batches=lambda own: stream.skip(own.start_step))
    with np.load(tmp_path / "bad_batch.npz") as kept:
        np.testing.assert_array_equal(kept["inputs"], inputs[48:60])
        np.testing.assert_array_equal(kept["labels"], np.arange(48, 60) % 3)


def test_weights_that_the_last_step_has_broken_end_the_run_before_anything_is_kept_of_them(data, tmp_path):
    import tensorflow as tf  # noqa: PLC0415

    recipe = dataclasses.replace(RECIPE, learning_rate=3e38, epochs=1, steps_per_epoch=1)
    batch = tf.data.Dataset.from_tensors((np.full((12, 64), 100, np.float32), np.arange(12) % 3))
    with pytest.raises(FloatingPointError, match=r"Weights are no longer finite in epoch 1, batch 1, .*: lower the le"):
        linear(data, recipe, folder=tmp_path, train_batches=lambda own: batch)
    assert [path.name for path in tmp_path.iterdir()] == ["events"]


@pytest.mark.parametrize("precision", some_of(["mixed_bfloat16", "mixed_float16"], "mixed_bfloat16"))
def test_mixed_precision_learns_in_float32_weights_and_survives_saving(data, tmp_path, precision):
    options = {"backbone": "tiny", "recipe": dataclasses.replace(RECIPE, epochs=1), "seed": 0}
    full = learn_representation(data, **options)
    mixed = learn_representation(data, **options, precision=precision)
    assert keras.config.dtype_policy().name == "float32"  # nothing stays set
    assert {variable.dtype for variable in mixed.model.trainable_variables} == {"float32"}
    assert mixed.backbone.layers[1].compute_dtype == precision.removeprefix("mixed_")
    assert mixed.backbone.output.dtype == mixed.model.output.dtype == "float32"
    mixed.save(tmp_path)
    images = np.zeros((2, 8, 8, 3), np.float32)
    again = type(mixed).load(tmp_path)
    np.testing.assert_array_equal(again.model(images), mixed.model(images))
    np.testing.assert_allclose(mixed.model(images), full.model(images), atol=0.05)


def test_correcting_twice_for_the_tail_is_warned_of(data):
    recipe = dataclasses.replace(RECIPE, epochs=1, loss="balanced_softmax")
    learn_representation(data, backbone="tiny", recipe=recipe)  # a warning would be an error
    with pytest.warns(UserWarning, match="sampler=class_balanced, class_weights=none correct a second time"):
        learn_representation(data, backbone="tiny", recipe=dataclasses.replace(recipe, sampler="class_balanced"))


def test_an_unknown_precision_is_refused(data):
    with pytest.raises(ValueError, match="precision must be one of float32, mixed_bfloat16, mixed_float16"):
        learn_representation(data, backbone="tiny", precision="float16")


XLA = """
recipe = Recipe(epochs=1, steps_per_epoch=3, batch_size=8, learning_rate=0.05)
interpreted, compiled = (
    learn_representation(data, backbone="tiny", recipe=dataclasses.replace(recipe, jit_compile=jit)).model
    for jit in ("false", "true")
)
print(interpreted.jit_compile, compiled.jit_compile)
print(max(np.abs(a - b).max() for a, b in zip(interpreted.get_weights(), compiled.get_weights())))
"""


@pytest.mark.exhaustive
def test_compiled_by_xla_the_numbers_are_the_same():
    """In a process of its own: Keras does not compile once ops have been made deterministic, as other tests do."""
    compiled, difference_of_weights = lines_of(NOISE, XLA)[-2:]
    assert compiled == "False True"
    assert float(difference_of_weights) < 1e-4


TWO_DEVICES = """
recipe = Recipe(epochs=1, steps_per_epoch=3, batch_size=8, learning_rate=0.05, weight_decay=0.01, ema_momentum=0.5)
one, two = (
    learn_representation(data, backbone="tiny", recipe=recipe, strategy=strategy)
    for strategy in (make_strategy("none"), make_strategy("mirrored", ["CPU:0", "CPU:1"]))
)
moved = [np.abs(a - b).max() for a, b in zip(one.model.get_weights(), two.model.get_weights())]
print(max(moved), max(abs(one.history[0][k] - two.history[0][k]) for k in one.history[0] if k != "seconds"))
"""


@pytest.mark.exhaustive
def test_two_devices_give_the_weights_and_scores_of_one():
    """Batch norm over the global batch, coupled decay, a moving average, and a val of nine images."""
    weights, scores = map(float, lines_of(TWO_CPUS, NOISE, TWO_DEVICES)[-1].split())
    assert weights < 1e-5
    assert scores < 1e-5
