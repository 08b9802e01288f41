"""Index streams: which index stands where, however the stream is started, batched, shared out or restored."""

import numpy as np
import pytest
import tensorflow as tf

from keras_lt import samplers
from keras_lt.resampling import ENGINES, plans, sample_indices
from tests.conftest import some_of
from tests.programs import lines_of

COUNTS = np.array([80, 40, 20, 20])
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(4), COUNTS))
BALANCED = np.full(4, 0.25)
SKEWED = np.array([0.1, 0.2, 0.3, 0.4])
PROGRESSIVE = samplers.probability_table("progressive", COUNTS, 5)
# Everything a stream may be drawn from: both forms of stratified sampling, endless and ending.
STREAMS = {
    f"{engine}-{name}": (engine, p) for engine in ENGINES for name, p in [("table", PROGRESSIVE), ("skewed", SKEWED)]
}
STREAMS["stratified-balanced"] = ("stratified", BALANCED)
ALSO = ("weighted-table", "stratified-skewed", "instance-skewed")
streams = pytest.mark.parametrize(
    ("engine", "probabilities"),
    [
        pytest.param(*drawn_from, id=name, marks=pytest.mark.exhaustive if name in ALSO else ())
        for name, drawn_from in STREAMS.items()
    ],
)

EPOCH = 157  # a prime: no batch size, no cycle and no number of workers divides it


def stream(engine, probabilities, **options):
    return sample_indices(LABELS, probabilities, num_samples=EPOCH, seed=3, engine=engine, **options)


def first(dataset, count):
    """So many elements in one array; those of one index each come many at a time, which is quicker."""
    elements = dataset.take(count)
    elements = elements if dataset.element_spec.shape.rank else elements.batch(1024)
    return np.concatenate(list(elements.as_numpy_iterator()))


@streams
def test_a_stream_started_anywhere_equals_the_rest_of_the_whole_one(engine, probabilities):
    whole = first(stream(engine, probabilities), 5 * EPOCH)
    assert len(whole) == 5 * EPOCH
    for start in (1, EPOCH - 1, EPOCH, 4 * EPOCH + 5):
        tail = first(stream(engine, probabilities, start=start), 5 * EPOCH - start)
        np.testing.assert_array_equal(tail, whole[start:])


@streams
@pytest.mark.parametrize("batch_size", some_of([7, 400], 7))
def test_batches_hold_the_same_stream_across_epochs(engine, probabilities, batch_size):
    whole = first(stream(engine, probabilities), 5 * EPOCH)
    batches = list(stream(engine, probabilities, batch_size=batch_size, start=10).take(1 + 700 // batch_size))
    joined = np.concatenate(batches)[:700]
    assert all(len(batch) == batch_size for batch in batches[:-1])
    np.testing.assert_array_equal(joined, whole[10:710])


@streams
@pytest.mark.parametrize("workers", some_of([2, 3, 8], 3))
def test_the_slices_of_all_workers_are_the_batches_of_one(engine, probabilities, workers):
    steps = 5 * EPOCH // 48 + 1  # the last batch of the table is a partial one
    alone = list(stream(engine, probabilities, batch_size=48).take(steps).as_numpy_iterator())
    shares = [
        list(
            stream(engine, probabilities, batch_size=48, worker=worker, workers=workers).take(steps).as_numpy_iterator()
        )
        for worker in range(workers)
    ]
    assert [len(share) for share in shares] == [steps] * workers
    for step, batch in enumerate(alone):
        assert {len(share[step]) for share in shares} <= {len(batch) // workers, len(batch) // workers + 1}
        np.testing.assert_array_equal(np.concatenate([share[step] for share in shares]), batch)


@pytest.mark.parametrize("workers", some_of([2, 3, 8], 3))
def test_workers_take_turns_at_the_scalars(workers):
    alone = first(stream("weighted", PROGRESSIVE), 5 * EPOCH)
    for worker in range(workers):
        share = first(stream("weighted", PROGRESSIVE, worker=worker, workers=workers), -1)
        np.testing.assert_array_equal(share, alone[worker::workers])


@pytest.mark.parametrize("engine", ENGINES)
def test_a_table_ends_after_its_epochs_and_a_vector_never_does(engine):
    assert stream(engine, PROGRESSIVE).cardinality() == 5 * EPOCH
    assert stream(engine, PROGRESSIVE, start=100).cardinality() == 5 * EPOCH - 100
    assert stream(engine, PROGRESSIVE, batch_size=64).cardinality() == 13  # 785 examples: 12 * 64 + 17
    assert [len(batch) for batch in stream(engine, PROGRESSIVE, batch_size=64)] == [64] * 12 + [17]
    assert list(stream(engine, PROGRESSIVE, start=5 * EPOCH)) == []
    assert stream(engine, SKEWED).cardinality() == tf.data.INFINITE_CARDINALITY
    assert stream(engine, SKEWED, batch_size=64).element_spec == tf.TensorSpec([64], tf.int64)
    assert stream(engine, SKEWED, batch_size=64, worker=1, workers=4).element_spec == tf.TensorSpec([16], tf.int64)


@streams
def test_seeds_give_different_streams_and_one_seed_always_the_same(engine, probabilities):
    one, same, other = (
        first(sample_indices(LABELS, probabilities, num_samples=EPOCH, seed=seed, engine=engine), 400)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert (one == other).mean() < 0.2
    assert (one[:EPOCH] == one[EPOCH : 2 * EPOCH]).mean() < 0.2  # nor is one epoch another's copy


@streams
def test_a_checkpoint_restores_the_stream(engine, probabilities, tmp_path):
    batches = stream(engine, probabilities, batch_size=32)
    iterator = iter(batches)
    for _ in range(7):
        next(iterator)
    saved = tf.train.Checkpoint(iterator=iterator).save(tmp_path / "at")
    following = [next(iterator).numpy() for _ in range(6)]
    fresh = iter(batches)
    tf.train.Checkpoint(iterator=fresh).restore(saved)
    np.testing.assert_array_equal([next(fresh).numpy() for _ in range(6)], following)


PROCESS = """
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from keras_lt.resampling import sample_indices

def batches(worker=0, workers=1):
    return sample_indices(
        np.arange(160) % 4, [0.1, 0.2, 0.3, 0.4], num_samples=157, seed=3, engine="stratified", start=1000,
        batch_size=32, worker=worker, workers=workers,
    )

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
distributed = strategy.experimental_distribute_dataset(batches())
from_function = strategy.distribute_datasets_from_function(
    lambda context: batches(context.input_pipeline_id, context.num_input_pipelines).unbatch().batch(16)
)
for dataset in (batches(), distributed, from_function):
    iterator, joined = iter(dataset), []
    while len(joined) < 160:
        for part in strategy.experimental_local_results(next(iterator)):
            joined.extend(part.numpy())
    print(*joined)
"""


def test_another_process_and_a_mirrored_strategy_see_the_same_stream():
    labels = np.arange(160) % 4
    whole = first(sample_indices(labels, SKEWED, num_samples=157, seed=3, engine="stratified"), 1160)
    lines = [np.array(line.split(), int) for line in lines_of(PROCESS)]
    assert len(lines) == 3
    for joined in lines:
        np.testing.assert_array_equal(joined, whole[1000:])


def test_instance_is_a_permutation_every_epoch():
    indices = first(sample_indices(LABELS, SKEWED, num_samples=160, seed=0, engine="instance"), 480).reshape(3, 160)
    np.testing.assert_array_equal(np.sort(indices), np.tile(np.arange(160), (3, 1)))
    assert (indices[0] == indices[1]).mean() < 0.1


@pytest.mark.parametrize("num_samples", [128, 500])
def test_instance_shows_the_head_of_a_permutation_or_several(num_samples):
    indices = first(sample_indices(LABELS, SKEWED, num_samples=num_samples, seed=0, engine="instance"), num_samples)
    times = np.bincount(indices, minlength=160)
    assert set(times) == {num_samples // 160, num_samples // 160 + 1}


def test_class_balanced_stratified_cycles_over_classes_four_images_at_a_time():
    indices = first(stream("stratified", np.tile(BALANCED, (60, 1))), -1)  # runs on across its 60 epochs
    labels = LABELS[indices][: len(indices) // 16 * 16].reshape(-1, 4, 4)  # rounds, visits, images of one class
    assert (labels == labels[..., :1]).all()
    np.testing.assert_array_equal(np.sort(labels[..., 0]), np.tile(np.arange(4), (len(labels), 1)))
    orders = {tuple(visits) for visits in labels[..., 0]}
    assert len(orders) == 24  # all of them, in 588 rounds


@pytest.mark.parametrize("probabilities", [np.tile(PROGRESSIVE, (14, 1)), SKEWED, BALANCED])
def test_stratified_shows_every_image_of_a_class_before_any_repeats(probabilities):
    indices = first(stream("stratified", probabilities), 70 * EPOCH)  # beyond the period of a vector's quotas
    for label, count in enumerate(COUNTS):
        draws = indices[LABELS[indices] == label]
        images = np.unique(draws)
        assert len(images) == count
        cycles = draws[: len(draws) // count * count].reshape(-1, count)
        assert len(cycles) >= 2
        np.testing.assert_array_equal(np.sort(cycles), np.tile(images, (len(cycles), 1)))
        assert (cycles[0] != cycles[1]).any()
        rest = draws[cycles.size :]
        assert len(set(rest)) == len(rest)


def test_every_order_of_a_small_class_is_as_likely():
    # Three images make six orders; 2 * 6,000 / 4 images of the first class are 1,000 cycles.
    indices = first(sample_indices([0, 0, 0, 1], [0.5, 0.5], num_samples=6000, seed=0, engine="stratified"), 12_000)
    cycles = indices[indices < 3].reshape(-1, 3)
    _, times = np.unique(cycles, axis=0, return_counts=True)
    assert len(times) == 6
    assert ((times - len(cycles) / 6) ** 2).sum() / (len(cycles) / 6) < 25.7  # chi-square, 5 degrees, p = 1e-4


def test_quotas_are_the_expected_numbers_rounded_and_even_out():
    rows = np.tile([0.55, 0.45], (55, 1))
    indices = first(sample_indices([0] * 9 + [1] * 9, rows, num_samples=10, seed=0, engine="stratified"), -1)
    of_first = (indices.reshape(55, 10) < 9).sum(axis=1)
    assert set(of_first) == {5, 6}
    assert abs(of_first.sum() - 55 * 5.5) < 1
    assert np.abs(np.cumsum(of_first) - 5.5 * np.arange(1, 56)).max() < 2  # at no time far off


@pytest.mark.parametrize("counts", [np.maximum(1000 * 0.99 ** np.arange(600), 2).astype(int), [50, 3, 2, 1]])
def test_quotas_of_a_schedule_that_changes_are_never_an_image_off(counts):
    table = samplers.probability_table("progressive", counts, 30)
    size = int(np.sum(counts))
    quotas = plans.carried_quotas(table, size, seed=0)
    np.testing.assert_array_equal(quotas.sum(axis=1), size)
    assert np.abs(np.cumsum(quotas - size * table, axis=0)).max() < 1


def test_a_class_that_a_row_leaves_out_waits_for_the_next_one():
    rows = np.array([[0.25] * 4, [1, 0, 0, 0], [0.25] * 4])
    first_row, second, third = plans.carried_quotas(rows, 5, seed=0)
    assert (first_row.sum(), second.tolist(), third.sum()) == (5, [5, 0, 0, 0], 5)
    # 1.25 + 5 + 1.25 of the first class and 2.5 of the others are expected.
    assert np.abs(first_row + second + third - [7.5, 2.5, 2.5, 2.5]).max() < 1


def test_quotas_are_spread_over_the_epoch():
    # Draw k of K lies in the k-th of K parts of the epoch, so every tenth of it holds a tenth of each class, plus or
    # minus the draws at its two ends.
    indices = first(sample_indices(LABELS, SKEWED, num_samples=1000, seed=0, engine="stratified"), 1000)
    for tenth in LABELS[indices].reshape(10, 100):
        np.testing.assert_allclose(np.bincount(tenth, minlength=4), 100 * SKEWED, atol=12)


def test_a_class_with_probability_zero_is_never_drawn():
    for engine in ("weighted", "stratified"):
        for row in ([0.0, 0.5, 0.5, 0.0], [0.0, 0.9, 0.1, 0.0]):
            assert set(LABELS[first(stream(engine, row), 2000)]) == {1, 2}


def test_a_label_that_does_not_occur_shifts_no_index():
    labels = np.array([4, 0, 2, 4])
    for engine in ("weighted", "stratified"):
        indices = first(sample_indices(labels, [0.2, 0, 0.3, 0, 0.5], num_samples=10, seed=0, engine=engine), 400)
        times = np.bincount(labels[indices], minlength=5)
        np.testing.assert_allclose(times / 400, [0.2, 0, 0.3, 0, 0.5], atol=0.08)


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([0, 1, 2], [0.5, 0.5], r"\[0, 2\).*2 for example 2"),
        ([0, -1, 1], [0.5, 0.5], "-1 for example 1"),
        ([0.0, 1.0], [0.5, 0.5], "float64"),
        ([[0], [1]], [0.5, 0.5], r"\(2, 1\)"),
        ([0, 0, 2], [0.5, 0.25, 0.25], "no label 1"),
        ([0, 1], [[0.5, 0.5], [0.5, 0.4]], r"row 1 .*sum=0\.9"),
        ([0, 1], [1.5, -0.5], r"-0\.5 for class 1"),
        ([0, 1], [np.nan, 1], "nan for class 0"),
    ],
)
def test_bad_classes(labels, probabilities, message):
    with pytest.raises(ValueError, match=message):
        sample_indices(labels, probabilities, num_samples=4, seed=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 0}, "num_samples=0"),
        ({"num_samples": 2.5}, r"num_samples=2\.5"),
        ({"seed": -1}, "seed=-1"),
        ({"start": -1}, "start=-1"),
        ({"start": 9}, "at most 8.*start=9"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"engine": "balanced"}, "weighted, stratified, instance.*'balanced'"),
        ({"workers": 0}, "workers=0"),
        ({"worker": 2, "workers": 2}, "worker=2"),
        ({"batch_size": 5, "workers": 2}, "batch_size=5"),
    ],
)
def test_bad_numbers(options, message):
    with pytest.raises(ValueError, match=message):
        sample_indices([0, 1], [[0.5, 0.5]] * 2, **{"num_samples": 4, "seed": 0, **options})
