"""Do the streams follow their targets? Chi-square tests at the class counts of the published data sets.

Seeds are fixed, so a test that passes always passes; a p-value below ALPHA would mean a wrong distribution. Stratified
and rejection sampling vary less than independent draws: their p-values are near one, and exact bounds are tested too.
"""

import functools

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from keras_lt import samplers
from keras_lt.resampling import rejection_resample, sample_indices
from tests.conftest import some_of

ALPHA = 1e-4
# classes: examples (as many as Places-LT has, and a fifth of iNaturalist 2018)
SIZES = {10: 2_000, 365: 62_500, 8142: 90_000}
at_every_size = pytest.mark.parametrize("classes", some_of(SIZES, 10))


@functools.cache
def long_tail(classes):
    """Labels [N] and counts [C] of a power law with at least two examples a class, as iNaturalist 2018 has."""
    weights = 1 / np.arange(1, classes + 1)
    counts = np.maximum(2, SIZES[classes] * weights / weights.sum()).astype(int)
    return np.random.default_rng(classes).permutation(np.repeat(np.arange(classes), counts)), counts


def drawn(engine, probabilities, classes, *, num_samples, seed=0):
    """Indices of all epochs of a table, [E * num_samples]."""
    labels, counts = long_tail(classes)
    if engine == "rejection":
        records = tf.data.Dataset.from_tensor_slices((np.arange(len(labels)), labels))
        stream = rejection_resample(
            records, class_counts=counts, probabilities=probabilities, seed=seed, samples_per_epoch=num_samples
        )
        return np.concatenate([indices for indices, _ in stream.batch(4096).as_numpy_iterator()])
    stream = sample_indices(labels, probabilities, num_samples=num_samples, seed=seed, engine=engine, batch_size=4096)
    return np.concatenate(list(stream.as_numpy_iterator()))


def p_value(observed, expected):
    """Of the chi-square test; neighbouring classes are pooled until each cell expects five."""
    cells = np.floor(np.cumsum(expected) / 5.0001).astype(int)
    observed, expected = (np.bincount(cells, values) for values in (observed, expected))
    used = expected > 0
    assert not observed[~used].any()
    return stats.chisquare(observed[used], expected[used] * observed.sum() / expected.sum()).pvalue


@at_every_size
@pytest.mark.parametrize("sampler", some_of(samplers.SAMPLERS, "class_balanced", "square_root", "progressive"))
@pytest.mark.parametrize("engine", ["weighted", "stratified", "rejection"])
def test_every_epoch_follows_its_own_row(engine, sampler, classes):
    labels, counts = long_tail(classes)
    epochs = 3 if sampler == "progressive" else 1
    table = samplers.probability_table(sampler, counts, epochs)
    indices = drawn(engine, table, classes, num_samples=len(labels)).reshape(epochs, -1)
    times = np.stack([np.bincount(labels[epoch], minlength=classes) for epoch in indices])
    for row, of_epoch in zip(table, times, strict=True):
        assert p_value(of_epoch, len(labels) * row) > ALPHA
    if engine == "stratified":
        # Of all epochs so far: one off by the rounding of quotas, which later epochs make good where rows change, or
        # one visit of four images off in a cycle over the classes.
        off = np.cumsum(times - len(labels) * table, axis=0)
        assert np.abs(off).max() < (4 if sampler == "class_balanced" else 1)


@pytest.mark.exhaustive
def test_the_chi_square_test_tells_rows_apart():
    labels, counts = long_tail(365)
    table = samplers.probability_table("progressive", counts, 20)
    for engine in ("weighted", "stratified", "rejection"):
        indices = drawn(engine, table[:1], 365, num_samples=len(labels))
        assert p_value(np.bincount(labels[indices], minlength=365), len(labels) * table[2]) < ALPHA


@at_every_size
def test_a_shuffled_epoch_keeps_the_class_counts_in_any_part_of_it(classes):
    labels, counts = long_tail(classes)
    row = samplers.power_probabilities(counts, 1.0)
    half = drawn("instance", row[None], classes, num_samples=len(labels) // 2)
    assert len(set(half)) == len(half)
    assert p_value(np.bincount(labels[half], minlength=classes), len(half) * row) > ALPHA


@at_every_size
@pytest.mark.parametrize("engine", ["weighted", "stratified", "rejection"])
def test_images_of_a_class_are_shown_alike(engine, classes):
    labels, counts = long_tail(classes)
    row = samplers.power_probabilities(counts, 0.0)
    times = np.bincount(drawn(engine, row[None], classes, num_samples=len(labels)), minlength=len(labels))
    # Given how often its class was shown, each image's share is one n-th of it.
    of_class = np.bincount(labels, times, minlength=classes)
    by_class = np.argsort(labels, kind="stable")
    assert p_value(times[by_class], (of_class / counts)[labels[by_class]]) > ALPHA
    spread = np.array([np.ptp(images) for images in np.split(times[by_class], np.cumsum(counts)[:-1])])
    if engine == "stratified":
        assert spread.max() == 1
    if engine == "rejection":
        assert spread[counts > len(labels) / classes].max() <= 2  # dropped or kept; twice in a second pass


@at_every_size
@pytest.mark.parametrize("engine", ["weighted", "stratified", "instance", "rejection"])
def test_order_does_not_tell_the_class(engine, classes):
    labels, counts = long_tail(classes)
    row = samplers.power_probabilities(counts, 0.5)
    parts = labels[drawn(engine, row[None], classes, num_samples=len(labels))[: len(labels) // 10 * 10]].reshape(10, -1)
    groups = np.geomspace(1, classes, 6)[1:-1]  # five, from head to tail
    table = [np.bincount(np.digitize(part, groups), minlength=5) for part in parts]
    assert stats.chi2_contingency(table).pvalue > ALPHA


@pytest.mark.parametrize("engine", ["weighted", "stratified", "instance"])
def test_neighbours_are_independent(engine):
    # A class or an image is followed by the same one as often as chance has it; quotas spread theirs a little apart.
    labels, counts = long_tail(10)
    row = samplers.power_probabilities(counts, 1.0)
    shown = labels[drawn(engine, np.tile(row, (10, 1)), 10, num_samples=len(labels))]
    repeats, pairs = (shown[1:] == shown[:-1]).sum(), len(shown) - 1
    expected = (row**2).sum()
    z = (repeats / pairs - expected) / np.sqrt(expected * (1 - expected) / pairs)
    assert abs(z) < 4 or (engine == "stratified" and z < 0)
