"""Published scores, in one place: what reports and `tools.reproduce` set beside our own.

All are top-1 accuracies on test in percent, as printed.
"""

import dataclasses
from collections.abc import Mapping

from keras_lt.metrics import SHOT_CUTS, ShotGroups
from keras_lt.report.systems import system_of

GROUPS = ("many", "medium", "few", "all")

# Kang et al. (ICLR 2020, arXiv:1910.09217), as printed. Table 1: ResNeXt-50 on ImageNet-LT, parts trained in stage two.
TABLE_1 = {
    "crt_all": (55.4, 45.3, 24.5, 46.3),
    "crt_all_tenth": (61.9, 45.6, 22.8, 48.8),
    "crt_last_block": (61.4, 45.8, 24.5, 48.9),
    "crt": (61.5, 46.2, 27.0, 49.5),
}
# Table 2: ImageNet-LT, all. OLTR is their run of it (its authors print 35.6 for ResNet-10), "oltr_decoupled" OLTR**.
TABLE_2_COLUMNS = ("ResNet-10", "ResNeXt-50", "ResNeXt-152")
TABLE_2 = {
    "fslwf": (28.4, None, None),
    "focal": (30.5, None, None),
    "range": (30.7, None, None),
    "lifted": (30.8, None, None),
    "oltr": (34.1, 37.7, 24.8),
    "oltr_decoupled": (37.3, 46.3, 50.3),
    "joint": (34.8, 44.4, 47.8),
    "ncm": (35.5, 47.3, 51.3),
    "crt": (41.8, 49.5, 52.4),
    "tau_norm": (40.6, 49.4, 52.8),
    "lws": (41.4, 49.9, 53.3),
}
# Table 3: iNaturalist 2018, all, by network and epochs.
TABLE_3_COLUMNS = (("ResNet-50", 90), ("ResNet-50", 200), ("ResNet-152", 90), ("ResNet-152", 200))
TABLE_3 = {
    "cb_focal": (61.1, None, None, None),
    "ldam": (64.6, None, None, None),
    "ldam_drw": (68.0, None, None, None),
    "joint": (61.7, 65.8, 65.0, 69.0),
    "ncm": (58.2, 63.1, 61.9, 67.3),
    "crt": (65.2, 67.6, 68.5, 71.2),
    "tau_norm": (65.6, 69.3, 68.8, 72.5),
    "lws": (65.9, 69.5, 69.1, 72.1),
}
# Table 4: Places-LT, ResNet-152.
TABLE_4 = {
    "lifted": (41.1, 35.4, 24.0, 35.2),
    "focal": (41.1, 34.8, 22.4, 34.6),
    "range": (41.1, 35.4, 23.2, 35.1),
    "fslwf": (43.9, 29.9, 29.5, 34.9),
    "oltr": (44.7, 37.0, 25.3, 35.9),
    "joint": (45.7, 27.3, 8.2, 30.2),
    "ncm": (40.4, 37.1, 27.3, 36.4),
    "crt": (42.0, 37.6, 24.9, 36.7),
    "tau_norm": (37.8, 40.7, 31.8, 37.9),
    "lws": (40.6, 39.1, 28.6, 37.6),
}
# Figure 1: ResNeXt-50 on ImageNet-LT; Joint by the sampler of stage one, and all on the first of these.
JOINT_BY_SAMPLER = {
    "instance_balanced": (65.9, 37.5, 7.7, 44.4),
    "class_balanced": (61.8, 40.1, 15.5, 45.1),
    "square_root": (64.3, 41.2, 17.0, 46.8),
    "progressive": (61.9, 43.2, 19.4, 47.2),
}
FIGURE_1 = {
    "joint": JOINT_BY_SAMPLER["instance_balanced"],
    "ncm": (56.6, 45.3, 28.1, 47.3),
    "crt": (61.8, 46.2, 27.4, 49.6),
    "tau_norm": (59.1, 46.9, 30.7, 49.4),
    "lws": (60.2, 47.2, 30.3, 49.9),
}
# CIFAR-10-LT and CIFAR-100-LT of imbalance ratio 100, ResNet-32, all, of several papers; Joint is Cao et al.'s (2019).
CIFAR_LT = {
    "joint": (70.4, 38.3),
    "focal": (71.6, 37.2),
    "ldam_drw": (77.0, 42.0),
    "bbn": (79.8, 42.6),
    "crt": (75.0, 40.3),
    "lws": (72.6, 40.2),
    "tau_norm": (72.7, 41.0),
    "balanced_softmax": (77.5, 43.0),
    "logit_adjustment": (77.3, 44.1),
}


@dataclasses.dataclass(frozen=True)
class Published:
    """Scores of one network on one data set.

    Attributes:
      dataset: its name in `datasets.DATASETS`.
      train_images: of the training list that they belong to.
      backbone: the network as papers write it.
      epochs: of stage one.
      source: where the scores are printed.
      scores: system, as `systems.system_of` names it -> score -> percent.
    """

    dataset: str
    train_images: int
    backbone: str
    epochs: int
    source: str
    scores: Mapping[str, Mapping[str, float]]

    @property
    def label(self) -> str:
        """Network, epochs and source in words."""
        return f"{self.backbone}, {self.epochs} epochs, {self.source}"

    def fractions(self, system: str) -> dict[str, float]:
        """A system's accuracies that are printed, in [0, 1], by score."""
        return {score: round(percent / 100, 4) for score, percent in self.scores[system].items()}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What was published, as a run sees it.

    Attributes:
      label: of which network, in how many epochs, and where; empty where nothing was published.
      ours: classifier of the run -> score -> published fraction.
      others: likewise, of the systems that no classifier of the run stands for.
    """

    label: str = ""
    ours: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    others: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)


def _by_group(table: Mapping[str, tuple]) -> dict[str, dict[str, float]]:
    return {system: dict(zip(GROUPS, row, strict=True)) for system, row in table.items()}


def _column(table: Mapping[str, tuple], column: int) -> dict[str, dict[str, float]]:
    return {system: {"all": row[column]} for system, row in table.items() if row[column] is not None}


KANG = "Kang et al. (ICLR 2020)"
PUBLISHED = (
    Published("places_lt", 62_500, "ResNet-152", 30, f"{KANG}, table 4", _by_group(TABLE_4)),
    Published(
        "imagenet_lt",
        115_846,
        "ResNeXt-50",
        90,
        f"{KANG}, tables 1 and 2, figure 1",
        _column(TABLE_2, TABLE_2_COLUMNS.index("ResNeXt-50")) | _by_group(TABLE_1 | FIGURE_1),
    ),
    *(
        Published("imagenet_lt", 115_846, backbone, 90, f"{KANG}, table 2", _column(TABLE_2, column))
        for column, backbone in enumerate(TABLE_2_COLUMNS)
        if backbone != "ResNeXt-50"
    ),
    *(
        Published("inaturalist18", 437_513, backbone, epochs, f"{KANG}, table 3", _column(TABLE_3, column))
        for column, (backbone, epochs) in enumerate(TABLE_3_COLUMNS)
    ),
    *(
        Published(dataset, train_images, "ResNet-32", 200, "as several papers print them", _column(CIFAR_LT, column))
        for column, (dataset, train_images) in enumerate({"cifar10_lt": 12_406, "cifar100_lt": 10_847}.items())
    ),
)


def find(dataset: str, *, train_images: int, backbone: str, epochs: int) -> Published | None:
    """What was published for a data set and a network, with the nearest number of epochs; None where nothing was.

    Args:
      train_images: of the training list; another number is another data set.
      backbone: as --backbone takes it; which library it comes from plays no part.
    """
    name = backbone.rpartition("/")[2].lower().replace("-", "")
    fitting = [
        table
        for table in PUBLISHED
        if (table.dataset, table.train_images, table.backbone.lower().replace("-", "")) == (dataset, train_images, name)
    ]
    return min(fitting, key=lambda table: abs(table.epochs - epochs), default=None)


def compare(results: Mapping, *, groups: ShotGroups) -> Comparison:
    """What was published for the data set and the network of a run; nothing for groups that are cut otherwise.

    Args:
      results: the content of results.json.
      groups: of the run's data set.
    """
    if groups.cuts != SHOT_CUTS["kang"]:
        return Comparison()
    stage_one = results["stage_one"]
    table = find(
        results["dataset"],
        train_images=int(groups.class_counts.sum()),
        backbone=results.get("backbone", ""),
        epochs=stage_one["epochs"],
    )
    if table is None:
        return Comparison()
    run = {"method": results.get("method", "decoupling"), "recipe": stage_one.get("recipe") or {}}
    systems = {name: system_of(name, **run) for name in results["classifiers"]}
    return Comparison(
        table.label,
        ours={name: table.fractions(system) for name, system in systems.items() if system in table.scores},
        others={system: table.fractions(system) for system in table.scores if system not in systems.values()},
    )
