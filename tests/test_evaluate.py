"""`python -m keras_lt.evaluate` on a tiny run, on models by themselves, and on folders of images."""

import csv
import os
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags

from keras_lt import config, evaluate, predict, train
from keras_lt.config import RunConfig
from keras_lt.distribution import make_strategy
from keras_lt.evaluation import logits_in_chunks
from keras_lt.files import read_json
from keras_lt.methods import experts, sade
from keras_lt.run import Run
from tests.conftest import squares

SMALL = {"backbone": "tiny", "epochs": 2, "batch_size": 16, "learning_rate": 0.05, "classifier_epochs": 1}
NAMES = ("dark", "grey", "light")


def asked(*arguments):
    """What the command is asked for by these arguments."""
    flag_values = flags.FlagValues()
    config.define_evaluate_flags(flag_values)
    flag_values(["evaluate", *arguments])
    return config.evaluate_options(flag_values)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """The squares as npz files, with a black open set."""
    folder = tmp_path_factory.mktemp("squares")
    for seed, (name, counts) in enumerate({"train": (120, 24, 6), "val": (10,) * 3, "test": (7,) * 3}.items()):
        images, labels = squares(counts, seed=seed)
        np.savez(folder / f"{name}.npz", images=images, labels=labels)
    np.savez(folder / "open.npz", images=np.zeros((4, 8, 8), np.uint8))
    (folder / "classes.txt").write_text("\n".join(NAMES))
    return folder


@pytest.fixture(scope="module")
def workdir(data_dir, tmp_path_factory):
    """A finished run, its classifiers Joint and cRT, cRT exported."""
    folder = tmp_path_factory.mktemp("work") / "run"
    classifiers = {"classifiers": ("joint", "crt"), "export_classifier": "crt"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "write_report", lambda *_: {})  # it takes seconds, and other tests look at it
        train.run(RunConfig(dataset="arrays", data_dir=str(data_dir), workdir=str(folder), **SMALL, **classifiers))
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """PNGs of the test squares in a folder per class, with one of the classes missing; and their labels."""
    folder = tmp_path_factory.mktemp("photos")
    for i, (image, label) in enumerate(zip(*squares((7, 0, 7), seed=2), strict=True)):
        (folder / NAMES[label]).mkdir(exist_ok=True)
        (folder / NAMES[label] / f"{i:02}.png").write_bytes(tf.io.encode_png(image[..., None]).numpy())
    return folder


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_classifier_of_a_run_gets_the_scores_of_its_results(workdir, capsys):
    scores = evaluate.run(asked(f"--workdir={workdir}"))
    results = read_json(workdir / "results.json")["classifiers"]
    assert list(scores) == list(results) == ["joint", "crt"]
    for name, row in results.items():
        for group in ("many", "medium", "few", "all", "class_mean"):
            assert scores[name].summary[group] == pytest.approx(row["test"][group])
    said = capsys.readouterr().out
    assert re.search(r", test: 21 images, in %", said)
    for name, row in (("Joint", results["joint"]["test"]), ("cRT", results["crt"]["test"])):
        of_classes, errors, open_set = ("macro_f1", "worst_class"), ("ece", "ece_few"), ("open_f_measure", "open_auroc")
        for first, last in (("many", "class_mean"), of_classes, errors, open_set):  # of a table each
            numbers = [f"{100 * row[measure]:.1f}".replace("nan", "—") for measure in (first, last)]
            assert re.search(rf"^ {name} +\*?{numbers[0]} .*[ *]{numbers[1]} $", said, re.MULTILINE)
    assert "Top-5" not in said  # three classes


def test_accuracy_under_another_distribution_is_the_weighted_mean_over_classes(workdir, capsys):
    scores = evaluate.run(asked(f"--workdir={workdir}", "--test_distribution=backward:ratio=4"))
    said = capsys.readouterr().out
    assert "backward:ratio=4" in said
    for name, scored in (("Joint", scores["joint"]), ("cRT", scores["crt"])):
        expected = scored.per_class @ np.array([1, 2, 4]) / 7
        assert re.search(rf"^ {name} .*[ *]{100 * expected:.1f} $", said, re.MULTILINE)


@pytest.mark.parametrize("prior", ["train", "em"])
def test_logits_are_moved_to_the_class_distribution_that_is_asked_for(workdir, capsys, prior):
    """Logits of seven test images each, calibrated and moved by hand."""
    plain = Run(workdir)
    given = evaluate.run(asked(f"--workdir={workdir}", f"--target_prior={prior}", "--classifiers=crt"))["crt"]
    logits = np.concatenate(list(logits_in_chunks(plain.classifier("crt").model, plain.features("test").features)))
    scaled = logits.astype(np.float64) / plain.temperature("crt")  # balanced batches: the prior is uniform
    if prior == "train":
        target = np.array([120, 24, 6]) / 150
    else:
        target = np.full(3, 1 / 3)
        for _ in range(3000):
            posterior = np.exp(scaled) * target
            target = (posterior / posterior.sum(1, keepdims=True)).mean(0) + 1e-12  # a class may not be found
        assert "Class distribution by expectation-maximisation: many " in capsys.readouterr().out
    moved = scaled + np.log(target)
    np.testing.assert_array_equal(given.predictions, moved.argmax(1))
    posterior = np.exp(moved) / np.exp(moved).sum(1, keepdims=True)
    np.testing.assert_allclose(given.confidences, posterior.max(1), atol=1e-3)


def test_calibration_changes_confidences_and_no_prediction(workdir):
    plain = evaluate.run(asked(f"--workdir={workdir}"))["crt"]
    calibrated = evaluate.run(asked(f"--workdir={workdir}", "--calibrate=temperature"))["crt"]
    np.testing.assert_array_equal(calibrated.predictions, plain.predictions)
    assert np.abs(calibrated.confidences - plain.confidences).max() > 1e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target_prior=em", "--model={workdir}/export/crt/1"], "belong to the classifiers of a run"),
        (["--test_distribution=sideways"], "must be uniform, train, forward, backward, or a file"),
        (["--test_distribution=train", "--images={flat}", "--predictions=x.csv"], "--test_distribution needs labels"),
    ],
)
def test_what_cannot_be_moved_is_refused(workdir, photos, tmp_path, arguments, message):
    for path in photos.rglob("*.png"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    arguments = [argument.format(workdir=workdir, flat=tmp_path) for argument in arguments]
    with pytest.raises((SystemExit, ValueError), match=message):
        evaluate.run(asked(f"--workdir={workdir}", *arguments))


def test_another_split_and_one_classifier_alone(workdir):
    scores = evaluate.run(asked(f"--workdir={workdir}", "--classifiers=crt", "--split=val"))
    assert list(scores) == ["crt"]
    on_val = read_json(workdir / "results.json")["classifiers"]["crt"]["val"]
    assert scores["crt"].accuracies["class_mean"] == pytest.approx(on_val["class_mean"])
    assert len(scores["crt"].open_confidences) == 0  # open images stand beside the test split


def test_predictions_are_written_for_every_image(workdir, data_dir, tmp_path):
    path = tmp_path / "predictions.csv"
    scores = evaluate.run(asked(f"--workdir={workdir}", f"--predictions={path}"))
    rows = read_csv(path)
    assert [row["model"] for row in rows] == ["joint"] * 21 + ["crt"] * 21
    with np.load(data_dir / "test.npz") as test:
        assert [row["label"] for row in rows[21:]] == [NAMES[label] for label in test["labels"]]
    assert [row["image"] for row in rows[:3]] == ["0", "1", "2"]
    assert np.mean([row["label"] == row["predicted"] for row in rows[21:]]) == scores["crt"].accuracies["all"]
    for row in rows:
        assert row["top_5"].startswith(row["predicted"])
        assert sorted(row["top_5"].split(" | ")) == sorted(NAMES)
        assert 1 / 3 <= float(row["confidence"]) <= 1


def test_an_exported_model_has_the_scores_of_its_classifier(workdir, data_dir):
    model = workdir / "export/crt/1"
    scores = evaluate.run(asked(f"--model={model}", "--dataset=arrays", f"--data_dir={data_dir}"))[str(model)]
    of_run = evaluate.run(asked(f"--workdir={workdir}", "--classifiers=crt"))["crt"]
    np.testing.assert_array_equal(scores.predictions, of_run.predictions)
    np.testing.assert_allclose(scores.confidences, of_run.confidences, atol=1e-5)
    np.testing.assert_allclose(scores.open_confidences, of_run.open_confidences, atol=1e-5)


@pytest.mark.parametrize("beside", [True, False])
def test_a_keras_file_takes_its_preprocessing_from_beside_it_or_from_the_run(workdir, data_dir, tmp_path, beside):
    source = ["--dataset=arrays", f"--data_dir={data_dir}"] if beside else [f"--workdir={workdir}"]
    model = workdir / "representation/model.keras"
    if not beside:
        model = tmp_path / "copy.keras"
        model.write_bytes((workdir / "representation/model.keras").read_bytes())
    (scores,) = evaluate.run(asked(f"--model={model}", *source)).values()
    joint = evaluate.run(asked(f"--workdir={workdir}", "--classifiers=joint"))["joint"]
    np.testing.assert_array_equal(scores.predictions, joint.predictions)
    np.testing.assert_allclose(scores.confidences, joint.confidences, atol=1e-5)


def test_a_folder_per_class_is_scored_by_its_names(workdir, photos, capsys):
    model = workdir / "export/crt/1"
    (scores,) = evaluate.run(asked(f"--model={model}", f"--images={photos}")).values()
    assert scores.total.tolist() == [7, 0, 7]  # "grey" has no folder
    said = capsys.readouterr().out
    assert "14 images" in said
    assert "mean" in said.split()  # of the classes
    assert "Many" not in said  # nothing says how many images a class was trained on
    of_run = evaluate.run(asked(f"--workdir={workdir}", "--classifiers=crt", f"--images={photos}"))["crt"]
    np.testing.assert_array_equal(scores.predictions, of_run.predictions)
    assert "Many" in capsys.readouterr().out


def test_predict_takes_the_savedmodel_that_a_run_exports(workdir, photos, tmp_path):
    path = tmp_path / "p.csv"
    predict.main([f"--model={workdir}", f"--images={photos}", f"--output={path}", "--classifier=crt"])
    of_run = evaluate.run(asked(f"--workdir={workdir}", "--classifiers=crt", f"--images={photos}"))["crt"]
    by_class = sorted(photos.rglob("*.png"), key=lambda path: (NAMES.index(path.parent.name), path))
    expected = {str(path): NAMES[label] for path, label in zip(by_class, of_run.predictions, strict=True)}
    assert {row["image"]: row["label"] for row in read_csv(path)} == expected
    with pytest.raises(SystemExit, match="has no SavedModel of joint: python -m"):
        predict.main([f"--model={workdir}", f"--images={photos}", f"--output={path}", "--classifier=joint"])


def test_a_flat_folder_gets_predictions_and_no_scores(workdir, photos, tmp_path, capsys):
    flat, path, model = photos / "dark", tmp_path / "out" / "flat.csv", workdir / "export/crt/1"
    evaluate.run(asked(f"--model={model}", f"--images={flat}", f"--predictions={path}"))
    rows = read_csv(path)
    assert [row["image"] for row in rows] == sorted(map(str, flat.glob("*.png")))
    assert {row["label"] for row in rows} == {""}
    assert {row["predicted"] for row in rows} <= set(NAMES)
    assert "mean" not in capsys.readouterr().out.split()
    with pytest.raises(SystemExit, match="no labels to score by; --predictions"):
        evaluate.run(asked(f"--model={model}", f"--images={flat}"))


def test_bad_images_are_named_before_any_is_scored_or_left_out(workdir, photos, tmp_path, monkeypatch, capsys):
    (tmp_path / "a.png").write_bytes((next(iter(photos.glob("dark/*")))).read_bytes())
    of_the_model = [f"--model={workdir}/export/crt/1", f"--images={tmp_path}", f"--predictions={tmp_path}/p.csv"]
    of_the_run = [f"--workdir={workdir}", "--classifiers=crt", *of_the_model[1:]]
    for name in (b"b.png", b"caf\xe9.png"):  # the second is of an old zip
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            file.write(b"not an image")
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "score", None)
        with pytest.raises(SystemExit, match=r"2 of 3:\n  .*/b.png: not a .*\n  .*/caf\\udce9\.png: (.|\n)*=skip\.$"):
            evaluate.run(asked(*of_the_model))
    for words in (of_the_model, of_the_run):
        evaluate.run(asked(*words, "--on_bad_image=skip"))
        assert [row["image"] for row in read_csv(tmp_path / "p.csv")] == [f"{tmp_path}/a.png"]
        assert "Left out, 2 of 3:" in capsys.readouterr().out


def test_a_flag_of_the_run_with_another_value_is_named(workdir, data_dir, capsys):
    asked(f"--workdir={workdir}", "--epochs=2", f"--data_dir={data_dir}", "--dataset=arrays")  # as it was trained
    assert asked(f"--workdir={workdir}", "--dataset=elpv", "--on_bad_image=skip").data.dataset == "elpv"
    assert capsys.readouterr().out == ""
    as_trained = f"{workdir} is taken as it was trained, not as is said now: "
    asked(f"--workdir={workdir}", "--epochs=3", "--on_bad_image=skip")  # the second tells what it was trained on
    said = capsys.readouterr().out.strip().removeprefix(as_trained).split("; ")
    assert {*said} == {"--on_bad_image=error there, --on_bad_image=skip now", "--epochs=2 there, --epochs=3 now"}


def test_a_saved_model_of_somebody_else_is_told_what_was_expected(tmp_path, data_dir):
    keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()]).export(tmp_path / "other", verbose=False)
    with pytest.raises(SystemExit) as error:
        evaluate.run(asked(f"--model={tmp_path}/other", "--dataset=arrays", f"--data_dir={data_dir}"))
    assert "serving_default(image_bytes), images(images)" in str(error.value)
    assert re.search(r"Received: .*/other with .*serve", str(error.value))


def test_models_and_data_of_other_classes_are_refused(workdir, data_dir, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for split in ("train", "val", "test"):
        (other / f"{split}.npz").write_bytes((data_dir / f"{split}.npz").read_bytes())
    (other / "classes.txt").write_text("dark\ngray\nlight")
    with pytest.raises(SystemExit, match="class 1 'grey' there, 'gray' here"):
        evaluate.run(asked(f"--model={workdir}/export/crt/1", "--dataset=arrays", f"--data_dir={other}"))
    (other / "unicorn").mkdir()
    with pytest.raises(SystemExit, match=r"named as classes, such as dark, grey, light\..*with 'unicorn'"):
        evaluate.run(asked(f"--model={workdir}/export/crt/1", f"--images={other}"))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("representation/nothing.keras", r"must be a .keras file, or a folder with saved_model.pb. Not found"),
        ("", r"--workdir scores the classifiers of a run. Received: .* a run"),
        ("export/crt", r"must be a .keras file, or a folder with saved_model.pb. Not found"),
        ("classifiers/crt/model.keras", r"Not found: .*/classifiers/crt/preprocessing.json"),
    ],
)
def test_what_is_no_model_is_refused(workdir, data_dir, model, message):
    with pytest.raises(SystemExit, match=message):
        evaluate.run(asked(f"--model={workdir}/{model}", "--dataset=arrays", f"--data_dir={data_dir}"))


def test_a_classifier_of_features_is_refused(workdir):
    with pytest.raises(SystemExit, match=r"must take images \[B, S, S, 3\].*\(None, 4\)"):
        evaluate.run(asked(f"--model={workdir}/classifiers/crt/model.keras", f"--workdir={workdir}"))


def test_a_classifier_that_the_run_has_not_is_named(workdir):
    with pytest.raises(
        SystemExit, match="no finished classifier 'lws', it has joint, crt; train it with --classifiers=lws"
    ):
        evaluate.run(asked(f"--workdir={workdir}", "--classifiers=lws"))


def test_a_model_needs_something_to_be_scored_on(workdir, photos):
    with pytest.raises(
        ValueError, match="--model is scored on --dataset, on the data set of --workdir, or on --images"
    ):
        asked(f"--model={workdir}/export/crt/1")
    with pytest.raises(SystemExit, match=r"A .keras file does not name its classes"):
        evaluate.run(asked(f"--model={workdir}/representation/model.keras", f"--images={photos}"))


def test_images_are_of_no_split(photos):
    with pytest.raises(ValueError, match=r"--split is of a data set.*Received: --split=val, --images="):
        asked(f"--images={photos}", "--split=val")


@pytest.mark.slow
def test_experts_are_weighed_by_two_views_of_the_images(data_dir, tmp_path, capsys):
    """Of a run of SADE, beside their plain mean; by hand from each one's logits."""
    folder = tmp_path / "sade"
    own = {"method": "sade", "classifiers": (), "augmentation": "crop_flip", "seed": 3, "workdir": str(folder)}
    run = Run.of(RunConfig(dataset="arrays", data_dir=str(data_dir), **SMALL | own | {"epochs": 1}))
    run.save_config()
    train.stage_one(run, make_strategy("none"))
    train.stage_two("sade", run, {split: run.features(split) for split in ("train", "val")}, make_strategy("none"))
    run.save_results({"classifiers": {"sade": {}}})
    capsys.readouterr()
    scores = evaluate.run(asked(f"--workdir={folder}", "--aggregate"))
    of_views = run.extract(run.representation.backbone, run.data.test, views=2, seed=3)
    kernel = run.representation.head.kernel.numpy()
    plain, *views = (
        experts.expert_logits(features, kernel, experts=3)
        for features in (of_views.features, of_views.views[:, 0], of_views.views[:, 1])
    )
    assert np.abs(views[0] - views[1]).max() > 0.01
    weights = sade.aggregation_weights(np.stack(views, axis=1), batch_size=21)  # all of them, as 128 are
    np.testing.assert_array_equal(scores["sade"].predictions, plain.mean(axis=0).argmax(1))
    weighed = np.einsum("e,enc->nc", weights, plain)
    np.testing.assert_array_equal(scores["sade:aggregated"].predictions, weighed.argmax(1))
    confidences = np.exp(weighed - np.log(np.exp(weighed).sum(1, keepdims=True))).max(1)
    np.testing.assert_allclose(scores["sade:aggregated"].confidences, confidences, rtol=1e-3)
    said = capsys.readouterr().out
    assert f"Weights of the experts by two views of each image: {weights[0]:.3f}, {weights[1]:.3f}" in said
    assert re.search(r"^ SADE, aggregated +", said, re.MULTILINE)


def test_what_has_no_experts_to_weigh_is_refused(workdir):
    with pytest.raises(SystemExit, match=r"--aggregate weighs the experts of --method=sade.*--method=decoupling"):
        evaluate.run(asked(f"--workdir={workdir}", "--aggregate"))
    with pytest.raises(ValueError, match=r"--aggregate finds out by itself.*Received: .*--target_prior=em"):
        asked(f"--workdir={workdir}", "--aggregate", "--target_prior=em")
