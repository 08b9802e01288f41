"""Streams of long epochs: blocks shorter than an epoch, and shuffles computed place by place."""

import math

import numpy as np
import pytest
import tensorflow as tf

import keras_lt
from keras_lt.resampling import epoch_indices, plans, sample_indices
from keras_lt.resampling.shuffles import mixed, shuffled
from tests import test_resampling as whole
from tests.conftest import some_of


@pytest.fixture
def short_blocks(monkeypatch):
    """What is true of a million examples, for the tests' hundred: four blocks an epoch, with a rest."""
    monkeypatch.setattr(plans, "AT_ONCE", 100)
    monkeypatch.setattr(plans, "BLOCK", 40)


def landed(size, keys):
    """Where the places of a shuffle land under each key, [K, size]."""
    keys = mixed(tf.constant(keys, tf.int64), np.int64(0))
    places = tf.tile(tf.range(size, dtype=tf.int64), [len(keys)])
    return (
        shuffled(places, tf.fill([size * len(keys)], np.int64(size)), tf.repeat(keys, size)).numpy().reshape(-1, size)
    )


@pytest.mark.parametrize("size", [1, 2, 3, 10, 365, 8143])
def test_a_shuffle_is_a_permutation_and_another_under_another_key(size):
    one, other = landed(size, [1, 2])
    np.testing.assert_array_equal(np.sort(one), np.arange(size))
    np.testing.assert_array_equal(np.sort(other), np.arange(size))
    if size > 300:
        assert (one == other).mean() < 0.02
        assert abs(np.corrcoef(one[:-1], one[1:])[0, 1]) < 0.2


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_every_order_of_a_few_is_as_likely(size):
    orders, times = np.unique(landed(size, np.arange(100 * math.factorial(size))), axis=0, return_counts=True)
    assert len(orders) == math.factorial(size)
    freedom = len(orders) - 1
    assert ((times - 100) ** 2).sum() / 100 < freedom + 4 * math.sqrt(2 * freedom)  # chi-square


def test_shuffles_of_several_sizes_side_by_side_are_those_alone():
    sizes = np.repeat([7, 3, 50], [7, 3, 50])
    places = np.concatenate([np.arange(7), np.arange(3), np.arange(50)])
    keys = mixed(tf.constant(sizes), np.int64(0))
    together = shuffled(tf.constant(places), tf.constant(sizes), keys).numpy()
    for size in (7, 3, 50):
        np.testing.assert_array_equal(together[sizes == size], landed(size, [size])[0])


@pytest.mark.usefixtures("short_blocks")
@pytest.mark.parametrize(
    "name",
    some_of(["weighted-table", "stratified-skewed", "stratified-balanced", "instance-table"], "stratified-balanced"),
)
def test_a_stream_started_anywhere_equals_the_rest_of_the_whole_one(name):
    engine, probabilities = whole.STREAMS[name]
    begin = whole.first(whole.stream(engine, probabilities), 400)
    tail = whole.first(whole.stream(engine, probabilities, start=161, batch_size=30), 7)
    np.testing.assert_array_equal(tail, begin[161:371])


@pytest.mark.usefixtures("short_blocks")
@pytest.mark.parametrize(
    "name", some_of(["weighted-table", "stratified-skewed", "instance-table"], "stratified-skewed")
)
def test_an_epoch_drawn_at_once_is_that_of_the_stream(name):
    engine, probabilities = whole.STREAMS[name]
    draws = epoch_indices(whole.LABELS, probabilities, num_samples=whole.EPOCH, seed=3, engine=engine)
    together = np.concatenate([draws(epoch) for epoch in range(3)])
    np.testing.assert_array_equal(together, whole.first(whole.stream(engine, probabilities), 3 * whole.EPOCH))


@pytest.mark.usefixtures("short_blocks")
def test_the_slices_of_all_workers_are_the_batches_of_one():
    whole.test_the_slices_of_all_workers_are_the_batches_of_one("stratified", whole.SKEWED, 2)


@pytest.mark.usefixtures("short_blocks")
def test_a_checkpoint_restores_the_stream(tmp_path):
    whole.test_a_checkpoint_restores_the_stream("stratified", whole.BALANCED, tmp_path)


@pytest.mark.usefixtures("short_blocks")
def test_instance_is_a_permutation_every_epoch():
    whole.test_instance_is_a_permutation_every_epoch()
    whole.test_instance_shows_the_head_of_a_permutation_or_several(500)


@pytest.mark.usefixtures("short_blocks")
@pytest.mark.parametrize("probabilities", [whole.SKEWED, whole.BALANCED, np.tile(whole.PROGRESSIVE, (2, 1))])
def test_stratified_shows_every_image_of_a_class_before_any_repeats(probabilities):
    indices = whole.first(whole.stream("stratified", probabilities), 1000)
    for label, count in enumerate(whole.COUNTS):
        draws = indices[whole.LABELS[indices] == label]
        cycles = [draws[start : start + count] for start in range(0, len(draws), count)]
        assert len(cycles) >= 2
        assert all(len(set(cycle)) == len(cycle) for cycle in cycles)
        assert list(cycles[0]) != list(cycles[1])


@pytest.mark.usefixtures("short_blocks")
def test_class_balanced_stratified_cycles_over_classes_four_images_at_a_time():
    labels = whole.LABELS[whole.first(whole.stream("stratified", whole.BALANCED), 1600)].reshape(-1, 4, 4)
    assert (labels == labels[..., :1]).all()
    np.testing.assert_array_equal(np.sort(labels[..., 0]), np.tile(np.arange(4), (len(labels), 1)))
    assert len({tuple(visits) for visits in labels[..., 0]}) > 20  # of 24 orders, in 100 rounds


@pytest.mark.usefixtures("short_blocks")
def test_quotas_of_blocks_add_up_to_those_of_epochs():
    indices = whole.first(whole.stream("stratified", whole.SKEWED), 55 * 40)  # a period
    times = np.bincount(whole.LABELS[indices], minlength=4)
    assert np.abs(times - len(indices) * whole.SKEWED).max() < 1e-6
    half = np.bincount(whole.LABELS[indices[:1000]], minlength=4)
    assert np.abs(half - 1000 * whole.SKEWED).max() <= 2


@pytest.mark.usefixtures("short_blocks")
def test_weighted_draws_follow_the_row_of_their_epoch():
    rows = np.array([[1, 0, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 1]])
    epochs = whole.LABELS[whole.first(whole.stream("weighted", rows), 3 * whole.EPOCH)].reshape(3, -1)
    assert [set(epoch) for epoch in epochs] == [{0}, {1, 2}, {3}]


@pytest.mark.usefixtures("short_blocks")
def test_a_balanced_dataset_goes_on_where_its_last_epoch_ended():
    x, y = np.arange(160), whole.LABELS
    epoch = keras_lt.balance((x, y), num_samples=128, seed=3)
    shown = np.concatenate([rows for _ in range(3) for rows, _ in epoch.as_numpy_iterator()])
    stream = sample_indices(y, whole.BALANCED, num_samples=128, seed=3, engine="stratified")
    np.testing.assert_array_equal(shown, whole.first(stream, 384))
