import numpy as np
import pytest
import tensorflow as tf

from keras_lt.datasets import Records, Split
from keras_lt.input_pipeline import Stream, evaluation_batches, evaluation_rows, training_batches, view_batches
from keras_lt.optimization import Recipe
from keras_lt.preprocessing import AUGMENTATIONS, Preprocessing
from tests.conftest import some_of

COUNTS = np.array([12, 6, 3])
PLAIN = Preprocessing(8, mean=(0.0,) * 3, std=(1 / 255,) * 3)  # pixels stay what they are
NOISY = Preprocessing(8, mean=(0.0,) * 3, std=(1 / 255,) * 3, augmentation="crop_flip")


def numbered(counts=COUNTS):
    """Images filled with their own number, so that a batch tells which examples it holds."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    images = np.broadcast_to(np.arange(1, len(labels) + 1, dtype=np.uint8)[:, None, None], (len(labels), 8, 8))
    return Split(images, labels)


def rows(batch_of_images):
    return (np.round(np.asarray(batch_of_images).max((1, 2, 3))) - 1).astype(int)


def stream(split, recipe, *, preprocessing=PLAIN, seed=0, start_step=0):
    batches = training_batches(split, preprocessing, Stream(recipe, COUNTS, seed, start_step))
    return [(rows(images), labels.numpy(), images.numpy()) for images, labels in batches]


def test_evaluation_sees_every_example_once_in_order():
    split = numbered()
    batches = list(evaluation_batches(split, PLAIN, batch_size=8))
    assert [len(labels) for _, labels in batches] == [8, 8, 5]
    np.testing.assert_array_equal(np.concatenate([rows(images) for images, _ in batches]), np.arange(21))
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in batches]), split.labels)


@pytest.mark.parametrize("preprocessing", [PLAIN, NOISY], ids=["whole batches", "one by one"])
def test_an_instance_balanced_epoch_is_full_batches_without_replacement(preprocessing):
    split = numbered()
    recipe = Recipe(epochs=3, batch_size=8)
    batches = stream(split, recipe, preprocessing=preprocessing)
    assert len(batches) == 3 * 2  # floor(21 / 8) steps an epoch
    epochs = np.concatenate([indices for indices, _, _ in batches]).reshape(3, 16)
    assert all(len(set(epoch)) == 16 for epoch in epochs.tolist())
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 3
    for indices, labels, _ in batches:
        np.testing.assert_array_equal(labels, split.labels[indices])


def test_a_class_balanced_epoch_draws_every_class_equally():
    batches = stream(numbered(), Recipe(epochs=1, batch_size=12, steps_per_epoch=2, sampler="class_balanced"))
    drawn = np.bincount(np.concatenate([labels for _, labels, _ in batches]))
    assert drawn.tolist() == [8, 8, 8]


@pytest.mark.parametrize(
    "sampler", some_of(["instance_balanced", "class_balanced", "square_root", "progressive"], "progressive")
)
def test_a_resumed_stream_has_the_pixels_of_the_whole_one(sampler):
    recipe = Recipe(epochs=3, batch_size=8, sampler=sampler)
    whole = stream(numbered(), recipe, preprocessing=NOISY, seed=5)
    resumed = stream(numbered(), recipe, preprocessing=NOISY, seed=5, start_step=3)
    assert len(resumed) == 3
    for (_, labels, images), (_, expected_labels, expected_images) in zip(resumed, whole[3:], strict=True):
        np.testing.assert_array_equal(labels, expected_labels)
        np.testing.assert_array_equal(images, expected_images)


def test_another_seed_draws_and_augments_otherwise():
    recipe = Recipe(epochs=1, batch_size=8)
    one, other = (stream(numbered(), recipe, seed=seed) for seed in (0, 1))
    assert not np.array_equal(one[0][0], other[0][0])


def test_what_happens_to_an_image_is_traced_once_for_all_streams(monkeypatch):
    """A run begins about nine of them; another augmentation of the same name is another one."""
    split, recipe, traced = numbered(), Recipe(epochs=1, batch_size=8), []
    for name in ("first", "first", "second"):

        def augmentation(spec, image, seed, name=name):
            traced.append(name)
            return spec.resize_and_crop(image)

        if name not in traced:
            monkeypatch.setitem(AUGMENTATIONS, "own", augmentation)
        own = Preprocessing(8, mean=[0.0] * 3, std=[1 / 255] * 3, augmentation="own")
        for seed in (0, 1):
            next(iter(training_batches(split, own, Stream(recipe, COUNTS, seed))))
        next(iter(view_batches(split, own, views=2, seed=0, batch_size=8)))
    assert traced == ["first", "second"]


def test_image_files_are_read_for_training_and_evaluation(tmp_path):
    split = numbered()
    paths = []
    for i, image in enumerate(split.images):
        paths.append(f"{tmp_path}/{i}.png")
        tf.io.write_file(paths[-1], tf.io.encode_png(image))
    files = Split(np.array(paths), split.labels)
    images, labels = next(iter(evaluation_batches(files, PLAIN, batch_size=21)))
    np.testing.assert_array_equal(rows(images), np.arange(21))
    np.testing.assert_array_equal(labels, split.labels)
    for indices, drawn, _ in stream(files, Recipe(epochs=1, batch_size=8)):
        np.testing.assert_array_equal(drawn, split.labels[indices])


@pytest.mark.parametrize("preprocessing", [PLAIN, NOISY], ids=["whole batches", "one by one"])
@pytest.mark.parametrize("start_step", [0, 3])
def test_class_weights_come_with_every_example_from_their_epoch_on(preprocessing, start_step):
    """Two steps an epoch; weights 1/12, 1/6 and 1/3 of mean one are 3/7, 6/7 and 12/7, from the third epoch on."""
    recipe = Recipe(epochs=4, batch_size=8, class_weights="inverse_frequency", class_weights_from=2)
    batches = list(training_batches(numbered(), preprocessing, Stream(recipe, COUNTS, start_step=start_step)))
    assert len(batches) == 8 - start_step
    for step, (_, labels, weights) in enumerate(batches, start_step):
        expected = (np.array([3, 6, 12]) if step >= 4 else np.ones(3))[labels]
        np.testing.assert_allclose(weights, expected / expected.mean(), rtol=1e-6)


def test_passes_of_one_step_share_its_class_weights():
    recipe = Recipe(epochs=2, batch_size=8, accumulate_steps=2, class_weights="inverse_frequency", class_weights_from=1)
    batches = list(training_batches(numbered(), PLAIN, Stream(recipe, COUNTS)))
    assert [len(labels) for _, labels, _ in batches] == [4] * 8
    assert [bool(np.allclose(weights, 1)) for _, _, weights in batches[:4]] == [True] * 4
    for first, second in (batches[4:6], batches[6:]):
        labels, weights = (np.concatenate([first[part], second[part]]) for part in (1, 2))
        expected = np.array([3, 6, 12])[labels]
        np.testing.assert_allclose(weights, expected / expected.mean(), rtol=1e-6)


def test_the_weights_of_sigmoid_losses_are_the_classes_own():
    recipe = Recipe(epochs=1, batch_size=8, class_weights="inverse_frequency", loss="sigmoid_focal")
    for _, labels, weights in training_batches(numbered(), PLAIN, Stream(recipe, COUNTS)):
        np.testing.assert_allclose(weights, (np.array([3, 6, 12]) / 7)[labels], rtol=1e-6)


class Counted(Records):
    """The images of a split, encoded, and how often one was read."""

    def __init__(self, split):
        self.images = [tf.io.encode_png(image).numpy() for image in split.images]
        self.names, self.rows_read = split.names, []

    def read(self, row):
        self.rows_read.append(int(row))
        return self.images[row]

    def subset(self, rows):
        raise NotImplementedError

    def fingerprint(self):
        return b"".join(self.images)


MIXED = Preprocessing(8, mean=(0.0,) * 3, std=(1 / 255,) * 3, augmentation="crop_flip", mixup=0.4, cutmix=0.4)


@pytest.mark.parametrize(
    "preprocessing", some_of([PLAIN, NOISY, MIXED], NOISY, MIXED), ids=["whole batches", "one by one", "mixed"]
)
@pytest.mark.parametrize("start_step", some_of([0, 1], 1))
def test_the_shares_of_several_workers_are_the_batches_of_one(preprocessing, start_step):
    """Augmented by their place in the whole batch; passes of four, weighted by class, a class-balanced table."""
    weights = {} if preprocessing.mixes else {"class_weights": "inverse_frequency", "class_weights_from": 1}
    recipe = Recipe(epochs=2, batch_size=8, accumulate_steps=2, sampler="progressive", **weights)
    streams = (Stream(recipe, COUNTS, 3, start_step, *share) for share in ((0, 1), (0, 2), (1, 2)))
    whole, *shares = (training_batches(numbered(), preprocessing, stream) for stream in streams)
    whole = list(whole)
    assert len(shares[0]) == len(whole) == (4 - start_step) * 2
    for one, *parts in zip(whole, *shares, strict=True):
        assert tf.nest.flatten(parts[0][1])[0].shape == (2,)
        for expected, *pieces in zip(*map(tf.nest.flatten, (one, *parts)), strict=True):
            np.testing.assert_array_equal(np.concatenate(pieces), expected)


def test_a_worker_reads_its_share_alone():
    """Of 32 draws of an epoch each of four workers reads eight, and of 21 examples on 4 devices six, three of each."""
    recipe = Recipe(epochs=1, batch_size=16, steps_per_epoch=2)
    for worker in (0, 3):
        examples = Counted(numbered())
        split = Split(examples, numbered().labels)
        share = {"worker": worker, "workers": 4}
        list(training_batches(split, NOISY, Stream(recipe, COUNTS, **share)))
        assert len(examples.rows_read) == 8
        examples.rows_read.clear()
        list(evaluation_batches(split, PLAIN, batch_size=12, **share, devices=4))
        first = [0, 1, 2] if worker == 0 else [3 * worker, 3 * worker + 1, 3 * worker + 2]
        assert sorted(examples.rows_read)[:3] == first
        assert len(examples.rows_read) == 6


@pytest.mark.parametrize("split", [numbered(), Split(Counted(numbered()), numbered().labels)], ids=["whole", "encoded"])
def test_a_last_evaluation_batch_is_filled_up_without_weight(split):
    """21 examples on four devices: three rows repeat the last batch's first, and 21 weights sum to 24."""
    shares = [evaluation_batches(split, PLAIN, batch_size=8, worker=worker, workers=2, devices=4) for worker in (0, 1)]
    assert len(shares[0]) == len(shares[1]) == 3
    found = [np.concatenate([rows(images) for images, _, _ in share]).tolist() for share in shares]
    assert found == [[0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19], [4, 5, 6, 7, 12, 13, 14, 15, 20, 16, 16, 16]]
    weights = [np.concatenate([weights for *_, weights in share]) for share in shares]
    np.testing.assert_allclose(weights[0], np.full(12, 24 / 21), rtol=1e-6)
    np.testing.assert_allclose(weights[1], [24 / 21] * 9 + [0] * 3, rtol=1e-6)
    for share in shares:
        for images, labels, _ in share:
            np.testing.assert_array_equal(labels, split.labels[rows(images)])


def test_one_device_takes_a_last_batch_of_any_size():
    of_rows, weigh = evaluation_rows(5, batch_size=3, start=1)
    assert [batch.tolist() for batch in weigh(of_rows).as_numpy_iterator()] == [[1, 2, 3], [4]]
