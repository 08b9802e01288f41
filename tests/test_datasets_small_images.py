"""Miniatures of the published files, byte for byte in their formats, and what keras.datasets returns for the same."""

import gzip
import pathlib
import pickle
import struct

import keras
import numpy as np
import pytest

from keras_lt.datasets.small_images import CIFAR100_CLASSES, cifar10_lt, cifar100_lt, fashion_mnist_lt, mnist_lt

DEBIAN_FASHION_MNIST = pathlib.Path("/usr/share/datasets/fashion-mnist")


def integer(value):
    return b"J" + struct.pack("<i", value)


def python2_str(text):
    return b"T" + struct.pack("<i", len(text)) + text


def python2_array(array):
    """The opcodes of a uint8 matrix as Python 2 and its NumPy wrote them, integers for booleans included."""
    dtype = b"cnumpy\ndtype\n(" + python2_str(b"u1") + b"K\x00K\x01tR(K\x03" + python2_str(b"|") + b"NNN"
    dtype += integer(-1) + integer(-1) + b"K\x00tb"
    shape = b"(" + b"".join(map(integer, array.shape)) + b"t"
    empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + python2_str(b"b") + b"tR"
    return empty + b"(K\x01" + shape + dtype + b"\x89" + python2_str(array.tobytes()) + b"tb"


def cifar_batch(images, **labels):
    """A batch as published: a protocol 2 pickle, red, green and blue planes row by row, labels in lists."""
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    items = python2_str(b"batch_label") + python2_str(b"miniature") + python2_str(b"data") + python2_array(planes)
    for key, values in labels.items():
        items += python2_str(key.encode()) + b"](" + b"".join(map(integer, values)) + b"e"
    return b"\x80\x02}(" + items + b"u."


def balanced(classes, per_class, *, seed, shape=(32, 32, 3)):
    """Random images of which no two are alike, and their shuffled labels."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(classes), per_class))
    return rng.integers(0, 256, (len(labels), *shape), np.uint8), labels


def write_cifar10(folder, train, test):
    folder = folder / "cifar-10-batches-py"
    folder.mkdir()
    for number in range(5):
        part = slice(number * 40, (number + 1) * 40)
        (folder / f"data_batch_{number + 1}").write_bytes(cifar_batch(train[0][part], labels=train[1][part]))
    (folder / "test_batch").write_bytes(cifar_batch(test[0], labels=test[1]))
    return folder


def idx(array):
    """An idx file: two zeros, the code of unsigned bytes, the rank, the shape as big-endian integers, the values."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_idx(folder, train, test, *, suffix=".gz"):
    for part, (images, labels) in {"train": train, "t10k": test}.items():
        for name, array in {"images-idx3": images, "labels-idx1": labels}.items():
            encoded = gzip.compress(idx(array)) if suffix else idx(array)
            (folder / f"{part}-{name}-ubyte{suffix}").write_bytes(encoded)
    return folder


@pytest.fixture(scope="module")
def colour():
    """(train, test) of ten classes with 20 and 2 images each."""
    return balanced(10, 20, seed=0), balanced(10, 2, seed=1)


@pytest.fixture(scope="module")
def grey():
    return balanced(10, 20, seed=0, shape=(28, 28)), balanced(10, 2, seed=1, shape=(28, 28))


def pairs(split):
    """What a split holds, whatever its order."""
    return sorted((image.tobytes(), label) for image, label in zip(split.images, split.labels, strict=True))


def assert_tail_of(data, train, test, counts):
    """Train and val together are `counts` images of train with their labels; test is whole and in order."""
    kept = pairs(data.train) + pairs(data.val)
    assert len(set(kept)) == len(kept)
    assert set(kept) <= {(image.tobytes(), label) for image, label in zip(*train, strict=True)}
    assert (data.class_counts + np.bincount(data.val.labels, minlength=len(counts))).tolist() == counts
    np.testing.assert_array_equal(data.test.images.reshape(test[0].shape), test[0])
    np.testing.assert_array_equal(data.test.labels, test[1])


TAIL_OF_4 = [20, 17, 14, 12, 10, 9, 7, 6, 5, 5]  # floor(20 * 4 ** (-i / 9)), worked by hand: 20 / 1.1665 ** i


def test_cifar_10_lt_from_its_published_batches(tmp_path, colour):
    write_cifar10(tmp_path, *colour)
    data = cifar10_lt(str(tmp_path), imbalance_ratio=4)
    assert_tail_of(data, *colour, TAIL_OF_4)
    assert data.class_names[3] == "cat"
    assert (data.name, data.image_size, data.augmentation, data.crop_fraction) == ("cifar10_lt", 32, "crop_flip", 1)
    assert (data.mean, data.std) == ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))  # Cao et al., 2019
    assert "exponential tail of ratio 4 keeps 105 of 200 training images, 20 to 5 per class" in data.notes[0]
    assert "no val" in data.notes[1]


def test_cifar_100_lt_has_the_fine_labels(tmp_path):
    train, test = balanced(100, 2, seed=0), balanced(100, 1, seed=1)
    (tmp_path / "cifar-100-python").mkdir()
    for name, (images, labels) in {"train": train, "test": test}.items():
        batch = cifar_batch(images, fine_labels=labels, coarse_labels=labels // 5)
        (tmp_path / "cifar-100-python" / name).write_bytes(batch)
    data = cifar100_lt(str(tmp_path), imbalance_ratio=2, profile="step")
    assert_tail_of(data, train, test, [2] * 50 + [1] * 50)
    assert data.class_names == CIFAR100_CLASSES


def test_cifar_100_has_a_hundred_names_in_the_order_of_the_alphabet():
    assert list(CIFAR100_CLASSES) == sorted(set(CIFAR100_CLASSES))
    assert len(CIFAR100_CLASSES) == 100


@pytest.mark.parametrize("suffix", [".gz", ""])
@pytest.mark.parametrize(("function", "augmentation"), [(fashion_mnist_lt, "crop_flip"), (mnist_lt, "crop")])
def test_mnist_and_its_kin_from_idx_files(tmp_path, grey, function, augmentation, suffix):
    data = function(str(write_idx(tmp_path, *grey, suffix=suffix)), imbalance_ratio=4)
    assert_tail_of(data, *grey, TAIL_OF_4)
    assert (data.image_size, data.train.images.shape[1:], data.augmentation) == (28, (28, 28, 1), augmentation)


@pytest.mark.parametrize(
    ("function", "module"),
    [
        (cifar10_lt, keras.datasets.cifar10),
        (cifar100_lt, keras.datasets.cifar100),
        (fashion_mnist_lt, keras.datasets.fashion_mnist),
        (mnist_lt, keras.datasets.mnist),
    ],
)
def test_without_a_folder_keras_downloads(monkeypatch, function, module):
    is_cifar = "cifar" in module.__name__
    shape, classes = ((32, 32, 3) if is_cifar else (28, 28)), 100 if module is keras.datasets.cifar100 else 10
    train, test = balanced(classes, 4, seed=0, shape=shape), balanced(classes, 1, seed=1, shape=shape)
    # Keras's labels are uint8, in a column for CIFAR.
    returned = [
        (images, labels.astype(np.uint8).reshape((-1, 1) if is_cifar else -1)) for images, labels in (train, test)
    ]
    monkeypatch.setattr(module, "load_data", lambda: tuple(returned))
    data = function(imbalance_ratio=2, profile="step")
    assert_tail_of(data, train, test, [4] * (classes // 2) + [2] * (classes // 2))


def test_the_tail_and_the_carved_images_are_seeded(tmp_path, grey):
    folder = str(write_idx(tmp_path, *grey))
    first, again, other = (fashion_mnist_lt(folder, imbalance_ratio=4, seed=seed) for seed in (0, 0, 1))
    for split in ("train", "val"):
        np.testing.assert_array_equal(first.splits[split].images, again.splits[split].images)
        assert pairs(first.splits[split]) != pairs(other.splits[split])
    assert pairs(first.test) == pairs(other.test)


class Malicious:
    """Unpickles by creating a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_malicious_batch_is_refused_before_it_runs(tmp_path, colour, protocol):
    folder = write_cifar10(tmp_path, *colour)
    harm = pickle.dumps({b"data": Malicious(tmp_path / "harm")}, protocol=protocol)
    pickle.loads(harm)
    assert (tmp_path / "harm").exists()  # it works on the usual unpickler
    (tmp_path / "harm").unlink()
    (folder / "data_batch_2").write_bytes(harm)
    with pytest.raises(ValueError, match=r"data_batch_2: it calls .*, which no batch of CIFAR does"):
        cifar10_lt(str(tmp_path))
    assert not (tmp_path / "harm").exists()


def test_a_batch_that_is_none_is_named(tmp_path, colour):
    folder = write_cifar10(tmp_path, *colour)
    batch = (folder / "test_batch").read_bytes()
    for content in (batch[:1000], b"<html>", pickle.dumps({}, protocol=2), cifar_batch(colour[0][0], other=[1])):
        (folder / "test_batch").write_bytes(content)
        with pytest.raises(ValueError, match=r"a pickled dict with b'data' and b'labels'. Received: .*test_batch"):
            cifar10_lt(str(tmp_path))


def test_missing_cifar_files_are_listed_with_their_source(tmp_path, colour):
    (write_cifar10(tmp_path, *colour) / "data_batch_4").unlink()
    with pytest.raises(FileNotFoundError, match=r"kriz/cifar.html.* Not found: .*cifar-10-batches-py/data_batch_4$"):
        cifar10_lt(str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"Not found: .*cifar-100-python/train, .*cifar-100-python/test$"):
        cifar100_lt(str(tmp_path))


def test_missing_idx_files_are_listed_with_their_source(tmp_path, grey):
    (write_idx(tmp_path, *grey) / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"zalandoresearch/fashion-mnist.*: t10k-labels-idx1-ubyte$"):
        fashion_mnist_lt(str(tmp_path))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda encoded: b"\0\0\x0d" + encoded[3:], "starts with 00000803. Received: .*, which starts with 00000d03"),
        (lambda encoded: encoded[:6], "starts with 00000803"),
        (lambda encoded: encoded[:-1], r"Expected \[200, 28, 28\] values, .* with 156799"),
        (lambda encoded: encoded + b"\0", "with 156801"),
    ],
)
def test_damaged_idx_files_are_named(tmp_path, grey, damage, message):
    path = write_idx(tmp_path, *grey, suffix="") / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        mnist_lt(str(tmp_path))


@pytest.mark.parametrize("damage", [lambda encoded: encoded[:500], lambda _: b"<html>"])
def test_a_download_that_broke_off_is_named(tmp_path, grey, damage):
    path = write_idx(tmp_path, *grey) / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"Expected a complete gzip file. Received: .*train-images-idx3-ubyte.gz"):
        mnist_lt(str(tmp_path))


@pytest.mark.exhaustive
@pytest.mark.skipif(not DEBIAN_FASHION_MNIST.exists(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_the_whole_of_fashion_mnist():
    data = fashion_mnist_lt(str(DEBIAN_FASHION_MNIST))
    counts = data.class_counts + np.bincount(data.val.labels)
    assert counts.tolist() == [int(6000 * 10 ** (-2 * i / 9)) for i in range(9)] + [60]
    assert np.bincount(data.test.labels).tolist() == [1000] * 10


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_batches_that_python_3_pickled_are_read_alike(tmp_path, colour, protocol):
    (tmp_path / "again").mkdir()
    write_cifar10(tmp_path, *colour)
    folder = write_cifar10(tmp_path / "again", *colour)
    for path in folder.iterdir():
        batch = pickle.loads(path.read_bytes(), encoding="bytes")
        path.write_bytes(pickle.dumps(batch, protocol=protocol))
    published, again = (cifar10_lt(str(folder), imbalance_ratio=4) for folder in (tmp_path, tmp_path / "again"))
    for split in ("train", "val", "test"):
        np.testing.assert_array_equal(published.splits[split].images, again.splits[split].images)
        np.testing.assert_array_equal(published.splits[split].labels, again.splits[split].labels)
