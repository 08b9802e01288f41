"""Every published flag file: read, built, and run for two steps on a miniature laid out as the real data."""

import dataclasses
import pathlib

import numpy as np
import pytest

from keras_lt import backbones, train
from keras_lt.config import read_flag_file
from keras_lt.methods import episodes, fslwf
from tests import tiny_presets
from tests.conftest import some_of
from tests.miniatures import LAYOUTS

FLAG_FILES = sorted((pathlib.Path(__file__).parents[1] / "flags").glob("*.cfg"))
BACKBONES = {read_flag_file(path).backbone for path in FLAG_FILES}
every_flag_file = pytest.mark.parametrize("path", FLAG_FILES, ids=lambda path: path.stem)
LIFT = [path for path in FLAG_FILES if path.stem.endswith("_lift")]  # with a tiny net, as theirs is a preset


@every_flag_file
def test_a_flag_file_is_a_run_shows_its_command_and_says_its_evidence(path):
    run_config = read_flag_file(path)
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any(f"python -m keras_lt.train --flagfile=flags/{path.name}" in line for line in head)
    assert any("arXiv" in line or "test many/medium/few/all" in line for line in head)
    assert run_config.stage_one_recipe.epochs == run_config.epochs


def test_every_file_that_the_docs_name_by_data_and_system_is_there():
    names = {path.stem for path in FLAG_FILES}
    large = ("cifar100_lt", "imagenet_lt", "places_lt", "inaturalist18")
    grid = {(data, system) for data in large for system in ("balpoe", "sade", "ride", "mislas")}
    grid |= {("cifar10_lt", "mislas"), ("cifar100_lt", "weight_balancing")}
    assert not {"_".join(pair) for pair in grid} - names
    for data, system in grid:
        first, own = (read_flag_file(FLAG_FILES[0].parent / f"{name}.cfg") for name in (data, f"{data}_{system}"))
        assert own.dataset == first.dataset
        method = system if system in ("balpoe", "sade", "ride") else "decoupling"
        assert own.method.partition(":")[0] == method
        assert (own.mixup > 0) == (system == "mislas")


def test_weight_balancing_is_as_its_authors_released_it():
    run = read_flag_file(FLAG_FILES[0].parent / "cifar100_lt_weight_balancing.cfg")
    recipe = run.stage_two_recipe(run.systems[1])
    assert (run.weight_decay, run.epochs, run.batch_size, run.learning_rate) == (5e-3, 320, 64, 0.01)
    assert (recipe.loss, recipe.class_weights) == ("class_balanced_binary", "none")
    assert (recipe.learning_rate, recipe.weight_decay, recipe.epochs) == (0.01, 0.1, 10)


WIDTHS = {"resnet8": 128, "resnet10": 512, "resnet32": 64}


@pytest.mark.parametrize(
    "backbone",
    # A preset is fetched from the network; a tiny one of its class stands for it below.
    some_of([name for name in sorted(BACKBONES) if not name.startswith("keras_hub/")], *WIDTHS),
)
def test_their_backbones_build(backbone):
    network = backbones.build(backbone, image_size=32)
    width = WIDTHS.get(backbone, 1280 if backbone == "efficientnet_lite0" else 2048)
    assert network.compute_output_shape((2, 32, 32, 3)) == (2, width)


@pytest.fixture(autouse=True)
def smaller_episodes(monkeypatch):
    """The miniatures' classes have 30, 12 and 6 images."""
    for module in (episodes, fslwf):
        monkeypatch.setattr(module, "EXEMPLARS", 4)


def run_miniature(path, tmp_path, **changes):
    run_config = read_flag_file(path)
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    LAYOUTS[run_config.dataset](data_dir)
    if "clip" in run_config.backbone:
        changes["backbone"] = tiny_presets.spelled(tiny_presets.clip(), tmp_path / "clip")
        changes["pretrained"] = "imagenet"  # the tiny preset's own
    changes |= {"imbalance_ratio": 4.0} if run_config.imbalance_ratio else {}
    changes |= (
        {"allow_modified_lists": True} if run_config.dataset in ("places_lt", "imagenet_lt", "inaturalist18") else {}
    )
    return train.run(
        dataclasses.replace(
            run_config,
            data_dir=str(data_dir),
            workdir=str(tmp_path / "run"),
            pretrained=changes.pop("pretrained", ""),  # nothing is downloaded
            image_size=changes.pop("image_size", 32),
            batch_size=8,
            base_batch_size=run_config.batch_size,  # a rate for 512 images throws eight out of all bounds
            epochs=1,
            steps_per_epoch=2,
            class_weights_from=0,
            many_above=10,
            few_below=8,
            classifier_epochs=1,
            **changes,
        )
    )


@pytest.mark.filterwarnings("ignore:The lists of:UserWarning")
@pytest.mark.parametrize(
    "name",
    some_of(["imagenet_lt", "places_lt", "inaturalist18", "cifar10_lt", "cifar100_lt", "glyphs_lt"], "inaturalist18"),
)
def test_each_data_set_runs_by_its_flag_file(tmp_path, name):
    """With the file's own sampler, loss, trained parts and schedule; only sizes are overridden, the net's included."""
    path = FLAG_FILES[0].parent / f"{name}.cfg"
    results = run_miniature(path, tmp_path, backbone="tiny")
    assert set(results["classifiers"]) == set(read_flag_file(path).systems)
    for row in results["classifiers"].values():
        assert 0 <= row["test"]["all"] <= 1
    assert results["stage_one"]["epochs"] == 1
    assert np.isfinite(results["stage_one"]["images_per_second"])


@pytest.mark.exhaustive
def test_own_images_run_also_on_views_of_their_features_and_the_card_says_their_licence(tmp_path):
    """By flags/elpv.cfg, which includes own_images.cfg; MARC draws views with class weights."""
    path = FLAG_FILES[0].parent / "elpv.cfg"
    results = run_miniature(path, tmp_path, backbone="tiny", classifiers=["joint", "marc"], feature_views=2)
    assert list(results["classifiers"]) == ["joint", "marc"]
    assert (tmp_path / "run/features/train-views/features.npy").exists()
    [card] = (tmp_path / "run/export").glob("*/*/README.md")
    assert "CC-BY-NC-SA 4.0" in card.read_text()


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore:The lists of:UserWarning")
@pytest.mark.parametrize(
    "name",
    [
        *("cifar10_lt_ldam_drw", "imagenet_lt_resnet10_lifted", "imagenet_lt_fslwf", "places_lt_oltr"),
        *("cifar100_lt_weight_balancing", "cifar100_lt_mislas"),
    ],
)
def test_other_systems_run_by_their_flag_files(tmp_path, name):
    path = FLAG_FILES[0].parent / f"{name}.cfg"
    results = run_miniature(path, tmp_path, backbone="tiny", image_size=8)
    assert list(results["classifiers"]) == read_flag_file(path).systems


@pytest.mark.filterwarnings("ignore:The lists of:UserWarning")
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=pytest.mark.exhaustive if path in LIFT else pytest.mark.slow)
        for path in FLAG_FILES
    ],
)
def test_every_flag_file_runs_with_its_own_backbone(tmp_path, path):
    results = run_miniature(path, tmp_path)
    assert set(results["classifiers"]) == set(read_flag_file(path).systems)
