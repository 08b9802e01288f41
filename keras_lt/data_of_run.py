"""The data set of a run: which its flags name, which its parts were made from, and whether these are one."""

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Collection
from typing import Self

import numpy as np

from keras_lt import files
from keras_lt.compat import versions
from keras_lt.config import RunConfig, read_flag_file
from keras_lt.config.fitted import FITTED, fitted
from keras_lt.config.paths import differences, whole_paths
from keras_lt.config.renamed import is_of_version_01, renamed_classifiers
from keras_lt.datasets import LongTailed, folder_of
from keras_lt.datasets.data_record import DataRecord, other_data, record_of
from keras_lt.inspection import Inspection, inspect, screen
from keras_lt.work_folder import WorkFolder

OPTIONS = [field.name for field in dataclasses.fields(RunConfig) if not field.metadata["of_the_run"]]


def check_options(changes: Collection[str]):
    """Raises ValueError for flags, by their names, that decide the numbers of a run, or that there are not."""
    if unknown := [name for name in changes if name not in OPTIONS]:
        raise ValueError(f"A run can be opened with other {', '.join(OPTIONS)}. Received: {', '.join(unknown)}")


class DataOfRun(WorkFolder):
    """The work folder of a run with its flags and its data set; arguments as of `run.Run`."""

    def __init__(self, folder: str | os.PathLike, **changes):
        check_options(changes)
        super().__init__(folder)
        self._changes = {**changes, "workdir": str(self.folder)}

    @classmethod
    def of(cls, config: RunConfig) -> Self:
        """The run of a config, whatever lies in its folder."""
        run = cls(config.folder)
        run.config = config
        return run

    @functools.cached_property
    def config(self) -> RunConfig:
        """The flags of the run.

        Raises:
          FileNotFoundError: there is no run in the folder.
        """
        self._expect(self.flags_file, "a run")
        return read_flag_file(self.flags_file, **self._changes)

    def fit_to_data(self, said: Collection[str]):
        """Gives flags that nobody said the values that the run began with; of a new one, those that fit its data set.

        Args:
          said: the flags that have been said.
        """
        if self.flags_file.exists() and not self.config.overwrite:
            begun = read_flag_file(self.flags_file, workdir=str(self.folder))
            values = {name: getattr(begun, name) for name in FITTED if name not in said}
        else:
            values = fitted(self.config, self.listed_data, self._image_sizes, said=said)
            if values:
                print("Not said, so by the data set:", *(f"--{name}={value}" for name, value in values.items()))
            if "image_size" in values:
                print(
                    "Photographs are better told apart by a pretrained net, as --flagfile=flags/own_images.cfg has it."
                )
        self.config = dataclasses.replace(self.config, **values)

    def _image_sizes(self) -> np.ndarray:
        """Height and width of the training images that can be read, [N, 2]."""
        sizes = self._inspections["train"].sizes
        return sizes[sizes.all(1)]

    def save_config(self):
        """Writes the flags as a file that replays the run, and does not empty its folder; removes what a kill left.

        Beside them what its data set is, by which another one is told from it later, and by which versions it was
        begun. Classifiers of version 0.1 get the names that they have since.
        """
        for old, new in renamed_classifiers(self.flag_lines).items():
            if self.classifier_folder(old).exists() and not self.classifier_folder(new).exists():
                os.replace(self.classifier_folder(old), self.classifier_folder(new))
        weights = _digest(self.config.pretrained) or self._recorded.get("pretrained", "")
        made_by = self.begun_by if self.has_parts else versions()
        # The flags first: by them the folder is a run's, and what else is in it ours.
        whole = {"workdir": str(self.folder), **whole_paths(self.config)}  # the default goes by the data set's name
        dataclasses.replace(self.config, overwrite=False, **whole).save(self.flags_file)
        self.current_data.save(facts=self.data_file, images=self.data_images_file, pretrained=weights, versions=made_by)
        self.sweep()

    def check_emptiable(self, *data_dirs: str | os.PathLike):
        """As `WorkFolder`'s, and of the run's own data set."""
        config = self.config
        named = folder_of(config.dataset, config.data_dir, **config.data_options)
        super().check_emptiable(*data_dirs, config.data_dir, named or "")

    def differences(self, config: RunConfig) -> list[str]:
        """The flags by which a config would be another run than the one in the folder; none where there is no run."""
        if not self.flags_file.exists():
            return []
        return differences(read_flag_file(self.flags_file, workdir=str(self.folder)), config)

    def other_weights(self, config: RunConfig) -> list[str]:
        """Says so where the file that a config begins with is another than the one that the run began with."""
        now, there = _digest(config.pretrained), self._recorded.get("pretrained", "")
        return [f"--pretrained={config.pretrained} is another file now"] * bool(now and there and now != there)

    @property
    def begun_by(self) -> dict[str, str]:
        """The versions, as `compat.versions`, that the run was begun by; none where it does not say."""
        return self._recorded.get("versions", {})

    @property
    def _recorded(self) -> dict:
        return files.read_json(self.data_file, needs=["name"]) if self.data_file.exists() else {}

    @functools.cached_property
    def listed_data(self) -> LongTailed:
        """The data set, its images not looked at."""
        return self.config.load_data()

    @functools.cached_property
    def data(self) -> LongTailed:
        """The data set, with every image on disk checked; the bad ones are listed in the work folder.

        Raises:
          ValueError: there are bad images, or the parts of the run were made from other data.
        """
        data = self._screened
        if self.config.overwrite or not self._same_flags:
            return data
        recorded = self.recorded_data
        if recorded is None:
            _check_classes(self, data)
            self.check_splits("test")
        elif self.changes:
            raise ValueError(other_data(self.folder, self.changes, grew=recorded.only_grew(self.current_data)))
        return data

    @functools.cached_property
    def changes(self) -> list[str]:
        """How the data set differs from what the parts of the run were made from; empty where that is not known."""
        recorded = self.recorded_data if self.has_parts else None
        return recorded.differences(self.current_data) if recorded else []

    def check_splits(self, *splits: str):
        """Raises ValueError where version 0.1 set other images aside for one of them than are now.

        Some that the parts of the run were learned, or chosen, on are in it then.
        """
        data = self.listed_data
        drawn = {"train", "val", "test"} if data.test_is_drawn else {"train", "val"} if data.val_is_carved else set()
        of_01 = self.recorded_data is None and self.has_parts and is_of_version_01(self.flag_lines)
        if of_01 and drawn.intersection(splits):
            raise ValueError(
                f"{self.folder} is a run of version 0.1, which set other images of {data.name} aside for val or test "
                "than are now: some of these it was trained on. Give another --workdir, or --overwrite to start "
                "afresh. What it learned stays of use: keras_lt.export, keras_lt.predict, and keras_lt.evaluate "
                "--images or --model=<its export>"
            )

    @functools.cached_property
    def _inspections(self) -> dict[str, Inspection]:
        encoded = any(split.examples.encoded for split in self.listed_data.all_splits.values())
        return inspect(self.listed_data) if encoded else {}

    @functools.cached_property
    def _screened(self) -> LongTailed:
        is_ours = self._same_flags and (self.flags_file.exists() or not files.holds_anything(self.folder))
        return screen(
            self.listed_data,
            inspections=self._inspections,
            on_bad_image=self.config.on_bad_image,
            report=self.bad_images_file if is_ours else None,  # a refusal leaves nothing behind elsewhere
        )

    @property
    def _same_flags(self) -> bool:
        return not self.differences(self.config)

    @property
    def recorded_data(self) -> DataRecord | None:
        """What the parts of the run were made from; None where there is no run, or one of version 0.1."""
        if not self.data_file.exists():
            return None
        return DataRecord.load(facts=self.data_file, images=self.data_images_file)

    @functools.cached_property
    def current_data(self) -> DataRecord:
        """The data set as it is now, as a record."""
        good = {split: found.hashes[found.hashes != b""] for split, found in self._inspections.items()}
        return record_of(self._screened, good)

    @property
    def about_data(self) -> DataRecord | LongTailed:
        """Names and counts of the data set, for which its images need not be there, nor be split as they were."""
        if recorded := self.recorded_data:
            return recorded
        _check_classes(self, self._screened)
        return self._screened

    def _expect(self, path: pathlib.Path, what: str):
        if not path.exists():
            raise FileNotFoundError(
                f"Expected the work folder of {what}, as python -m keras_lt.train --workdir={self.folder} leaves it. "
                f"Not found: {path}"
            )


def _digest(weights: str) -> str:
    """Of a file of weights; empty where there is none."""
    path = files.expanded(weights) if weights else None
    if path is None or not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_classes(run: DataOfRun, data: LongTailed):
    """Raises ValueError where a run of version 0.1, of which nothing else is known, has other classes."""
    for name in run.finished_classifiers[:1]:
        classes = len(files.read_json(run.outcome_file(name), needs=["per_class"])["per_class"])
        if classes != len(data.class_names):
            raise ValueError(other_data(run.folder, [f"{len(data.class_names)} classes, {classes} there"], grew=False))
