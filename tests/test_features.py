import dataclasses
import errno
import shutil
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lt import features as features_module
from keras_lt.classifiers import fresh_dense
from keras_lt.classifiers.chunks import classify
from keras_lt.datasets import Split
from keras_lt.features import FeatureSet, extract_features
from keras_lt.files import read_json
from keras_lt.input_pipeline import Stream
from keras_lt.optimization import Recipe
from keras_lt.preprocessing import Preprocessing
from tests.conftest import some_of
from tests.programs import run
from tests.tiny_backbone import tiny

PREPROCESSING = Preprocessing(8, mean=(0.4,) * 3, std=(0.2,) * 3, augmentation="crop_flip")


@pytest.fixture(scope="module")
def backbone():
    keras.utils.set_random_seed(0)
    return tiny()


@pytest.fixture
def starts(monkeypatch):
    """Where extractions began to read images, as they come."""
    begun = []

    def noting(batches):
        def wrapped(*arguments, start, **options):
            begun.append(start)
            return batches(*arguments, start=start, **options)

        return wrapped

    for name in ("evaluation_batches", "view_batches"):
        monkeypatch.setattr(features_module, name, noting(getattr(features_module, name)))
    return begun


def test_features_are_the_backbones_on_evaluation_images(data, backbone):
    extracted = extract_features(backbone, data.val, PREPROCESSING, batch_size=7)
    images = PREPROCESSING.evaluate(keras.ops.convert_to_tensor(data.val.images))
    np.testing.assert_allclose(extracted.features, backbone(images, training=False), atol=1e-5)
    np.testing.assert_array_equal(extracted.labels, data.val.labels)
    assert extracted.views is None


def test_features_on_disk_are_taken_while_nothing_they_depend_on_changes(data, backbone, tmp_path, starts):
    folder = tmp_path / "val"

    def is_taken(model=backbone, split=data.val, preprocessing=PREPROCESSING, **options):
        starts.clear()
        features = extract_features(model, split, preprocessing, folder=folder, **options).features
        assert isinstance(features, np.memmap)
        assert not (tmp_path / "val.part").exists()
        return not starts

    assert not is_taken()
    assert is_taken()
    assert is_taken(preprocessing=dataclasses.replace(PREPROCESSING, augmentation="none"))  # plays no part
    assert not is_taken(preprocessing=dataclasses.replace(PREPROCESSING, std=(0.3,) * 3))
    assert not is_taken(split=data.val.subset(np.arange(30)[::-1]))
    assert not is_taken(split=Split(data.val.images, np.roll(data.val.labels, 1)))
    assert not is_taken(dtype="float16")
    assert is_taken(dtype="float16")
    changed = keras.models.clone_model(backbone)
    changed.set_weights(backbone.get_weights())
    assert not is_taken(changed)
    assert is_taken(changed)
    changed.layers[1].layers[1].kernel.assign_add(np.full((3, 3, 3, 4), 1e-6))
    assert not is_taken(changed)


def test_other_layers_of_the_same_weights_give_other_features(data, tmp_path, starts):
    for activation in ("relu", "relu", "tanh"):
        images = keras.Input((8, 8, 3), name="images")
        body = keras.layers.Conv2D(4, 3, activation=activation, kernel_initializer="ones", name="body")
        net = keras.Model(images, keras.layers.GlobalAveragePooling2D(name="pool")(body(images)), name="net")
        extract_features(net, data.val, PREPROCESSING, folder=tmp_path / "val")
    assert starts == [0, 0]


def test_a_saved_backbones_features_are_taken_by_the_loaded_one_and_in_another_folder(data, backbone, tmp_path, starts):
    extract_features(backbone, data.val, PREPROCESSING, folder=tmp_path / "one" / "val")
    backbone.save(tmp_path / "backbone.keras")
    loaded = keras.saving.load_model(tmp_path / "backbone.keras")
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    extract_features(loaded, data.val, PREPROCESSING, folder=tmp_path / "other" / "val")
    assert starts == [0]


@pytest.mark.exhaustive
def test_views_on_disk_are_taken_while_nothing_they_depend_on_changes(data, backbone, tmp_path, starts):
    def begun(preprocessing=PREPROCESSING, **options):
        starts.clear()
        extract_features(backbone, data.val, preprocessing, folder=tmp_path / "val", **options)
        return len(starts)

    assert begun(views=2) == 2
    assert begun(views=2) == 0
    assert begun(views=1) == 0
    assert begun(views=2) == 0
    assert begun(views=2, seed=1) == 1  # the plain features stay
    assert begun(views=3, seed=1) == 1
    assert begun(dataclasses.replace(PREPROCESSING, augmentation="crop"), views=3, seed=1) == 1
    assert begun(views=3, seed=1, dtype="float16") == 2


@pytest.mark.parametrize("encoded", some_of([False, True], False), ids=["pixels", "files"])
def test_views_are_the_backbones_on_training_images_of_their_own_seeds(data, backbone, encoded, tmp_path):
    split = data.val.subset(np.arange(5))
    if encoded:
        paths = [f"{tmp_path}/{i}.png" for i in range(5)]
        for path, image in zip(paths, split.images, strict=True):
            tf.io.write_file(path, tf.io.encode_png(image))
        split = Split(np.array(paths), split.labels)
    extracted = extract_features(backbone, split, PREPROCESSING, batch_size=4, views=3, seed=7)
    assert extracted.views.shape == (5, 3, 4)
    np.testing.assert_array_equal(extracted.labels, split.labels)
    for row in range(5):
        for view in range(3):
            seed = tf.random.experimental.stateless_fold_in(tf.constant([7, view], tf.int64), np.int64(row))
            image = PREPROCESSING.train(data.val.images[row], seed)
            np.testing.assert_allclose(extracted.views[row, view], backbone(image[None])[0], atol=1e-5)
        assert len(np.unique(extracted.views[row], axis=0)) == 3
    again = extract_features(backbone, split, PREPROCESSING, batch_size=4, views=3, seed=7)
    np.testing.assert_array_equal(again.views, extracted.views)
    other = extract_features(backbone, split, PREPROCESSING, batch_size=4, views=3, seed=8)
    assert not np.array_equal(other.views, extracted.views)
    np.testing.assert_array_equal(other.features, extracted.features)


def test_there_are_no_views_where_nothing_is_augmented(data, backbone):
    still = dataclasses.replace(PREPROCESSING, augmentation="none")
    assert extract_features(backbone, data.val, still, views=3).views is None


KILLED = """
import os, signal, sys
import keras, numpy as np
from keras_lt import features
from keras_lt.datasets import Split
from keras_lt.preprocessing import Preprocessing

folder, rows = sys.argv[1], int(sys.argv[2])
shown = keras.utils.Progbar.update

def die(self, current):
    if (self.target, current) == (rows, 96):
        os.kill(os.getpid(), signal.SIGKILL)
    shown(self, current)

keras.utils.Progbar.update = die
features.SAVE_SECONDS = 0.0
backbone, data = keras.saving.load_model(f"{folder}/backbone.keras"), np.load(f"{folder}/train.npz")
split = Split(data["images"], data["labels"])
preprocessing = Preprocessing(8, mean=(0.4,) * 3, std=(0.2,) * 3, augmentation="crop_flip")
features.extract_features(backbone, split, preprocessing, batch_size=16, folder=f"{folder}/killed/train", views=3)
"""


@pytest.mark.parametrize("killed", some_of(["train", "train-views"], "train"))
def test_a_killed_extraction_goes_on_to_the_same_bytes(data, backbone, killed, tmp_path, starts):
    backbone.save(tmp_path / "backbone.keras")
    np.savez(tmp_path / "train.npz", images=data.train.images, labels=data.train.labels)
    images = {"train": "150", "train-views": "450"}[killed]
    process = run(KILLED, tmp_path, images)
    assert process.returncode == -signal.SIGKILL, process.stderr
    part = tmp_path / "killed" / f"{killed}.part"
    assert not (tmp_path / "killed" / killed).exists()
    assert read_json(part / "manifest.json")["rows"] == 80  # five batches; the sixth was not saved yet

    def bytes_of(run):
        extract_features(backbone, data.train, PREPROCESSING, batch_size=16, folder=tmp_path / run / "train", views=3)
        return {str(p.relative_to(tmp_path / run)): p.read_bytes() for p in (tmp_path / run).rglob("*.*")}

    resumed = bytes_of("killed")
    assert starts == ([80, 0] if killed == "train" else [80])
    assert set(resumed) == {
        f"{split}/{name}" for split in ("train", "train-views") for name in ("features.npy", "manifest.json")
    }
    assert resumed == bytes_of("whole")


def test_an_extraction_that_lacked_only_its_place_reads_no_image(data, backbone, tmp_path, starts):
    folder, part = tmp_path / "val", tmp_path / "val.part"
    before = np.array(extract_features(backbone, data.val, PREPROCESSING, folder=folder).features)
    folder.rename(part)
    np.testing.assert_array_equal(extract_features(backbone, data.val, PREPROCESSING, folder=folder).features, before)
    assert starts == [0, 30]


@pytest.mark.parametrize("manifest", ["", "{}", '{"rows": 16}'], ids=["torn", "empty", "of something else"])
def test_a_part_that_says_nothing_of_use_is_begun_anew(data, backbone, manifest, tmp_path, starts):
    part = tmp_path / "val.part"
    part.mkdir()
    (part / "manifest.json").write_text(manifest)
    extract_features(backbone, data.val, PREPROCESSING, folder=tmp_path / "val")
    assert starts == [0]
    assert not part.exists()


def test_half_precision_keeps_eleven_bits_and_trains_as_float32(data, backbone, tmp_path):
    exact = extract_features(backbone, data.val, PREPROCESSING, views=2)
    half = extract_features(backbone, data.val, PREPROCESSING, views=2, dtype="float16", folder=tmp_path / "val")
    for stored, values in ((half.features, exact.features), (half.views, exact.views)):
        assert stored.dtype == np.float16
        np.testing.assert_allclose(stored, values, rtol=2.0**-11, atol=2.0**-25)
    assert (tmp_path / "val" / "features.npy").stat().st_size == 128 + 30 * 4 * 2  # NumPy's header and the values
    recipe = Recipe(epochs=1, batch_size=8)
    stream = half.training_batches(Stream(recipe, data.class_counts))
    assert {next(iter(s))[0].dtype for s in (stream, half.evaluation_batches(batch_size=8))} == {tf.float32}
    layer = fresh_dense(4, 3, seed=0)
    np.testing.assert_array_equal(classify(layer, half.features), np.argmax(layer(np.float32(half.features)), axis=-1))


def test_features_of_a_bfloat16_backbone_are_float32(data):
    images = keras.Input((8, 8, 3))
    net = keras.Model(images, keras.layers.GlobalAveragePooling2D(dtype="bfloat16")(images))
    extracted = extract_features(net, data.val, PREPROCESSING).features
    assert extracted.dtype == np.float32
    expected = PREPROCESSING.evaluate(keras.ops.convert_to_tensor(data.val.images)).numpy().mean((1, 2))
    np.testing.assert_allclose(extracted, expected, rtol=2.0**-7, atol=2.0**-7)  # eight bits


def test_features_too_large_for_half_precision_are_refused(data, tmp_path):
    images = keras.Input((8, 8, 3))
    large = keras.Model(images, keras.layers.Rescaling(1e5)(keras.layers.GlobalMaxPooling2D()(images)))
    extract_features(large, data.val, PREPROCESSING)
    with pytest.raises(ValueError, match="finite numbers of float16"):
        extract_features(large, data.val, PREPROCESSING, dtype="float16", folder=tmp_path / "val")
    assert not (tmp_path / "val").exists()


def test_a_full_disk_is_said_before_anything_is_extracted(data, backbone, tmp_path, monkeypatch, starts):
    usage = shutil.disk_usage(tmp_path)
    needed = 150 * 4 * 4  # images, features, bytes
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed - 1))
    with pytest.raises(OSError, match="must be free") as raised:
        extract_features(backbone, data.train, PREPROCESSING, folder=tmp_path / "train")
    assert raised.value.errno == errno.ENOSPC
    assert raised.value.filename == str(tmp_path / "train.part")
    assert not starts
    extract_features(backbone, data.train, PREPROCESSING, folder=tmp_path / "train", dtype="float16")


def test_an_extraction_goes_on_in_the_room_that_it_has_taken(data, backbone, tmp_path, monkeypatch, starts):
    with monkeypatch.context() as patch:
        patch.setattr(features_module, "SAVE_SECONDS", 0.0)
        patch.setattr(keras.utils.Progbar, "update", lambda self, current: 1 / (current < 96))
        with pytest.raises(ZeroDivisionError):
            extract_features(backbone, data.train, PREPROCESSING, batch_size=16, folder=tmp_path / "train")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    extract_features(backbone, data.train, PREPROCESSING, batch_size=16, folder=tmp_path / "train")
    assert starts[-1] > 0


def test_what_other_libraries_call_an_array_is_one():
    vectors, labels = np.arange(12, dtype=np.float32).reshape(6, 2), np.array([0, 1, 1, 0, 2, 2], np.uint8)
    bfloat16 = tf.cast(vectors, tf.bfloat16)
    for given in (vectors.tolist(), tf.constant(vectors), bfloat16, bfloat16.numpy()):
        taken = FeatureSet(given, tf.constant(labels[:, np.newaxis]))
        np.testing.assert_array_equal(taken.features, vectors)
        np.testing.assert_array_equal(taken.labels, labels)
    with pytest.raises(ValueError, match=r"floating-point numbers \[N, D\]\. Received: int64, shape \(6, 2\)"):
        FeatureSet(vectors.astype(int), labels)
    with pytest.raises(ValueError, match=r"one label per example; .*Received: 6 examples and labels of shape \(6, 3\)"):
        FeatureSet(vectors, np.eye(3)[labels])
    with pytest.raises(ValueError, match=r"of names, np.unique.*Received: <U1, \['a'"):
        FeatureSet(vectors, list("abbacc"))


@pytest.mark.parametrize("wrong", [{"dtype": "int8"}, {"views": -1}])
def test_what_cannot_be_extracted_is_refused(data, backbone, wrong):
    with pytest.raises(ValueError, match=f"Received: .*{next(iter(wrong))}="):
        extract_features(backbone, data.val, PREPROCESSING, **wrong)
