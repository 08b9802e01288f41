"""Writes a SavedModel of one classifier of a finished run.

    python -m keras_lt.export --workdir=runs/fashion_lt --export_classifier=lws

Every call writes a new version beside the earlier ones, which a model server picks up by itself.
"""

import dataclasses
import pathlib

from keras_lt.command import launch, part, plain_errors, quietly

with quietly():
    import numpy as np

    from keras_lt import config
    from keras_lt.config import RunConfig
    from keras_lt.datasets import LongTailed
    from keras_lt.files import read_json
    from keras_lt.resampling import resampled_counts
    from keras_lt.serving import WARMUP, export_saved_model, read_prior, render_model_card, trained_prior
    from keras_lt.stages import Representation, load_classifier


def latest_version(folder: pathlib.Path, name: str) -> pathlib.Path | None:
    """The newest exported version of a classifier, or None."""
    versions = [path for path in folder.glob(f"export/{name}/*") if path.name.isdecimal()]
    return max(versions, key=lambda path: int(path.name), default=None)


def export_version(
    folder: pathlib.Path,
    name: str,
    data: LongTailed,
    *,
    target_prior: str = "",
    on_bad_request: str = "error",
    onnx: bool = False,
) -> pathlib.Path:
    """Exports a classifier of the run in `folder` as its next version; returns the version's folder.

    Args:
      target_prior: as `serving.read_prior` takes it.
      on_bad_request, onnx: as in `serving.export_saved_model`.
    """
    target = read_prior(target_prior, data.class_counts)
    run_config = config.read_flag_file(folder / "flags.cfg")
    representation = Representation.load(folder / "representation")
    backbone, classifier = load_classifier(folder / "classifiers" / name, representation)
    latest = latest_version(folder, name)
    version = 1 + (int(latest.name) if latest else 0)
    card = render_model_card(
        name,
        data,
        scores=read_json(folder / "classifiers" / name / "scores.json"),
        preprocessing=representation.preprocessing,
        feature_width=backbone.output_shape[-1],
        flags=_recipe_flags(run_config),
        prior=target_prior,
        on_bad_request=on_bad_request,
    )
    written = export_saved_model(
        backbone,
        folder / "export" / name / str(version),
        class_names=data.class_names,
        classifier=classifier,
        target_prior=target,
        source_prior=source_prior(name, run_config, data, trained=bool(classifier.trainable_weights)),
        on_bad_request=on_bad_request,
        model_card=card,
        onnx=onnx,
        **representation.preprocessing.evaluation_settings(),
    )
    if not (written / WARMUP).exists():
        print("Without warm-up requests: pip install 'keras_lt[serving]' for them")
    return written


def source_prior(name: str, run_config: RunConfig, data: LongTailed, *, trained: bool) -> np.ndarray | None:
    """The class distribution [C] that a classifier takes for granted; None is uniform.

    Stage one's own has that of stage one's training, another that is `trained` that of stage two's. Those that are not
    trained, such as NCM, are made to treat classes alike.
    """
    if name == "joint":
        recipe = run_config.stage_one_recipe
    elif trained:
        recipe = run_config.stage_two_recipe(name)
    else:
        return None
    return trained_prior(recipe, resampled_counts(data.class_counts, recipe.resampling))


def finished_classifiers(folder: pathlib.Path) -> list[str]:
    """The classifiers of a run that are learned and scored."""
    return sorted(path.parent.name for path in folder.glob("classifiers/*/scores.json"))


def choose(folder: pathlib.Path, name: str) -> str:
    """The classifier to export: `name`, or the best on val where that is empty.

    Raises:
      ValueError: it is not there, or nothing says which is best.
    """
    finished = finished_classifiers(folder)
    results = folder / "results.json"
    if not name and results.exists():
        return read_json(results)["best"]
    if name in finished:
        return name
    have = f"it has {', '.join(finished)}" if finished else "it has none"
    if name:
        raise ValueError(f"{folder} holds no finished classifier '{name}', {have}; train it with --classifiers={name}")
    raise ValueError(
        f"{folder} holds no finished run: give its training command again, or name a finished classifier by "
        f"--export_classifier; {have}"
    )


def _recipe_flags(run_config: RunConfig) -> dict[str, str]:
    """The flags that decide a run's numbers, as they are written, without empty ones."""
    flags = run_config.as_flags()
    names = [field.name for field in dataclasses.fields(run_config) if field.metadata["of_the_run"]]
    return {name: flags[name] for name in names if flags[name]}


def main():
    """Runs the command."""
    with plain_errors():
        run_config = config.from_workdir()
        folder = run_config.folder
        name = choose(folder, run_config.export_classifier)
        data = run_config.load_data()
    with part(f"SavedModel of {name}"), plain_errors():
        written = export_version(
            folder,
            name,
            data,
            target_prior=run_config.target_prior,
            on_bad_request=run_config.on_bad_request,
            onnx=run_config.export_onnx,
        )
        print(written)


if __name__ == "__main__":
    config.define_flags()
    launch(main, config.help_text)
