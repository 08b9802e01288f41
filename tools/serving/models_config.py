"""Lists a run's exported classifiers for TensorFlow Serving, in `export/models.config`.

    python -m tools.serving.models_config --workdir=runs/fashion_lt

It names what there is and no more: where one model's folder is missing, the server loads none. A running server reads
the list again every minute, and finds new versions of what is listed by itself. Needs nothing but Python.
"""

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence

NAME = "models.config"
MOUNTED_AT = "/models"  # the export folder, in docker-compose.yml


def exported_classifiers(export: pathlib.Path) -> list[str]:
    """Those with at least one version in an export folder."""
    return sorted(
        {path.parent.parent.name for path in export.glob("*/*/saved_model.pb") if path.parent.name.isdecimal()}
    )


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
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="folder of the run")
    export = parser.parse_args(command_line).workdir / "export"
    names = exported_classifiers(export)
    if not names:
        sys.exit(f"Error: {export} holds no SavedModel; python -m keras_lt.export --workdir={export.parent} writes one")
    scratch = export / f".{NAME}"
    scratch.write_text(models_config(names), "utf-8")
    os.replace(scratch, export / NAME)  # a server that reads meanwhile sees the old list or the new one
    print(f"{export / NAME}: {', '.join(names)}")


if __name__ == "__main__":
    main()
