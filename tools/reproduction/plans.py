"""The published tables as data: which runs they take, whose scores their rows are, and what was published.

Published numbers are percent, as printed, in the order of a plan's columns and within each of its scores. Tables 1 to 4
and figures 1 and 2 are Kang et al.'s (ICLR 2020, arXiv:1910.09217), `bbn_fig2` is figure 2 of Zhou et al. (CVPR 2020,
arXiv:1912.02413), whose numbers stand in a picture only.
"""

import dataclasses
from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

GROUPS = ("many", "medium", "few", "all")
ONE_COLUMN: Mapping[str, Mapping] = {"": {}}


@dataclasses.dataclass(frozen=True)
class Run:
    """A run of a table, by what it changes of the table's flag file.

    Attributes:
      flags: flag -> value; a `Fraction` is that share of stage one's epochs, so that a schedule fits any data.
      representation: the run whose stage one it takes; empty trains its own.
    """

    flags: Mapping[str, object] = dataclasses.field(default_factory=dict)
    representation: str = ""


class Row(NamedTuple):
    """A row of a table: one classifier of one run, and what was published of it, None where nothing was."""

    name: str
    run: str
    classifier: str
    published: tuple[float | None, ...] = ()


@dataclasses.dataclass(frozen=True)
class Plan:
    """A published table.

    Attributes:
      title: what it shows.
      flag_file: in flags/, without suffix: the data that it was published on.
      runs: name -> run; one that is taken a representation from comes first.
      rows: of the table.
      columns: name -> flags, on the data that it was published on.
      columns_elsewhere: likewise on other data, which has one backbone and one schedule.
      scores: of each row and column: accuracies of results.json, or "error", one less the accuracy "all".
    """

    title: str
    flag_file: str
    runs: Mapping[str, Run]
    rows: tuple[Row, ...]
    columns: Mapping[str, Mapping[str, object]] = dataclasses.field(default_factory=lambda: ONE_COLUMN)
    columns_elsewhere: Mapping[str, Mapping[str, object]] = dataclasses.field(default_factory=lambda: ONE_COLUMN)
    scores: tuple[str, ...] = GROUPS


# Figure 1: every classifier on representations of every sampler; beyond the first, only Joint is printed as numbers.
SAMPLERS = {
    "instance_balanced": (65.9, 37.5, 7.7, 44.4),
    "class_balanced": (61.8, 40.1, 15.5, 45.1),
    "square_root": (64.3, 41.2, 17.0, 46.8),
    "progressive": (61.9, 43.2, 19.4, 47.2),
}
RESNEXT50 = {
    "joint": ("Joint", SAMPLERS["instance_balanced"]),
    "ncm": ("NCM", (56.6, 45.3, 28.1, 47.3)),
    "crt": ("cRT", (61.8, 46.2, 27.4, 49.6)),
    "tau_norm": ("τ-normalized", (59.1, 46.9, 30.7, 49.4)),
    "lws": ("LWS", (60.2, 47.2, 30.3, 49.9)),
}


def _sampled(sampler: str, classifier: str) -> Row:
    name, published = RESNEXT50[classifier]
    if sampler != "instance_balanced":
        published = SAMPLERS[sampler] if classifier == "joint" else ()
    return Row(f"{sampler}, {name}", sampler, classifier, published)


# OLTR trains its own stage one, in steps (its configuration files: 30 epochs, then 60 on ImageNet-LT; 30, then 30 on
# Places-LT); OLTR** is its stage two on the representation of the table.
OLTR_STAGE_TWO = {
    "method": "oltr",
    "classifier_epochs": Fraction(60, 90),
    "classifier_schedule": "multistep",
    "classifier_decay_epochs": (Fraction(20, 90), Fraction(40, 90)),
}
IMAGENET_RUNS = {
    "decoupling": Run(),
    "focal": Run({"loss": "focal"}),
    "range": Run({"feature_loss": "range"}),
    "lifted": Run({"feature_loss": "lifted"}),
    "fslwf": Run({"method": "fslwf"}),
    "oltr_decoupled": Run(OLTR_STAGE_TWO, representation="decoupling"),
    "oltr": Run(
        {
            **OLTR_STAGE_TWO,
            "epochs": Fraction(30, 90),
            "schedule": "multistep",
            "decay_epochs": (Fraction(10, 90), Fraction(20, 90)),
        }
    ),
}

BBN_REPRESENTATIONS = {"CE": {}, "RW": {"class_weights": "inverse_frequency"}, "RS": {"sampler": "class_balanced"}}
BBN_CLASSIFIERS = {
    "CE": {"classifier_sampler": "instance_balanced"},
    "RW": {"classifier_sampler": "instance_balanced", "classifier_class_weights": "inverse_frequency"},
    "RS": {"classifier_sampler": "class_balanced"},
}

PLANS = {
    "1": Plan(
        "Re-training parts of the network on balanced images",
        "imagenet_lt",
        {"decoupling": Run()},
        (
            Row("B + C", "decoupling", "crt_all", (55.4, 45.3, 24.5, 46.3)),
            Row("B + C at a tenth of the rate", "decoupling", "crt_all_tenth", (61.9, 45.6, 22.8, 48.8)),
            Row("Last block + C", "decoupling", "crt_last_block", (61.4, 45.8, 24.5, 48.9)),
            Row("C", "decoupling", "crt", (61.5, 46.2, 27.0, 49.5)),
        ),
    ),
    "2": Plan(
        "ImageNet-LT by backbone",
        "imagenet_lt",
        IMAGENET_RUNS,
        (
            Row("FSLwF", "fslwf", "fslwf", (28.4, None, None)),
            Row("Focal", "focal", "joint", (30.5, None, None)),
            Row("Range", "range", "joint", (30.7, None, None)),
            Row("Lifted", "lifted", "joint", (30.8, None, None)),
            Row("OLTR", "oltr", "oltr", (34.1, 37.7, 24.8)),  # Kang et al.'s re-run; its authors' own ResNet-10: 35.6
            Row("OLTR**", "oltr_decoupled", "oltr", (37.3, 46.3, 50.3)),
            Row("Joint", "decoupling", "joint", (34.8, 44.4, 47.8)),
            Row("NCM", "decoupling", "ncm", (35.5, 47.3, 51.3)),
            Row("cRT", "decoupling", "crt", (41.8, 49.5, 52.4)),
            Row("τ-normalized", "decoupling", "tau_norm", (40.6, 49.4, 52.8)),
            Row("LWS", "decoupling", "lws", (41.4, 49.9, 53.3)),
        ),
        columns={
            "ResNet-10": {"backbone": "resnet10"},
            "ResNeXt-50": {"backbone": "resnext50"},
            "ResNeXt-152": {"backbone": "resnext152"},
        },
        scores=("all",),
    ),
    "3": Plan(
        "iNaturalist 2018 by backbone and epochs",
        "inaturalist18",
        {
            "decoupling": Run(),
            "cb_focal": Run(
                {
                    "loss": "sigmoid_focal",
                    "focal_gamma": 0.5,
                    "class_weights": "effective_number",
                    "class_weights_beta": 0.999,
                }
            ),
            "ldam": Run({"loss": "ldam"}),
            "ldam_drw": Run(
                {
                    "loss": "ldam",
                    "class_weights": "effective_number",
                    "class_weights_beta": 0.9999,
                    "class_weights_from": Fraction(160, 200),
                }
            ),
        },
        (
            Row("CB-Focal", "cb_focal", "joint", (61.1, None, None, None)),
            Row("LDAM", "ldam", "joint", (64.6, None, None, None)),
            Row("LDAM + DRW", "ldam_drw", "joint", (68.0, None, None, None)),
            Row("Joint", "decoupling", "joint", (61.7, 65.8, 65.0, 69.0)),
            Row("NCM", "decoupling", "ncm", (58.2, 63.1, 61.9, 67.3)),
            Row("cRT", "decoupling", "crt", (65.2, 67.6, 68.5, 71.2)),
            Row("τ-normalized", "decoupling", "tau_norm", (65.6, 69.3, 68.8, 72.5)),
            Row("LWS", "decoupling", "lws", (65.9, 69.5, 69.1, 72.1)),
        ),
        columns={
            f"ResNet-{depth}-{epochs}-epochs": {"backbone": f"resnet{depth}", "epochs": epochs}
            for depth in (50, 152)
            for epochs in (90, 200)
        },
        scores=("all",),
    ),
    "4": Plan(
        "Places-LT",
        "places_lt",
        {
            **{name: IMAGENET_RUNS[name] for name in ("decoupling", "focal", "range", "lifted", "fslwf")},
            "oltr": Run(
                {
                    "method": "oltr",
                    "schedule": "multistep",
                    "decay_epochs": (Fraction(1, 3), Fraction(2, 3)),
                    "classifier_epochs": Fraction(1),
                    "classifier_schedule": "multistep",
                    "classifier_decay_epochs": (Fraction(1, 3), Fraction(2, 3)),
                    "classifier_learning_rate": 0.01,
                }
            ),
        },
        (
            Row("Lifted", "lifted", "joint", (41.1, 35.4, 24.0, 35.2)),
            Row("Focal", "focal", "joint", (41.1, 34.8, 22.4, 34.6)),
            Row("Range", "range", "joint", (41.1, 35.4, 23.2, 35.1)),
            Row("FSLwF", "fslwf", "fslwf", (43.9, 29.9, 29.5, 34.9)),
            Row("OLTR", "oltr", "oltr", (44.7, 37.0, 25.3, 35.9)),
            Row("Joint", "decoupling", "joint", (45.7, 27.3, 8.2, 30.2)),
            Row("NCM", "decoupling", "ncm", (40.4, 37.1, 27.3, 36.4)),
            Row("cRT", "decoupling", "crt", (42.0, 37.6, 24.9, 36.7)),
            Row("τ-normalized", "decoupling", "tau_norm", (37.8, 40.7, 31.8, 37.9)),
            Row("LWS", "decoupling", "lws", (40.6, 39.1, 28.6, 37.6)),
        ),
    ),
    "fig1": Plan(
        "Classifiers on representations learned with each sampler",
        "imagenet_lt",
        {sampler: Run({"sampler": sampler}) for sampler in SAMPLERS},
        tuple(_sampled(sampler, classifier) for sampler in SAMPLERS for classifier in RESNEXT50),
    ),
    "fig2": Plan(
        "Norms of the classifiers' weights, and accuracy over τ",
        "imagenet_lt",
        {"decoupling": Run()},
        tuple(
            Row(name, "decoupling", classifier, published)
            for classifier, (name, published) in RESNEXT50.items()
            if classifier != "ncm"  # it has no weights
        ),
    ),
    "bbn_fig2": Plan(
        "Classifiers (rows) on representations (columns): cross-entropy, re-weighting, re-sampling",
        "cifar100_lt",
        {name: Run(flags, representation="CE" if name != "CE" else "") for name, flags in BBN_CLASSIFIERS.items()},
        tuple(Row(name, name, "crt") for name in BBN_CLASSIFIERS),
        columns={name: {**flags, "imbalance_ratio": 50.0} for name, flags in BBN_REPRESENTATIONS.items()},
        columns_elsewhere=BBN_REPRESENTATIONS,
        scores=("error",),
    ),
}
