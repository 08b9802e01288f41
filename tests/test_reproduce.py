import dataclasses
import itertools
import pathlib
from fractions import Fraction

import pytest
from absl import flags

from keras_lt import config, train
from keras_lt.comparison.runs import command_of
from keras_lt.config import RunConfig
from keras_lt.files import read_json
from keras_lt.stages import Representation
from tests.planned import TINY, finish, small_run
from tests.programs import command
from tools.reproduce import base_config, in_epochs, overview, plan_runs, train_planned
from tools.reproduction.plans import HEADS, PLANS

STAGE_TWO_ONLY = {"method", "workdir", "classifiers", "export_classifier"}  # and what begins with "classifier_"


@pytest.fixture
def base(arrays_dir):
    return small_run(arrays_dir)


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
    kept = tmp_path / "kept/fig2_arrays.csv"
    kept.parent.mkdir()
    words.append(f"--results_dir={kept.parent}")
    kept.write_text("mine")
    refused = command("tools.reproduce", *words)
    assert refused.returncode
    assert f"{kept} was not written by this command" in refused.stderr
    assert not (tmp_path / "fig2").exists()
    kept.write_text("column,run,seed,epochs\n")  # of other runs
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
    assert kept.read_text() == (tmp_path / "fig2/runs.csv").read_text()


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
