"""The published tables as data: which runs they take, whose scores their rows are, and what was published.

Published numbers are those of `keras_lt.report.published`, in the order of a plan's columns and within each of its
scores. Tables 1 to 4 and figures 1 and 2 are Kang et al.'s (ICLR 2020, arXiv:1910.09217), `bbn_fig2` is figure 2 of
Zhou et al. (CVPR 2020, arXiv:1912.02413), whose numbers stand in a picture only. `later` was published nowhere: the
heads that came after the paper, all on the same representations, ranked.
"""

import dataclasses
from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

from keras_lt.classifiers import CLASSIFIERS
from keras_lt.methods import METHODS
from keras_lt.report import published as papers
from keras_lt.report.systems import BASELINE, OLTR_DECOUPLED, display_name

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
    """A table to reproduce.

    Attributes:
      title: what it shows.
      flag_file: in flags/, without suffix: the data that it was published on.
      runs: name -> run; one that is taken a representation from comes first.
      rows: of the table.
      columns: name -> flags, on the data that it was published on.
      columns_elsewhere: likewise on other data, which has one backbone and one schedule.
      scores: of each row and column: accuracies of results.json, or "error", one less the accuracy "all".
      ranked_by: the score that rows are ranked by in each run, best first; empty leaves them as they are.
    """

    title: str
    flag_file: str
    runs: Mapping[str, Run]
    rows: tuple[Row, ...]
    columns: Mapping[str, Mapping[str, object]] = dataclasses.field(default_factory=lambda: ONE_COLUMN)
    columns_elsewhere: Mapping[str, Mapping[str, object]] = dataclasses.field(default_factory=lambda: ONE_COLUMN)
    scores: tuple[str, ...] = papers.GROUPS
    ranked_by: str = ""


def _sampled(sampler: str, classifier: str) -> Row:
    """A row of figure 1: a classifier on a sampler's representation; beyond the first, only Joint is printed."""
    of_joint = papers.JOINT_BY_SAMPLER[sampler] if classifier == BASELINE else ()
    published = papers.FIGURE_1[classifier] if sampler == next(iter(papers.JOINT_BY_SAMPLER)) else of_joint
    return Row(f"{sampler}, {display_name(classifier)}", sampler, classifier, published)


def _rows(table: Mapping[str, tuple[float | None, ...]]) -> tuple[Row, ...]:
    """A row per system: a classifier of the run "decoupling"; else a method's own, or Joint, of a run of its name."""

    def row(system: str) -> Row:
        if system == OLTR_DECOUPLED:
            return Row("OLTR**", system, "oltr", table[system])
        classifier = system if system in {**CLASSIFIERS, **METHODS} else BASELINE
        return Row(display_name(system), "decoupling" if system in CLASSIFIERS else system, classifier, table[system])

    return tuple(map(row, table))


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
    "lifted": Run({"feature_loss": "lifted", "feature_loss_weight": 0.1}),
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

HEADS = (
    *("joint", "logit_adjusted", "ncm", "class_mean_cosine", "lift", "crt"),
    *("tau_norm", "lws", "mislas", "disalign", "marc", "max_norm"),
)
HEAD_LOSSES = ("lade", "balanced_softmax", "balanced_binary_cross_entropy")  # of cRT on images as they come

PLANS = {
    "1": Plan(
        "Re-training parts of the network on balanced images",
        "imagenet_lt",
        {"decoupling": Run()},
        (
            Row("B + C", "decoupling", "crt_all", papers.TABLE_1["crt_all"]),
            Row("B + C at a tenth of the rate", "decoupling", "crt_all_tenth", papers.TABLE_1["crt_all_tenth"]),
            Row("Last block + C", "decoupling", "crt_last_block", papers.TABLE_1["crt_last_block"]),
            Row("C", "decoupling", "crt", papers.TABLE_1["crt"]),
        ),
    ),
    "2": Plan(
        "ImageNet-LT by backbone",
        "imagenet_lt",
        IMAGENET_RUNS,
        _rows(papers.TABLE_2),
        columns={name: {"backbone": name.lower().replace("-", "")} for name in papers.TABLE_2_COLUMNS},
        scores=("all",),
    ),
    "3": Plan(
        "iNaturalist 2018 by backbone and epochs",
        "inaturalist18",
        {
            "decoupling": Run(),
            "cb_focal": Run({"loss": "sigmoid_focal", "class_weights": "effective_number:beta=0.999"}),
            "ldam": Run({"loss": "ldam"}),
            "ldam_drw": Run(
                {"loss": "ldam", "class_weights": "effective_number", "class_weights_from": Fraction(160, 200)}
            ),
        },
        _rows(papers.TABLE_3),
        columns={
            f"{name}-{epochs}-epochs": {"backbone": name.lower().replace("-", ""), "epochs": epochs}
            for name, epochs in papers.TABLE_3_COLUMNS
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
        _rows(papers.TABLE_4),
    ),
    "fig1": Plan(
        "Classifiers on representations learned with each sampler",
        "imagenet_lt",
        {sampler: Run({"sampler": sampler}) for sampler in papers.JOINT_BY_SAMPLER},
        tuple(_sampled(sampler, classifier) for sampler in papers.JOINT_BY_SAMPLER for classifier in papers.FIGURE_1),
    ),
    "fig2": Plan(
        "Norms of the classifiers' weights, and accuracy over τ",
        "imagenet_lt",
        {"decoupling": Run()},
        tuple(
            Row(display_name(classifier), "decoupling", classifier, papers.FIGURE_1[classifier])
            for classifier in ("joint", "crt", "tau_norm", "lws")  # NCM has no weights
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
    "later": Plan(
        "Heads that came after the paper",
        "fashion_lt",
        {"heads": Run()},
        (
            *(Row(display_name(name), "heads", name) for name in HEADS),
            *(Row(display_name(loss), "heads", f"crt:loss={loss}:sampler=instance_balanced") for loss in HEAD_LOSSES),
        ),
        scores=(*papers.GROUPS, "class_mean"),
        ranked_by="class_mean",
    ),
}
