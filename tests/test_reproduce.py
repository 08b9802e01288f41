import dataclasses
import itertools
import pathlib
from fractions import Fraction

import PIL.Image
import pytest
from absl import flags

from keras_lt import config, train
from keras_lt.comparison.runs import command_of
from keras_lt.config import RunConfig
from keras_lt.files import read_json, write_json
from keras_lt.stages import Representation
from tests.conftest import killed_in_write
from tests.programs import command
from tools.reproduce import base_config, in_epochs, overview, plan_runs, train_planned
from tools.reproduction.outcome import Outcome, check_free, draw_grid
from tools.reproduction.plans import GROUPS, HEADS, PLANS, Plan, Row, Run

STAGE_TWO_ONLY = {"method", "workdir", "classifiers", "export_classifier"}  # and what begins with "classifier_"
TINY = Plan(
    "Two classifiers, and one on the first one's representation",
    "places_lt",
    {"first": Run(), "second": Run({"classifier_sampler": "instance_balanced"}, representation="first")},
    (
        Row("cRT", "first", "crt", (42.0, 37.6, 24.9, 36.7)),
        Row("NCM", "first", "ncm", (40.4, None, 27.3, 36.4)),
        Row("cRT, unbalanced", "second", "crt"),
    ),
)


@pytest.fixture
def base(arrays_dir):
    return RunConfig(
        dataset="arrays",
        data_dir=str(arrays_dir),
        backbone="tiny",
        epochs=2,
        batch_size=16,
        learning_rate=0.05,
        classifier_epochs=2,
    )


def finish(run, **accuracies):
    """Leaves a finished run's folder, as far as it is looked at: classifier -> accuracies on test."""
    run.save(run.folder / "flags.cfg")
    tests = {name: {"test": dict(zip(GROUPS, values, strict=True))} for name, values in accuracies.items()}
    content = {"stage_one": {"epochs": 2, "train_class_mean": 0.87654}, "classifiers": tests, "best": min(tests)}
    write_json(run.folder / "results.json", {"dataset": "squares", "advice": [], **content})
    (run.folder / f"export/{min(tests)}/1").mkdir(parents=True, exist_ok=True)


def parsed(*arguments):
    flag_values = flags.FlagValues()
    config.define_flags(flag_values)
    flag_values(["reproduce", *arguments])
    return flag_values


@pytest.mark.parametrize(("name", "data"), list(itertools.product(PLANS, ("", "fashion_lt", "glyphs_lt"))))
def test_every_plan_is_runs_on_its_own_data_and_on_other(name, data):
    plan = PLANS[name]
    runs = plan_runs(plan, base_config(plan, data=data, flag_values=parsed()), seeds=[0], folder=pathlib.Path("w"))
    assert len({run.folder for run in runs.values()}) == len(runs)
    for row in plan.rows:
        assert len(row.published) in (0, len(plan.columns) * len(plan.scores))
    for (column, run_name, seed), run in runs.items():
        assert set(run.systems) == {row.classifier for row in plan.rows if row.run == run_name}
        if source := plan.runs[run_name].representation:
            first = runs[column, source, seed]
            assert list(runs).index((column, source, seed)) < list(runs).index((column, run_name, seed))
            differing = {key for key, value in run.as_flags().items() if value != first.as_flags()[key]}
            assert all(key in STAGE_TWO_ONLY or key.startswith("classifier_") for key in differing)


def test_no_two_runs_of_a_table_learn_the_same_representation():
    for plan in PLANS.values():
        runs = plan_runs(plan, base_config(plan, flag_values=parsed()), seeds=[0], folder=pathlib.Path("w"))
        own = [run for (_, name, _), run in runs.items() if not plan.runs[name].representation]
        shown = [{k: v for k, v in run.as_flags().items() if k not in STAGE_TWO_ONLY - {"method"}} for run in own]
        assert all(first != second for first, second in itertools.combinations(shown, 2))


def test_shares_of_the_epochs():
    changes = {
        "class_weights_from": Fraction(160, 200),
        "decay_epochs": (Fraction(20, 90), Fraction(40, 90)),
        "loss": "ldam",
    }
    assert in_epochs(changes, 90) == {"class_weights_from": 72, "decay_epochs": (20, 40), "loss": "ldam"}
    assert in_epochs(changes, 60) == {"class_weights_from": 48, "decay_epochs": (13, 26), "loss": "ldam"}
    assert in_epochs(changes, 2)["decay_epochs"] == (1,)  # at least one, each once


def test_table_3_by_hand():
    plan = PLANS["3"]
    base = base_config(plan, flag_values=parsed("--data_dir=/data"))
    runs = plan_runs(plan, base, seeds=[4], folder=pathlib.Path("w"), columns=["ResNet-152-200-epochs"])
    assert list(runs) == [("ResNet-152-200-epochs", run, 4) for run in ("decoupling", "cb_focal", "ldam", "ldam_drw")]
    drw = runs["ResNet-152-200-epochs", "ldam_drw", 4]
    assert (drw.backbone, drw.epochs, drw.loss, drw.class_weights_from) == ("resnet152", 200, "ldam", 160)
    assert (drw.classifiers, drw.data_dir, drw.seed) == (("joint",), "/data", 4)
    assert drw.workdir == "w/ResNet-152-200-epochs/ldam_drw/seed4"
    with pytest.raises(ValueError, match=r"--columns must be some of ResNet-50-90-epochs, .*Received: ResNet-10"):
        plan_runs(plan, base, seeds=[0], folder=pathlib.Path("w"), columns=["ResNet-10"])


def test_what_the_runs_begin_with():
    plan = PLANS["4"]
    own = base_config(plan, flag_values=parsed("--data_dir=/places", "--epochs=3"))
    assert own == dataclasses.replace(config.read_flag_file("flags/places_lt.cfg"), data_dir="/places", epochs=3)
    assert base_config(plan, data="fashion_lt", flag_values=parsed()) == config.read_flag_file("flags/fashion_lt.cfg")
    named = parsed("--flagfile=flags/cifar10_lt.cfg", "--imbalance_ratio=50")
    assert base_config(plan, flag_values=named).imbalance_ratio == 50
    with pytest.raises(ValueError, match="takes the place of --flagfile and --dataset"):
        base_config(plan, data="fashion_lt", flag_values=named)
    with pytest.raises(ValueError, match=r"--data must name a file in flags/.*Not found: flags/nothing\.cfg"):
        base_config(plan, data="nothing", flag_values=parsed())


def test_the_queue_finds_finished_runs_and_goes_on_after_failures(base, tmp_path):
    plan = PLANS["fig1"]
    runs = plan_runs(plan, base, seeds=[0, 1], folder=tmp_path)
    finish(runs["", "square_root", 0], **dict.fromkeys(runs["", "square_root", 0].systems, (0.5,) * 4))
    finish(runs["", "progressive", 0], joint=(0.5,) * 4)  # without the other classifiers
    done = []

    def train_one(run):
        done.append((run.sampler, run.seed))
        if run.sampler != "class_balanced":
            finish(run, **dict.fromkeys(run.systems, (0.5,) * 4))

    with pytest.raises(
        ValueError, match=r"2 of 8 runs are not finished: \S+class_balanced/seed0, \S+class_balanced/seed1"
    ):
        train_planned(plan, runs, train_one=train_one)
    seeds = [("instance_balanced", 0), ("class_balanced", 0), ("progressive", 0)]
    assert done == seeds + [
        (sampler, 1) for sampler in ("instance_balanced", "class_balanced", "square_root", "progressive")
    ]
    done.clear()
    with pytest.raises(ValueError, match="2 of 8"):
        train_planned(plan, runs, train_one=train_one)
    assert done == [("class_balanced", 0), ("class_balanced", 1)]


def test_a_run_without_the_representation_that_it_takes_is_left_out(base, tmp_path, capsys):
    runs = plan_runs(TINY, base, seeds=[0], folder=tmp_path)
    done = []
    with pytest.raises(ValueError, match="2 of 2 runs"):
        train_planned(TINY, runs, train_one=done.append)
    assert [run.folder.parent.name for run in done] == ["first"]
    assert "has no representation to take" in capsys.readouterr().out


@pytest.mark.exhaustive
def test_a_representation_is_learned_once_and_gives_the_same_numbers(base, tmp_path):
    runs = plan_runs(TINY, base, seeds=[1], folder=tmp_path / "planned")
    train_planned(TINY, runs, train_one=train.run)
    first, second = runs.values()
    for name in ("representation/model.keras", "features/train/features.npy"):
        assert (second.folder / name).samefile(first.folder / name)
    assert not (second.folder / "representation/checkpoints").exists()  # those are of training it
    assert Representation.load(second.folder / "representation").history
    alone = dataclasses.replace(second, workdir=str(tmp_path / "alone"))
    expected, found = train.run(alone), read_json(second.folder / "results.json")
    assert found["classifiers"]["crt"]["test"] == expected["classifiers"]["crt"]["test"]
    assert found["stage_one"]["recipe"] == read_json(alone.folder / "results.json")["stage_one"]["recipe"]

    again = {place: dataclasses.replace(run, overwrite=True) for place, run in runs.items()}
    done = []
    with pytest.raises(ValueError, match=r"1 of 2 runs are not finished: \S+second/seed1"):
        train_planned(TINY, again, train_one=done.append)  # it has what it takes, and would be trained now
    assert [run.overwrite for run in done] == [True, False]
    assert not (second.folder / "flags.cfg").exists()
    assert (second.folder / "representation/model.keras").samefile(first.folder / "representation/model.keras")


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
    base = base_config(plan, flag_values=parsed())
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


def test_a_command_is_its_run():
    run = RunConfig(loss="ldam", epochs=7, decay_epochs=(2, 4), schedule="multistep", method="oltr", classifiers=())
    said = command_of(run)[3:]
    assert set(said) == {
        "--loss=ldam",
        "--epochs=7",
        "--decay_epochs=2,4",
        "--schedule=multistep",
        "--method=oltr",
        "--classifiers=",
        *(
            "--image_size=0",
            "--batch_size=512",
            "--learning_rate=0.2",
            "--classifier_epochs=10",
        ),  # would be made to fit
    }
    assert config.from_flags(parsed(*said)) == run


def test_the_overview_names_every_table_and_its_columns():
    assert (
        "--table=2: ImageNet-LT by backbone\n    on imagenet_lt; columns: ResNet-10, ResNeXt-50, ResNeXt-152\n"
        in overview()
    )
    assert all(f"--table={name}: " in overview() for name in PLANS)


@pytest.mark.exhaustive
def test_the_command_runs_a_figure_in_miniature(arrays_dir, tmp_path):
    small = ["--dataset=arrays", "--backbone=tiny", "--epochs=1", "--batch_size=16", "--classifier_epochs=1"]
    words = [*small, "--table=fig2", "--seeds=3", f"--workdir={tmp_path}/fig2", f"--data_dir={arrays_dir}"]
    in_one_process = "from keras_lt import train; from keras_lt.comparison import runs; runs.train_apart = train.run\n"
    done = command("tools.reproduce", *words, before=in_one_process)
    assert done.returncode == 0, done.stderr
    assert "τ-normalized" in done.stdout
    assert {path.name for path in (tmp_path / "fig2").iterdir() if path.is_file()} == {
        "table.md",
        "table.json",
        "runs.csv",
        *(f"fig2_{plot}.{kind}" for plot in ("weight_norms", "tau_curve_tau_norm") for kind in ("png", "svg")),
    }
    assert (tmp_path / "fig2/decoupling/seed3/results.json").exists()


def test_later_heads_are_of_one_run_and_a_seed_may_draw_the_splits():
    base = base_config(PLANS["later"], data="elpv", flag_values=parsed())
    (heads,) = plan_runs(PLANS["later"], base, seeds=[0], folder=pathlib.Path("w")).values()
    assert (heads.dataset, heads.workdir) == ("elpv", "w/heads/seed0")
    (heads,) = plan_runs(PLANS["later"], base, seeds=[3], folder=pathlib.Path("w"), splits_by_seed=True).values()
    assert (heads.seed, heads.dataset) == (3, "elpv:seed=3")
    assert [name for name in heads.classifiers if ":" not in name] == list(HEADS)
    others = [heads.stage_two_recipe(name) for name in heads.classifiers if name.startswith("crt:")]
    assert [recipe.loss for recipe in others] == ["lade", "balanced_softmax", "balanced_binary_cross_entropy"]
    assert {recipe.sampler for recipe in others} == {"instance_balanced"}


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
