"""Pages of the package's public names, from their docstrings; a warning of pdoc ends it.

    python -m tools.api_pages --output_dir=runs/api

`index.html` in the folder is the first page. It needs `pip install 'keras_lt[docs]'`.
"""

import argparse
import os
import pathlib
import warnings

import pdoc

import keras_lt

# Beside the front page and its families: packages whose functions the documentation names.
MODULES = ("keras_lt", "keras_lt.resampling", "keras_lt.serving", "keras_lt.stages", "keras_lt.registry")


def write_pages(output_dir: str | os.PathLike):
    """Writes a page per module.

    Raises:
      UserWarning: pdoc does not find a name, or a docstring's reference.
    """
    for name in keras_lt.__all__:  # pdoc sees what stands in the module, and these are loaded when first used
        setattr(keras_lt, name, getattr(keras_lt, name))
    pdoc.render.configure(docformat="google")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", module="pdoc")
        pdoc.pdoc(*MODULES, output_directory=pathlib.Path(output_dir))


def main():
    """Writes the pages to the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output_dir", default="runs/api", help="Folder to write the pages to.")
    arguments = parser.parse_args()
    write_pages(arguments.output_dir)
    print(f"{arguments.output_dir}/index.html")


if __name__ == "__main__":
    main()
