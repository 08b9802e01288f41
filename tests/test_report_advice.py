"""Every piece of advice, with numbers for which it must appear and numbers for which it must not."""

import numpy as np
import pytest

from keras_lt import report
from keras_lt.classifiers import CLASSIFIERS
from keras_lt.datasets.data_record import DataRecord
from keras_lt.evaluation.scores import Scores
from keras_lt.metrics import ShotGroups
from keras_lt.report import advice, tables


def results_of(*, train=None, **val):
    """Classifier -> (few, class mean) on val; of stage one, its mean over classes in training."""
    return {
        "stage_one": {"epochs": 1, "seconds": 1.0, "images_per_second": 1.0, "train_class_mean": train},
        "classifiers": {
            name: {"val": {"few": few, "class_mean": mean}, "test": {"few": few}, "chosen": {"tau": 0.5}}
            for name, (few, mean) in val.items()
        },
        "best": next(iter(val)),
    }


def details_of(**changes):
    given = {"class_names": ["cat", "<dog>"], "class_counts": np.array([900, 9]), "groups": ShotGroups([900, 9])}
    return report.RunDetails(**{"val_examples": 1000, **given, **changes})


@pytest.mark.parametrize(
    ("val", "appears"),
    [
        ({"joint": (0.02, 0.5), "lws": (0.10, 0.5), "crt": (0.40, 0.5)}, True),
        ({"joint": (0.02, 0.5), "tau_norm:distance=2": (0.10, 0.5)}, True),  # nothing else was tried
        ({"joint": (0.02, 0.5), "lws": (0.40, 0.5), "crt": (0.30, 0.5)}, False),  # val says that rescaling does it
        ({"joint": (0.30, 0.5), "lws": (0.40, 0.5), "crt": (0.50, 0.5)}, False),
        ({"joint": (None, 0.5), "lws": (None, 0.5)}, False),  # no few-shot class
        ({"crt": (0.01, 0.5)}, False),  # without Joint
    ],
)
def test_heads_that_only_rescale(val, appears):
    text = advice.on_capped_heads(results_of(**val), details_of())
    assert bool(text) == appears
    if "lws" in val and appears:
        assert "Joint reaches 2.0% on few-shot classes" in text
        assert "(LWS) are capped" in text


def test_what_rescales_keeps_the_order_of_joint_within_a_class():
    """Layers of one scale and one offset per class: 2 C numbers where a new kernel has (D + 1) C."""
    assert {name for name, entry in CLASSIFIERS.items() if entry.rescales} >= {"tau_norm", "lws", "logit_adjusted"}
    assert all(entry.starts_from and not entry.baseline for entry in CLASSIFIERS.values() if entry.rescales)
    assert not any(CLASSIFIERS[name].rescales for name in ("joint", "ncm", "crt", "lift", "max_norm"))


# Wilson's interval, with z = 1.96: its ends are (p + z^2 / 2N +- z sqrt(p (1 - p) / N + (z / 2N)^2)) / (1 + z^2 / N).
@pytest.mark.parametrize(("examples", "appears"), [(80, True), (2000, False), (0, False)])
def test_a_val_split_that_cannot_choose_tau(examples, appears):
    """Half of 80 are 39.3 to 60.7, 21.4 points; the grid spreads 12. Of 2,000 they are 4.4."""
    curve = [{"tau": tau, "all": of} for tau, of in ((0.0, 0.38), (0.5, 0.5), (1.0, 0.45))]
    text = advice.on_small_val(
        results_of(tau_norm=(0.1, 0.5)), details_of(curves={"tau_norm": curve}, val_examples=examples)
    )
    assert bool(text) == appears
    if appears:
        assert "50.0% on val (80 in all) may be 39.3 to 60.7. τ-normalized's" in text
        assert "differs by 12.0 points from the worst τ that was tried to the best, so τ = 0.5 may be chance" in text


def test_a_val_split_that_is_all_right_is_not_known_without_error():
    """N / (N + z^2): 80 of 80 may be 95.4%, 20 of 20 83.9%; 9 points of the grid are more than the first alone."""
    curve = {"tau_norm": [{"tau": 0.0, "all": 0.91}, {"tau": 0.5, "all": 1.0}]}
    results = results_of(tau_norm=(0.1, 0.5))
    assert not advice.on_small_val(results, details_of(curves=curve, val_examples=80))
    text = advice.on_small_val(results, details_of(curves=curve, val_examples=20))
    assert "100.0% on val (20 in all) may be 83.9 to 100.0" in text
    means_too = results_of(joint=(1.0, 1.0), ncm=(1.0, 1.0))
    assert not advice.on_good_features(means_too, details_of(val_examples=20))


def test_tau_that_was_chosen_on_test_says_nothing_of_val():
    details = details_of(curves={"tau_norm": [{"tau": 0.5, "all": 0.5}]}, val_examples=8, flags={"tau_split": "test"})
    assert not advice.on_small_val(results_of(tau_norm=(0.1, 0.5)), details)


@pytest.mark.parametrize(
    ("train", "joint", "appears"), [(0.99, 0.5, True), (0.99, 0.8, False), (0.9, 0.5, False), (None, 0.5, False)]
)
def test_images_learned_by_heart(train, joint, appears):
    text = advice.on_learning_by_heart(results_of(train=train, joint=(0.1, joint)), details_of())
    assert bool(text) == appears
    assert not appears or ("99.0%" in text and "Joint has 50.0% on val" in text)


@pytest.mark.parametrize(
    ("backbone", "stage_one", "appears"),
    [("resnet8", "images", True), ("efficientnet_lite0", "features", False), ("", "images", False)],
)
def test_a_backbone_is_advised_where_there_is_one_to_learn_by_heart(backbone, stage_one, appears):
    results = results_of(train=0.99, joint=(0.1, 0.5)) | {"backbone": backbone}
    text = advice.on_learning_by_heart(results, details_of(flags={"stage_one": stage_one}))
    assert ("--train_parts=classifier" in text) == appears
    assert text.endswith("more --weight_decay or fewer --epochs.")


def test_heads_that_the_run_has_are_named_in_place_of_the_flag_that_adds_them():
    joint, learned = {"joint": (0.02, 0.5)}, {"crt:epochs=5": (0.4, 0.5), "ncm": (0.4, 0.9), "lift": (0.3, 0.6)}
    assert advice.on_capped_heads(results_of(**joint), details_of()).endswith(": --classifiers=crt,lift.")
    text = advice.on_capped_heads(results_of(**joint, **learned), details_of())
    assert "--classifiers" not in text
    assert text.endswith(": LIFT's head or cRT, epochs 5, which this run has.")


@pytest.mark.parametrize(("back", "appears"), [(4, True), (1, False)])
def test_one_class_in_two_folders(back, appears):
    """Ten images each; three cats are taken for dogs, and `back` dogs for cats."""
    labels = np.repeat([0, 1], 10)
    predictions = np.r_[[1] * 3, [0] * 7, [0] * back, [1] * (10 - back)]
    top = np.stack([predictions, 1 - predictions], 1)
    scores = Scores(labels, top, np.ones(20, np.float32), ShotGroups([900, 9]))
    text = advice.on_classes_in_two(results_of(crt=(0.1, 0.5)), details_of(scores={"crt": scores}))
    assert bool(text) == appears
    assert not appears or "cat and <dog> (30% and 40% of their test examples)" in text


def record(**contents):
    images = {split: np.array([[7, 0, of] for of in rows], np.uint64) for split, rows in contents.items()}
    sizes = {split: len(rows) for split, rows in contents.items()}
    return DataRecord("d", ("a",), np.array([3]), np.array([3]), 100, 20, sizes, (), images)


def test_examples_in_two_splits():
    """Keys are all alike here, so contents alone count."""
    shared = record(train=[1, 2, 3], val=[4, 3], test=[1, 1, 4, 5]).duplicates
    assert shared == {("train", "val"): 1, ("train", "test"): 2, ("val", "test"): 1}
    text = advice.on_duplicates({}, details_of(duplicates=shared))
    assert "1 of val also in train, 2 of test also in train, 1 of test also in val" in text
    assert record(train=[1, 1], val=[2], test=[3]).duplicates == {}
    assert not advice.on_duplicates({}, details_of())


@pytest.mark.parametrize(
    ("val", "appears"),
    [
        ({"joint": (0.1, 0.50), "ncm": (0.1, 0.54)}, True),  # half of 1,000 are 46.9 to 53.1
        ({"joint": (0.1, 0.50), "ncm": (0.1, 0.52)}, False),
        ({"joint": (0.1, 0.50), "crt": (0.1, 0.60)}, False),
        ({"joint": (0.1, 0.50), "tau_norm": (0.1, 0.60)}, False),
        ({"ncm": (0.1, 0.50)}, False),
        ({"joint": (0.1, 0.50), "oltr": (0.1, 0.60)}, False),  # a method's own
    ],
)
def test_features_better_than_their_classifier(val, appears):
    text = advice.on_good_features(results_of(**val), details_of())
    assert bool(text) == appears
    assert not appears or ("reaches 54.0% on val" in text and "Joint 50.0%" in text)


def test_every_piece_is_asked_and_names_heads_that_there_are():
    shared = {("train", "test"): 2}
    found = report.advise(results_of(train=0.99, joint=(0.0, 0.5), ncm=(0.3, 0.6)), details_of(duplicates=shared))
    assert len(found) == 4
    named = {
        name for text in found if "--classifiers=" in text for name in text.split("--classifiers=")[1][:-1].split(",")
    }
    assert named
    assert named <= CLASSIFIERS.keys()
    quiet = results_of(train=0.99, joint=(0.5, 0.8), ncm=(0.5, 0.7))
    assert report.advise(quiet, details_of()) == []


def test_where_it_stands(tmp_path):
    of_run = {
        "dataset": "d",
        "classes": 2,
        "groups": {"many": 1, "medium": 0, "few": 1},
        "train_images": 909,
        "notes": [],
        **results_of(joint=(0.5, 0.8)),
    }
    assert "advise" not in tables.markdown(of_run, {})
    of_run["advice"] = ["Take <b>."]
    assert "What these numbers advise:\n\n- Take &lt;b>." in tables.markdown(of_run, {})
    page = report.write_report(tmp_path, of_run, details_of())["report.html"].read_text(encoding="utf-8")
    assert "<li>Take &lt;b&gt;.</li>" in page
