"""What an installed wheel has, built without the network."""

import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]
READ = """
from keras_lt.command import with_flag_files
print(*with_flag_files(["--flagfile=flags/cifar100_lt_focal.cfg"]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    for name in ("keras_lt", "flags"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    offline = ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "wheel", *offline, f"--wheel-dir={folder}", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_has_commands_flag_files_and_data(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = (archive.read(name).decode() for name in names if name.endswith("entry_points.txt"))
    assert {f"keras_lt/flags/{path.name}" for path in ROOT.glob("flags/*.cfg")} <= names
    assert {path.relative_to(ROOT).as_posix() for path in ROOT.glob("keras_lt/**/*.py")} <= names
    assert {"keras_lt/data/fashion_lt.npz", "keras_lt/templates/report.html"} <= names
    assert "keras-lt = keras_lt.__main__:main" in entry_points


def test_extras_are_named_as_the_wheel_names_them(wheel):
    """Before its version 23.3 pip finds no others; the wheel has a hyphen where their names have an underscore."""
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA"))
    extras = set(re.findall(r"^Provides-Extra: (.+)$", metadata, re.M))
    texts = [path for kind in ("README.md", "docs/*.md", "flags/*.cfg", "keras_lt/**/*.py") for path in ROOT.glob(kind)]
    named = re.findall(r"keras_lt\[([\w,-]+)\]", "\n".join(path.read_text("utf-8") for path in texts))
    assert len(named) > 10
    assert {extra for several in named for extra in several.split(",")} <= extras


def test_flag_files_of_an_installed_package_are_found_from_an_empty_folder(wheel, tmp_path):
    installed, empty = tmp_path / "installed", tmp_path / "empty"
    empty.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    alone = {"PYTHONPATH": str(installed), "PATH": ""}
    said = subprocess.run(
        [sys.executable, "-c", READ], cwd=empty, env=alone, check=True, capture_output=True, text=True
    )
    assert {"--dataset=cifar100_lt", "--loss=focal:gamma=1", "--backbone=resnet32"} <= set(said.stdout.split())
