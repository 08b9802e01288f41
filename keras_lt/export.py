"""Writes a SavedModel of one classifier of a finished run.

    python -m keras_lt.export --workdir=runs/fashion_lt --export_classifier=lws

Every call writes a new version beside the earlier ones, which a model server picks up by itself.
"""

import pathlib

from keras_lt.command import launch, part, plain_errors, quietly

with quietly():
    from keras_lt import config
    from keras_lt.checkpoints import read_json
    from keras_lt.datasets import LongTailed
    from keras_lt.serving import export_saved_model
    from keras_lt.stages import Representation, join, load_classifier


def latest_version(folder: pathlib.Path, name: str) -> pathlib.Path | None:
    """The newest exported version of a classifier, or None."""
    versions = [path for path in folder.glob(f"export/{name}/*") if path.name.isdecimal()]
    return max(versions, key=lambda path: int(path.name), default=None)


def export_version(folder: pathlib.Path, name: str, data: LongTailed) -> pathlib.Path:
    """Exports a classifier of the run in `folder` as its next version; returns the version's folder."""
    representation = Representation.load(folder / "representation")
    latest = latest_version(folder, name)
    version = 1 + (int(latest.name) if latest else 0)
    recipe = representation.preprocessing.evaluation_settings()
    return export_saved_model(
        join(*load_classifier(folder / "classifiers" / name, representation)),
        folder / "export" / name / str(version),
        class_names=data.class_names,
        **recipe,
    )


def main():
    """Runs the command."""
    with plain_errors():
        run_config = config.from_workdir()
        folder = run_config.folder
        name = run_config.export_classifier or read_json(folder / "results.json")["best"]
        if not (folder / "classifiers" / name / "scores.json").exists():
            raise ValueError(f"{folder} holds no finished classifier '{name}'; train it with --classifiers={name}")
        data = run_config.load_data()
    with part(f"SavedModel of {name}"), plain_errors():
        print(export_version(folder, name, data))


if __name__ == "__main__":
    config.define_flags()
    launch(main)
