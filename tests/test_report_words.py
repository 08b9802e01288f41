"""The sentences and numbers of a report, and the ranks it draws."""

import math

import numpy as np
import pytest

from keras_lt.metrics import ShotGroups
from keras_lt.report import figures, tables
from tests.test_report import RESULTS


def test_headline_says_what_was_chosen_on_val_and_what_it_gains():
    assert tables.headline(RESULTS) == (
        "τ-normalized was best on val and reaches 37.9% (31.8% on few-shot classes) on test. Joint reaches 30.2% "
        "(8.2% on few-shot classes): a difference of +7.7 points over all examples and +23.6 on few-shot classes."
    )
    without_best = {key: value for key, value in RESULTS.items() if key != "best"}
    assert tables.headline(without_best) == tables.headline(RESULTS)  # 0.38 is the highest on val
    assert tables.headline(RESULTS | {"best": "joint"}) == (
        "Joint was best on val and reaches 30.2% (8.2% on few-shot classes) on test."
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "Stage one: 30 epochs in 73 min, 412 examples per second."),
        ({"train_class_mean": 0.9134}, "412 examples per second, 91.3% right in training (mean over classes)."),
        ({"recipe": {"loss": "focal"}}, "Stage one: resnet10, focal loss, 30 epochs in"),
        (
            {"recipe": {"loss": "focal:gamma=1", "sampler": "power:q=0.3"}},
            "power of the counts (q 0.3) sampling, focal (gamma 1) loss",
        ),
        (
            {"recipe": {"loss": "ldam", "class_weights": "effective_number", "class_weights_from": 160}},
            "Stage one: resnet10, LDAM loss, class weights by effective number after epoch 160, 30 epochs in",
        ),
        (
            {"recipe": {"feature_loss": "range", "sampler": "square_root"}},
            "square-root sampling, range loss on features",
        ),
    ],
)
def test_facts_name_what_stage_one_was_trained_with(changes, words):
    backbone = {"backbone": "resnet10"} if changes else {}
    results = RESULTS | backbone | {"stage_one": RESULTS["stage_one"] | changes}
    assert words in tables.facts(results)
    assert "Stage one: resnet10, BBN, 30 epochs" in tables.facts(RESULTS | {"backbone": "resnet10", "method": "bbn"})


def test_headline_leaves_out_a_group_that_does_not_exist():
    scores = {"many": 0.5, "medium": 0.5, "few": None, "class_mean": 0.5}
    classifiers = {
        "joint": {"val": {"all": 0.5}, "test": scores | {"all": 0.5}},
        "crt": {"val": {"all": 0.6}, "test": scores | {"all": 0.475}},
    }
    assert tables.headline({"classifiers": classifiers}) == (
        "cRT was best on val and reaches 47.5% on test. Joint reaches 50.0%: "
        "a difference of -2.5 points over all examples."
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.24, "4.2 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (9000, "2.5 h"), (None, "—")],
)
def test_duration(seconds, text):
    assert tables.duration(seconds) == text


@pytest.mark.parametrize(
    ("difference", "text"), [(0.077, "+7.7"), (-0.0251, "-2.5"), (-0.0001, "0.0"), (math.nan, "—")]
)
def test_points(difference, text):
    assert tables.points(difference) == text


def test_smooth_is_the_mean_over_neighbors_that_exist():
    nan = np.nan
    np.testing.assert_allclose(figures.smooth([1, 2, 6, 4], 3), [1.5, 3, 4, 5])
    np.testing.assert_allclose(figures.smooth([1, nan, 6, nan, nan, nan], 3), [1, 3.5, 6, 6, nan, nan])
    np.testing.assert_allclose(figures.smooth([3, 5], 9), [4, 4])


def test_ranks_sort_classes_by_training_images():
    counts = np.array([50, 500, 50, 679])
    sorted_classes = figures.Ranks.sort(ShotGroups(counts), class_counts=counts, class_names=["a", "b", "c", "d"])
    assert sorted_classes.order.tolist() == [3, 1, 0, 2]  # equal counts keep their order
    assert sorted_classes.counts.tolist() == [679, 500, 50, 50]
    assert sorted_classes.names == ["d", "b", "a", "c"]


def test_classes_are_ranked_by_the_list_that_groups_go_by():
    groups = ShotGroups([102, 101, 19])
    ranked = figures.Ranks.sort(groups, class_counts=np.array([90, 91, 17]), class_names=["a", "b", "c"])
    assert ranked.names == ["a", "b", "c"]
    assert ranked.counts.tolist() == [90, 91, 17]
    assert ranked.groups == {"many": 2, "medium": 0, "few": 1}
