"""What the report makes of predictions: intervals, measures, confusions and pictures."""

import base64
import io
import re

import matplotlib
import numpy as np
import PIL.Image
import pytest

from keras_lt import report
from keras_lt.datasets import Split
from keras_lt.datasets.examples import Records
from keras_lt.evaluation import Scores, thumbnails
from keras_lt.metrics import Reliability, ShotGroups
from keras_lt.report import examples, intervals, tables
from keras_lt.report.score_plots import draw_reliability
from keras_lt.report.style import RC, styles_for
from keras_lt.significance import interval, stratified_bootstrap

COUNTS = np.array([500, 50, 30, 10, 5])  # one many-, two medium-, two few-shot classes
GROUPS = ShotGroups(COUNTS)
NAMES = ["<b>head</b>", "b", "c", "d", "e"]
PER_CLASS = 40


def scored(right, *, taken_for=0):
    """Scores in which the first `right[c]` of the 40 images of class c are right, and the rest are another class."""
    labels = np.repeat(np.arange(5), PER_CLASS)
    hits = np.tile(np.arange(PER_CLASS), 5) < np.repeat(right, PER_CLASS)
    wrong = np.where(labels == taken_for, (taken_for + 1) % 5, taken_for)
    top = np.stack([np.where(hits, labels, wrong)] + [(labels + 2) % 5] * 4, axis=1)
    confidences = np.linspace(0.2, 1, len(labels)).astype(np.float32)
    return Scores(labels, top, confidences, GROUPS)


SCORES = {"joint": scored([38, 20, 20, 4, 0]), "crt": scored([32, 24, 22, 16, 12])}
RESULTS = {
    "dataset": "made_up",
    "classes": 5,
    "groups": {"many": 1, "medium": 2, "few": 2},
    "train_images": 595,
    "stage_one": {"epochs": 3, "seconds": 4.0, "images_per_second": 99.0},
    "classifiers": {
        name: {"val": scores.summary, "test": scores.summary, "seconds": 1.0} for name, scores in SCORES.items()
    },
}


def images_of(rows):
    """Made-up images, 96 pixels wide, in which a row's number is its color."""
    return [np.full((48, 96, 3), row, np.uint8) for row in rows]


def details(**changes):
    arrays = {"class_names": NAMES, "class_counts": COUNTS, "groups": GROUPS}
    arrays |= {"scores": SCORES, "thumbnails": images_of}
    return report.RunDetails(**(arrays | changes))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    files = report.write_report(tmp_path_factory.mktemp("run"), RESULTS, details())
    assert {"plots/group_accuracy.svg", "plots/reliability.svg"} <= files.keys()
    return files["report.html"].read_text("utf-8")


def test_intervals_are_those_of_the_bootstrap():
    found = intervals.bootstrap_intervals(SCORES, GROUPS, resamples=200)
    hits = np.stack([scores.is_correct for scores in SCORES.values()], axis=1)
    total = np.full(5, PER_CLASS)
    labels = SCORES["joint"].labels
    draws = [
        [GROUPS.accuracies(correct, total) for correct in sums.T]
        for sums in stratified_bootstrap(hits, labels, classes=5, resamples=200)
    ]
    for score in ("many", "medium", "few", "all", "class_mean"):
        joint, crt = (np.array([draw[k][score] for draw in draws]) for k in (0, 1))
        np.testing.assert_allclose(found.accuracies["joint"][score], interval(joint), atol=1e-12)
        np.testing.assert_allclose(found.accuracies["crt"][score], interval(crt), atol=1e-12)
        np.testing.assert_allclose(found.gains["crt"][score], interval(crt - joint), atol=1e-12)
        np.testing.assert_array_equal(found.gains["joint"][score], 0)


def test_intervals_hold_the_score_and_have_the_width_of_a_binomial():
    found = intervals.bootstrap_intervals(SCORES, GROUPS)
    low, high = found.accuracies["crt"]["many"]
    assert low < 32 / 40 < high
    # One class of 40 images: the unbiased standard error, twice 1.96 of it.
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.8 * 0.2 / 39), rel=0.1)


def test_an_empty_group_has_no_interval_and_nothing_to_compare_with_no_gain():
    rich = ShotGroups([1000] * 5)
    found = intervals.bootstrap_intervals({"crt": SCORES["crt"]}, rich, resamples=50)
    assert np.isnan(found.accuracies["crt"]["few"]).all()
    np.testing.assert_allclose(found.accuracies["crt"]["many"], found.accuracies["crt"]["class_mean"])
    assert found.gains == {}
    assert intervals.bootstrap_intervals({}, GROUPS) == intervals.Intervals()


def test_the_page_shows_the_intervals_below_their_scores(page):
    found = intervals.bootstrap_intervals(SCORES, GROUPS)
    for name, scores in SCORES.items():
        low, high = 100 * found.accuracies[name]["few"]
        few = 100 * scores.accuracies["few"]
        assert re.search(rf"{few:.1f}<small>{low:.1f}…{high:.1f}</small>", page)
    low, high = 100 * found.gains["crt"]["few"]
    assert f"+30.0<small>{low:+.1f}…{high:+.1f}</small>" in page  # 28 / 80 less 4 / 80


def test_measures_have_only_columns_that_were_measured():
    header, rows = tables.measure_table(RESULTS)
    assert header == [
        *("Classifier", "Macro-F1", "Harmonic mean", "Geometric mean", "Worst class"),
        *("ECE", "ECE many", "ECE medium", "ECE few"),
    ]  # five classes have no top-5 worth the name, and there are no open images
    worst = header.index("Worst class")
    assert [row[worst] for row in rows] == [("0.0", False), ("30.0", True)]
    errors = [float(row[header.index("ECE few")].text) for row in rows]
    assert [row[header.index("ECE few")].best for row in rows] == [error == min(errors) for error in errors]
    assert tables.measure_table({"classifiers": {"joint": {"test": {"all": 0.5}}}}) == ([], [])


def test_of_errors_none_at_all_is_best_and_of_means_it_is_not():
    tests = {"joint": {"worst_class": 0.0, "ece": 0.0}, "crt": {"worst_class": 0.0, "ece": 0.1}}
    _, rows = tables.measure_table({"classifiers": {name: {"test": test} for name, test in tests.items()}})
    assert [row[1:] for row in rows] == [[("0.0", False), ("0.0", True)], [("0.0", False), ("10.0", False)]]


def test_the_page_warns_of_the_confidence_of_ncm(page, tmp_path):
    assert "no estimate of a probability" not in page
    with_ncm = RESULTS | {"classifiers": RESULTS["classifiers"] | {"ncm": RESULTS["classifiers"]["crt"]}}
    text = report.write_report(tmp_path, with_ncm, details())["report.html"].read_text("utf-8")
    assert "no estimate of a probability" in text


def test_confusions_are_of_rare_classes_with_frequent_ones():
    pairs = examples.confused_pairs(details(), SCORES["crt"])
    # The head, class 0, is itself taken for b, the rarer of the two: that is left out.
    assert [pair for pair, *_ in pairs] == [(4, 0, 28, 0.7), (3, 0, 24, 0.6), (2, 0, 18, 0.45), (1, 0, 16, 0.4)]
    # Class e begins at row 160, and its first twelve images are right; so is the first of the head.
    _, mistaken, typical = pairs[0]
    assert mistaken.alt == "Test image 172, e"
    assert typical.alt == f"Test image 0, {NAMES[0]}"
    assert color_of(mistaken) == pytest.approx(172, abs=2)


def test_a_class_of_hardly_more_images_is_not_a_frequent_one():
    near = details(class_counts=np.array([59, 50, 30, 10, 5]))
    assert [pair.true for pair, *_ in examples.confused_pairs(near, SCORES["crt"])] == [4, 3]


def color_of(picture):
    kind, content = re.fullmatch(r"data:image/(\w+);base64,(.+)", picture.uri).groups()
    assert kind == "jpeg"
    return np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(content)))).mean()


def test_samples_are_of_few_shot_classes_right_and_wrong():
    group, found = examples.samples(details(), SCORES["crt"])
    assert group == "few"
    right, wrong = found["Correct"], found["Incorrect"]
    assert len(right) == len(wrong) == examples.SAMPLES
    rows = {kind: [row for row, _ in half] for kind, half in found.items()}
    assert SCORES["crt"].is_correct[rows["Correct"]].all()
    assert set(SCORES["crt"].predictions[rows["Incorrect"]]) == {0}
    for half in rows.values():  # as many of one class as of the other
        assert sorted(SCORES["crt"].labels[half]) == [3] * 4 + [4] * 4
    for row, picture in (*right, *wrong):
        assert picture.alt.startswith(f"Test image {row}, ")
        assert color_of(picture) == pytest.approx(row, abs=2)
    assert examples.samples(details(), SCORES["crt"]) == (group, found)  # the same every time


def test_without_few_shot_images_the_rarest_group_is_shown():
    frequent = details(groups=ShotGroups([500, 50, 30, 400, 300]))
    assert examples.samples(frequent, SCORES["crt"])[0] == "medium"


def test_small_images_are_kept_exactly():
    def tiny(rows):
        return [np.arange(28 * 28 * 3, dtype=np.uint8).reshape(28, 28, 3) for _ in rows]

    _, picture = examples.samples(details(thumbnails=tiny), SCORES["crt"])[1]["Correct"][0]
    content = base64.b64decode(picture.uri.removeprefix("data:image/png;base64,"))
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(io.BytesIO(content))), tiny([0])[0])
    assert picture.is_small


def test_the_page_holds_its_images_and_names_are_text(page):
    sources = re.findall(r'<img src="([^"]+)"', page)
    assert len(sources) == 2 * 4 + 2 * examples.SAMPLES
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert "<b>head</b>" not in page
    assert "&lt;b&gt;head&lt;/b&gt;" in page
    assert "Predictions of few-shot classes" in page


@pytest.mark.exhaustive
def test_a_page_of_eight_thousand_classes_and_noisy_images_is_below_three_megabytes(tmp_path):
    classes = 8142
    rng = np.random.default_rng(0)
    counts = np.linspace(1000, 2, classes).astype(int)
    labels = np.repeat(np.arange(classes), 3)
    top = np.where(rng.random(len(labels)) < 0.5, labels, rng.integers(0, 50, len(labels)))[:, np.newaxis]
    groups = ShotGroups(counts)
    scores = Scores(labels, top, rng.random(len(labels)).astype(np.float32), groups)
    results = RESULTS | {
        "classes": classes,
        "groups": groups.sizes,
        "classifiers": {"crt": {"val": {"all": 0.5}, "test": scores.accuracies}},
    }
    noise = [rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)]
    run = report.RunDetails(
        class_names=[f"species {c}" for c in range(classes)],
        class_counts=counts,
        groups=groups,
        per_class={"crt": scores.per_class},
        scores={"crt": scores},
        thumbnails=lambda rows: noise * len(rows),
    )
    assert report.write_report(tmp_path, results, run)["report.html"].stat().st_size < 3_000_000


def test_the_exported_classifier_is_the_one_that_is_shown(page, tmp_path):
    text = report.write_report(tmp_path, RESULTS, details(exported="joint"))["report.html"].read_text("utf-8")
    assert "confusions of Joint with" in text
    assert "confusions of cRT with" in page  # the best: 106 of 200 right, Joint 82


def test_scores_of_other_images_are_refused():
    other = Scores(np.array([0]), np.array([[0]]), np.array([1.0], np.float32), GROUPS)
    with pytest.raises(ValueError, match=r"same test examples\. Received: other labels for 'crt' than for 'joint'"):
        details(scores={"joint": SCORES["joint"], "crt": other})


def encoded(image):
    content = io.BytesIO()
    PIL.Image.fromarray(image).save(content, format="PNG")
    return content.getvalue()


def test_thumbnails_of_pixels_files_and_records_are_the_same(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 20, 40, 3), dtype=np.uint8)
    paths = [tmp_path / f"{row}.png" for row in range(3)]
    for path, image in zip(paths, images, strict=True):
        path.write_bytes(encoded(image))

    class Shard(Records):
        names = np.array(["a", "b", "c"])

        def subset(self, rows):
            raise NotImplementedError

        def read(self, row):
            return encoded(images[row])

        def fingerprint(self):
            return b""

    labels = np.zeros(3, int)
    for source in (images, np.array(list(map(str, paths))), Shard()):
        found = thumbnails(Split(source, labels), [2, 0], side=10)
        # Two to one in both directions, so a pixel is the mean of four by four: 40 wide becomes 10.
        expected = images[[2, 0]].reshape(2, 5, 4, 10, 4, 3).mean((2, 4))
        for image, exact in zip(found, expected, strict=True):
            assert image.dtype == np.uint8
            np.testing.assert_allclose(image, exact, atol=0.51)
        np.testing.assert_array_equal(thumbnails(Split(source, labels), [1], side=40)[0], images[1])


def test_thumbnails_of_grey_images_have_three_channels():
    grey = np.arange(9, dtype=np.uint8).reshape(1, 3, 3)
    (image,) = thumbnails(Split(grey, np.zeros(1, int)), [0])
    np.testing.assert_array_equal(image, np.repeat(grey[0][..., np.newaxis], 3, axis=-1))


def test_bins_of_too_few_images_leave_an_empty_panel():
    """Seven images in seven bins: nothing is drawn, and the layout holds (a warning would be an error here)."""
    reliability = Reliability.of(np.linspace(0.2, 0.9, 7), np.ones(7, bool))
    with matplotlib.rc_context(RC):
        plot = draw_reliability({"crt": {"all": reliability, "few": reliability}}, styles=styles_for(["crt"]))
    assert plot.alt == "Expected calibration error of cRT all 45.0%, few 45.0%."


def test_names_with_many_parameters_leave_the_panels_their_room():
    """A text wider than its panel would leave it none, of which the layout warns: an error here."""
    name = "mislas:lr_factor=0.2:head_smoothing=0.4:tail_smoothing=0.1:shape=power:power=0.5"
    of = SCORES["crt"].reliability
    with matplotlib.rc_context(RC):
        plot = draw_reliability({"joint": of, name: of}, styles=styles_for(["joint", name]))
    assert "smoothing 0.4" in plot.alt
