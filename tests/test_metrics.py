import math
import pathlib

import keras
import numpy as np
import pytest

from keras_lt.metrics import ShotAccuracy, ShotGroups, shot_accuracy

GOLDEN = pathlib.Path(__file__).parent / "golden"

# Six examples of classes with 200 (many), 50 (medium), 5 and 3 (few) training images.
COUNTS = [200, 50, 5, 3]
LABELS = np.array([0, 0, 0, 1, 2, 3])
PREDICTIONS = np.array([0, 0, 1, 1, 0, 3])
EXPECTED = {"many": 2 / 3, "medium": 1.0, "few": 0.5, "all": 4 / 6, "class_mean": (2 / 3 + 1 + 0 + 1) / 4}


def logits_of(predictions, classes):
    return np.eye(classes, dtype=np.float32)[predictions]


def test_groups_are_cut_strictly_above_100_and_below_20():
    groups = ShotGroups([101, 100, 20, 19, 0])
    assert groups["many"].tolist() == [True, False, False, False, False]
    assert groups["medium"].tolist() == [False, True, True, False, False]
    assert groups["few"].tolist() == [False, False, False, True, True]


def test_other_papers_cuts_are_arguments():
    groups = ShotGroups([101, 100, 20, 19], many_above=99, few_below=21)
    assert groups["many"].tolist() == [True, True, False, False]
    assert groups["few"].tolist() == [False, False, True, True]


def test_groups_are_a_mapping_with_sizes():
    groups = ShotGroups(COUNTS)
    assert list(groups) == ["many", "medium", "few"]
    assert groups.sizes == {"many": 1, "medium": 1, "few": 2}
    assert {name: members.tolist() for name, members in groups.items()}["few"] == [False, False, True, True]


def test_groups_are_values():
    groups = ShotGroups(COUNTS)
    assert groups == ShotGroups(np.array(COUNTS)) != ShotGroups(COUNTS, many_above=99)
    assert len({groups, ShotGroups(COUNTS), ShotGroups([1, 2])}) == 2
    with pytest.raises(ValueError, match="read-only"):
        groups.class_counts[0] = 1


def test_groups_are_taken_for_counts_and_keep_their_cuts():
    groups = ShotGroups(COUNTS, many_above=49, few_below=4)
    expected = {"many": (2 / 3 + 1) / 2, "medium": 0.0, "few": 1.0, "all": 4 / 6, "class_mean": EXPECTED["class_mean"]}
    assert shot_accuracy(PREDICTIONS, LABELS, groups) == pytest.approx(expected)
    assert shot_accuracy(PREDICTIONS, LABELS, groups, many_above=49, few_below=4) == pytest.approx(expected)
    metric = ShotAccuracy(groups)
    metric.update_state(LABELS, logits_of(PREDICTIONS, 4))
    assert {name: float(value) for name, value in metric.result().items()} == pytest.approx(expected)
    assert ShotAccuracy.from_config(metric.get_config()).groups == groups
    with pytest.raises(ValueError, match=r"cuts of their own, \(49, 4\). Received: .*=\(99, 21\)"):
        shot_accuracy(PREDICTIONS, LABELS, groups, many_above=99, few_below=21)


def test_a_group_is_the_unweighted_mean_of_its_classes():
    assert shot_accuracy(PREDICTIONS, LABELS, COUNTS) == pytest.approx(EXPECTED)


def test_accuracies_are_plain_floats_in_the_documented_order():
    accuracy = shot_accuracy(PREDICTIONS, LABELS, COUNTS)
    assert list(accuracy) == ["many", "medium", "few", "all", "class_mean"]
    assert {type(value) for value in accuracy.values()} == {float}


def test_a_group_without_a_class_is_nan():
    accuracy = shot_accuracy([0, 0], [0, 1], [200, 150])
    assert math.isnan(accuracy["medium"])
    assert math.isnan(accuracy["few"])
    assert accuracy["many"] == accuracy["all"] == accuracy["class_mean"] == 0.5


def test_a_class_absent_from_the_split_is_left_out_of_its_group_and_of_the_class_mean():
    accuracy = shot_accuracy([0, 2], [0, 2], [200, 150, 5, 3])
    assert accuracy == pytest.approx({"many": 1, "medium": math.nan, "few": 1, "all": 1, "class_mean": 1}, nan_ok=True)


def test_an_empty_split_has_no_accuracy():
    no_ids = np.zeros(0, np.int64)
    assert all(math.isnan(value) for value in shot_accuracy(no_ids, no_ids, COUNTS).values())


def test_sums_over_parts_of_a_split_give_the_accuracy_of_the_whole():
    correct, total = np.zeros(4), np.zeros(4)
    for part in (slice(0, 4), slice(4, 6)):
        total += np.bincount(LABELS[part], minlength=4)
        correct += np.bincount(LABELS[part][LABELS[part] == PREDICTIONS[part]], minlength=4)
    assert ShotGroups(COUNTS).accuracies(correct, total) == pytest.approx(EXPECTED)


def test_the_reference_accuracies_of_its_own_logits():
    golden = np.load(GOLDEN / "ncm.npz")
    accuracy = shot_accuracy(golden["logits_cl2n_l2"].argmax(1), golden["test_labels"], golden["class_counts"])
    assert [accuracy[name] for name in ("many", "medium", "few", "all")] == pytest.approx(golden["acc_cl2n_l2"])


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        ([0, 1], [0], "must both be"),
        ([[0], [1]], [[0], [1]], "must both be"),
        ([0, 4], [0, 1], r"predictions must be in \[0, 4\)"),
        ([0, 1], [0, -1], r"labels must be in \[0, 4\)"),
        ([0.2, 0.8], [0, 1], "predictions must be integer class ids"),
    ],
)
def test_ids_that_do_not_fit_are_refused(predictions, labels, message):
    with pytest.raises(ValueError, match=message):
        shot_accuracy(predictions, labels, COUNTS)


def test_counts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="0 <= correct <= total"):
        ShotGroups([200, 5]).accuracies([2, 0], [1, 0])
    with pytest.raises(ValueError, match=r"must be \[C\]"):
        ShotGroups([200, 5, 3]).accuracies([1, 0], [1, 0])
    with pytest.raises(ValueError, match="class_counts"):
        ShotGroups([5, -1])
    with pytest.raises(ValueError, match="few_below"):
        ShotGroups([5, 1], many_above=10, few_below=20)


def test_keras_metric_sums_over_partial_batches():
    metric = ShotAccuracy(COUNTS)
    for part in (slice(0, 4), slice(4, 6)):
        metric.update_state(LABELS[part], logits_of(PREDICTIONS[part], 4))
    assert {name: float(value) for name, value in metric.result().items()} == pytest.approx(EXPECTED)
    metric.reset_state()
    metric.update_state([[1]], logits_of([1], 4))
    assert float(metric.result()["all"]) == 1.0


def test_keras_metric_counts_an_example_as_much_as_its_weight():
    metric = ShotAccuracy([200, 50])
    metric.update_state([0, 0, 1, 1], logits_of([0, 1, 0, 1], 2), sample_weight=[0.5, 1.5, 0.0, 2.0])
    accuracy = {name: float(value) for name, value in metric.result().items()}
    assert accuracy == pytest.approx(
        {"many": 0.25, "medium": 1.0, "few": math.nan, "all": 2.5 / 4, "class_mean": 1.25 / 2}, nan_ok=True
    )


def test_keras_metric_adds_up_over_replicas():
    metric = ShotAccuracy(COUNTS)
    assert [variable.aggregation for variable in metric.variables] == ["sum", "sum"]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_keras_metric_in_a_model_logs_nan_for_an_empty_group_and_survives_saving(tmp_path, jit_compile):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Activation("linear")])
    metric = ShotAccuracy([30, 200, 10], many_above=50, few_below=5)
    model.compile(loss="sparse_categorical_crossentropy", weighted_metrics=[metric], jit_compile=jit_compile)
    model.save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    logits, labels = logits_of([0, 1, 2, 2, 0], 3), np.array([0, 1, 2, 1, 0])
    weights = np.array([1.0, 1.0, 1.0, 1.0, 0.0])  # the last example pads its batch
    logs = model.evaluate(logits, labels, sample_weight=weights, batch_size=2, verbose=0, return_dict=True)
    logs.pop("loss")
    assert logs == pytest.approx(
        {"many": 0.5, "medium": 1.0, "few": math.nan, "all": 0.75, "class_mean": 2.5 / 3}, nan_ok=True
    )


def test_two_keras_metrics_in_a_model_are_told_apart_by_name(tmp_path):
    """Of 30, 200 and 10 training images: few-shot is the third class by one, the first and third by the other."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Activation("linear")])
    metrics = [ShotAccuracy([30, 200, 10]), ShotAccuracy([30, 200, 10], few_below=50, name="wide")]
    model.compile(loss="sparse_categorical_crossentropy", metrics=metrics)
    model.save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    logs = model.evaluate(logits_of([1, 1, 2], 3), np.array([0, 1, 2]), verbose=0, return_dict=True)
    assert (logs["medium"], logs["few"], logs["wide_few"]) == (0.0, 1.0, 0.5)
    assert math.isnan(logs["wide_medium"])
    assert logs["all"] == logs["wide_all"] == pytest.approx(2 / 3)


def test_a_class_of_unknown_size_is_in_no_group():
    accuracy = shot_accuracy([0, 1], [0, 0], [math.nan, math.nan])
    assert all(math.isnan(accuracy[group]) for group in ("many", "medium", "few"))
    assert accuracy["all"] == 0.5


@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("form", ["ids", "column", "one-hot"])
def test_labels_of_every_form_are_counted_alike(classes, form):
    ids = np.array([0, 1, 1])
    labels = {"ids": ids, "column": ids[:, np.newaxis], "one-hot": logits_of(ids, classes)}[form]
    metric = ShotAccuracy([200, 50, 5, 3][:classes])
    metric.update_state(labels, logits_of([0, 1, 0], classes))
    assert keras.ops.convert_to_numpy(metric.total).tolist() == [1, 2, 0, 0][:classes]
    assert keras.ops.convert_to_numpy(metric.correct).tolist() == [1, 1, 0, 0][:classes]


def test_labels_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"\[B\] or \[B, 1\], or one-hot rows, \[B, 4\].*Received: .*shape \(2, 3\)"):
        ShotAccuracy(COUNTS).update_state(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"two classes or more. Received: 1"):
        ShotAccuracy([5]).update_state([[0]], [[1.0]])


@pytest.mark.parametrize("predicted", [[0, 1], np.eye(2, 3), np.eye(2, 5), np.zeros((2, 2, 4))])
def test_predictions_that_are_no_logits_of_the_classes_are_refused(predicted):
    """Class ids among them, of which `argmax` would make the first class or a number of an example."""
    with pytest.raises(ValueError, match=r"Logits must be \[B, 4\]\. Received: shape \(2"):
        ShotAccuracy(COUNTS).update_state([0, 1], predicted)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="no float64")
def test_sums_count_beyond_what_float32_can():
    metric = ShotAccuracy([500, 5])
    metric.total.assign([2.0**24, 0])
    metric.correct.assign([2.0**24, 0])
    for _ in range(4):
        metric.update_state([0], [[0.0, 1.0]])  # float32 adds one to 2^24 in vain
    assert np.asarray(metric.total)[0] == 2**24 + 4
