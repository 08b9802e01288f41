"""What a run exports, judged by the run's own scores."""

import dataclasses
import io

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from keras_lt import config, export, train
from keras_lt.config import RunConfig
from keras_lt.export import choose
from keras_lt.files import write_json
from keras_lt.run import Run, source_prior
from keras_lt.serving import LABELS, MODEL_CARD, ONNX, WARMUP
from tests.conftest import COUNTS, save_squares

AS_TRAINED = np.divide(COUNTS, sum(COUNTS))


@pytest.fixture(scope="module")
def run_config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("squares")
    save_squares(folder)
    return RunConfig(
        dataset="arrays",
        data_dir=str(folder),
        workdir=str(folder / "run"),
        backbone="tiny",
        epochs=2,
        batch_size=16,
        learning_rate=0.05,
        classifier_epochs=2,
        classifiers=("joint", "tau_norm", "lws"),
        export_classifier="lws",
    )


@pytest.fixture(scope="module")
def results(run_config):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "write_report", lambda *_: {})  # it takes seconds, and other tests look at it
        return train.run(run_config)


@pytest.fixture(scope="module")
def data(run_config):
    return run_config.load_data()


@pytest.fixture(scope="module")
def tilted(run_config, results):
    return Run(run_config.folder).export("lws", target_prior="train", on_bad_request="nan")


def encoded(image):
    file = io.BytesIO()
    PIL.Image.fromarray(image[..., 0]).save(file, "PNG")
    return file.getvalue()


def served(version, images, name="serving_default"):
    answer = tf.saved_model.load(version).signatures[name](image_bytes=tf.constant([encoded(i) for i in images]))
    return {name: rows.numpy() for name, rows in answer.items()}


def test_the_served_accuracy_on_test_is_that_of_the_results(run_config, results, data):
    version = run_config.folder / "export/lws/1"
    hits = served(version, data.test.images)["probabilities"].argmax(1) == data.test.labels
    assert hits.mean() == pytest.approx(results["classifiers"]["lws"]["test"]["all"])


def test_served_features_are_those_of_the_run(run_config, results, data):
    version = run_config.folder / "export/lws/1"
    features = np.load(run_config.folder / "features/test/features.npy")
    np.testing.assert_allclose(served(version, data.test.images, "features")["features"], features, atol=1e-4)


@pytest.mark.exhaustive
def test_a_target_prior_of_training_tilts_what_is_balanced(run_config, tilted, data):
    """LWS was trained under balanced draws: 1/3 of each class."""
    plain = served(run_config.folder / "export/lws/1", data.test.images)["logits"]
    tilt, temperature = np.log(3 * AS_TRAINED), Run(run_config.folder).temperature("lws")
    np.testing.assert_allclose(served(tilted, data.test.images)["logits"], plain / temperature + tilt, atol=1e-4)


def test_calibration_divides_by_the_temperature_of_val_and_the_card_says_so(run_config, results, data):
    run = Run(run_config.folder)
    version = run.export("tau_norm", calibrate="temperature")
    plain = run.classifier("tau_norm").model(run.features("test").features)
    np.testing.assert_allclose(
        served(version, data.test.images)["logits"], plain / run.temperature("tau_norm"), atol=1e-4
    )
    card = (version / MODEL_CARD).read_text()
    assert "are for the class distribution as learned" in card
    assert f"Logits were divided by {run.temperature('tau_norm'):.6g}, the temperature" in card
    assert "were calibrated on all of the validation images together" in card
    assert "not calibrated" not in card
    plain_card = (run.export("tau_norm") / MODEL_CARD).read_text()
    assert "were divided by" not in plain_card
    assert "not calibrated" in plain_card


def test_joint_takes_the_training_prior_for_granted_and_others_that_of_their_draws(run_config, data):
    np.testing.assert_allclose(source_prior("joint", run_config, data.class_counts), AS_TRAINED)
    np.testing.assert_allclose(source_prior("crt", run_config, data.class_counts), [1 / 3] * 3)
    assert source_prior("ncm", run_config, data.class_counts) is None
    changed = dataclasses.replace(run_config, sampler="square_root", classifier_sampler="instance_balanced")
    changed = dataclasses.replace(changed, classifiers=("joint", "crt"))
    roots = np.sqrt(COUNTS)
    np.testing.assert_allclose(source_prior("joint", changed, data.class_counts), roots / roots.sum())
    np.testing.assert_allclose(source_prior("crt", changed, data.class_counts), AS_TRAINED)
    evened = dataclasses.replace(changed, classifier_resampling="smote")
    np.testing.assert_allclose(source_prior("crt", evened, data.class_counts), [1 / 3] * 3)


def test_parameters_of_a_classifier_and_of_a_loss_count(run_config, data):
    own = source_prior("crt:sampler=square_root", run_config, data.class_counts)
    roots = np.sqrt(COUNTS)
    np.testing.assert_allclose(own, roots / roots.sum())
    halved = dataclasses.replace(run_config, loss="logit_adjustment:tau=0.5")
    np.testing.assert_allclose(source_prior("joint", halved, data.class_counts), roots / roots.sum())


def test_the_same_weights_have_the_same_prior_whatever_the_row_is_called(run_config, data):
    """BBN's own row is stage one's classifier, whose two branches see opposite priors and end balanced."""
    bbn = RunConfig(dataset="arrays", method="bbn", classifiers=("joint", "crt"))
    np.testing.assert_allclose(source_prior("bbn", bbn, data.class_counts), [1 / 3] * 3)
    np.testing.assert_allclose(source_prior("joint", bbn, data.class_counts), [1 / 3] * 3)
    np.testing.assert_allclose(source_prior("crt", bbn, data.class_counts), [1 / 3] * 3)
    oltr = RunConfig(dataset="arrays", method="oltr", classifiers=("joint",))
    np.testing.assert_allclose(source_prior("joint", oltr, data.class_counts), AS_TRAINED)
    np.testing.assert_allclose(source_prior("oltr", oltr, data.class_counts), [1 / 3] * 3)


def test_an_engine_cannot_silence_the_sampler_that_priors_go_by():
    with pytest.raises(ValueError, match=r"engine=instance draws.*Received: engine=instance, sampler=class_balanced"):
        RunConfig(dataset="arrays", engine="instance", sampler="class_balanced")
    assert RunConfig(dataset="arrays", engine="instance").engine == "instance"


def test_the_card_says_what_it_is(run_config, results, data):
    version = run_config.folder / "export/lws/1"
    card = (version / MODEL_CARD).read_text()
    row = results["classifiers"]["lws"]["test"]
    scores = [f"{100 * row[column]:.1f}" for column in ("many", "medium", "few", "all", "class_mean")]
    assert card.startswith(f"# lws on {data.name}\n")
    assert f"| test | {' | '.join(scores)} |" in card
    assert "150 training images, 120 down to 6 per class" in card
    assert "--backbone=tiny" in card
    assert "None" not in card
    assert (version / LABELS).read_text().split() == list(data.class_names)
    assert (version / WARMUP).exists()


def test_the_card_says_for_which_classes_and_what_damage_does(run_config, tilted):
    card = (tilted / MODEL_CARD).read_text()
    assert "as frequent as in training (`--target_prior=train`)" in card
    assert f"divided by {Run(run_config.folder).temperature('lws'):.6g}" in card
    assert "scores are those of the classifier without the target prior" in card
    assert "`ok`, bool [B]" in card
    assert tilted == Run(run_config.folder).latest_export("lws")


def test_a_bad_prior_is_refused_before_any_work(run_config, tmp_path):
    (tmp_path / "prior").write_text("0.5\n0.5\n")
    with pytest.raises(ValueError, match="must be 3 probabilities"):
        Run.of(dataclasses.replace(run_config, workdir=f"{tmp_path}/no run")).export(
            "lws", target_prior=f"{tmp_path}/prior"
        )


def test_the_best_is_exported_unless_one_is_named(run_config, results):
    assert choose(Run(run_config.folder), "") == results["best"]
    assert choose(Run(run_config.folder), "joint") == "joint"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ncm", r"no finished classifier 'ncm', it has lws; train it with --classifiers=ncm"),
        ("", r"no finished run.*it has lws"),
    ],
)
def test_what_is_not_finished_is_said(tmp_path, name, message):
    write_json(tmp_path / "classifiers/lws/scores.json", {})
    (tmp_path / "classifiers/ncm").mkdir()
    with pytest.raises(ValueError, match=message):
        choose(Run(tmp_path), name)


def test_classifiers_to_be_trained_are_not_taken_for_the_one_to_be_exported(run_config, results, monkeypatch):
    monkeypatch.setattr(config, "of_a_run", lambda: {"folder": run_config.folder, "classifiers": ("joint", "tau_norm")})
    with pytest.raises(
        SystemExit, match=r"--export_classifier says what .*lws to be exported, --classifiers=joint,tau"
    ):
        export.main()


def test_the_command_exports_as_its_flags_say(run_config, results, monkeypatch, capsys):
    flags = {"export_classifier": "tau_norm", "target_prior": "uniform", "on_bad_request": "nan", "export_onnx": True}
    monkeypatch.setattr(config, "of_a_run", lambda: {"folder": run_config.folder, **flags})
    export.main()
    version = Run(run_config.folder).latest_export("tau_norm")
    assert str(version) in capsys.readouterr().out
    assert (version / ONNX).exists()
    card = (version / MODEL_CARD).read_text()
    assert "Chosen on val: tau " in card
    assert "--target_prior=uniform" in card


def test_a_typo_is_answered_before_any_work(run_config, results, monkeypatch):
    flags = {"target_prior": "balanced", "export_classifier": "lws"}
    monkeypatch.setattr(config, "of_a_run", lambda: {"folder": run_config.folder, **flags})
    with pytest.raises(SystemExit, match=r"Error: .*balanced"):
        export.main()
