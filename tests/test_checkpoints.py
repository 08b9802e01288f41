import csv
import errno

import keras
import numpy as np
import pytest

from keras_lt.checkpoints import EpochCheckpoints, read_history
from keras_lt.optimization import CoupledSGD, SteppedRate
from tests.conftest import some_of


def model_with_dropout(optimizer=None):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5, seed=1),
            keras.layers.Dense(1),
        ]
    )
    model.compile(optimizer or keras.optimizers.SGD(0.05, momentum=0.9), "mse")
    return model


def train(model, checkpoints, epochs):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 4)).astype("float32"), rng.normal(size=(32, 1)).astype("float32")
    done = checkpoints.restore(model)
    model.fit(x, y, batch_size=8, shuffle=False, initial_epoch=done, epochs=epochs, callbacks=[checkpoints], verbose=0)
    return done


@pytest.mark.versions
def test_a_stopped_training_ends_where_an_unstopped_one_does(tmp_path):
    """With dropout, batch norm and momentum, whose state Keras's own backup loses in part."""
    whole, stopped, resumed = model_with_dropout(), model_with_dropout(), model_with_dropout()
    train(whole, EpochCheckpoints(None, "loss"), 5)
    assert train(stopped, EpochCheckpoints(tmp_path, "loss"), 3) == 0
    assert train(resumed, EpochCheckpoints(tmp_path, "loss"), 5) == 3
    for ours, theirs in zip(resumed.variables, whole.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    with (tmp_path / "history.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3", "4", "5"]


SCALED = keras.mixed_precision.LossScaleOptimizer


@pytest.mark.parametrize(
    "around", [lambda optimizer: optimizer, pytest.param(SCALED, marks=pytest.mark.exhaustive)], ids=["plain", "scaled"]
)
def test_a_training_of_version_01_whose_learning_rate_was_a_variable_goes_on(tmp_path, around):
    rates = SteppedRate([0.05] * 4, passes=4)  # the same in every epoch, so that both do the same
    whole, old, new = (model_with_dropout(around(CoupledSGD(rate))) for rate in (rates, 0.05, rates))
    train(whole, EpochCheckpoints(None, "loss"), 4)
    train(old, EpochCheckpoints(tmp_path, "loss"), 2)
    assert train(new, EpochCheckpoints(tmp_path, "loss"), 4) == 2
    assert len(old.optimizer.variables) == len(new.optimizer.variables) + 1
    for ours, theirs in zip(new.variables, whole.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    for ours, theirs in zip(new.optimizer.variables, whole.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.parametrize("change", ["width", "optimizer"])
def test_a_checkpoint_of_another_training_is_refused_in_one_line_and_nothing_is_assigned(tmp_path, change):
    feed(tmp_path, [0.1])
    model = keras.Sequential([keras.Input((2 if change == "width" else 1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile("sgd" if change == "width" else "adam", "mse")
    before = model.get_weights()
    with pytest.raises(
        OSError, match=r"^A checkpoint must have the \d variables .* 3 others in .*epoch-00001.npz; [^\n]+$"
    ):
        EpochCheckpoints(tmp_path, "val_score").restore(model)
    np.testing.assert_array_equal(model.get_weights(), before)


def with_a_frozen_layer():
    model = model_with_dropout()
    model.layers[0].trainable = False
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse")
    return model


@pytest.mark.parametrize("earlier", some_of([False, True], False), ids=["now", "earlier version"])
def test_what_is_frozen_is_not_written_and_the_training_goes_on_exactly(tmp_path, monkeypatch, earlier):
    whole, stopped, resumed = with_a_frozen_layer(), with_a_frozen_layer(), with_a_frozen_layer()
    train(whole, EpochCheckpoints(None, "loss"), 3)
    with monkeypatch.context() as patch:
        if earlier:  # which wrote all
            patch.setattr("keras_lt.checkpoints.frozen_variables", lambda model: [])
        train(stopped, EpochCheckpoints(tmp_path, "loss"), 2)
    path = tmp_path / "checkpoints" / "epoch-00002.npz"
    with np.load(path) as file:
        state = dict(file)
    assert sum(value.shape == (4, 8) for name, value in state.items() if name.startswith("model")) == earlier
    if earlier:  # without a checksum
        np.savez(path, **{name: value for name, value in state.items() if name != "frozen"})
    assert train(resumed, EpochCheckpoints(tmp_path, "loss"), 3) == 2
    for ours, theirs in zip(resumed.variables, whole.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def test_other_frozen_weights_than_a_checkpoint_was_written_beside_are_refused(tmp_path):
    model = with_a_frozen_layer()
    train(model, EpochCheckpoints(tmp_path, "loss"), 1)
    model.layers[0].bias.assign(np.ones(8))
    with pytest.raises(OSError, match=r"^What is frozen must be as it was when the training began\. Received: other"):
        EpochCheckpoints(tmp_path, "loss").restore(model)


def feed(folder, values, keep="best"):
    """Epochs that log the values, with the epoch's number as the model's only weight."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(), "mse")
    model.optimizer.build(model.trainable_variables)
    checkpoints = EpochCheckpoints(folder, "val_score", keep=keep)
    checkpoints.set_model(model)
    for epoch, value in enumerate(values):
        model.set_weights([np.full((1, 1), epoch, "float32")])
        checkpoints.on_epoch_begin(epoch)
        checkpoints.on_epoch_end(epoch, {"val_score": value})
    return model, checkpoints


@pytest.mark.parametrize("on_disk", [True, False])
def test_the_earliest_of_the_kept_epochs_is_kept(tmp_path, on_disk):
    model, checkpoints = feed(tmp_path if on_disk else None, [0.1, 0.7, 0.3, 0.7, 0.2, 0.1])
    assert checkpoints.kept_epoch == 1
    checkpoints.restore_kept(model)
    assert model.get_weights()[0].item() == 1


@pytest.mark.parametrize("on_disk", [True, False])
def test_the_last_epoch_is_kept_where_that_is_asked_for(tmp_path, on_disk):
    model, checkpoints = feed(tmp_path if on_disk else None, [0.1, 0.7, 0.3], keep="last")
    model.set_weights([np.full((1, 1), 9, "float32")])
    checkpoints.restore_kept(model)
    assert model.get_weights()[0].item() == 2
    if on_disk:
        assert len(list((tmp_path / "checkpoints").iterdir())) == 2


def test_two_latest_and_best_checkpoints_stay_on_disk(tmp_path):
    feed(tmp_path, [0.1, 0.7, 0.3, 0.7, 0.2, 0.1])
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["epoch-00002.npz", "epoch-00005.npz", "epoch-00006.npz"]


def test_a_truncated_checkpoint_is_passed_over_with_a_warning(tmp_path):
    model, _ = feed(tmp_path, [0.1, 0.2, 0.3])
    newest = tmp_path / "checkpoints" / "epoch-00003.npz"
    newest.write_bytes(newest.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="epoch-00003.npz cannot be read"):
        assert EpochCheckpoints(tmp_path, "val_score").restore(model) == 2
    assert model.get_weights()[0].item() == 1


def test_a_disk_that_fills_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    model, checkpoints = feed(tmp_path, [0.1, 0.2])

    def half(file, **state):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", half)
        with pytest.raises(OSError, match=r"No room for .*epoch-00003.npz"):
            checkpoints.on_epoch_end(2, {"val_score": 0.3})
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["epoch-00001.npz", "epoch-00002.npz"]
    assert EpochCheckpoints(tmp_path, "val_score").restore(model) == 2


def test_what_a_kill_right_after_a_checkpoint_left_undone_is_done_by_the_next_run(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(EpochCheckpoints, "_tidy", lambda self: None)
        model, _ = feed(tmp_path, [0.1, 0.7, 0.3, 0.2])
    assert EpochCheckpoints(tmp_path, "val_score").restore(model) == 4
    assert [row["val_score"] for row in read_history(tmp_path / "history.csv")] == [0.1, 0.7, 0.3, 0.2]
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["epoch-00002.npz", "epoch-00003.npz", "epoch-00004.npz"]


def test_a_score_that_is_not_logged_is_named():
    checkpoints = EpochCheckpoints(None, "val_score")
    with pytest.raises(ValueError, match=r"val_score. Received: \['loss'\]"):
        checkpoints.on_epoch_end(0, {"loss": 1.0})
