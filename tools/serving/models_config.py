"""Lists a run's exported classifiers for TensorFlow Serving, in `export/models.config`.

    python -m tools.serving.models_config --workdir=runs/fashion_lt

It names what there is and no more: where one model's folder is missing, the server loads none. A running server reads
the list again every minute, and finds new versions of what is listed by itself.
"""

import argparse
import sys
from collections.abc import Sequence

from keras_lt.files import atomic
from keras_lt.work_folder import WorkFolder

NAME = "models.config"
MOUNTED_AT = "/models"  # the export folder, in docker-compose.yml


def models_config(names: Sequence[str]) -> str:
    """A ModelServerConfig in protobuf's text format; of each model the server takes the newest version."""
    models = [
        f'  config {{ name: "{name}" base_path: "{MOUNTED_AT}/{name}" model_platform: "tensorflow" }}\n'
        for name in names
    ]
    return f"model_config_list {{\n{''.join(models)}}}\n"


def main(command_line: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", required=True, help="folder of the run")
    run = WorkFolder(parser.parse_args(command_line).workdir)
    names = [run.versions_folder(name).name for name in run.exported]
    if not names:
        sys.exit(f"Error: {run.folder} holds no SavedModel; python -m keras_lt.export --workdir={run.folder} makes one")
    path = run.export_folder / NAME
    with atomic(path) as scratch:  # a server that reads meanwhile sees the old list or the new one
        scratch.write_text(models_config(names), "utf-8")
    print(f"{path}: {', '.join(names)}")


if __name__ == "__main__":
    main()
