"""What lies where in the work folder of a run. `keras_lt.run` adds what is in the files."""

import contextlib
import os
import pathlib
import re
import shutil

from keras_lt import files


class WorkFolder:
    """The work folder of a run: its files, its lock, and what can be said without opening a model.

    Args:
      folder: `~` is the home folder.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = files.expanded(folder)

    @property
    def flags_file(self) -> pathlib.Path:
        """The resolved flags."""
        return self.folder / "flags.cfg"

    @property
    def log_file(self) -> pathlib.Path:
        """What training printed."""
        return self.folder / "train.log"

    @property
    def results_file(self) -> pathlib.Path:
        """Written last: a folder that has it is a finished run."""
        return self.folder / "results.json"

    @property
    def bad_images_file(self) -> pathlib.Path:
        """What is wrong with images of the data set."""
        return self.folder / "bad_images.txt"

    @property
    def plots_folder(self) -> pathlib.Path:
        """The plots of the report."""
        return self.folder / "plots"

    @property
    def description_folder(self) -> pathlib.Path:
        """Where `keras_lt.describe` writes."""
        return self.folder / "describe"

    @property
    def export_folder(self) -> pathlib.Path:
        """A folder per exported classifier, with one per version: what TensorFlow Serving is given."""
        return self.folder / "export"

    @property
    def representation_folder(self) -> pathlib.Path:
        """Stage one's model, history, checkpoints and events."""
        return self.folder / "representation"

    @property
    def features_folder(self) -> pathlib.Path:
        """The features of every split, by stage one's backbone."""
        return self.folder / "features"

    def classifier_folder(self, name: str) -> pathlib.Path:
        """A classifier's model, history, checkpoints and scores."""
        return self.folder / "classifiers" / _folder_name(name)

    def predictions_file(self, name: str) -> pathlib.Path:
        """What a classifier says of every test image."""
        return self.classifier_folder(name) / "predictions.npz"

    def outcome_file(self, name: str) -> pathlib.Path:
        """Written last: a folder that has it is a finished classifier."""
        return self.classifier_folder(name) / "scores.json"

    @property
    def _representation_file(self) -> pathlib.Path:
        """Written last: a folder that has it has a whole representation."""
        return self.representation_folder / "model.keras"

    @property
    def has_representation(self) -> bool:
        """Whether stage one is done, here or where the representation came from."""
        return self._representation_file.exists()

    @property
    def finished_classifiers(self) -> list[str]:
        """The names of those that are learned and scored, sorted."""
        return sorted(_classifier_name(path.parent.name) for path in self.classifier_folder("").glob("*/scores.json"))

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
        return self.export_folder / _folder_name(name)

    def latest_export(self, name: str) -> pathlib.Path | None:
        """The newest SavedModel of a classifier, or None."""
        versions = [path for path in self.versions_folder(name).glob("*") if path.name.isdecimal()]
        return max(versions, key=lambda path: int(path.name), default=None)

    def locked(self) -> contextlib.AbstractContextManager:
        """Has the folder for this process alone, as `files.locked`."""
        return files.locked(self.folder)

    def empty(self):
        """Removes all that is in the folder but its lock."""
        for path in self.folder.iterdir():
            if path.name != files.LOCK:
                files.remove(path)

    def take_representation(self, source: "WorkFolder"):
        """Puts another run's representation and features into this folder; files are shared where they can be."""
        pairs = [
            (source.features_folder, self.features_folder),
            (source.representation_folder, self.representation_folder),  # last: with it the folder counts as complete
        ]
        for theirs, ours in pairs:
            if theirs.exists():
                with files.atomic(ours) as scratch:
                    left_out = shutil.ignore_patterns("checkpoints", "events", "*.part")
                    shutil.copytree(theirs, scratch, copy_function=_link, ignore=left_out)


def _folder_name(classifier: str) -> str:
    """`disalign:rho=1.2` lies in `disalign-rho=1.2`: a colon is no good in a file's name."""
    return classifier.replace(":", "-")


def _classifier_name(folder: str) -> str:
    return re.sub(r"-(?=[A-Za-z_]\w*=)", ":", folder)  # a value may have a dash of its own


def _link(source: str, target: str):
    try:
        os.link(source, target)  # nothing in a work folder is written in place: files are replaced
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)
