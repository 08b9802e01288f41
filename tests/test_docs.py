"""The README and docs/ point at what there is, and their examples run."""

import dataclasses
import pathlib
import re

import keras
import numpy as np
import PIL.Image
import pytest

import keras_lt
from keras_lt import classifiers, datasets, losses, samplers
from keras_lt.config import RunConfig
from keras_lt.registry import names_in
from tests.miniatures import write_jpeg
from tests.test_imports import ROW_OF

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
# Of other programs that commands in the pages start, and of ours that read their arguments themselves.
FOREIGN_FLAGS = {"detach", "wait", "logdir", "flagfile", "help", "dist"}
OWN_FLAGS = r'(?:add_argument\(\s*|DEFINE_\w+\(\s*)"(?:--)?(\w+)"|^        "(\w+)": "'
FAMILIES = [
    ("samplers.py", "SAMPLERS"),
    ("losses/__init__.py", "LOSSES"),
    ("losses/on_features.py", "FEATURE_LOSSES"),
    ("losses/class_weights.py", "CLASS_WEIGHTS"),
    ("classifiers/__init__.py", "CLASSIFIERS"),
    ("methods/__init__.py", "METHODS"),
    ("backbones/__init__.py", "BACKBONES"),
    ("backbones/efficientnet_lite.py", "EFFICIENTNET_LITE"),
    ("resampling/lists.py", "RESAMPLING"),
]


def anchors(text):
    """Those that GitHub makes of headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def examples(page):
    return re.findall(r"^```python\n(.*?)^```", TEXTS[page], re.DOTALL | re.M)


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page):
    prose = re.sub(r"```.*?```|`[^`]*`", "", TEXTS[page], flags=re.DOTALL)  # code may index what it calls
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        found = (ROOT / page).parent / path if path else ROOT / page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found.read_text(encoding="utf-8")), target


def test_every_promise_has_its_test():
    """A file, a test of it by its name, or words that the names of tests have; none of them `exhaustive`."""
    rows = [line for line in TEXTS["docs/promises.md"].splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 50
    for row in rows:
        named = re.findall(r"`(test_\w+\.py)(?:::(\w+))?`((?:, \"[^\"]+\"| and \"[^\"]+\")*)", row)
        assert named or row.endswith("| the same |"), row
        for file, test, words in named:
            source = (ROOT / "tests" / file).read_text(encoding="utf-8")
            shown = re.sub(r"^@pytest\.mark\.exhaustive\n(?:[@ \])].*\n)*def \w+", "", source, flags=re.M)
            assert f"def {test}" in shown, (file, test)
            for word in re.findall(r'"([^"]+)"', words):
                assert re.search(rf"def test_\w*{word.replace(' ', '_')}", shown), (file, word)


def test_every_page_is_linked_from_the_readme():
    for page in TEXTS:
        assert page == "README.md" or f"]({page})" in TEXTS["README.md"]


@pytest.mark.parametrize("page", TEXTS)
def test_flags_exist(page):
    sources = "\n".join(
        path.read_text("utf-8") for folder in ("keras_lt", "tools") for path in (ROOT / folder).rglob("*.py")
    )
    own = {name for pair in re.findall(OWN_FLAGS, sources, re.M) for name in pair}
    known = {field.name for field in dataclasses.fields(RunConfig)} | own | FOREIGN_FLAGS
    assert set(re.findall(r"(?<![\w-])--([a-z]\w*)", TEXTS[page])) <= known


@pytest.mark.parametrize("page", TEXTS)
def test_flag_files_exist(page):
    for name in re.findall(r"flags/(\w+)\.cfg", TEXTS[page]):
        assert (ROOT / "flags" / f"{name}.cfg").exists(), name


def test_flag_files_of_the_table_exist():
    systems = re.findall(r"^\|[^|]+\|([^|]+)\|", TEXTS["docs/systems.md"].split("## Samplers")[0], re.M)
    for system in re.findall(r"`(\w+)`", "".join(systems)):
        assert list((ROOT / "flags").glob(f"*_{system}.cfg")), system


@pytest.mark.parametrize(("path", "family"), FAMILIES)
def test_every_member_is_described(path, family):
    for name in names_in(path, family):
        assert f"`{name}" in TEXTS["docs/systems.md"] or f"{name}|" in TEXTS["docs/systems.md"], name


def test_the_table_of_modules_is_that_of_the_imports():
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", TEXTS["docs/design.md"], re.M)
    written = {name: int(row) for row, names in rows for name in re.findall(r"`(\w+)`", names)}
    assert written == {module: row for module, row in ROW_OF.items() if module != "__main__"}


def test_the_readme_stays_short():
    assert TEXTS["README.md"].count("\n") < 185
    assert len(re.findall(r"^pip install -e ", TEXTS["README.md"], re.M)) == 2


def test_the_version_is_the_same_everywhere():
    assert f"version: {keras_lt.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## {keras_lt.__version__}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_examples_on_embeddings_run():
    """The README's, and the one that goes on with its features."""
    (example,) = (block for block in examples("README.md") if "embeddings" in block)
    names = {}
    exec(example, names)
    assert names["crt"].val["all"] > 0.5
    (more,) = (block for block in examples("docs/data.md") if "head=joint.model" in block)
    exec(more, names)
    assert names["lws"].val["all"] > 0.5
    np.testing.assert_array_equal(names["lws"].model.layers[-1].kernel, names["joint"].model.layers[-1].kernel)


def test_the_example_on_groups_runs(capsys):
    (example,) = (block for block in examples("docs/data.md") if "ShotGroups" in block)
    exec(example)
    assert "{'many': 1, 'medium': 1, 'few': 1}" in capsys.readouterr().out


def test_the_example_on_a_keras_model_runs(tmp_path, monkeypatch):
    """Stage two trains the scales alone, and what is saved is what was trained."""
    (example,) = (block for block in examples("docs/systems.md") if "ShotAccuracy" in block)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(example, names)
    np.testing.assert_array_equal(names["lws"].kernel, names["dense"].kernel)
    assert np.ptp(names["lws"].scales) > 0
    loaded = keras.models.load_model("lws.keras")
    np.testing.assert_array_equal(loaded(names["x"]), names["balanced"](names["x"]))


def test_the_example_on_a_saved_model_runs(tmp_path, monkeypatch, capsys):
    """Of images of which the first class is the dark one, as the logits have it."""
    (example,) = (block for block in examples("docs/serving.md") if "saved_model" in block)
    net = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
    net.set_weights([np.tile([[-1.0, 1.0]], (3, 1)), np.zeros(2)])
    folder = tmp_path / "runs/fashion_lt/export/crt/1"
    half = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    keras_lt.export_saved_model(net, folder, class_names=["dark", "light"], image_size=8, **half)
    PIL.Image.new("RGB", (12, 10), (250, 240, 230)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    assert capsys.readouterr().out.endswith("light\n")


@pytest.mark.exhaustive
def test_the_example_on_photographs_runs(capsys, tmp_path, monkeypatch):
    """As it is but for the size of the images, whose brightness says their class."""
    (example,) = (block for block in examples("docs/data.md") if '"folder", "photos"' in block)
    for label, count in enumerate((70, 14, 7)):
        for i in range(count):
            write_jpeg(tmp_path / f"photos/kind {label}/{i}.jpg", label, seed=100 * label + i)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(example.replace("224", "64"), names)
    assert "all" in capsys.readouterr().out
    assert names["model"].output_shape == (None, 3)
    predicted = names["model"].predict(names["representation"].preprocessing.evaluate(names["data"].test.read(0))[None])
    assert predicted.argmax() == names["data"].test.labels[0]


@pytest.mark.exhaustive
def test_the_example_on_the_estimator_runs(capsys):
    (example,) = (block for block in examples("docs/data.md") if "LongTailClassifier" in block)
    names = {}
    exec(example, names)
    assert names["search"].best_score_ > 0.7
    assert "'method'" in capsys.readouterr().out


@pytest.fixture
def families():
    """The dicts that the design page adds to, as they were when the test is over."""
    changed = (losses.LOSSES, samplers.SAMPLERS, classifiers.CLASSIFIERS, datasets.DATASETS)
    before = [dict(family) for family in changed]
    yield changed
    for family, members in zip(changed, before, strict=True):
        family.clear()
        family.update(members)


@pytest.mark.usefixtures("families")
def test_what_the_design_page_adds_is_a_member():
    for example in examples("docs/design.md"):
        exec(example, {})
    recipe = keras_lt.Recipe(epochs=1, batch_size=16, loss="poly1:epsilon=2", sampler="from_balanced:q=1")
    loss = recipe.loss_entry(np.array([4, 2, 1]))(np.array([0]), np.zeros((1, 3), "float32"))
    np.testing.assert_allclose(loss, np.log(3) + 2 * (1 - 1 / 3), rtol=1e-6)
    np.testing.assert_allclose(recipe.sampler_entry([30, 10], 1.0), [0.75, 0.25])
    assert keras_lt.load("noise:classes=4").class_counts.tolist() == [40, 20, 10, 5]
    rng, labels = np.random.default_rng(0), np.repeat(range(4), [40, 20, 10, 5])
    features = {split: keras_lt.FeatureSet(rng.normal(size=(75, 4)), labels) for split in ("train", "val")}
    learned = keras_lt.learn_classifier("balanced_head:epochs=1:batch_size=25", features=features)
    assert isinstance(learned.model, keras.Model)


@pytest.mark.exhaustive
def test_the_api_pages_have_every_public_name(tmp_path):
    """The names that are loaded when first used among them, without a warning."""
    pytest.importorskip("pdoc")
    from tools.api_pages import write_pages  # noqa: PLC0415 - imports pdoc

    write_pages(tmp_path)
    text = (tmp_path / "keras_lt.html").read_text(encoding="utf-8")
    for name in keras_lt.__all__:
        assert f'id="{name}"' in text or f"keras_lt/{name}.html" in text, name
    assert 'id="sample_indices"' in (tmp_path / "keras_lt/resampling.html").read_text(encoding="utf-8")
