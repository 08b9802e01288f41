"""Both stages on features: those extracted once from a data set, and those of whatever network, without images."""

import shutil

import keras
import numpy as np
import pytest

from keras_lt import features as features_module
from keras_lt import train
from keras_lt.classifiers import fresh_dense
from keras_lt.config import RunConfig
from keras_lt.features import FeatureSet
from keras_lt.metrics import ShotGroups
from keras_lt.recipe import Recipe
from keras_lt.stages import learn_classifier, learn_representation
from tests.conftest import some_of

STAGE_TWO = Recipe(epochs=4, batch_size=12, learning_rate=0.1, sampler="class_balanced")


@pytest.mark.parametrize("loss", some_of(["cross_entropy", "ldam"], "cross_entropy"))
def test_stage_one_on_features_is_stage_one_on_images_that_nothing_changes(data, tiny_backbone, loss):
    """The same draws through the same frozen backbone: it runs once, or in every step."""
    recipe = Recipe(epochs=3, batch_size=16, learning_rate=0.05, sampler="square_root", loss=loss)
    arguments = {"backbone": tiny_backbone, "recipe": recipe, "train_parts": "classifier"}
    on_images, on_features = (
        learn_representation(data, **arguments, stage_one=stage_one) for stage_one in ("images", "features")
    )
    for one, other in zip(on_features.backbone.get_weights(), on_images.backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(on_features.head.get_weights(), on_images.head.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
    for row, expected in zip(on_features.history, on_images.history, strict=True):
        assert row["val_loss"] == pytest.approx(expected["val_loss"], rel=1e-3)


@pytest.mark.parametrize("stage_one", some_of(["images", "features"], "images"))
def test_a_head_begins_at_the_class_means_of_the_training_features(data, tiny_backbone, stage_one):
    recipe = Recipe(epochs=1, steps_per_epoch=1, batch_size=16, learning_rate=0.0, jit_compile="false")
    arguments = {"recipe": recipe, "train_parts": "classifier", "head": "class_mean_cosine", "stage_one": stage_one}
    learned = learn_representation(data, backbone=tiny_backbone, **arguments)
    features = np.asarray(learned.backbone(learned.preprocessing.evaluate(np.asarray(data.train.images))))
    means = np.stack([features[data.train.labels == label].mean(0) for label in range(3)], axis=1)
    assert learned.head.scale == 25
    np.testing.assert_allclose(learned.head.kernel, means / np.linalg.norm(means, axis=0), atol=1e-5)


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("views", some_of([1, 2], 1))
def test_features_of_stage_one_are_found_by_all_that_comes_later(arrays_dir, tmp_path, views, monkeypatch):
    extracted = []
    fill = features_module._fill
    monkeypatch.setattr(
        features_module, "_fill", lambda array, *a, **k: extracted.append(array.shape[:-1]) or fill(array, *a, **k)
    )
    run_config = RunConfig(
        dataset="arrays",
        data_dir=str(arrays_dir),
        workdir=str(tmp_path / "run"),
        backbone="tiny",
        train_parts="classifier",
        stage_one="features",
        augmentation="crop_flip" if views > 1 else "auto",
        feature_views=views,
        epochs=1,
        batch_size=16,
        classifier_epochs=1,
        classifiers=("joint", "ncm"),
    )
    train.run(run_config)
    assert extracted == [(150,), *[(150, 2)] * (views - 1), (30,), (21,)]  # train, its views, val, test: once each
    shutil.rmtree(run_config.folder / "classifiers")
    train.run(run_config)  # in another process the backbone is the one that was saved
    assert len(extracted) == 2 + views


# Features of whatever network, without images


@pytest.fixture(scope="module")
def embeddings():
    """Three classes of 60, 20 and 10 points around the corners of a triangle, and 10 of each to validate."""
    corners = 3 * np.eye(3, 5, dtype=np.float32)

    def around(counts, seed):
        labels = np.repeat(np.arange(3), counts)
        return FeatureSet(corners[labels] + np.random.default_rng(seed).normal(size=(len(labels), 5)), labels)

    return {"train": around((60, 20, 10), 0), "val": around((10, 10, 10), 1)}


@pytest.mark.parametrize("name", ["crt", "cosine", "ncm"])
def test_features_alone_will_do(embeddings, name):
    classifier = learn_classifier(name, features=embeddings, recipe=STAGE_TWO)
    assert classifier.backbone is None
    assert classifier.val["all"] > 0.8  # chance is a third
    assert set(classifier.val) == {"many", "medium", "few", "all", "class_mean"}
    assert np.isnan(classifier.val["many"])  # none has more than a hundred


def test_what_starts_from_a_classifier_takes_one(embeddings):
    head = learn_classifier("crt", features=embeddings, recipe=STAGE_TWO).model.layers[-1]
    for name in ("joint", "tau_norm", "lws"):
        with pytest.raises(ValueError, match=f"{name} starts from stage one's classifier.* crt:sampler=inst"):
            learn_classifier(name, features=embeddings)
        learn_classifier(name, features=embeddings, head=head, recipe=STAGE_TWO)
    joint = learn_classifier("joint", features=embeddings, head=head)
    np.testing.assert_array_equal(joint.model(embeddings["val"].features), head(embeddings["val"].features))
    again = learn_classifier("joint", features=embeddings, head=joint.model, groups=[500, 50, 5])
    np.testing.assert_array_equal(again.model.get_weights()[0], head.get_weights()[0])
    assert again.val["many"] == joint.model(embeddings["val"].features[:10]).numpy().argmax(1).tolist().count(0) / 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "crt_all"}, "crt_all needs a representation and its images"),
        ({"stage_two": "images"}, "crt needs a representation and its images"),
        ({"features": {}}, "features must be of train, val"),
        (
            {"features": {"validation": FeatureSet(np.zeros((2, 5)), [0, 1])}},
            "features must be of train, val, test, open_set, text. Received: validation",
        ),
        ({"name": "crt:depth=3"}, "crt has .*epochs=90"),
        ({"name": "ncm:epochs=3"}, "ncm has no parameters"),
        ({"name": "crt:loss=ldam"}, "loss=ldam needs a classifier such as cosine:scale=30.0. Received: classifier=crt"),
        ({"name": "cosine:loss=ldam"}, "loss=ldam needs a classifier such as cosine:scale=30.0"),
        ({"name": None}, "name must be a text. Received: name=None"),
        ({"features": FeatureSet(np.zeros((2, 5)), [0, 1])}, "must be a dict such as .*Received: a FeatureSet"),
        ({"features": {"train": (np.zeros((2, 5)), [0, 1])}}, "must be a dict such as .*Received: a tuple"),
        ({"representation": FeatureSet(np.zeros((2, 5)), [0, 1])}, "by features=. Received: a FeatureSet"),
        ({"head": keras.layers.Dense(3)}, "one built layer .*Received: dense.* of Dense"),
        ({"head": keras.Sequential([keras.Input((5,)), *(keras.layers.Dense(3) for _ in "ab")])}, "Dense, Dense"),
        ({"head": fresh_dense(4, 3, seed=0)}, "head must take the features, of width 5. Received: 4"),
        ({"groups": {0: 60}}, "not a dict"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 0.5}, "seed=0.5"),
    ],
)
def test_what_features_cannot_do_is_refused(embeddings, changes, message):
    with pytest.raises(ValueError, match=message):
        learn_classifier(**{"name": "crt", "features": embeddings, "recipe": STAGE_TWO, **changes})


def test_a_classifier_has_a_loss_and_a_recipe_of_its_own(embeddings):
    name = "cosine:scale=30:loss=ldam:epochs=2:learning_rate=0.01"
    classifier = learn_classifier(name, features=embeddings, recipe=STAGE_TWO)
    assert classifier.chosen == {"scale": 30.0}


def changed(features, row, value):
    copy = features.features.copy()
    copy[row, -1] = value
    return FeatureSet(copy, features.labels)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])  # the last is none in single precision
def test_a_number_that_is_none_is_found_before_any_training(embeddings, value, tmp_path):
    for split, row in (("train", 71), ("val", 0)):
        broken = {**embeddings, split: changed(embeddings[split], row, value)}
        with pytest.raises(ValueError, match=f"finite float32 numbers. Received: others in row {row} of {split}"):
            learn_classifier("crt", features=broken, recipe=STAGE_TWO, folder=tmp_path)
    views = FeatureSet(embeddings["train"].features, embeddings["train"].labels, np.full((90, 2, 5), value))
    with pytest.raises(ValueError, match="in row 0 of train"):
        learn_classifier("crt", features={**embeddings, "train": views}, recipe=STAGE_TWO)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("split", ["train", "val"])
def test_labels_of_no_class_are_refused(embeddings, split):
    head = fresh_dense(5, 3, seed=0)
    for wrong in (3, -1):
        labels = np.where(np.arange(len(embeddings[split].labels)) == 4, wrong, embeddings[split].labels)
        features = {**embeddings, split: FeatureSet(embeddings[split].features, labels)}
        with pytest.raises(ValueError, match=rf"labels must lie in 0..2. Received: .* in {split}"):
            learn_classifier("crt", features=features, head=head, recipe=STAGE_TWO)
    with pytest.raises(ValueError, match=r"head and groups must be of the same classes. Received: 3 and 2"):
        learn_classifier("crt", features=embeddings, head=head, groups=ShotGroups([5, 5]))


@pytest.mark.parametrize("name", ["joint", "ncm", "crt", "lift"])
def test_a_class_that_training_has_none_of_is_refused_by_every_classifier(embeddings, name):
    """As a data set refuses it: some could not be fitted, others would learn never to say it."""
    labels = np.where(embeddings["train"].labels == 1, 3, embeddings["train"].labels)
    features = {**embeddings, "train": FeatureSet(embeddings["train"].features, labels)}
    with pytest.raises(ValueError, match=r"needs a training example: .*none of 1 of 4 classes, such as 1$"):
        learn_classifier(name, features=features, head=fresh_dense(5, 4, seed=0), recipe=STAGE_TWO)


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_features_of_any_precision_are_trained_on_as_float32(embeddings, dtype):
    rounded = {split: FeatureSet(one.features.astype(dtype), one.labels) for split, one in embeddings.items()}
    single = {split: FeatureSet(one.features.astype(np.float32), one.labels) for split, one in rounded.items()}
    for name in ("crt", "ncm"):
        ours, expected = (learn_classifier(name, features=of, recipe=STAGE_TWO) for of in (rounded, single))
        assert ours.val == pytest.approx(expected.val, nan_ok=True)
        for one, other in zip(ours.model.get_weights(), expected.model.get_weights(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6)


def test_widths_that_differ_are_refused(embeddings):
    narrow = FeatureSet(embeddings["val"].features[:, :4], embeddings["val"].labels)
    with pytest.raises(ValueError, match=r"one width. Received: \{'train': 5, 'val': 4\}"):
        learn_classifier("ncm", features={**embeddings, "val": narrow})
