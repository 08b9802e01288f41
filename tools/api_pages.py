"""Pages of the package's public names, from their docstrings; a warning ends it.

    python -m tools.api_pages --output_dir=runs/api

`index.html` in the folder is the first page.
"""

import argparse
import pathlib
import warnings

from keras_lt.command import quietly

with quietly():
    import pdoc

    import keras_lt

# Beside the front page and its families: packages whose functions the documentation names.
MODULES = ("keras_lt", "keras_lt.resampling", "keras_lt.serving", "keras_lt.stages", "keras_lt.registry")


def main():
    """Writes the pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output_dir", default="runs/api", type=pathlib.Path, help="Folder to write the pages to.")
    output_dir = parser.parse_args().output_dir
    for name in keras_lt.__all__:  # pdoc sees what stands in the module, and these are loaded when first used
        setattr(keras_lt, name, getattr(keras_lt, name))
    pdoc.render.configure(docformat="google")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pdoc.pdoc(*MODULES, output_directory=output_dir)
    print(f"{output_dir}/index.html")


if __name__ == "__main__":
    main()
