"""A run by its work folder: its flags, its data, its parts, its numbers, and which of them belong together."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Sequence

import keras
import numpy as np

from keras_lt import files, serving, stages
from keras_lt.arguments import checked
from keras_lt.classifiers import CLASSIFIERS
from keras_lt.compat import versions
from keras_lt.config import RunConfig
from keras_lt.config.paths import placed_flags
from keras_lt.config.renamed import RENAMED_VALUES, renamed_classifiers
from keras_lt.data_of_run import OPTIONS, DataOfRun, check_options
from keras_lt.datasets import Split
from keras_lt.evaluation import Scores, evaluate_classifier, logits_in_chunks
from keras_lt.features import FeatureSet, extract_features
from keras_lt.methods import METHODS
from keras_lt.preprocessing import NoPreprocessing, Preprocessing
from keras_lt.registry import check_choice
from keras_lt.resampling import resampled_counts
from keras_lt.stages.checks import NO_IMAGES, STAGE_TWO, classifier_entry, trains_through_frozen
from keras_lt.work_folder import FEATURE_FILES

OUTCOME = ("val", "test", "chosen", "seconds", "candidates", "per_class")  # of a classifier, in scores.json


class Run(DataOfRun):
    """A run of `keras_lt.train`, finished or not. What takes long to load is loaded once, on first use.

        run = keras_lt.Run("runs/fashion_lt")
        run.results["best"], run.scores("lws").accuracies
        keras_lt.plot_tau_curve(run.classifier("tau_norm"))

    Args:
      folder: the work folder; `~` is the home folder.
      **changes: flags that decide no number of a run, with another value than it was trained with, such as data_dir.
    Raises:
      ValueError: another flag is to be changed.
    """

    def __init__(self, folder: str | os.PathLike, **changes):
        super().__init__(folder, **changes)
        self._classifiers: dict[str, stages.Classifier] = {}
        self._features: dict[str, FeatureSet] = {}

    @functools.cached_property
    def representation(self) -> stages.Representation:
        """What stage one left behind."""
        self._expect(self._representation_file, "a run with a representation")
        return stages.Representation.load(self.representation_folder)

    @property
    def preprocessing(self) -> Preprocessing | NoPreprocessing:
        """What images go through; known without the model being loaded."""
        self._expect(self._preprocessing_file, "a run with a representation")
        return stages.read_preprocessing(self.representation_folder)

    @property
    def classifiers(self) -> list[str]:
        """The names of the finished ones, in the order of tables."""
        order, names = [*METHODS, *CLASSIFIERS], self.finished_classifiers
        places = {
            name: order.index(base) if (base := name.partition(":")[0]) in order else len(order) for name in names
        }
        return sorted(names, key=lambda name: (places[name], name))

    @checked
    def classifier(self, name: str) -> stages.Classifier:
        """A classifier, with the backbone that it belongs to: stage one's, or its own where stage two changed that.

        Raises:
          ValueError: the run has no finished classifier of that name.
        """
        if name not in self._classifiers:
            outcome = self.outcome(name)
            backbone, model = stages.load_classifier(self.classifier_folder(name), self.representation)
            about = {key: outcome[key] for key in ("chosen", "val", "candidates")}
            self._classifiers[name] = stages.Classifier(model=model, backbone=backbone, **about)
        return self._classifiers[name]

    def keep(self, name: str, classifier: stages.Classifier):
        """Saves a classifier that was just learned; `save_scores` makes it a finished one."""
        classifier.save(self.classifier_folder(name), self.representation)
        self._classifiers[name] = classifier

    @checked
    def features(self, split: str, classifier: str = "") -> FeatureSet:
        """Features of a split of the data set, which stay on disk where they are by stage one's backbone.

        Args:
          split: "train", "val", "test", or "open_set" where the data set has one; "text" is of the class names, by the
            text tower of the run's backbone, which is asked once.
          classifier: whose backbone makes them; empty is stage one's.
        Raises:
          ValueError: the data set has no such split.
        """
        if split == "text":
            return self._texts
        backbone = self.classifier(classifier).backbone if classifier else self.representation.backbone
        if backbone is not self.representation.backbone:
            return self.extract(backbone, self._examples(split))
        if split not in self._features:
            self._features[split] = self._kept(split, backbone, self.representation.preprocessing)
        return self._features[split]

    @functools.cached_property
    def _texts(self) -> FeatureSet:
        folder, names = self.features_folder / "text", list(self.about_data.class_names)
        made_of = {"backbone": self.config.backbone, "class_names": names}
        manifest = folder / "manifest.json"
        if not manifest.exists() or files.read_json(manifest) != made_of:
            texts = stages.text_features(self.config.backbone, names, pretrained=self.config.pretrained)
            with files.atomic(folder, replaces=FEATURE_FILES) as scratch:
                scratch.mkdir()
                np.save(scratch / "features.npy", texts.features)
                files.write_json(scratch / "manifest.json", made_of)
        return FeatureSet(np.load(folder / "features.npy"), np.arange(len(names)))

    def one_pass(self, name: str) -> stages.OnePass:
        """Where a classifier finds and leaves features of augmented images, for those still to be trained on them."""
        config = self.config
        later = [other for other in config.classifiers if other not in (name, *self.classifiers)]
        shared = functools.partial(trains_through_frozen, stage_two=config.stage_two, batch_norm=config.batch_norm)
        recipes = [config.stage_two_recipe(other) for other in later if shared(classifier_entry(other)[0])]
        return stages.OnePass(self.drawn_folder, recipes)

    def features_of(self, backbone: keras.Model, preprocessing: Preprocessing) -> dict[str, FeatureSet]:
        """Features of "train" and "val" by the backbone that stage one is about to put its classifier on."""
        return {split: self._kept(split, backbone, preprocessing) for split in ("train", "val")}

    def _kept(self, split: str, backbone: keras.Model, preprocessing: Preprocessing) -> FeatureSet:
        return extract_features(
            backbone,
            self._examples(split),
            preprocessing,
            dtype=self.config.feature_dtype,
            views=self.config.feature_views if split == "train" else 1,
            seed=self.config.seed,
            folder=self.features_folder / split,
        )

    def _examples(self, split: str) -> Split:
        check_choice(self.data.all_splits, split=split)
        self.check_splits(split)
        return self.data.all_splits[split]

    def extract(self, backbone: keras.Model, examples: Split, **options) -> FeatureSet:
        """Features of any images by a backbone of the run, by default in memory; options as in `extract_features`.

        Those of stage one's backbone have the run's dtype; those of a classifier's own are used once, so are float32.
        """
        dtype = self.config.feature_dtype if backbone is self.representation.backbone else "float32"
        return extract_features(backbone, examples, self.representation.preprocessing, dtype=dtype, **options)

    def evaluate(self, name: str, split: str) -> Scores:
        """Scores a classifier afresh on a split; on "test" also on the images of no class, where there are some."""
        open_set = split == "test" and "open_set" in self.data.all_splits
        return evaluate_classifier(
            self.classifier(name).model,
            self.features(split, name),
            self.data.groups,
            open_features=self.features("open_set", name) if open_set else None,
        )

    @checked
    def scores(self, name: str, split: str = "test") -> Scores:
        """What a classifier says of every example of a split; of test as it was found when it was learned."""
        path = self.predictions_file(name)
        return Scores.load(path) if split == "test" and path.exists() else self.evaluate(name, split)

    @checked
    def outcome(self, name: str) -> dict:
        """What `save_scores` wrote of a classifier.

        Raises:
          ValueError: the run has no finished classifier of that name.
        """
        self.check_finished([name])
        return files.read_json(self.outcome_file(name), needs=OUTCOME)

    def save_scores(self, name: str, scores: Scores, outcome: dict):
        """Makes a classifier a finished one: its scores on test, and its numbers as `scores.json`."""
        scores.save(self.predictions_file(name))
        files.write_json(self.outcome_file(name), {**outcome, "versions": versions()})
        self._classifiers.pop(name, None)  # training goes on: many backbones of their own would fill the device

    def check_finished(self, names: Sequence[str]):
        """Raises ValueError where one of these classifiers is not learned and scored."""
        if missing := [name for name in names if not self.outcome_file(name).exists()]:
            have = f"it has {', '.join(self.classifiers)}" if self.classifiers else "it has none"
            raise ValueError(
                f"{self.folder} holds no finished classifier '{missing[0]}', {have}; "
                f"train it with --classifiers={missing[0]}"
            )

    @property
    def results(self) -> dict:
        """The numbers of a finished run.

        Raises:
          FileNotFoundError: there is no finished run in the folder.
        """
        self._expect(self.results_file, "a finished run")
        return files.read_json(self.results_file, needs=["classifiers", "best"])

    def save_results(self, results: dict):
        """Makes the run a finished one; with "advice" in them, its report is written, too."""
        files.write_json(self.results_file, results)

    @property
    def is_complete(self) -> bool:
        """Whether a finished run has its report and, where this backend writes one, the SavedModel that it exports."""
        if "advice" not in self.results:
            return False
        return keras.backend.backend() != "tensorflow" or self.current_export(self.exported_classifier) is not None

    @property
    def exported_classifier(self) -> str:
        """The classifier that a run exports: the one of its flags, as it is called there, or the best on val."""
        name = self.config.export_classifier or self.results["best"]
        of_01 = {new: old for old, new in renamed_classifiers(self.flag_lines).items()}  # until it is gone on with
        return name if name in self.finished_classifiers else of_01.get(name, name)

    def temperature(self, name: str) -> float:
        """What a classifier's scores are divided by to be log posteriors, by the examples of val."""
        val = self.features("val", name)
        rows = serving.fitted_rows(len(val.labels), len(self.about_data.class_counts))
        logits = np.concatenate(list(logits_in_chunks(self.classifier(name).model, val.features[rows])))
        return serving.fit_temperature(
            logits, val.labels[rows], source_prior(name, self.config, self.data.class_counts)
        )

    @checked
    def export(self, name: str, **options) -> pathlib.Path:
        """Writes the next SavedModel of a classifier; returns its folder.

        Args:
          **options: target_prior, calibrate, on_bad_request and export_onnx, as the flags; by default the run's own.
        Raises:
          ValueError: the run has no finished classifier of that name, an option does not fit, or another process
            exports from the run.
        """
        check_options(options)
        config = dataclasses.replace(self.config, **options)
        target = serving.read_prior(config.target_prior, self.about_data.class_counts)
        self.check_finished([name])
        with files.locked(self.export_folder):  # two at once would have the same number
            return self._export(name, config, target)

    def _export(self, name: str, config: RunConfig, target: np.ndarray | None) -> pathlib.Path:
        """`export` by a config, for this class distribution [C]."""
        data = self.about_data
        backbone, classifier = self.classifier(name).backbone, self.classifier(name).model
        calibrated = target is not None or config.calibrate == "temperature"
        temperature = self.temperature(name) if calibrated else 1.0
        flags = flags_of(config, on_features=not self.representation.preprocessing.image_size)
        flags = {flag: value for flag, value in flags.items() if flag not in OPTIONS and value}
        written = serving.export_saved_model(
            backbone,
            self.next_export(name),
            class_names=data.class_names,
            classifier=classifier,
            target_prior=target,
            source_prior=source_prior(name, config, data.class_counts),
            temperature=temperature,
            on_bad_request=config.on_bad_request,
            model_card=serving.render_model_card(
                name,
                data,
                scores=self.outcome(name),
                preprocessing=self.representation.preprocessing,
                feature_width=backbone.output_shape[-1],
                flags=flags,
                prior=config.target_prior,
                temperature=temperature,
                on_bad_request=config.on_bad_request,
            ),
            onnx=config.export_onnx,
            made_by=self._made_by(name, config),
            **self.representation.preprocessing.evaluation_settings(),
        )
        if not (written / serving.WARMUP).exists():
            print("Without warm-up requests: pip install 'keras_lt[serving]' for them")
        return written

    def _learned(self, name: str) -> dict:
        """What tells a classifier from that of another training."""
        data = self.recorded_data
        return {"classifier": name, "scores": self.outcome(name)["test"], "data": data.digest if data else None}

    def _made_by(self, name: str, config: RunConfig) -> dict:
        """All that an export depends on."""
        return {
            **self._learned(name),
            "flags": {flag: value for flag, value in placed_flags(config).items() if flag not in OPTIONS},
            "target_prior": serving.read_prior(config.target_prior, self.about_data.class_counts),
            "calibrate": config.calibrate,
            "on_bad_request": config.on_bad_request,
            "export_onnx": config.export_onnx,
        }

    def current_export(self, name: str) -> pathlib.Path | None:
        """The newest SavedModel of a classifier, where it is what `export` would write now; or None."""
        latest = self.latest_export(name)
        if latest is None or not (latest / serving.MADE_BY).exists():
            return latest  # none, or one of version 0.1
        return None if _other_than(latest, self._made_by(name, self.config)) else latest

    def other_in_export(self, version: pathlib.Path, name: str) -> list[str]:
        """By which of data and scores a SavedModel in the folder is of another training; none where it does not say."""
        return _other_than(version, self._learned(name)) if (version / serving.MADE_BY).exists() else []


def _other_than(version: pathlib.Path, made_by: dict) -> list[str]:
    """What of it a SavedModel was made otherwise by."""
    found = files.read_json(version / serving.MADE_BY, needs=["versions"])
    return [key for key, value in files.without_nan(made_by).items() if found.get(key) != value]


def flags_of(config: RunConfig, *, on_features: bool) -> dict[str, str]:
    """Every flag as it would be written, but those that say nothing where there are no images."""
    return {flag: value for flag, value in config.as_flags().items() if not (on_features and flag in NO_IMAGES)}


def source_prior(name: str, config: RunConfig, class_counts: np.ndarray) -> np.ndarray | None:
    """The class distribution [C] that the logits of a run's classifier take for granted; None is uniform."""
    name, method = RENAMED_VALUES["method"].get(name, name), config.method_entry
    entry = method if name == config.method else classifier_entry(name)[0]
    if entry.prior == "uniform":
        return None
    if entry.prior == "stage_one" and method.stage_one_prior:
        prior = method.stage_one_prior(np.asarray(class_counts, np.float64), **method.parameters)
        return prior / prior.sum()
    recipe = config.stage_one_recipe if entry.prior == "stage_one" else config.stage_two_recipe(name)
    if name == config.method and entry.prior == "stage_two":  # the flags may be there for another classifier
        others = (field for field in ("sampler", "class_weights", "resampling") if field not in method.takes)
        recipe = dataclasses.replace(recipe, **{field: getattr(STAGE_TWO, field) for field in others})
    return serving.trained_prior(recipe, resampled_counts(class_counts, recipe.resampling))
