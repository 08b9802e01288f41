"""What came of a table's runs, from their folders."""

import dataclasses
import pathlib

import PIL.Image
import pytest

from keras_lt import config
from keras_lt.files import read_json
from tests.conftest import killed_in_write
from tests.planned import TINY, finish, small_run
from tools.reproduce import plan_runs
from tools.reproduction.outcome import Outcome, check_free, draw_grid
from tools.reproduction.plans import PLANS, Row, Run


@pytest.fixture
def base(arrays_dir):
    return small_run(arrays_dir)


@pytest.fixture
def outcome(base, tmp_path):
    """cRT of two seeds, NCM of one of them only, and the second run not there."""
    runs = plan_runs(TINY, base, seeds=[0, 1], folder=tmp_path)
    finish(runs["", "first", 0], crt=(0.40, 0.39, None, 0.36), ncm=(0.40, 0.41, 0.28, 0.37))
    finish(runs["", "first", 1], crt=(0.44, 0.37, None, 0.38), ncm=(0.42, 0.41, 0.30, 0.39))
    return Outcome.collect(TINY, runs, own_data=True)


def test_ours_beside_the_published_by_hand(outcome):
    table = outcome.table()
    assert list(table.header) == ["System", "many", "medium", "few", "all"]
    crt, ncm, missing = ([cell[0] for cell in row] for row in table.rows)
    # 40 and 44: mean 42, deviation sqrt(8) = 2.83; 42.0 published. 39 and 37: 38 and sqrt(2), 0.4 above 37.6.
    assert crt == ["cRT", "42.0 ± 2.8 (42.0, 0.0)", "38.0 ± 1.4 (37.6, +0.4)", "— (24.9)", "37.0 ± 1.4 (36.7, +0.3)"]
    assert ncm == ["NCM", "41.0 ± 1.4 (40.4, +0.6)", "41.0 ± 0.0", "29.0 ± 1.4 (27.3, +1.7)", "38.0 ± 1.4 (36.4, +1.6)"]
    assert missing == ["cRT, unbalanced", "—", "—", "—", "—"]
    assert [cell[1] for cell in table.rows[0]] == [False, True, False, False, False]
    assert [cell[1] for cell in table.rows[1]] == [False, False, True, True, True]


def test_on_other_data_nothing_is_subtracted(outcome):
    elsewhere = dataclasses.replace(outcome, own_data=False).table()
    assert elsewhere.rows[0][1][0] == "42.0 ± 2.8 (42.0)"
    assert elsewhere.title.endswith("Top-1 accuracy on test in % (published, on places_lt)")


def test_a_run_of_other_flags_is_not_shown(outcome, base, tmp_path):
    other = plan_runs(TINY, dataclasses.replace(base, epochs=3), seeds=[0, 1], folder=tmp_path)
    assert not Outcome.collect(TINY, other, own_data=True).scores


def test_what_is_written(outcome, tmp_path):
    paths = outcome.write(tmp_path / "out", name="table4")
    assert [path.name for path in paths] == ["table.md", "table.json", "runs.csv"]
    assert paths[2].read_text().splitlines()[:2] == [
        "column,run,seed,epochs,train_class_mean,classifier,many,medium,few,all,class_mean,ece",
        ",first,0,2,0.8765,crt,0.4000,0.3900,,0.3600,,",
    ]
    content = read_json(paths[1])
    assert (content["table"], content["seeds"], content["published_on"]) == ("table4", [0, 1], "places_lt")
    assert len(content["finished"]) == 2
    many = content["rows"][0]["scores"][0]
    assert (many["score"], many["per_seed"], many["published"]) == ("many", [0.40, 0.44], 0.42)
    assert content["rows"][2]["scores"][0] | {"per_seed": []} == content["rows"][2]["scores"][0]
    text = paths[0].read_text(encoding="utf-8")
    assert "| NCM | 41.0 ± 1.4 (40.4, +0.6) | **41.0 ± 0.0** |" in text
    assert "Seeds 0, 1; 2 of 4 runs are finished." in text


def test_columns_of_published_numbers():
    """Table 2, LWS: 41.4 on ResNet-10, 49.9 on ResNeXt-50, 53.3 on ResNeXt-152."""
    plan = PLANS["2"]
    base = config.read_flag_file("flags/imagenet_lt.cfg")
    runs = plan_runs(plan, base, seeds=[0], folder=pathlib.Path("none"), columns=["ResNeXt-152", "ResNet-10"])
    outcome = Outcome.collect(plan, runs, own_data=True)
    assert list(outcome.table().header) == ["System", "ResNeXt-152 all", "ResNet-10 all"]
    lws = next(row for row in outcome.table().rows if row[0][0] == "LWS")
    assert [cell[0] for cell in lws[1:]] == ["— (53.3)", "— (41.4)"]


def test_figure_1_has_a_dot_per_sampler_and_classifier(base, tmp_path):
    plan = PLANS["fig1"]
    runs = plan_runs(plan, base, seeds=[0], folder=tmp_path)
    for number, run in enumerate(runs.values()):
        finish(run, **dict.fromkeys(run.systems, (0.5, 0.4, 0.1 * number, 0.3)))
    paths = Outcome.collect(plan, runs, own_data=False).write(tmp_path, name="fig1")
    assert [path.name for path in paths[3:]] == ["fig1.png", "fig1.svg"]
    with PIL.Image.open(paths[3]) as image:
        assert image.size[0] > 1200
    assert "](fig1.png)" in paths[0].read_text(encoding="utf-8")


def test_the_grid_of_errors_by_hand(base, tmp_path):
    plan = PLANS["bbn_fig2"]
    runs = plan_runs(plan, base, seeds=[0], folder=tmp_path)
    assert len(runs) == 9
    for (representation, classifier, _), run in runs.items():
        correct = {"CE": 0.5, "RW": 0.4, "RS": 0.3}[representation] + 0.05 * (classifier == "RS")
        finish(run, crt=(0.9, 0.9, 0.9, correct))
    outcome = Outcome.collect(plan, runs, own_data=False)
    table = outcome.table()
    assert list(table.header) == ["System", "CE error", "RW error", "RS error"]
    assert [[cell[0] for cell in row] for row in table.rows] == [
        ["CE", "50.0", "60.0", "70.0"],
        ["RW", "50.0", "60.0", "70.0"],
        ["RS", "45.0", "55.0", "65.0"],
    ]
    assert [cell[1] for cell in table.rows[2]] == [False, True, True, True]  # the lowest error of each column
    png, svg = draw_grid(outcome, tmp_path / "bbn_fig2")
    assert (png.name, svg.name) == ("bbn_fig2.png", "bbn_fig2.svg")
    assert table.title.endswith("Top-1 error on test in %")  # nothing is published as a number


@pytest.mark.parametrize("write", range(5))  # of table.json, two figures, table.md and runs.csv
def test_a_table_is_written_again_after_a_kill_and_over_nothing_else(base, tmp_path, monkeypatch, write):
    runs = plan_runs(PLANS["fig1"], base, seeds=[0], folder=tmp_path / "runs")
    for run in runs.values():
        finish(run, **dict.fromkeys(run.systems, (0.5, 0.4, 0.1, 0.3)))
    outcome, folder = Outcome.collect(PLANS["fig1"], runs, own_data=False), tmp_path / "table"
    with monkeypatch.context() as patch:
        killed_in_write(patch, write)
        with pytest.raises(KeyboardInterrupt):
            outcome.write(folder, name="fig1")
    check_free(folder, name="fig1")
    again, whole = (outcome.write(place, name="fig1") for place in (folder, tmp_path / "whole"))
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in whole]
    assert sorted(folder.iterdir()) == sorted(again)
    again[1].unlink()
    again[write if write != 1 else 0].write_text("mine")
    with pytest.raises(ValueError, match="was not written by this command"):
        check_free(folder, name="fig1")


def test_figure_2_is_taken_from_the_run_that_drew_it(base, tmp_path):
    plan = PLANS["fig2"]
    runs = plan_runs(plan, base, seeds=[0, 1], folder=tmp_path)
    second = runs["", "decoupling", 1]
    finish(second, **dict.fromkeys(second.systems, (0.5,) * 4))
    for name in ("weight_norms.png", "tau_curve_tau_norm.png", "class_counts.png"):
        path = second.folder / "plots" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    paths = Outcome.collect(plan, runs, own_data=False).write(tmp_path, name="fig2")
    assert [path.name for path in paths[3:]] == ["fig2_weight_norms.png", "fig2_tau_curve_tau_norm.png"]
    assert paths[3].read_text() == "weight_norms.png"


def test_ranks_are_of_runs_that_have_every_row(base, tmp_path):
    """Best first: cRT has ranks 1 and 1.5, NCM 2 and 1.5; the third seed has no NCM. Of two, 1.96 / sqrt(2 N) apart."""
    rows = (Row("NCM", "first", "ncm"), Row("cRT", "first", "crt"))
    plan = dataclasses.replace(TINY, runs={"first": Run()}, rows=rows, ranked_by="all")
    runs = plan_runs(plan, base, seeds=[0, 1, 2], folder=tmp_path)
    finish(runs["", "first", 0], crt=(0.4, 0.4, 0.4, 0.5), ncm=(0.4, 0.4, 0.4, 0.4))
    finish(runs["", "first", 1], crt=(0.4, 0.4, 0.4, 0.4), ncm=(0.4, 0.4, 0.4, 0.4))
    outcome = Outcome.collect(plan, runs, own_data=True)
    ranks, number = outcome.ranks()
    assert ([(row.name, rank) for row, rank in ranks.items()], number) == ([("cRT", 1.25), ("NCM", 1.75)], 2)
    assert "lie 1.4 or more apart" in outcome.ranking()  # 1.96 sqrt(2 * 3 / (6 * 2)) = 1.386
    assert dataclasses.replace(outcome, plan=TINY).ranking() == ""
