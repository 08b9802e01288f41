"""The Keras user's door: what goes in, what comes out, and that `model.fit` can work with it."""

import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lt
from keras_lt.resampling import count_classes

COUNTS = np.array([300, 60, 20, 5])
N = 385
Y = np.random.default_rng(0).permutation(np.repeat(np.arange(4), COUNTS))
X = {"image": np.arange(2 * N, dtype=np.float32).reshape(N, 2), "id": np.arange(N)}
EXAMPLES = tf.data.Dataset.from_tensor_slices((X, Y))


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 25

    def __getitem__(self, index):
        rows = slice(16 * index, 16 * index + 16)
        return {name: array[rows] for name, array in X.items()}, Y[rows]


def shown(balanced):
    """Example ids of one iteration, whose labels are known to be their own."""
    ids, labels = [], []
    for x, y in balanced.as_numpy_iterator():
        ids.extend(np.ravel(x["id"]))
        labels.extend(np.ravel(y))
    np.testing.assert_array_equal(Y[ids], labels)
    return np.array(ids)


@pytest.mark.parametrize(
    ("data", "steps"),
    [
        ((X, Y), 13),  # 385 examples in batches of 32
        (EXAMPLES, 385),
        (EXAMPLES.batch(16), 25),
        (EXAMPLES.batch(16, drop_remainder=True), 24),
        (Batches(), 25),
    ],
    ids=["arrays", "examples", "batches", "static batches", "PyDataset"],
)
def test_every_kind_of_data_comes_back_balanced(data, steps):
    balanced = keras_lt.balance(data)
    assert balanced.cardinality() == steps
    first, second = shown(balanced), shown(balanced)
    for epoch in (first, second):
        assert 384 <= len(epoch) <= 385
        np.testing.assert_allclose(np.bincount(Y[epoch]) / len(epoch), 0.25, atol=0.03)
    assert (first == second).mean() < 0.1  # each iteration draws anew


@pytest.mark.parametrize(
    "dataset",
    [EXAMPLES, EXAMPLES.batch(16), EXAMPLES.batch(16, drop_remainder=True)],
    ids=["examples", "batches", "static batches"],
)
def test_the_element_spec_is_kept(dataset):
    assert keras_lt.balance(dataset, class_counts=COUNTS).element_spec == dataset.element_spec


def test_arrays_are_drawn_evenly():
    times = np.bincount(shown(keras_lt.balance((X, Y), num_samples=400)), minlength=N)
    for label, count in enumerate(COUNTS):
        assert set(times[label == Y]) <= {100 // count - 1, 100 // count, 100 // count + 1, 100 // count + 2}


@pytest.mark.parametrize("data", [(X, Y), EXAMPLES.batch(32)], ids=["arrays", "batches"])
def test_a_schedule_is_followed_epoch_by_epoch(data):
    balanced = keras_lt.balance(data, "progressive", epochs=3, num_samples=400)
    assert balanced.cardinality() == 36  # 400 examples are 12 whole batches of 32
    epochs = shown(balanced).reshape(3, 384)
    np.testing.assert_array_equal(shown(balanced).reshape(3, 384), epochs)
    for progress, epoch in zip([0, 0.5, 1], epochs, strict=True):
        expected = (1 - progress) * COUNTS / N + progress / 4
        np.testing.assert_allclose(np.bincount(Y[epoch], minlength=4) / 384, expected, atol=0.03)


def test_a_function_is_a_schedule_too():
    balanced = keras_lt.balance((X, Y), lambda class_counts, progress: np.array([0, 0, 0.5, 0.5]), seed=1)
    np.testing.assert_allclose(np.bincount(Y[shown(balanced)], minlength=4) / N, [0, 0, 0.5, 0.5], atol=0.01)


def test_labels_of_shape_n_by_1_as_keras_data_sets_have_them():
    x, y = next(iter(keras_lt.balance((X["id"], Y[:, None]), batch_size=385)))
    assert y.shape == (385, 1)
    np.testing.assert_array_equal(Y[x], y[:, 0])


def test_counting_reads_all_labels_whatever_their_batches():
    batches = [np.array(labels, int) for labels in ([0, 2], [1, 2, 5], [], [2])]
    np.testing.assert_array_equal(count_classes(batches), [1, 1, 3, 0, 0, 1])


def test_counts_are_kept_in_a_file(tmp_path):
    path = tmp_path / "counts.npy"
    keras_lt.balance(EXAMPLES, counts_file=path)
    np.testing.assert_array_equal(np.load(path), COUNTS)
    np.save(path, [100, 100, 100, 85])  # were it counted again, these would not matter
    ids = shown(keras_lt.balance(EXAMPLES, counts_file=path))
    assert np.bincount(Y[ids])[0] > 250


def test_counting_shows_its_progress_only_where_there_is_something_to_count(capsys):
    keras_lt.balance(EXAMPLES.batch(16), class_counts=COUNTS)
    keras_lt.balance((X, Y))
    assert capsys.readouterr().out == ""
    keras_lt.balance(EXAMPLES.batch(16))
    assert "25/25" in capsys.readouterr().out


def small_model():
    inputs = {"image": keras.Input([2], name="image"), "id": keras.Input([], dtype="int64", name="id")}
    both = [inputs["image"], keras.ops.cast(inputs["id"], "float32")[:, None]]  # Keras wants every input to be used
    model = keras.Model(inputs, keras.layers.Dense(4)(keras.layers.Concatenate()(both)))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


class Steps(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.of_epoch = []

    def on_epoch_begin(self, epoch, logs=None):
        self.of_epoch.append(0)

    def on_train_batch_end(self, batch, logs=None):
        self.of_epoch[-1] += 1


@pytest.mark.parametrize(
    "data", [(X, Y), pytest.param(EXAMPLES.batch(32), marks=pytest.mark.exhaustive)], ids=["arrays", "batches"]
)
def test_fit_knows_the_steps(data):
    steps = Steps()
    small_model().fit(keras_lt.balance(data), epochs=3, callbacks=[steps], verbose=0)
    assert steps.of_epoch == [13, 13, 13]
    balanced = keras_lt.balance(data, "progressive", epochs=3)
    small_model().fit(
        balanced, epochs=3, steps_per_epoch=int(balanced.cardinality()) // 3, callbacks=[steps], verbose=0
    )
    assert steps.of_epoch == [12, 12, 12]


@pytest.mark.exhaustive
def test_the_example_of_the_docs_runs():
    page = (pathlib.Path(__file__).parents[1] / "docs/data.md").read_text(encoding="utf-8")
    (example,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if ".balance((" in block)
    names = {}
    exec(example, names)
    assert names["model"].optimizer.iterations == 5 * 32  # epochs of ceil(1000 / 32) steps
    labels = np.concatenate([y for _, y in keras_lt.balance((names["x"], names["y"]))])
    np.testing.assert_allclose(np.bincount(labels), 1000 / 3, atol=4)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ((X, Y), {"schedule": "progressive"}, "needs epochs.*'progressive'"),
        ((X, Y), {"schedule": "balanced"}, "class_balanced.*'balanced'"),
        ((X, Y[:-1]), {}, r"\[385\] and 384"),
        ((X, np.eye(4)[Y]), {}, r"one-hot rows, y.argmax\(1\) makes them.*\(385, 4\)"),
        ((X, Y), {"class_counts": [300, 60, 25]}, "must be those of the data.*300  60  25"),
        ((X, Y), {"class_counts": [5, 20, 60, 300]}, "must be those of the data, in the order of the class ids"),
        (EXAMPLES, {"class_counts": [300, 60, 20, 4]}, "must be those of the data"),
        (EXAMPLES, {"class_counts": [0.6, 0.2, 0.1, 0.1]}, "and not shares of them. Received: 0.6 for class 0"),
        ((X, Y), {"class_counts": [300, 60, 20, -5]}, r"-5\.0 for class 3"),
        ((X, Y), {"class_counts": [300, 60, 20, 5, 0], "schedule": lambda *_: [0.2] * 5}, "no label 4"),
        ((X, Y), {"num_samples": 0}, "num_samples=0"),
        ((X, Y), {"batch_size": 0}, "batch_size=0"),
        ((X, Y), {"seed": -1}, "seed=-1"),
        (EXAMPLES, {"seed": 2**63}, f"seed={2**63}"),
        ((X, Y), {"epochs": 0}, "epochs=0"),
        (np.zeros(3), {}, "ndarray"),
        (EXAMPLES.repeat(), {}, "finite.*-1"),
        (EXAMPLES.batch(16).take(0), {}, "not empty.*0"),
        (EXAMPLES.map(lambda x, y: x), {}, "element_spec"),
        (EXAMPLES.map(lambda x, y: (x, tf.one_hot(y, 4))), {}, r"one-hot rows, a map by tf.argmax\(y, -1\)"),
        (EXAMPLES.map(lambda x, y: (x, y - 1)), {}, "-1"),
        (EXAMPLES.map(lambda x, y: (x, tf.numpy_function(np.copy, [y], tf.int64))), {}, "known shape.*unknown"),
        (EXAMPLES.map(lambda x, y: (tf.sparse.from_dense(x["image"]), y)), {}, "to_dense"),
        (EXAMPLES.map(lambda x, y: {"image": x, "label": y}), {}, r"map it, such as dataset.map\(.*'label'"),
        (EXAMPLES.filter(lambda x, y: y > 9).batch(4), {}, "must hold examples"),
        ((tf.ragged.constant([[1], [2, 3]]), [0, 1]), {}, "dense arrays.*RaggedTensor"),
        (([[1], [2, 3]], [0, 1]), {}, "dense arrays"),
        ((X, np.array(["a", "b"])), {}, r"np\.unique.*dtype=<U1"),
        ((X, Y, Y, Y), {}, "sample_weight.*4 of them"),
        ((X, Y), {"epochs": 1.5, "schedule": "progressive"}, "epochs=1.5"),
        ((X, Y), {"class_counts": {0: 1}}, "not a dict"),
    ],
)
def test_bad_input(data, options, message):
    with pytest.raises(ValueError, match=message):
        keras_lt.balance(data, **options)


def test_arrays_without_epochs_go_on_with_their_cycle():
    """900 draws of the second class over three iterations, 300 in each: none of its 900 images comes twice."""
    labels = np.repeat([0, 1, 2], [30, 900, 20])
    balanced = keras_lt.balance((np.arange(950), labels), num_samples=900, batch_size=100)
    rows = np.concatenate([x for _ in range(3) for x, _ in balanced])
    drawn = np.bincount(rows, minlength=950)[30:930]
    assert drawn.sum() == pytest.approx(900, abs=12)  # whole visits of four images, at both ends
    assert drawn.max() <= 2
    assert np.count_nonzero(drawn) >= 888


ROWS, COLUMN = np.arange(200 * 4).reshape(200, 4), np.repeat([0, 1, 2], [150, 40, 10])[:, np.newaxis]


@pytest.mark.parametrize("batched", [False, True])
def test_labels_in_a_column_are_one_class_each(batched):
    dataset = tf.data.Dataset.from_tensor_slices((ROWS, COLUMN))
    drawn = list(keras_lt.balance(dataset.batch(16) if batched else dataset))
    labels = np.concatenate([np.ravel(y) for _, y in drawn])
    np.testing.assert_allclose(np.bincount(labels), [67, 67, 67], atol=5)
    for x, y in drawn:  # examples keep their labels
        np.testing.assert_array_equal(np.ravel(COLUMN[np.ravel(x)[::4] // 4]), np.ravel(y))


@pytest.mark.parametrize("kind", ["arrays", "examples", "batches", "columns"])
def test_sample_weights_stay_with_their_examples(kind):
    arrays = X["id"], Y, Y + X["id"] / 1000
    examples = tf.data.Dataset.from_tensor_slices((X["id"], Y[:, np.newaxis] if kind == "columns" else Y, arrays[2]))
    balanced = keras_lt.balance({"arrays": arrays, "examples": examples}.get(kind, examples.batch(8)))
    ids, labels, weights = (np.concatenate([np.ravel(part) for part in parts]) for parts in zip(*balanced, strict=True))
    np.testing.assert_array_equal(Y[ids], labels)
    np.testing.assert_allclose(weights, labels + ids / 1000)
    np.testing.assert_allclose(np.bincount(labels) / len(labels), 0.25, atol=0.03)


def test_a_vector_of_labels_beside_one_example_is_refused():
    one_hot = tf.data.Dataset.from_tensor_slices((ROWS, np.eye(3, dtype=int)[COLUMN[:, 0]]))
    with pytest.raises(ValueError, match="an integer class per example"):
        keras_lt.balance(one_hot)


def test_python_lists_are_arrays():
    x, y = [[float(number)] for number in range(40)], [0] * 30 + [1] * 10
    drawn = [(np.ravel(images), labels) for images, labels in keras_lt.balance((x, y))]
    images, labels = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    assert np.bincount(labels).tolist() == [20, 20]
    np.testing.assert_array_equal(labels, images >= 30)


class TwoInputs(keras.utils.PyDataset):
    """Batches of [x, 2 x], a list, and y."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        rows = slice(50 * index, 50 * index + 50)
        return [[ROWS[rows], 2 * ROWS[rows]], COLUMN[rows, 0]]


@pytest.mark.parametrize("data", [([ROWS, 2 * ROWS], COLUMN[:, 0]), TwoInputs()], ids=["arrays", "batches"])
def test_a_list_of_arrays_stays_several_inputs(data):
    for (x, doubled), y in keras_lt.balance(data):
        np.testing.assert_array_equal(doubled, 2 * x)
        np.testing.assert_array_equal(COLUMN[x[:, 0] // 4, 0], y)


def test_kept_counts_of_other_data_are_refused(tmp_path):
    dataset, path = tf.data.Dataset.from_tensor_slices((ROWS, COLUMN[:, 0])), tmp_path / "counts.npy"
    keras_lt.balance(dataset, counts_file=path)
    keras_lt.balance(dataset, counts_file=path)
    for other in (dataset.skip(1), dataset.batch(16).take(3)):
        with pytest.raises(ValueError, match=r"counts\.npy of 200 examples; remove it"):
            keras_lt.balance(other, counts_file=path)


@pytest.mark.parametrize("content", [b"", b"my notes"])
def test_a_file_that_holds_no_counts_is_named(tmp_path, content):
    path = tmp_path / "counts.npy"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"counts\.npy is damaged: remove it, and the classes are counted again"):
        keras_lt.balance(tf.data.Dataset.from_tensor_slices((np.zeros(3), [0, 1, 1])), counts_file=path)
    assert path.read_bytes() == content
