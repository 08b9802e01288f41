"""The order of the modules, and what importing them costs."""

import ast
import pathlib
import subprocess
import sys

import pytest

import keras_lt

PACKAGE = pathlib.Path(keras_lt.__file__).parent
# A module imports only from rows above its own; a package may import within itself.
ROWS = [
    {"arguments"},
    {"registry", "files", "extras", "compat", "keras_settings", "saving"},
    {"counts", "labels"},
    {
        *("samplers", "backbones", "classifiers", "losses", "metrics", "significance"),
        *("preprocessing", "command", "work_folder", "forward"),
    },
    {"resampling"},
    {"recipe", "datasets", "checkpoints", "distribution"},
    {"optimization"},
    {"inspection", "logs"},
    {"input_pipeline"},
    {"features"},
    {"stages"},
    {"methods"},
    {"estimators", "evaluation"},
    {"report", "serving"},
    {"config"},
    {"data_of_run"},
    {"run"},
    {"preparing", "comparison"},
    {
        "train",
        "evaluate",
        "export",
        "predict",
        "prepare",
        "describe",
        "repeat",
        "compare",
        "import_checkpoint",
        "__main__",
    },
]
ROW_OF = {module: row for row, modules in enumerate(ROWS) for module in modules}
TENSORFLOW_FREE = (
    "backbones",
    "classifiers",
    "counts",
    "labels",
    "losses",
    "metrics",
    "recipe",
    "samplers",
    "significance",
    "optimization",
    "report",
)


def modules():
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def top(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path):
    """Names of the modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_module_has_a_row():
    assert {top(path) for path in modules()} == set(ROW_OF)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    own = top(path)
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "keras_lt" and parts[1] not in (own, "__version__"):
            assert ROW_OF[parts[1]] < ROW_OF[own], f"{own} imports {parts[1]}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_flags_are_known_to_config_alone(path):
    assert "absl.flags" not in set(imported(path)) or top(path) == "config"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_runs_on_other_backends_does_not_import_tensorflow(path):
    """Layers, losses, metrics and backbones; fast layers ask which backend they are on before they do."""
    if top(path) in TENSORFLOW_FREE and path.stem != "fast_layers":
        assert "tensorflow" not in {name.split(".")[0] for name in imported(path)}


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def test_importing_the_package_loads_nothing_heavy():
    heavy = {"tensorflow", "keras", "numpy", "matplotlib", "sklearn"}
    code = f"import sys, keras_lt; print(*{heavy} & set(sys.modules))"
    assert run(code).stdout.split() == []


def test_public_names_are_listed_and_found():
    import keras_lt.datasets  # noqa: PLC0415 - the test is about this

    assert keras_lt.LongTailed is keras_lt.datasets.LongTailed
    assert {"LongTailed", "balance", "learn_representation", "learn_classifier"} <= set(dir(keras_lt))
    with pytest.raises(AttributeError, match="no attribute 'learn_nothing'"):
        _ = keras_lt.learn_nothing


def test_no_module_of_a_package_is_hidden_by_a_name_in_it():
    """`from keras_lt.datasets import lists` must not be a function in one place and a module in another."""
    for init in PACKAGE.rglob("__init__.py"):
        modules = {path.stem for path in init.parent.iterdir()} - {"__init__"}
        imported = [node for node in ast.walk(ast.parse(init.read_text())) if isinstance(node, ast.ImportFrom)]
        package = ".".join(init.parent.relative_to(PACKAGE.parent).parts)
        names = {name.asname or name.name for node in imported if node.module != package for name in node.names}
        assert not modules & names, init
