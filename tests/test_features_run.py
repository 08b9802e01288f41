"""`--dataset=features`: a whole run on vectors, without an image or a backbone anywhere."""

import re

import numpy as np
import pytest
import tensorflow as tf
from absl import flags

from keras_lt import config, describe, evaluate, train
from keras_lt.classifiers import fresh_dense
from keras_lt.config import RunConfig
from keras_lt.datasets import FeatureVectors, LongTailed, Split
from keras_lt.datasets.examples import ArrayRows
from keras_lt.features import FeatureSet
from keras_lt.files import read_json
from keras_lt.inspection import inspect
from keras_lt.metrics import ShotGroups
from keras_lt.preprocessing import NoPreprocessing
from keras_lt.recipe import Recipe
from keras_lt.report.plots import plot_class_counts
from keras_lt.run import Run
from keras_lt.serving import MODEL_CARD, export_saved_model
from keras_lt.stages import Representation, learn_classifier, learn_representation

WIDTH, NAMES = 6, ("owl", "newt", "yak")
COUNTS = {"train": (120, 24, 6), "val": (8, 8, 8), "test": (15, 15, 15)}
OPEN = np.full((5, WIDTH), 0.1, np.float32)
RECIPE = {"epochs": 3, "batch_size": 150, "learning_rate": 0.5, "classifier_epochs": 2}  # a step is the whole train


def vectors(split):
    """Points around three centres that lie so near that some are taken for others; and their labels, shuffled."""
    rng = np.random.default_rng(list(COUNTS).index(split))
    labels = rng.permutation(np.repeat(np.arange(3), COUNTS[split]))
    centres = 1.5 * np.eye(3, WIDTH)
    return (centres[labels] + rng.standard_normal((len(labels), WIDTH))).astype(np.float32), labels


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embeddings")
    for split in COUNTS:
        features, labels = vectors(split)
        np.savez(folder / f"{split}.npz", features=features, labels=labels)
    np.save(folder / "open_features.npy", OPEN)
    (folder / "classes.txt").write_text("\n".join(NAMES))
    return folder


@pytest.fixture(scope="module")
def run(data_dir, tmp_path_factory):
    """A finished run, its SavedModel of cRT."""
    folder = tmp_path_factory.mktemp("work") / "run"
    arguments = {"dataset": "features", "data_dir": str(data_dir), "workdir": str(folder), **RECIPE}
    train.run(RunConfig(**arguments, export_classifier="crt"))
    return Run(folder)


def asked(*arguments):
    """What `keras_lt.evaluate` is asked for by these arguments."""
    flag_values = flags.FlagValues()
    config.define_evaluate_flags(flag_values)
    flag_values(["evaluate", *arguments])
    return config.evaluate_options(flag_values)


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def class_mean(logits, labels):
    return np.mean([(logits.argmax(1)[labels == c] == c).mean() for c in range(3)])


def test_a_run_on_features_has_all_that_a_run_has(run, data_dir):
    results = read_json(run.results_file)
    assert list(results["classifiers"]) == ["joint", "ncm", "crt", "tau_norm", "lws"]
    assert (results["dataset"], results["classes"], results["train_images"]) == (data_dir.name, 3, 150)
    assert (results["backbone"], results["stage_one"]["epochs"]) == ("", 3)
    assert results["groups"] == {"many": 1, "medium": 1, "few": 1}
    assert all(0 <= row["test"]["open_auroc"] <= 1 for row in results["classifiers"].values())
    assert (run.folder / "report.html").exists()
    assert run.exported == ["crt"]
    assert not run.features_folder.exists()  # they lie where the user has them


def test_joint_is_a_linear_probe_by_stage_ones_recipe(run):
    """Softmax regression in NumPy: coupled weight decay, momentum, cosine rate, the epoch that is best on val."""
    (features, labels), (val, val_labels) = vectors("train"), vectors("val")
    kernel, bias = (weight.astype(np.float64) for weight in fresh_dense(WIDTH, 3, seed=0).get_weights())
    momenta, epochs = [0.0, 0.0], []
    for epoch in range(3):
        rate = 0.5 * (1 + np.cos(np.pi * epoch / 3)) / 2
        missed = (softmax(features @ kernel + bias) - np.eye(3)[labels]) / len(labels)
        gradients = (features.T @ missed + 5e-4 * kernel, missed.sum(0) + 5e-4 * bias)
        momenta = [0.9 * momentum + gradient for momentum, gradient in zip(momenta, gradients, strict=True)]
        kernel, bias = kernel - rate * momenta[0], bias - rate * momenta[1]
        epochs.append((class_mean(val @ kernel + bias, val_labels), kernel, bias))
    _, kernel, bias = max(epochs, key=lambda epoch: epoch[0])
    learned_kernel, learned_bias = run.classifier("joint").model.layers[-1].get_weights()
    np.testing.assert_allclose(learned_kernel, kernel, atol=1e-5)
    np.testing.assert_allclose(learned_bias, bias, atol=1e-5)


def test_ncm_is_the_nearest_class_mean(run):
    (features, labels), (test, test_labels) = vectors("train"), vectors("test")
    chosen = run.outcome("ncm")["chosen"]
    center = features.mean(0) if chosen["transform"] == "cl2n" else 0

    def transformed(x):
        return x if chosen["transform"] == "un" else (x - center) / np.linalg.norm(x - center, axis=1, keepdims=True)

    means = np.stack([transformed(features)[labels == c].mean(0) for c in range(3)])
    if chosen["distance"] == "l2":
        scores = -np.linalg.norm(transformed(test)[:, None] - means, axis=2)
    else:
        scores = transformed(test) @ means.T / (np.linalg.norm(means, axis=1) if chosen["distance"] == "cosine" else 1)
    found = run.results["classifiers"]["ncm"]["test"]
    assert found["all"] == pytest.approx((scores.argmax(1) == test_labels).mean())
    assert found["class_mean"] == pytest.approx(class_mean(scores, test_labels))
    assert 1 / 3 < found["all"] < 1


def test_the_saved_model_takes_features(run):
    version, (test, _) = run.latest_export("crt"), vectors("test")
    signatures = tf.saved_model.load(version).signatures
    assert list(signatures) == ["serving_default"]
    answer = signatures["serving_default"](features=tf.constant(test))
    logits = run.classifier("crt").model.predict(test, verbose=0)
    np.testing.assert_allclose(answer["logits"], logits, atol=1e-5)
    np.testing.assert_allclose(answer["probabilities"], softmax(logits), atol=1e-5)
    assert answer["classes"].numpy()[0].tolist() == [name.encode() for name in NAMES]
    card = (version / MODEL_CARD).read_text()
    assert f"| `serving_default` | `features` float32 [B, {WIDTH}] |" in card
    assert "image_bytes" not in card
    assert "--backbone" not in card


def test_nothing_that_is_written_speaks_of_images(run, capsys):
    """But for the flags, which the page ends with, and the names of fields."""
    page, _, listed = (run.folder / "report.html").read_text("utf-8").partition("<body>")[2].partition("<h2>Flags</h2>")
    assert "--dataset=features" in listed
    assert not re.search("--(backbone|image_size|augmentation|mixup)=", listed)
    for text in (page, (run.folder / "results.md").read_text("utf-8"), plot_class_counts(run.data).alt):
        assert "examples" in text
        assert not re.search("image|photo|picture", text.replace("<img", ""))
    describe.print_summary(describe.summarize(run.data, inspect(run.data), []))
    assert "image" not in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["SavedModel", "keras"])
def test_models_are_scored_on_features(run, data_dir, kind, tmp_path):
    path = run.latest_export("crt") if kind == "SavedModel" else run.classifier_folder("crt") / "model.keras"
    options = [f"--model={path}", "--dataset=features", f"--data_dir={data_dir}"]
    (scores,) = evaluate.run(asked(*options, f"--predictions={tmp_path / 'said.csv'}")).values()
    assert scores.summary == pytest.approx(run.scores("crt").summary, nan_ok=True)
    assert len((tmp_path / "said.csv").read_text().splitlines()) == 1 + 45
    assert evaluate.run(asked(f"--workdir={run.folder}", "--classifiers=crt"))["crt"].accuracies == scores.accuracies


def test_images_and_features_are_not_taken_for_one_another(run, tmp_path, capsys):
    (tmp_path / "1.png").write_bytes(tf.io.encode_png(np.zeros((8, 8, 3), np.uint8)).numpy())
    said = f"--predictions={tmp_path / 'said.csv'}"
    with pytest.raises(SystemExit, match=r"takes examples of shape \(6,\). Received: images"):
        evaluate.run(asked(f"--workdir={run.folder}", f"--images={tmp_path}", said))
    with pytest.raises(SystemExit, match=r"SavedModel of images .* serving_default\(image_bytes\), images\(images\)"):
        evaluate.run(asked(f"--model={run.latest_export('crt')}", f"--images={tmp_path}", said))
    with pytest.raises(ValueError, match=r"decodes no image. Received: on_bad_request=nan"):
        run.export("crt", on_bad_request="nan")


def test_features_are_described_without_sizes(run, tmp_path):
    summary = describe.describe(run.data, tmp_path, preprocessing=run.preprocessing)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["classes.png", "describe.json"]
    assert summary["imbalance_ratio"] == 20
    assert summary["splits"]["train"] == {"images": 150, "bad": 0, "rotated": 0, "repeated": 0}
    assert summary["splits"]["open_set"]["repeated"] == 4


@pytest.mark.usefixtures("bare")
def test_a_memory_map_without_val_is_never_copied(tmp_path):
    for split in ("train", "test"):
        features, labels = vectors(split)
        np.save(tmp_path / f"{split}_features.npy", features)
        np.save(tmp_path / f"{split}_labels.npy", labels)
    arguments = {"dataset": "features", "data_dir": str(tmp_path), "workdir": str(tmp_path / "run"), **RECIPE}
    results = train.run(RunConfig(**{**arguments, "batch_size": 50}, classifiers=("joint", "ncm")))
    assert results["groups"] == {"many": 1, "medium": 1, "few": 1}  # by all of the training list
    run = Run(tmp_path / "run")
    train_set, val, test = (run.features(split) for split in ("train", "val", "test"))
    assert isinstance(train_set.features, ArrayRows)
    assert isinstance(train_set.features.array, np.memmap)
    assert train_set.features.array is val.features.array
    assert isinstance(test.features, np.memmap)
    assert any(f"{len(val.labels)} of 150" in note for note in results["notes"])
    assert np.bincount(np.concatenate([train_set.labels, val.labels])).tolist() == [120, 24, 6]
    rows = np.concatenate([train_set.features.rows, val.features.rows])
    assert sorted(rows.tolist()) == list(range(150))
    np.testing.assert_array_equal(val.features[2:4], vectors("train")[0][val.features.rows[2:4]])


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ({"backbone": "resnet32"}, "backbone is of images, .* features alone. Received: backbone=resnet32"),
        ({"image_size": 32}, "Received: image_size=32"),
        ({"augmentation": "crop_flip"}, "Received: augmentation=crop_flip"),
        ({"mixup": 0.2}, "Received: mixup=0.2"),
        ({"train_parts": "last_block"}, "Received: train_parts=last_block"),
        ({"precision": "mixed_bfloat16"}, "Received: precision=mixed_bfloat16"),
        ({"feature_loss": "range"}, "Received: feature_loss=range"),
        ({"feature_dtype": "float16"}, "Received: feature_dtype=float16"),
        ({"feature_views": 4}, "Received: feature_views=4"),
        ({"stage_two": "images"}, "Received: stage_two=images"),
        ({"classifiers": ("joint", "crt_all")}, "crt_all is trained on images. Received: .* features alone"),
        ({"method": "oltr"}, "method=oltr is trained on images. Received: .* features alone"),
        (
            {"method": "fslwf", "classifiers": ("joint",)},
            "method=fslwf is trained on images. Received: .* features alone",
        ),
        ({"method": "bbn"}, "method=bbn is trained on images. Received: .* features alone"),
    ],
    ids=str,
)
def test_what_is_of_images_is_refused_before_the_folder_is_touched(data_dir, tmp_path, flag, message):
    folder = tmp_path / "run"
    with pytest.raises(SystemExit, match=message):
        train.run(RunConfig(**{"dataset": "features", "data_dir": str(data_dir), "workdir": str(folder), **flag}))
    assert not folder.exists()


# In Python


@pytest.fixture(scope="module")
def data():
    return LongTailed("embeddings", **{split: Split(*vectors(split)) for split in COUNTS}, class_names=NAMES)


def test_an_array_of_vectors_is_a_split(data):
    assert isinstance(data.train.examples, FeatureVectors)
    assert data.of_features
    assert data.groups == ShotGroups([120, 24, 6])


def test_a_representation_of_features_survives_saving_and_loading(data, tmp_path):
    learned = learn_representation(data, recipe=Recipe(epochs=1, batch_size=50))
    learned.save(tmp_path)
    loaded = Representation.load(tmp_path)
    assert loaded.preprocessing == learned.preprocessing == NoPreprocessing()
    assert loaded.backbone.input_shape == loaded.backbone.output_shape == (None, WIDTH)
    test, _ = vectors("test")
    np.testing.assert_array_equal(loaded.backbone(test), test)
    np.testing.assert_array_equal(loaded.model(test), learned.model(test))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "resnet32"}, "backbone is of images"),
        ({"pretrained": "imagenet"}, "pretrained is of images"),
        ({"randaugment": 2}, "randaugment is of images"),
    ],
)
def test_arguments_of_images_are_refused(data, arguments, message):
    with pytest.raises(ValueError, match=message):
        learn_representation(data, **arguments)


def test_a_classifier_of_features_alone_is_served(data, tmp_path):
    features = {split: FeatureSet(*vectors(split)) for split in ("train", "val")}
    classifier = learn_classifier("crt", features=features, recipe=Recipe(epochs=1, batch_size=50))
    export_saved_model(classifier.model, tmp_path / "1", class_names=NAMES)
    test, _ = vectors("test")
    answer = tf.saved_model.load(tmp_path / "1").signatures["serving_default"](features=tf.constant(test))
    np.testing.assert_allclose(answer["logits"], classifier.model(test), atol=1e-5)
    with pytest.raises(ValueError, match=r"image_size is of a model of images.*image_size=8, a model of \(None, 6\)"):
        export_saved_model(classifier.model, tmp_path / "2", class_names=NAMES, image_size=8)
