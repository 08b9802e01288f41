"""The Colab notebook, from its first cell to its last."""

import importlib.metadata
import json
import pathlib
import re
import zipfile

import nbclient
import nbformat
import pytest

ROOT = pathlib.Path(__file__).parent.parent
NOTEBOOK, README = ROOT / "tools/keras_lt_colab.ipynb", ROOT / "README.md"
RESULTS = """
import json
print(json.dumps([{name: one.accuracies for name, one in each.items()} for each in (scores, own_scores)]))
"""


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def run(notebook, folder, settings=""):
    """Runs the notebook in a folder, with other settings after its own; the accuracies on both of its data sets."""
    position = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ()))
    notebook.cells.insert(position + 1, nbformat.v4.new_code_cell(settings))
    notebook.cells.append(nbformat.v4.new_code_cell(RESULTS))
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": folder}}).execute()
    return json.loads(notebook.cells[-1].outputs[0].text)


def shown(notebook):
    """What every cell shows, as (mime type or stream's name)."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return [kind for output in outputs for kind in output.get("data", [output.get("name")])]


def test_it_is_kept_without_outputs_and_with_what_colab_reads(notebook):
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert notebook.metadata["accelerator"] == "GPU"
    assert notebook.metadata["kernelspec"]["name"] == "python3"
    assert "# @param" in "".join(cell.source for cell in code)


@pytest.mark.exhaustive
@pytest.mark.versions
def test_it_runs_and_balancing_brings_the_tail_back(notebook, tmp_path):
    scores, own_scores = run(notebook, tmp_path, "EPOCHS, CLASSIFIER_EPOCHS, IMAGE_SIZE = 3, 2, 64")
    assert scores["crt"]["few"] > scores["joint"]["few"] + 0.3
    assert scores["crt"]["class_mean"] > scores["joint"]["class_mean"]
    assert scores.keys() == own_scores.keys()
    assert shown(notebook).count("image/png") == 6
    assert shown(notebook).count("text/html") == 2  # the tables
    assert "stderr" not in shown(notebook)
    assert (tmp_path / "export/crt/1/saved_model.pb").exists()


@pytest.mark.slow
def test_it_runs_in_full(notebook, tmp_path):
    scores, own_scores = run(notebook, tmp_path)
    for name in ("ncm", "crt", "tau_norm", "lws"):
        assert scores[name]["few"] > scores["joint"]["few"] + 0.1
        assert scores[name]["class_mean"] > scores["joint"]["class_mean"]
    assert own_scores["crt"]["few"] > own_scores["joint"]["few"]


def test_it_installs_from_the_repository_that_the_badge_opens_it_from():
    badge = re.search(r"colab\.research\.google\.com/github/([\w-]+/[\w-]+)/blob", README.read_text()).group(1)
    source = re.search(r'SOURCE = \\"(.*?)\\"', NOTEBOOK.read_text()).group(1)
    assert source == f"git+https://github.com/{badge}"


def wheel(folder, name, version, needs):
    """A package of no content for pip to choose."""
    path, info = folder / f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
    requires = "".join(f"Requires-Dist: {need}\n" for need in needs)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.mark.versions
def test_its_installation_adds_the_package_and_replaces_nothing_of_colabs(notebook, tmp_path, monkeypatch):
    """What pip would do by the notebook's own line: with what the package needs, and were it to need a later Keras."""
    report = tmp_path / "report.json"
    for name, value in {"DRY_RUN": 1, "REPORT": report, "NO_INDEX": 1, "FIND_LINKS": tmp_path}.items():
        monkeypatch.setenv(f"PIP_{name}", str(value))
    needs = importlib.metadata.requires("keras_lt")
    wheel(tmp_path, "keras", "99.0", needs=[])
    sources = wheel(tmp_path, "keras_lt", "98.0", needs), wheel(tmp_path, "keras_lt", "98.1", [*needs, "keras>=99"])
    (install,) = (cell.source for cell in notebook.cells if "%pip" in cell.source)
    cells = [re.sub('^SOURCE = ".*?"', f'SOURCE = "{source}"', install, flags=re.M) for source in sources]
    absent = "import importlib.util\nimportlib.util.find_spec = lambda name: None"
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in (absent, *cells)]
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": tmp_path}}).execute()
    kept = {f"{name}=={importlib.metadata.version(name)}" for name in ("tensorflow", "keras", "numpy")}
    assert set((tmp_path / "kept.txt").read_text().splitlines()) == kept
    added = [each["metadata"] for each in json.loads(report.read_text())["install"]]
    assert [(each["name"], each["version"]) for each in added] == [("keras_lt", "98.0")]  # pip reports no refusal
