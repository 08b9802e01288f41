"""Rejection and replication of a stream: values by hand on small streams; the statistics have a file of their own."""

import numpy as np
import pytest
import tensorflow as tf

from keras_lt.resampling import accepted_fraction, expected_copies, rejection_resample
from tests.conftest import some_of

COUNTS = [60, 30, 10]
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(3), COUNTS))
RECORDS = tf.data.Dataset.from_tensor_slices(({"bytes": [f"record {k}" for k in range(100)], "id": range(100)}, LABELS))
THIRDS = [1 / 3, 1 / 3, 1 / 3]


def ids(dataset):
    return np.array([x["id"] for x, _ in dataset.as_numpy_iterator()])


def test_expected_copies_by_hand():
    # A third of 90 is 30 records of each class, out of 60, 30 and 10.
    np.testing.assert_allclose(expected_copies(COUNTS, THIRDS, samples_per_epoch=90), [0.5, 1, 3])
    np.testing.assert_allclose(expected_copies(COUNTS, [[0.6, 0.3, 0.1], [0, 0, 1]]), [[1, 1, 1], [0, 0, 10]])


def test_accepted_fraction_by_hand():
    # Half of 60, and all of 30 and 10: 70 of 100 records.
    assert accepted_fraction(COUNTS, THIRDS, samples_per_epoch=90) == pytest.approx(0.7)
    np.testing.assert_allclose(accepted_fraction(COUNTS, [[0.6, 0.3, 0.1], [0, 0, 1]]), [1, 0.1])


def test_a_record_is_emitted_its_expected_copies_rounded_down_or_up():
    # 30 of 60 are kept on average, give or take one standard deviation of 3.9; the other classes are exact.
    stream = rejection_resample(
        RECORDS, class_counts=COUNTS, probabilities=THIRDS, seed=0, samples_per_epoch=90, shuffle_buffer=1
    )
    first_pass = ids(stream.take(75))  # all of it but its end
    times = np.bincount(first_pass, minlength=100)[: first_pass.max()]
    labels = LABELS[: first_pass.max()]
    assert set(times[labels == 0]) == {0, 1}
    assert set(times[labels == 1]) == {1}
    assert set(times[labels == 2]) == {3}
    assert 10 < times[labels == 0].sum() < 40


def test_what_is_accepted_is_the_expected_fraction():
    stream = rejection_resample(RECORDS, class_counts=COUNTS, probabilities=[[0.1, 0.1, 0.8]] * 10, seed=0)
    shown = ids(stream).reshape(10, 100)
    fraction = accepted_fraction(COUNTS, [0.1, 0.1, 0.8])
    assert fraction == pytest.approx((10 + 10 + 10) / 100)
    # An epoch may begin a second pass or end a little early.
    assert np.mean([len(set(epoch)) for epoch in shown]) / 100 == pytest.approx(fraction, abs=0.03)


def test_the_copies_of_a_record_are_parted():
    tail = rejection_resample(RECORDS, class_counts=COUNTS, probabilities=[0, 0, 1], seed=0)
    together = rejection_resample(RECORDS, class_counts=COUNTS, probabilities=[0, 0, 1], seed=0, shuffle_buffer=1)
    assert np.mean(np.diff(ids(together.take(100))) == 0) == pytest.approx(90 / 99)
    assert np.mean(np.diff(ids(tail.take(100))) == 0) < 0.3


def test_epochs_follow_their_rows_and_differ():
    rows = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]]
    stream = rejection_resample(RECORDS, class_counts=COUNTS, probabilities=rows, seed=0, samples_per_epoch=25)
    assert stream.cardinality() == 100
    epochs = ids(stream).reshape(4, 25)
    np.testing.assert_array_equal(LABELS[epochs], np.repeat([[0], [1], [2], [0]], 25, axis=1))
    assert set(epochs[0]) != set(epochs[3])
    np.testing.assert_array_equal(ids(stream).reshape(4, 25), epochs)


def test_an_endless_stream_draws_anew_in_each_pass_and_by_seed():
    one, other = (
        rejection_resample(RECORDS, class_counts=COUNTS, probabilities=[0.5, 0.25, 0.25], seed=seed) for seed in (0, 1)
    )
    assert one.cardinality() == tf.data.INFINITE_CARDINALITY
    shown = ids(one.take(5000))
    np.testing.assert_allclose(np.bincount(LABELS[shown]) / 5000, [0.5, 0.25, 0.25], atol=0.01)
    assert len(set(shown)) == 100
    assert (shown[:1000] == ids(other.take(1000))).mean() < 0.1


@pytest.mark.parametrize("global_seed", some_of([0, 7], 7))
def test_the_users_global_seed_has_no_say(global_seed):
    """Zero is the one that TensorFlow's shuffle cannot put beside a tensor."""
    streams = []
    for seed in (3, global_seed):
        tf.random.set_seed(seed)
        stream = rejection_resample(RECORDS, class_counts=COUNTS, probabilities=THIRDS, seed=5)
        streams.append(ids(stream.take(300)))
    np.testing.assert_array_equal(*streams)


def test_element_spec_is_kept_also_where_shapes_vary():
    def varied():
        for k in range(300):
            yield np.full([k % 3 + 1, 2], k, np.float32), k % 2

    spec = (tf.TensorSpec([None, 2], tf.float32), tf.TensorSpec([], tf.uint8))
    dataset = tf.data.Dataset.from_generator(varied, output_signature=spec)
    stream = rejection_resample(dataset, class_counts=[150, 150], probabilities=[0.9, 0.1], seed=0)
    assert stream.element_spec == spec
    shown = list(stream.take(300).as_numpy_iterator())
    assert all(x.shape == (x[0, 0] % 3 + 1, 2) and label == x[0, 0] % 2 for x, label in shown)
    assert np.mean([label for _, label in shown]) == pytest.approx(0.1, abs=0.05)


def test_a_checkpoint_restores_the_stream(tmp_path):
    stream = rejection_resample(RECORDS, class_counts=COUNTS, probabilities=THIRDS, seed=0, shuffle_buffer=16)
    options = tf.data.Options()
    options.experimental_external_state_policy = tf.data.experimental.ExternalStatePolicy.IGNORE
    stream = stream.map(lambda x, label: x["id"]).with_options(options)
    iterator = iter(stream)
    for _ in range(130):  # into the second pass
        next(iterator)
    saved = tf.train.Checkpoint(iterator=iterator).save(tmp_path / "at")
    following = [int(next(iterator)) for _ in range(200)]
    fresh = iter(stream)
    tf.train.Checkpoint(iterator=fresh).restore(saved)
    assert [int(next(fresh)) for _ in range(200)] == following


@pytest.mark.parametrize(
    ("counts", "probabilities", "options", "message"),
    [
        ([60, 30], THIRDS, {}, r"\[3\].*\(2,\)"),
        ([60, 30, 0], THIRDS, {}, "0 of class 2"),
        ([60, 30, -1], THIRDS, {}, "-1"),
        (COUNTS, [0.5, 0.4, 0.0], {}, r"sum=0\.9"),
        (COUNTS, THIRDS, {"samples_per_epoch": 0}, "samples_per_epoch=0"),
        (COUNTS, THIRDS, {"seed": -1}, "seed=-1"),
        (COUNTS, THIRDS, {"shuffle_buffer": 0}, "shuffle_buffer=0"),
    ],
)
def test_bad_input(counts, probabilities, options, message):
    with pytest.raises(ValueError, match=message):
        rejection_resample(RECORDS, class_counts=counts, probabilities=probabilities, **{"seed": 0, **options})


@pytest.mark.parametrize(
    "dataset",
    [
        tf.data.Dataset.range(3),
        tf.data.Dataset.from_tensor_slices(([1.0, 2.0], [0.0, 1.0])),
        tf.data.Dataset.from_tensor_slices(([1.0, 2.0], [0, 1])).batch(2),
        tf.data.Dataset.from_tensor_slices(([1.0, 2.0], [0, 1])).take(0),
    ],
)
def test_a_dataset_of_another_form(dataset):
    with pytest.raises(ValueError, match="Received"):
        rejection_resample(dataset, class_counts=[1, 1], probabilities=[0.5, 0.5], seed=0)


@pytest.mark.parametrize("label", some_of([-1, 2], 2))
def test_a_label_outside_the_classes_stops_the_stream(label):
    dataset = tf.data.Dataset.from_tensor_slices((range(3), [0, 1, label]))
    stream = rejection_resample(dataset, class_counts=[1, 1], probabilities=[0.5, 0.5], seed=0)
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"{label} is not in \[0, 2\)"):
        list(stream.take(9))


@pytest.mark.parametrize("shuffle_buffer", some_of([1, 64], 64))
def test_the_classes_of_a_sorted_stream_all_get_their_share_of_an_epoch(shuffle_buffer):
    """An epoch is a whole pass: what its end is like does not decide on the last class."""
    counts = np.array([800, 150, 50])
    records = tf.data.Dataset.from_tensor_slices((np.arange(1000), np.repeat([0, 1, 2], counts)))
    stream = rejection_resample(
        records, class_counts=counts, probabilities=[[1 / 3] * 3] * 30, seed=1, shuffle_buffer=shuffle_buffer
    )
    rows = np.concatenate([batch.numpy() for batch, _ in stream.batch(1000)])
    assert len(rows) == 30_000
    shares = [(rows < 800).mean(), ((rows >= 800) & (rows < 950)).mean(), (rows >= 950).mean()]
    np.testing.assert_allclose(shares, 1 / 3, atol=2e-3)
