"""The layout of the work folder of a run. `keras_lt.run` adds what is in the files."""

import contextlib
import os
import pathlib
import re
import shutil

from keras_lt import files

_OF_A_PART = (
    *("model.keras", "backbone.keras", "preprocessing.json", "history.csv", "scores.json", "predictions.npz"),
    *("bad_batch.npz", "checkpoints/epoch-*.npz", "events/*/events.out.tfevents.*"),
)
_PLOTS = (
    "class_accuracy",
    "class_counts",
    "group_accuracy",
    "reliability",
    "tau_curve_*",
    "test_distributions",
    "weight_norms",
)
PLOTS = "plots"
DESCRIPTION_FILES = ("describe.json", "classes.png", "sizes.png", "augmented.png")
FEATURE_FILES = ("features.npy", "manifest.json")
DRAWN_FILES = ("drawn/*.npy",)
SAVED_MODEL_FILES = (
    *("saved_model.pb", "fingerprint.pb", "keras_metadata.pb", "README.md", "made_by.json"),
    *("variables/variables.*", "assets/*", "assets.extra/labels.txt", "assets.extra/model.onnx"),
    "assets.extra/tf_serving_warmup_requests",
)
RUN_FILES = (  # all that is written into a work folder, as patterns; what fits none of them is somebody else's
    *("flags.cfg", "data.json", "data.npz", "train.log", "results.json", "results.md", "report.html"),
    *("bad_images.txt", *(f"{PLOTS}/{plot}.{kind}" for plot in _PLOTS for kind in ("png", "svg"))),
    *(f"describe/{name}" for name in DESCRIPTION_FILES),
    *(f"{part}/{name}" for part in ("representation", "classifiers/*") for name in _OF_A_PART),
    *(f"features/*/{name}" for name in FEATURE_FILES),
    *DRAWN_FILES,
    *("export/models.config", f"export/{files.LOCK}"),
    *(f"export/*/[0-9]*/{name}" for name in SAVED_MODEL_FILES),
)
# What stands there before a run's flags do: an import, a description, what is wrong with images; a log is gone on with.
_BEFORE_A_RUN = ("representation/", "features/", "describe/", "bad_images.txt", "train.log", "export/.lock")


class WorkFolder:
    """The work folder of a run: its files, its lock, and what can be said without opening a model.

    Args:
      folder: `~` is the home folder.
    Attributes:
      folder: the path.
      flags_file: the resolved flags.
      data_file, data_images_file: names and counts of the data set that the parts were made from; which images.
      bad_images_file: what is wrong with images of the data set.
      log_file: what training printed.
      results_file: written last: a folder that has it is a finished run.
      representation_folder: stage one's model, history, checkpoints and events.
      features_folder: the features of every split, by stage one's backbone.
      drawn_folder: those of augmented images, between the classifiers that are trained on them.
      plots_folder: the plots of the report.
      description_folder: where `keras_lt.describe` writes.
      export_folder: a folder per exported classifier, with one per version: what TensorFlow Serving is given.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = folder = files.expanded(folder)
        self.flags_file = folder / "flags.cfg"
        self.data_file = folder / "data.json"
        self.data_images_file = folder / "data.npz"
        self.log_file = folder / "train.log"
        self.bad_images_file = folder / "bad_images.txt"
        self.results_file = folder / "results.json"
        self.plots_folder = folder / PLOTS
        self.description_folder = folder / "describe"
        self.export_folder = folder / "export"
        self.features_folder = folder / "features"
        self.drawn_folder = folder / "drawn"
        self.representation_folder = folder / "representation"
        self._preprocessing_file = self.representation_folder / "preprocessing.json"
        self._representation_file = self.representation_folder / "model.keras"  # written last

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.folder)!r})"

    @property
    def flag_lines(self) -> list[str]:
        """The lines of the flags file; none where there is no run."""
        return files.read_text(self.flags_file).splitlines() if self.flags_file.exists() else []

    def remove_drawn(self):
        """Removes what is in `drawn_folder`, when all classifiers are trained."""
        files.remove_known(self.folder, DRAWN_FILES)

    def classifier_folder(self, name: str) -> pathlib.Path:
        """A classifier's model, history, checkpoints and scores."""
        return self.folder / "classifiers" / file_name(name)

    def predictions_file(self, name: str) -> pathlib.Path:
        """What a classifier says of every test image."""
        return self.classifier_folder(name) / "predictions.npz"

    def outcome_file(self, name: str) -> pathlib.Path:
        """Written last: a folder that has it is a finished classifier."""
        return self.classifier_folder(name) / "scores.json"

    @property
    def has_representation(self) -> bool:
        """Whether stage one is done, here or where the representation came from."""
        return self._representation_file.exists()

    @property
    def finished_classifiers(self) -> list[str]:
        """The names of those that are learned and scored, sorted."""
        return sorted(_classifier_name(path.parent.name) for path in self.classifier_folder("").glob("*/scores.json"))

    @property
    def has_parts(self) -> bool:
        """Whether anything was trained, be it an epoch."""
        checkpoints = self.representation_folder.glob("checkpoints/*.npz")
        return self.has_representation or bool(self.finished_classifiers) or any(checkpoints)

    @property
    def is_finished(self) -> bool:
        """Whether the run has come to its end once; classifiers may be added later."""
        return self.results_file.exists()

    @property
    def exported(self) -> list[str]:
        """The classifiers with at least one SavedModel."""
        found = {
            path.parent.parent for path in self.export_folder.glob("*/*/saved_model.pb") if path.parent.name.isdecimal()
        }
        return sorted(_classifier_name(path.name) for path in found)

    def versions_folder(self, name: str) -> pathlib.Path:
        """The SavedModels of a classifier, each in a folder that is a number."""
        return self.export_folder / file_name(name)

    def next_export(self, name: str) -> pathlib.Path:
        """The folder of the next version of a classifier: no number is taken twice, whatever is in its folder."""
        taken = (int(path.name) for path in self.versions_folder(name).glob("*") if path.name.isdecimal())
        return self.versions_folder(name) / str(1 + max(taken, default=0))

    def latest_export(self, name: str) -> pathlib.Path | None:
        """The newest SavedModel of a classifier, or None."""
        versions = [path.parent for path in self.versions_folder(name).glob("*/saved_model.pb")]
        versions = [path for path in versions if path.name.isdecimal()]
        return max(versions, key=lambda path: int(path.name), default=None)

    def locked(self) -> contextlib.AbstractContextManager:
        """Has the folder for this process alone, as `files.locked`."""
        return files.locked(self.folder)

    def empty(self):
        """Removes what runs write, and nothing else, after `check_emptiable`; the flags go last."""
        self.check_emptiable()
        files.remove_known(self.folder, [name for name in RUN_FILES if name != self.flags_file.name])
        files.remove(self.flags_file)

    def check_free(self):
        """Raises ValueError where it is no run's yet, and holds what is not ours and a run would replace."""
        names = () if self.flags_file.exists() else [name for name in RUN_FILES if not name.startswith(_BEFORE_A_RUN)]
        if foreign := next((path for name in names for path in self.folder.glob(name)), None):
            raise ValueError(
                f"A run would replace {foreign}, in a folder that is no run's, having no {self.flags_file.name}: "
                "move it away, or give another --workdir"
            )

    def check_unobstructed(self, *, anew: bool):
        """Raises ValueError where a file is in the place of a folder, or what is not ours where features are put.

        Args:
          anew: whether features are computed in any case; those that are there may otherwise do.
        """
        folders = {place for name in RUN_FILES for place in pathlib.PurePath(name).parents if "*" not in str(place)}
        places = [self.folder / place for place in sorted(folders)]
        if blocked := next((path for path in places if os.path.lexists(path) and not path.is_dir()), None):
            raise ValueError(f"A run needs a folder where {blocked} is: move it away, or give another --workdir")
        for path in self.features_folder.glob("*") if anew else ():
            files.check_replaceable(path, FEATURE_FILES)

    def sweep(self):
        """Removes what killed processes left of a run's files; what else lies in the folder is not walked through."""
        files.sweep(self.folder, f"{files.SCRATCH}*")
        for part in {name.split("/")[0] for name in RUN_FILES if "/" in name}:
            files.sweep(self.folder / part)

    def check_emptiable(self, *data_dirs: str | os.PathLike):
        """Raises ValueError where it is no run's, holds links, or is or holds the current folder or a data set's."""
        if not self.folder.exists():
            return
        for what, place in (("the current folder", os.curdir), *(("the data set", place) for place in data_dirs)):
            if place and files.lies_in(place, self.folder):
                raise ValueError(
                    f"--overwrite does not empty a folder that {what} is or lies in. Received: --workdir={self.folder}"
                )
        is_run = self.flags_file.exists() or self.has_representation
        if not is_run and (foreign := files.unknown_in(self.folder, ())):
            raise ValueError(
                "--overwrite empties a folder of keras_lt.train alone, which has a flags.cfg. "
                f"Received: --workdir={self.folder} without one, with {foreign[0]}"
            )
        if link := next((path for path in self.folder.rglob("*") if path.is_symlink() and path.is_dir()), None):
            raise ValueError(
                f"--overwrite does not follow links, and what they hold would be taken for finished. Received: {link}, "
                f"a link to {os.path.realpath(link)}: remove it first"
            )

    def take_representation(self, source: "WorkFolder"):
        """Puts another run's representation and features into this folder; files are shared where they can be."""
        pairs = [
            (source.features_folder, self.features_folder, [f"*/{name}" for name in FEATURE_FILES]),
            # Last: with it the folder counts as complete.
            (source.representation_folder, self.representation_folder, _OF_A_PART),
        ]
        for theirs, ours, known in pairs:
            if theirs.exists():
                with files.atomic(ours, replaces=known) as scratch:
                    left_out = shutil.ignore_patterns("checkpoints", "events", "*.part")
                    shutil.copytree(theirs, scratch, copy_function=_link, ignore=left_out)


def file_name(classifier: str) -> str:
    """`disalign:rho=1.2` as files are called, `disalign-rho=1.2`: not everywhere may they have a colon."""
    return classifier.replace(":", "-")


def _classifier_name(folder: str) -> str:
    return re.sub(r"-(?=[A-Za-z_]\w*=)", ":", folder)  # a value may have a dash of its own


def _link(source: str, target: str):
    try:
        os.link(source, target)  # nothing in a work folder is written in place: files are replaced
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)
