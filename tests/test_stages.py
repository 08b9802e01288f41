import dataclasses

import keras
import numpy as np
import pytest

from keras_lt.classifiers import (
    CLASSIFIERS,
    ClassifierEntry,
    NearestClassMean,
    TauNormalizedDense,
    fold,
    fresh_dense,
    ncm,
)
from keras_lt.features import FeatureSet, extract_features
from keras_lt.recipe import Recipe
from keras_lt.stages import Representation, join, learn_classifier, learn_representation, load_classifier
from tests.conftest import killed_in_second_epoch, some_of

STAGE_ONE = Recipe(epochs=3, batch_size=16, learning_rate=0.05)
SEEN = ("train", "val")
STAGE_TWO = Recipe(epochs=4, batch_size=12, learning_rate=0.1, sampler="class_balanced")
DRIFTING = {"recipe": STAGE_TWO, "stage_two": "images", "batch_norm": "update"}


@pytest.fixture(scope="module")
def representation(data, tiny_backbone):
    return learn_representation(data, backbone=tiny_backbone, recipe=STAGE_ONE)


def weights(model):
    return [weight.copy() for weight in model.get_weights()]


def assert_same(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


def differ(ours, theirs):
    return any(not np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_a_representation_depends_on_its_seed_alone(data, tiny_backbone):
    recipe = dataclasses.replace(STAGE_ONE, epochs=1)
    one, again, other = (
        weights(learn_representation(data, backbone=tiny_backbone, recipe=recipe, seed=seed).model)
        for seed in (3, 3, 4)
    )
    assert_same(one, again)
    assert differ(one, other)


def test_the_epoch_that_validates_best_is_kept(data, representation):
    scores = [row["val_class_mean"] for row in representation.history]
    logits = representation.model.predict(representation.preprocessing.evaluate(data.val.images), verbose=0)
    np.testing.assert_allclose(np.mean(logits.argmax(1) == data.val.labels), max(scores), atol=1e-6)
    assert [row["learning_rate"] for row in representation.history] == pytest.approx([0.05, 0.0375, 0.0125])


@pytest.mark.exhaustive
@pytest.mark.versions
@pytest.mark.parametrize("changes", [{}, {"optimizer": "adamw", "schedule": "cosine_per_step"}, {"nesterov": True}])
def test_a_killed_stage_one_ends_where_an_uninterrupted_one_does(data, tiny_backbone, tmp_path, monkeypatch, changes):
    recipe = dataclasses.replace(STAGE_ONE, **changes)
    arguments = {"backbone": tiny_backbone, "recipe": recipe, "augmentation": "crop_flip"}
    whole = learn_representation(data, **arguments)
    with killed_in_second_epoch(monkeypatch):
        learn_representation(data, **arguments, folder=tmp_path)
    resumed = learn_representation(data, **arguments, folder=tmp_path)
    assert_same(weights(resumed.model), weights(whole.model))
    assert [row["val_loss"] for row in resumed.history] == [row["val_loss"] for row in whole.history]


@pytest.mark.parametrize(
    ("train_parts", "moving"), some_of([("last_block", ["layer1"]), ("classifier", [])], ("last_block", ["layer1"]))
)
def test_parts_that_are_not_trained_keep_every_weight_and_statistic(data, tiny_backbone, train_parts, moving):
    arguments = {"backbone": tiny_backbone, "train_parts": train_parts, "backbone_lr_multiplier": 0.5}
    untrained = learn_representation(data, **arguments, recipe=Recipe(epochs=1, batch_size=16, learning_rate=0.0))
    trained = learn_representation(data, **arguments, recipe=dataclasses.replace(STAGE_ONE, epochs=1))
    for stage in ("stem", "layer1"):
        before, after = (weights(r.backbone.get_layer(stage)) for r in (untrained, trained))
        assert differ(before, after) == (stage in moving)
    assert differ(untrained.head.get_weights(), trained.head.get_weights())


@pytest.mark.exhaustive
def test_a_multiplier_of_zero_holds_the_backbones_trainable_weights(data, tiny_backbone):
    arguments = {"backbone": tiny_backbone, "recipe": dataclasses.replace(STAGE_ONE, epochs=1)}
    still = learn_representation(data, **arguments, backbone_lr_multiplier=0.0)
    moved = learn_representation(data, **arguments)
    start = learn_representation(
        data, backbone=tiny_backbone, recipe=Recipe(epochs=1, batch_size=16, learning_rate=0.0)
    )
    kernels = [r.backbone.get_layer("stem").layers[1].kernel.numpy() for r in (start, still, moved)]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[0], kernels[2])


@pytest.mark.versions
def test_a_representation_survives_saving_and_loading(data, tiny_backbone, tmp_path):
    learned = learn_representation(data, backbone=tiny_backbone, recipe=STAGE_ONE, folder=tmp_path)
    learned.save(tmp_path)
    loaded = Representation.load(tmp_path)
    assert loaded.preprocessing == learned.preprocessing
    for row, expected in zip(loaded.history, learned.history, strict=True):
        assert row == pytest.approx(expected)
    assert_same(weights(loaded.backbone), weights(learned.backbone))
    assert_same(loaded.head.get_weights(), learned.head.get_weights())


@pytest.fixture(scope="module")
def of_two_classes(two_classes, tiny_backbone):
    """A representation, and its features of both splits that are seen in training."""
    recipe = dataclasses.replace(STAGE_ONE, epochs=1)
    learned = learn_representation(two_classes, backbone=tiny_backbone, recipe=recipe)
    return learned, {
        split: extract_features(learned.backbone, two_classes.splits[split], learned.preprocessing) for split in SEEN
    }


SHOWN = ("joint", "ncm", "crt", "tau_norm", "lws", "crt_last_block", "logit_adjusted", "zero_shot")


@pytest.mark.parametrize("name", some_of(CLASSIFIERS, *SHOWN))
def test_every_classifier_ends_as_a_model_on_an_unchanged_backbone(two_classes, of_two_classes, name, tmp_path):
    data, (representation, extracted) = two_classes, of_two_classes
    recipe = dataclasses.replace(STAGE_TWO, epochs=2, steps_per_epoch=2)
    before = weights(representation.backbone)
    features = extracted | {"text": FeatureSet(np.eye(2, extracted["train"].width), np.arange(2))}
    classifier = learn_classifier(name, representation, data, features=features, recipe=recipe)
    assert_same(weights(representation.backbone), before)
    assert (classifier.backbone is representation.backbone) == (CLASSIFIERS[name].train_parts == "classifier")
    assert classifier.model.output_shape == (None, 2)
    classifier.save(tmp_path, representation)
    backbone, loaded = load_classifier(tmp_path, representation)
    of_test = backbone(representation.preprocessing.evaluate(data.test.images))
    logits = keras.ops.convert_to_numpy(classifier.model(of_test))
    assert np.isfinite(logits).all()
    np.testing.assert_array_equal(loaded(of_test), logits)
    if (affine := fold(classifier.model.layers[-1])) is not None:
        np.testing.assert_allclose(of_test @ affine[0] + affine[1], logits, rtol=1e-4, atol=1e-4)
    assert 0 <= classifier.val["class_mean"] <= 1  # of the one class that is there


def test_joint_is_stage_ones_own_classifier(data, representation):
    classifier = learn_classifier("joint", representation, data)
    images = representation.preprocessing.evaluate(data.test.images)
    joined = join(classifier.backbone, classifier.model)
    np.testing.assert_allclose(
        joined.predict(images, verbose=0), representation.model.predict(images, verbose=0), atol=1e-5
    )


def test_tau_is_the_first_of_the_best_on_val(data, representation):
    classifier = learn_classifier("tau_norm", representation, data)
    assert [candidate["tau"] for candidate in classifier.candidates] == pytest.approx(np.arange(21) / 10)
    best = max(candidate["class_mean"] for candidate in classifier.candidates)
    first = next(c["tau"] for c in classifier.candidates if c["class_mean"] == best)
    assert classifier.chosen == {"tau": first}


def test_tau_chosen_on_test_is_the_best_there_and_val_scores_stay_vals(data, representation):
    features = {
        split: extract_features(representation.backbone, examples, representation.preprocessing)
        for split, examples in data.splits.items()
    }
    # A val on which every tau is right, so that choosing on it would take the first.
    kernel = representation.head.kernel.numpy()
    sure = np.argmax(features["val"].features @ kernel, 1)
    features["val"] = FeatureSet(features["val"].features[:1], sure[:1])
    chosen = learn_classifier("tau_norm", representation, data, features=features, tau_split="test")
    by_hand = [
        np.mean([np.mean(predicted[data.test.labels == c] == c) for c in range(3)])
        for tau in np.arange(21) / 10
        for predicted in [np.argmax(features["test"].features @ (kernel / np.linalg.norm(kernel, axis=0) ** tau), 1)]
    ]
    assert chosen.chosen == {"tau": np.argmax(by_hand) / 10}
    assert [row["class_mean"] for row in chosen.candidates] == pytest.approx(by_hand)
    assert chosen.val["all"] == np.mean(chosen.model.predict(features["val"].features, verbose=0).argmax(1) == sure[:1])


@pytest.mark.parametrize("name", ["tau_norm", "ncm"])
def test_a_grid_scored_at_once_is_the_grid_layer_by_layer(data, representation, name, monkeypatch):
    features = {
        split: extract_features(representation.backbone, data.splits[split], representation.preprocessing)
        for split in ("train", "val")
    }
    monkeypatch.setattr("keras_lt.classifiers.chunks.MOST_ROWS", 7)  # 30 rows: 7 + 7 + 7 + 7 + 2
    classifier = learn_classifier(name, representation, data, features=features)
    kernel = representation.head.kernel.numpy()
    for candidate in classifier.candidates:
        if name == "tau_norm":
            layer = TauNormalizedDense.from_dense(kernel, candidate["tau"])
        else:
            layer = NearestClassMean(3, candidate["transform"], candidate["distance"])
            layer.adapt(features["train"].features, features["train"].labels)
        hits = np.argmax(layer(features["val"].features), axis=-1) == features["val"].labels  # val is balanced
        np.testing.assert_allclose(candidate["class_mean"], hits.mean())
    layer = classifier.model.layers[-1]
    assert {key: layer.get_config()[key] for key in classifier.chosen} == classifier.chosen
    hits = np.argmax(classifier.model(features["val"].features), axis=-1) == features["val"].labels
    np.testing.assert_allclose(classifier.val["class_mean"], hits.mean())


class RowsOnDisk:
    """Features [N, D] that can be sliced, but not taken into memory as a whole; remembers its longest slice."""

    def __init__(self, rows):
        self.rows, self.shape, self.ndim, self.dtype, self.longest = rows, rows.shape, rows.ndim, rows.dtype, 0

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, part):
        self.longest = max(self.longest, len(self.rows[part]))
        return self.rows[part]

    def __array__(self, *args, **kwargs):
        raise MemoryError("all rows at once")


@pytest.mark.parametrize("name", ["joint", "ncm", "tau_norm"])
def test_neither_all_features_nor_all_logits_are_in_memory(data, representation, name, monkeypatch):
    monkeypatch.setattr("keras_lt.classifiers.chunks.MOST_ROWS", 7)
    monkeypatch.setattr(ncm, "CHUNK", 7)
    extracted = {
        split: extract_features(representation.backbone, data.splits[split], representation.preprocessing)
        for split in ("train", "val")
    }
    on_disk = {split: FeatureSet(RowsOnDisk(own.features), own.labels) for split, own in extracted.items()}
    classifier = learn_classifier(name, representation, data, features=on_disk)
    assert classifier.val == learn_classifier(name, representation, data, features=extracted).val
    assert on_disk["val"].features.longest == 7
    assert on_disk["train"].features.longest == (7 if name == "ncm" else 0)


def test_the_tau_grid_holds_one_kernel(representation):
    head = representation.head
    assert sum(layer.count_params() for _, layer in CLASSIFIERS["tau_norm"](head, seed=0)) == head.kernel.numpy().size


def test_a_learned_tau_is_reported(data, representation):
    classifier = learn_classifier("tau_learned", representation, data, recipe=STAGE_TWO)
    assert classifier.chosen == {"tau": classifier.model.layers[-1].get_config()["tau"]}
    assert classifier.chosen["tau"] != 1.0


@pytest.mark.exhaustive
def test_a_learned_tau_is_judged_on_the_backbone_that_it_was_learned_with(data, representation):
    """Batch norm's statistics drift while tau is learned: the scores are those of the drifted backbone."""
    classifier = learn_classifier("tau_learned", representation, data, **DRIFTING)
    assert classifier.backbone is not representation.backbone
    images = representation.preprocessing.evaluate(data.val.images)
    logits = join(classifier.backbone, classifier.model).predict(images, verbose=0)
    assert classifier.val["all"] == pytest.approx(np.mean(logits.argmax(1) == data.val.labels))


@pytest.mark.parametrize("name", some_of(["crt", "lws"], "crt"))
def test_without_augmentation_images_and_features_give_the_same_classifier(data, representation, name):
    """With a truly fixed representation, the two inputs of stage two are the same numbers."""
    by_images, by_features = (
        learn_classifier(name, representation, data, recipe=STAGE_TWO, stage_two=stage_two)
        for stage_two in ("images", "features")
    )
    for one, other in zip(weights(by_images.model), weights(by_features.model), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def test_updated_batch_norm_drifts_in_a_copy_and_in_its_statistics_alone(data, representation, tmp_path):
    before = weights(representation.backbone)
    classifier = learn_classifier("crt", representation, data, **DRIFTING)
    assert_same(weights(representation.backbone), before)
    for stage in ("stem", "layer1"):
        own, stage_one = (b.get_layer(stage).layers for b in (classifier.backbone, representation.backbone))
        for layer, original in zip(own, stage_one, strict=True):
            if isinstance(layer, keras.layers.BatchNormalization):
                np.testing.assert_array_equal(layer.gamma, original.gamma)
                np.testing.assert_array_equal(layer.beta, original.beta)
                assert not np.array_equal(layer.moving_mean, original.moving_mean)
            else:
                assert_same(layer.get_weights(), original.get_weights())
    classifier.save(tmp_path, representation)
    assert_same(weights(load_classifier(tmp_path, representation)[0]), weights(classifier.backbone))


def test_of_several_trained_candidates_each_is_fitted_and_the_best_kept(data, representation, tmp_path, monkeypatch):
    def two_seeds(head, *, seed):
        return [([{"start": i}], fresh_dense(*head.kernel.shape, seed=i)) for i in (1, 2)]

    monkeypatch.setitem(CLASSIFIERS, "two_seeds", ClassifierEntry(two_seeds))
    classifier = learn_classifier("two_seeds", representation, data, **DRIFTING, folder=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]
    starts, scores = zip(*((c["start"], c["class_mean"]) for c in classifier.candidates), strict=True)
    assert starts == (1, 2)
    assert classifier.chosen == {"start": starts[np.argmax(scores)]}
    features = extract_features(classifier.backbone, data.val, representation.preprocessing)
    hits = np.argmax(classifier.model(features.features), axis=-1) == features.labels  # val is balanced
    np.testing.assert_allclose(hits.mean(), max(scores))


@pytest.mark.exhaustive
def test_balanced_classifiers_find_the_tail_that_joint_misses(data, tiny_backbone):
    """The paper's finding, on three shades of grey: 120, 24 and 6 images."""
    recipe = dataclasses.replace(STAGE_ONE, epochs=6)
    representation = learn_representation(data, backbone=tiny_backbone, recipe=recipe)
    recipe = dataclasses.replace(STAGE_TWO, epochs=20)
    few = {
        name: max(c["few"] for c in learn_classifier(name, representation, data, recipe=recipe).candidates)
        for name in ("joint", "crt", "ncm")
    }
    assert min(few["crt"], few["ncm"]) > few["joint"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "crtt"}, "classifier must be one of joint, ncm, crt, .*'crtt'"),
        ({"name": "crt", "stage_two": "image"}, "stage_two must be one of features, images"),
        ({"name": "crt", "batch_norm": "update"}, "batch_norm=update needs stage_two=images"),
        ({"name": "crt", "recipe": Recipe(batch_size=512)}, "at least one full batch"),
    ],
)
def test_wrong_arguments_are_refused_before_features_are_extracted(
    data, representation, arguments, message, monkeypatch
):
    monkeypatch.setattr("keras_lt.stages.classifier.extract_features", None)
    with pytest.raises(ValueError, match=message):
        learn_classifier(representation=representation, data=data, **arguments)
