"""One contract, kept by every kind of examples."""

import hashlib

import numpy as np
import pytest
import tensorflow as tf

from keras_lt.datasets import Examples, FeatureVectors, ImageFiles, LongTailed, Pixels, Split
from keras_lt.datasets.records import ShardedRecords
from keras_lt.features import examples_hash

GREY = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 1), np.uint8)
VECTORS = np.arange(12, dtype=np.float16).reshape(4, 3)


def pixels(folder):
    return Pixels(GREY[..., 0])


def files(folder):
    paths = [str(folder / f"{row}.png") for row in range(4)]
    for path, image in zip(paths, GREY, strict=True):
        tf.io.write_file(path, tf.io.encode_png(image))
    return ImageFiles(np.array(paths))


def records(folder):
    images = [tf.io.encode_png(image).numpy() for image in GREY]
    (folder / "shard").write_bytes(b"".join(images))
    length = np.array([len(image) for image in images])
    return ShardedRecords([str(folder / "shard")], np.zeros(4), np.cumsum(length) - length, length, list("abcd"))


def vectors(folder):
    np.save(folder / "features.npy", VECTORS)
    return FeatureVectors(np.load(folder / "features.npy", mmap_mode="r"))


KINDS = {"pixels": pixels, "files": files, "records": records, "vectors": vectors}


@pytest.fixture(params=KINDS)
def examples(request, tmp_path):
    return KINDS[request.param](tmp_path)


def value(read):
    """What was read, decoded where that is an image's bytes."""
    return tf.io.decode_image(read).numpy() if isinstance(read, bytes) else np.asarray(read)


def test_a_row_is_the_same_however_it_is_read(examples):
    expected = VECTORS if isinstance(examples, FeatureVectors) else GREY
    assert len(examples) == len(examples.names) == 4
    reader = examples.reader()
    for row, one in enumerate(tf.data.Dataset.range(4).map(reader)):
        np.testing.assert_array_equal(value(examples.read(row)), expected[row])
        np.testing.assert_array_equal(value(one.numpy()), expected[row])
    if not examples.encoded or examples.read_at_once > 1:
        (batch,) = tf.data.Dataset.from_tensors(np.array([2, 0])).map(reader)
        np.testing.assert_array_equal([value(one) for one in batch.numpy()], expected[[2, 0]])
        assert batch.dtype == reader(tf.constant(0)).dtype


def test_what_is_read_has_the_shape_and_is_encoded_as_said(examples):
    one = examples.read(1)
    assert isinstance(one, bytes) == examples.encoded
    if not examples.encoded:
        assert one.shape == examples.shape
    assert LongTailed("toy", *(Split(examples, [0, 0, 0, 0]),) * 3, class_names="a").image_size == examples.image_size


def test_a_subset_of_a_subset_is_its_rows(examples):
    chosen = examples.subset(np.array([3, 1, 2])).subset(np.array([2, 0]))
    assert isinstance(chosen, Examples)
    assert len(chosen) == len(chosen.names) == 2
    for row, origin in enumerate((2, 3)):
        np.testing.assert_array_equal(value(chosen.read(row)), value(examples.read(origin)))
    assert len(set(map(bytes, (e.fingerprint() for e in (examples, chosen, examples.subset(np.array([3, 2]))))))) == 3
    assert bytes(examples.subset(np.arange(4)).fingerprint()) == bytes(examples.fingerprint())


def test_examined_images_have_their_size_and_a_hash_of_their_own(examples):
    sizes, orientations, hashes = zip(*map(examples.examine, range(4)), strict=True)
    assert set(sizes) == {(1, 3) if isinstance(examples, FeatureVectors) else (6, 5)}
    assert set(orientations) == {1}
    assert {len(one) for one in hashes} == {16}
    assert len(set(hashes)) == 4


def test_a_request_is_of_one_argument_with_a_row_each(examples):
    ((argument, batch),) = examples.request(range(1, 3)).items()
    assert argument in ("images", "image_bytes", "features")
    assert len(batch) == 2


def test_vectors_of_a_memory_map_are_never_copied_as_a_whole(tmp_path):
    examples = vectors(tmp_path)
    train = Split(examples, [0, 0, 0, 0]).subset(np.array([1, 3])).examples
    assert train.features.array is examples.features
    assert isinstance(train.features.array, np.memmap)
    assert isinstance(train.subset(np.array([1])).features.array, np.memmap)
    np.testing.assert_array_equal(train.content, VECTORS[[1, 3]])


def test_arrays_become_examples():
    assert isinstance(Split(GREY, [0] * 4).examples, Pixels)
    assert isinstance(Split(["a.jpg"], [0]).examples, ImageFiles)
    assert isinstance(Split(np.zeros((1, 2), np.float16), [0]).examples, FeatureVectors)
    with pytest.raises(ValueError, match=r"uint8 .* or Examples; features floating \[N, D\]. Received: dtype=object"):
        Split(object(), [0])
    with pytest.raises(ValueError, match=r"floating \[N, D\]. Received: dtype=uint8"):
        FeatureVectors(np.zeros((2, 2), np.uint8))


@pytest.mark.parametrize("content", [GREY, np.array(["a.jpg", "b.jpg", "c.jpg", "d.jpg"])], ids=["pixels", "files"])
def test_features_of_version_0_1_are_found_again(content):
    """Its manifests hold the sha256 of pixels or paths, and of labels."""
    labels = np.arange(4)
    assert (
        examples_hash(Split(content, labels), placed=True)
        == hashlib.sha256(content.tobytes() + labels.tobytes()).hexdigest()
    )
