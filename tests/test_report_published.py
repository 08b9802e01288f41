"""Published numbers stand beside the runs that they belong to, and beside no others."""

import numpy as np
import pytest

from keras_lt import report
from keras_lt.classifiers import CLASSIFIERS
from keras_lt.config import read_flag_file
from keras_lt.datasets import DATASETS
from keras_lt.losses import FEATURE_LOSSES, LOSSES
from keras_lt.methods import METHODS
from keras_lt.metrics import SHOT_CUTS, ShotGroups
from keras_lt.recipe import Recipe
from keras_lt.registry import member
from keras_lt.report import published, systems

LDAM_DRW = {"loss": "ldam", "class_weights": "effective_number", "class_weights_from": 160}
PLACES = {"train_images": 62_500, "backbone": "keras_applications/ResNet152", "epochs": 30}


def results(**changes):
    """Joint and LWS of a run on Places-LT, with the network of the paper."""
    scores = {"many": 0.45, "medium": 0.28, "few": 0.08, "all": 0.3, "class_mean": 0.3}
    run = {
        "dataset": "places_lt",
        "classes": 3,
        "groups": {"many": 1, "medium": 1, "few": 1},
        "train_images": 62_500,
        "backbone": "keras_applications/ResNet152",
        "method": "decoupling",
        "stage_one": {"epochs": 30, "seconds": 60.0, "images_per_second": 9.0, "recipe": {"loss": "cross_entropy"}},
        "classifiers": {name: {"val": {"all": 0.3}, "test": scores} for name in ("joint", "lws")},
    }
    return run | changes


def page(folder, *, counts=(62_440, 50, 10), cuts=SHOT_CUTS["kang"], **changes):
    details = report.RunDetails(
        class_names=["a", "b", "c"], class_counts=np.array(counts), groups=ShotGroups(counts, *cuts)
    )
    return report.write_report(folder, results(**changes), details)["report.html"].read_text("utf-8")


def test_the_page_shows_table_4_beside_a_run_on_places_lt(tmp_path):
    text = page(tmp_path)
    assert "ResNet-152, 30 epochs, Kang et al. (ICLR 2020), table 4" in text
    for ours in ("45.7", "27.3", "8.2", "30.2", "40.6", "39.1", "28.6", "37.6"):  # Joint and LWS
        assert text.count(f"publ. {ours}<") == 1
    assert "OLTR, published" in text
    assert "NCM, published" in text
    assert "LWS, published" not in text  # it has its place beside ours


@pytest.mark.parametrize(
    "changes",
    [
        {"backbone": "resnet50"},
        pytest.param({"backbone": "keras_applications/ResNet152V2"}, marks=pytest.mark.exhaustive),
        {"dataset": "fashion_lt"},
        {"counts": (600, 50, 10)},  # another list of the same name
        pytest.param({"cuts": SHOT_CUTS["oltr"]}, marks=pytest.mark.exhaustive),
    ],
)
def test_no_published_number_is_shown_beside_another_network_or_other_data(tmp_path, changes):
    text = page(tmp_path, **changes)
    assert "publ." not in text
    assert "published" not in text.partition("<h2>How to read this")[0].partition("</style>")[2]


def test_a_number_is_found_by_the_data_the_network_and_the_nearest_epochs():
    table = published.find("places_lt", **PLACES)
    assert table.fractions("tau_norm") == {"many": 0.378, "medium": 0.407, "few": 0.318, "all": 0.379}
    assert published.find("places_lt", **(PLACES | {"backbone": "resnet152"})) is table
    species = {"dataset": "inaturalist18", "train_images": 437_513, "backbone": "resnet50"}
    assert published.find(**species, epochs=90).fractions("lws") == {"all": 0.659}
    assert published.find(**species, epochs=180).fractions("lws") == {"all": 0.695}


@pytest.mark.parametrize(
    ("classifier", "method", "recipe", "system"),
    [
        ("crt", "decoupling", {}, "crt"),
        ("joint", "decoupling", {"loss": "focal"}, "focal"),
        ("crt", "decoupling", {"loss": "focal"}, ""),  # nobody prints that
        ("joint", "decoupling", LDAM_DRW, "ldam_drw"),
        ("joint", "decoupling", LDAM_DRW | {"class_weights_from": 0}, ""),
        ("joint", "decoupling", {"sampler": "class_balanced"}, ""),
        ("bbn", "bbn", {}, "bbn"),
        ("joint", "bbn", {}, ""),
        ("oltr:train_backbone=false", "oltr:train_backbone=false", {}, "oltr"),
        ("crt:epochs=5", "decoupling", {}, "crt"),
        ("joint", "decoupling", {"loss": "ldam:max_margin=0.3"}, "ldam"),
        ("joint", "decoupling", {"feature_loss": "range"}, "range"),
        ("joint", "decoupling", {"loss": "sigmoid_focal", "class_weights": "effective_number:beta=0.999"}, "cb_focal"),
        ("ride", "ride", {}, "ride"),  # of a run made with a method that is not known here
        ("crt", "ride", {}, ""),
    ],
)
def test_system_of_a_classifier(classifier, method, recipe, system):
    assert systems.system_of(classifier, method=method, recipe=recipe) == system


def test_a_run_with_another_loss_is_set_beside_that_loss():
    run = results(stage_one=results()["stage_one"] | {"recipe": {"loss": "focal"}})
    comparison = published.compare(run, groups=ShotGroups([62_440, 50, 10]))
    assert comparison.ours == {"joint": {"many": 0.411, "medium": 0.348, "few": 0.224, "all": 0.346}}
    assert comparison.others["joint"]["all"] == 0.302


def test_every_published_name_is_one_of_ours_and_has_a_name_to_show():
    for table in published.PUBLISHED:
        assert table.dataset in DATASETS
        for system, percents in table.scores.items():
            families = {*CLASSIFIERS, *METHODS, *LOSSES, *FEATURE_LOSSES, *systems.STAGE_ONE_SYSTEMS}
            assert system in families | {systems.OLTR_DECOUPLED}
            assert systems.display_name(system) != system
            assert all(1 < percent < 100 for percent in percents.values())
    for system in systems.STAGE_ONE_SYSTEMS.values():
        assert system.changes.keys() <= set(systems.FIELDS)
        Recipe(**system.changes)


@pytest.mark.parametrize(
    "family", [CLASSIFIERS, METHODS, LOSSES, FEATURE_LOSSES], ids=["classifiers", "methods", "losses", "feature_losses"]
)
def test_every_member_has_a_name_to_show(family):
    for name, entry in family.items():
        assert systems.display_name(name) == entry.label
        assert entry.label not in ("", name)
        for parameter, default in entry.parameters.items():
            told = f"{name}:{parameter}={default}"
            shown = parameter if default is True else f"{parameter} {default}"
            assert systems.display_name(told) == f"{entry.label}, {shown}"
            assert member(family, told, what="it").label == entry.label
    assert systems.display_name("unheard_of:rho=2") == "unheard_of, rho 2"


@pytest.mark.parametrize(
    ("flag_file", "scores"),
    [
        ("places_lt", {"many": 45.7, "medium": 27.3, "few": 8.2, "all": 30.2}),
        ("imagenet_lt", {"many": 65.9, "medium": 37.5, "few": 7.7, "all": 44.4}),
        ("inaturalist18", {"all": 61.7}),
    ],
)
def test_the_flag_files_of_the_tables_find_their_numbers(request, flag_file, scores):
    run = read_flag_file(request.config.rootpath / "flags" / f"{flag_file}.cfg")
    images = {"places_lt": 62_500, "imagenet_lt": 115_846, "inaturalist18": 437_513}[flag_file]
    table = published.find(run.dataset, train_images=images, backbone=run.backbone, epochs=run.epochs)
    assert table.scores["joint"] == scores
