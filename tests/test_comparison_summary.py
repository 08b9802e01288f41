import copy
import io
import math

import numpy as np
import PIL.Image
import pytest
import rich.console

from keras_lt.comparison.summary import draw_differences, markdown, tables, terminal_tables, write_summary


def estimate(mean, deviation=0.01, margin=0.02):
    return {
        "per_seed": [mean - deviation / math.sqrt(2), mean + deviation / math.sqrt(2)],
        "mean": mean,
        "deviation": deviation,
        "interval": [mean - margin, mean + margin],
    }


def scores(many, few):
    mean = (many + few) / 2
    means = {"many": many, "medium": math.nan, "few": few, "all": mean, "class_mean": mean}
    return {score: estimate(value) for score, value in means.items()}


def comparison(many, few, p_values):
    return {"differences": scores(many, few), "only_right": [9], "only_wrong": [1], "p_values": p_values}


@pytest.fixture
def summary():
    """Joint and cRT on a data set without medium-shot classes."""
    return {
        "dataset": "toy",
        "seeds": [0, 1],
        "test_images": 1000,
        "resamples": 2000,
        "best": "crt",
        "classifiers": {"joint": scores(0.9, 0.5), "crt": scores(0.9, 0.7)},
        "comparisons": {
            "joint": {"crt": comparison(0.0, 0.2, [0.0002, 0.043])},
            "crt": {"joint": comparison(0.0, -0.2, [0.0002, 0.0004])},
        },
    }


def test_tables_by_hand(summary):
    means, intervals, above_joint, above_crt = tables(summary)
    assert [cell.text for cell in means.rows[1]] == ["cRT", "90.0 ± 1.0", "—", "70.0 ± 1.0", "80.0 ± 1.0", "80.0 ± 1.0"]
    assert [cell.best for cell in means.rows[0]] == [False, True, False, False, False, False]
    assert [cell.best for cell in means.rows[1]] == [False, True, False, True, True, True]
    assert [cell.text for cell in intervals.rows[0]][:4] == ["Joint", "88.0…92.0", "—", "48.0…52.0"]
    assert above_joint.title.startswith("Points above Joint")
    ((name, *cells),) = above_joint.rows
    assert name.text == "cRT"
    assert [cell.text for cell in cells[:3]] == ["0.0 (-2.0…+2.0)", "—", "+20.0 (+18.0…+22.0)"]
    assert [cell.best for cell in cells] == [False, False, True, True, False]
    assert cells[-1].text == "0.043"  # the largest of both seeds
    assert above_crt.rows[0][-1].text == "< 0.001"


def test_one_seed_is_shown_without_a_deviation(summary):
    for row in summary["classifiers"].values():
        for value in row.values():
            value["deviation"] = math.nan
    assert tables(summary)[0].rows[0][1].text == "90.0"


def test_markdown_has_rows_of_one_length_and_bold_for_what_stands_out(summary):
    text = markdown(summary, plot="p.png")
    assert text.startswith("# toy, one run per seed: 0, 1\n")
    assert "| cRT | 0.0 (-2.0…+2.0) | — | **+20.0 (+18.0…+22.0)** | **+10.0 (+8.0…+12.0)** | 0.043 |" in text
    assert "its 1,000 examples" in text
    assert "![Differences with 95 % intervals](p.png)" in text
    for table in text.split("\n\n"):
        if table.startswith("|"):
            assert len({line.count("|") for line in table.splitlines()}) == 1


def test_the_terminal_shows_five_classifiers_in_eighty_columns(summary):
    row = comparison(0.2, 0.2, [0.0001])
    summary["comparisons"]["joint"] = dict.fromkeys(("ncm", "crt", "tau_norm", "lws"), row)
    console = rich.console.Console(file=io.StringIO(), width=80, color_system=None)
    console.print(*terminal_tables(summary))
    shown = console.file.getvalue()
    assert "τ-normalized" in shown
    assert "(+18.0…+22.0)" in shown  # on one line
    assert "*+20.0" in shown


def test_the_plot_shows_means_intervals_and_seeds(summary):
    (ax,) = draw_differences(summary).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["many", "few", "all"]  # no medium-shot class
    ends = [collection.get_segments()[0][:, 0] for collection in ax.collections]
    np.testing.assert_allclose(ends, [[-2, 2], [18, 22], [8, 12]], atol=1e-9)
    seeds, means = ([line for line in ax.lines[1:] if (line.get_marker() == "|") == tick] for tick in (True, False))
    np.testing.assert_allclose([line.get_xdata()[0] for line in means], [0, 20, 10], atol=1e-9)
    assert [len(line.get_xdata()) for line in seeds] == [2, 2, 2]
    assert "above Joint" in ax.get_xlabel()


def test_what_is_written(summary, tmp_path):
    paths = write_summary(tmp_path / "runs", summary)
    assert [path.name for path in paths] == ["summary.json", "summary.md", "differences.png"]
    with PIL.Image.open(paths[-1]) as image:
        assert image.size[0] > 600

    alone = copy.deepcopy(summary) | {"comparisons": {"joint": {}}}
    paths = write_summary(tmp_path / "alone", alone)
    assert [path.name for path in paths] == ["summary.json", "summary.md"]
    assert "Points above" not in paths[1].read_text(encoding="utf-8")
