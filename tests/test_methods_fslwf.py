"""FSLwF: weights of novel classes as the authors' code generates them, episodes, and both stages."""

import dataclasses
import pathlib

import keras
import numpy as np
import pytest

from keras_lt import Recipe
from keras_lt.checkpoints import read_history
from keras_lt.classifiers import fresh_dense
from keras_lt.datasets import LongTailed, Split
from keras_lt.distribution import make_strategy
from keras_lt.features import FeatureSet
from keras_lt.input_pipeline import Stream
from keras_lt.methods import METHODS, fslwf
from keras_lt.methods.episodes import draw_episode, episode_batches, novel_in_episode
from keras_lt.methods.fslwf import WeightGenerator
from keras_lt.stages import Representation, join, learn_representation, load_classifier
from tests.conftest import killed_in_second_epoch

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "fslwf.npz")
COLOURS = np.array([(220, 220, 220), (90, 10, 90), (30, 220, 30), (220, 30, 30), (10, 90, 90), (30, 30, 220)])
COUNTS = (120, 10, 120, 120, 10, 120)
BASE = np.array([True, False, True, True, False, True])
STAGE_ONE = Recipe(epochs=4, batch_size=16, learning_rate=0.1)
STAGE_TWO = Recipe(epochs=3, batch_size=24, learning_rate=0.1, steps_per_epoch=20)
WIDTH = 16


def squares(counts, *, seed):
    """Images of their class's colour, with noise."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    noise = rng.normal(0, 25, (len(labels), 8, 8, 3))
    return Split(np.clip(COLOURS[labels][:, None, None] + noise, 0, 255).astype(np.uint8), labels)


@pytest.fixture(scope="module")
def data():
    """Four base classes, numbers 0, 2, 3 and 5, and two novel ones."""
    train, val, test = (squares(counts, seed=i) for i, counts in enumerate((COUNTS, (10,) * 6, (3,) * 6)))
    names = ("white", "plum", "green", "red", "teal", "blue")
    return LongTailed("colours", train, val, test, names, augmentation="none", crop_fraction=1.0)


@pytest.fixture(scope="module")
def features(data):
    """What a good backbone would make of them: a cloud per class, at a corner of its own."""
    rng = np.random.default_rng(1)
    centres = rng.random((6, WIDTH))
    return {
        name: FeatureSet(np.maximum(centres[labels] + rng.normal(0, 0.2, (len(labels), WIDTH)), 0), labels)
        for name, labels in (("train", data.train.labels), ("val", data.val.labels))
    }


@pytest.fixture(scope="module")
def representation():
    """A fresh head on any backbone of that width."""
    images = keras.Input((8, 8, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(images)
    backbone = keras.Model(images, keras.layers.Dense(WIDTH)(pooled), name="backbone")
    head = fslwf.fresh_head(WIDTH, 6, seed=0)
    head.name = "classifier"
    head.kernel.assign(head.kernel * BASE)
    return Representation(join(backbone, head), preprocessing=None, history=[])


@pytest.fixture(scope="module")
def study(representation, data, features):
    return representation, data, features


def learn(study, folder, **changes):
    representation, data, features = study
    recipe = dataclasses.replace(STAGE_TWO, **changes)
    options = {"features": features, "recipe": recipe, "seed": 0, "strategy": make_strategy("none")}
    return METHODS["fslwf"]().classifier(representation, data, **options, folder=folder)


@pytest.fixture(scope="module")
def classifier(study, tmp_path_factory):
    return learn(study, tmp_path_factory.mktemp("uninterrupted"))


# Episodes.


def test_an_episode_has_support_of_some_classes_and_queries_of_all():
    """Of four base classes 4 * 250 / 389 = 2.57, so two, are taken for novel; a third of 36 queries are of the rest."""
    labels = np.repeat(np.arange(6), COUNTS)
    rows_of = {label: np.flatnonzero(labels == label) for label in np.flatnonzero(BASE)}
    taken = set()
    for number in range(30):
        support, queries = draw_episode(rows_of, queries=36, rng=np.random.default_rng((3, number)))
        novel, counts = np.unique(labels[support], return_counts=True)
        assert counts.tolist() == [20, 20]
        assert len(set(support)) == 40
        assert not set(support) & set(queries)
        assert BASE[labels[queries]].all()
        assert np.isin(labels[queries], novel).sum() == 24
        taken |= set(novel)
    assert taken == {0, 2, 3, 5}


@pytest.mark.parametrize(("base", "novel"), [(2, 1), (5, 3), (389, 250)])
def test_one_base_class_stays(base, novel):
    assert novel_in_episode(base) == novel


def test_an_episode_depends_on_seed_and_number_alone():
    rng = np.random.default_rng(0)
    train = FeatureSet(rng.random((500, 3)).astype(np.float16), np.repeat(np.arange(6), COUNTS))

    def batches(count, **options):
        stream = Stream(STAGE_TWO, COUNTS, **options)
        return [(inputs | {"labels": labels}) for inputs, labels in episode_batches(train, BASE, stream).take(count)]

    whole, tail = batches(3, seed=1), batches(1, seed=1, start_step=2)
    for name, values in tail[0].items():
        np.testing.assert_array_equal(values, whole[2][name])
        assert not np.array_equal(values, whole[1][name])
    assert not np.array_equal(batches(1, seed=2)[0]["queries"], whole[0]["queries"])
    assert whole[0]["support"].shape == (40, 3)
    accumulated = dataclasses.replace(STAGE_TWO, accumulate_steps=2)
    (inputs, _), *_ = episode_batches(train, BASE, Stream(accumulated, COUNTS, seed=1, start_step=1)).take(1)
    assert inputs["queries"].shape == (12, 3)  # an episode per pass, of which two are behind
    np.testing.assert_array_equal(inputs["support"], whole[2]["support"])


# Both stages.


def test_stage_one_sees_base_classes_alone(data):
    base = fslwf.only_classes(data, BASE)
    assert base.class_names == ("white", "green", "red", "blue")
    assert base.class_counts.tolist() == [120] * 4
    for name, split in base.splits.items():
        whole = data.splits[name]
        np.testing.assert_array_equal(split.images, whole.images[np.isin(whole.labels, [0, 2, 3, 5])])
        np.testing.assert_array_equal(np.flatnonzero(BASE)[split.labels], whole.labels[BASE[whole.labels]])


def test_a_representation_scores_all_classes_and_knows_the_base_ones(data, tiny_backbone, tmp_path):
    learned = learn_representation(data, hooks=METHODS["fslwf"](), backbone=tiny_backbone, recipe=STAGE_ONE)
    assert learned.model.output_shape == (None, 6)
    kernel, scale, bias = learned.head.get_weights()
    np.testing.assert_array_equal(kernel.any(axis=0), BASE)
    assert scale != 10
    assert abs(bias) < 1e-5  # a softmax does not see it
    of_base = BASE[data.val.labels]
    images = learned.preprocessing.evaluate(data.val.images[of_base])
    predictions = learned.model.predict(images, verbose=0)[:, BASE].argmax(axis=1)
    accuracy = np.mean(np.flatnonzero(BASE)[predictions] == data.val.labels[of_base])
    assert accuracy == pytest.approx(max(row["val_class_mean"] for row in learned.history))
    assert accuracy > 0.7
    learned.save(tmp_path)
    np.testing.assert_array_equal(Representation.load(tmp_path).model(images), learned.model(images))


def test_the_classifier_knows_novel_classes_without_forgetting(representation, classifier):
    assert classifier.backbone is representation.backbone
    assert classifier.val["many"] > 0.9
    assert classifier.val["few"] > 0.8
    assert not keras.ops.convert_to_numpy(representation.head.kernel)[
        :, ~BASE
    ].any()  # stage one's own is left as it was


def test_the_classifier_is_saved_as_a_cosine_head(representation, features, classifier, tmp_path):
    classifier.save(tmp_path, representation)
    backbone, again = load_classifier(tmp_path, representation)
    assert backbone is representation.backbone
    np.testing.assert_array_equal(again(features["val"].features), classifier.model(features["val"].features))
    assert [weight.shape for weight in again.weights] == [(WIDTH, 6), (), ()]


def test_novel_weights_come_from_all_examples_whatever_the_groups(data, features, monkeypatch):
    head, generator = fslwf.fresh_head(WIDTH, 6, seed=0), WeightGenerator(6)
    kernel = fslwf.with_novel_classes(head, generator, features["train"], BASE)
    before = keras.ops.convert_to_numpy(head.kernel)
    examples = features["train"].features[data.train.labels == 4]
    generated = generator(examples, np.ones((10, 1)), before.T, BASE)
    np.testing.assert_allclose(kernel[:, 4], generated[0], rtol=1e-5)
    np.testing.assert_array_equal(kernel[:, BASE], before[:, BASE])
    monkeypatch.setattr(fslwf, "CLASSES_AT_ONCE", 1)
    np.testing.assert_allclose(fslwf.with_novel_classes(head, generator, features["train"], BASE), kernel, rtol=1e-5)


@pytest.mark.exhaustive
def test_a_killed_stage_two_ends_where_an_uninterrupted_one_does(study, classifier, tmp_path, monkeypatch):
    with killed_in_second_epoch(monkeypatch):
        learn(study, tmp_path)
    resumed = learn(study, tmp_path)
    epochs = [row["val_class_mean"] for row in read_history(tmp_path / "history.csv")]
    assert max(epochs) == pytest.approx(resumed.val["class_mean"])
    for expected, ours in zip(classifier.model.get_weights(), resumed.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, expected)


# What does not fit is said before any training.


@pytest.mark.parametrize(
    ("counts", "received"), [((101, 100, 9), "1 base classes of 3"), ((101, 300), "2 base classes of 2")]
)
def test_base_and_novel_classes_are_both_needed(counts, received):
    few = Split(np.zeros((len(counts), 8, 8), np.uint8), np.arange(len(counts)))
    data = LongTailed("few", squares(counts, seed=0), few, few, tuple("abc"[: len(counts)]))
    with pytest.raises(ValueError, match=f"more than 100 training images.*Received: {received} in few"):
        learn_representation(data, hooks=METHODS["fslwf"](), backbone="tiny")


@pytest.mark.parametrize(
    ("counts", "val", "test", "message"),
    [
        ((20, 120, 5), [0], [0], "more than 20 training images of every base class.*Received: 20 of one in some"),
        ((120, 120, 5), [2], [0], r"images of base classes in every split\. Received: none among the 1 of val in some"),
        ((120, 120, 5), [0], [2, 2], "none among the 2 of test in some"),
    ],
)
def test_an_episode_needs_examples_and_every_split_a_base_class(counts, val, test, message):
    labels = np.repeat(np.arange(3), counts), val, test
    splits = [Split(np.zeros((len(own), 8, 8), np.uint8), np.array(own)) for own in labels]
    with pytest.raises(ValueError, match=message):
        fslwf.base_classes(LongTailed("some", *splits, tuple("abc"), many_above=19, few_below=10))


def test_what_its_two_stages_do_not_have_is_refused(study):
    with pytest.raises(ValueError, match="stage_one=features fits a classifier alone, and method=fslwf more"):
        learn_representation(study[1], hooks=METHODS["fslwf"](), stage_one="features", train_parts="classifier")
    with pytest.raises(ValueError, match=r"method=fslwf has .* Received: loss=sigmoid"):
        learn(study, None, loss="sigmoid")
    with pytest.raises(
        ValueError, match=r"method=fslwf has accumulate_steps=1 and no other.* Received: accumulate_steps=2"
    ):
        learn(study, None, accumulate_steps=2)


def test_a_head_of_another_kind_is_refused(data, representation, features):
    with pytest.raises(ValueError, match=r"method=fslwf has a classifier of its own: no head.*Received: head=dense"):
        learn_representation(data, hooks=METHODS["fslwf"](), head="dense")
    dense = fresh_dense(WIDTH, 6, seed=0)
    dense.name = "classifier"
    other = dataclasses.replace(representation, model=join(representation.backbone, dense))
    with pytest.raises(ValueError, match=r"learned itself\. Received: one with a head of type Dense"):
        learn((other, data, features), None)
