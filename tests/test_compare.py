import math
import pathlib

import numpy as np
import PIL.Image
import pytest

from keras_lt.compare import FinishedRun, group_seeds, label, main, table_of
from keras_lt.comparison.dots import draw_dots
from keras_lt.config import RunConfig
from keras_lt.files import read_json, write_json
from tests.conftest import killed_in_write

GROUPS = ("many", "medium", "few", "all")


@pytest.fixture
def folder_of(tmp_path):
    """Makes the folder of a finished run: its name, accuracies of its classifiers, and flags."""

    def make(name, classifiers, **changes):
        run = RunConfig(workdir=str(tmp_path / name), **changes)
        run.save(run.folder / "flags.cfg")
        tests = {key: {"test": dict(zip(GROUPS, row, strict=True))} for key, row in classifiers.items()}
        write_json(run.folder / "results.json", {"dataset": "toy", "classifiers": tests, "best": min(tests)})
        return str(run.folder)

    return make


@pytest.fixture
def folders(folder_of):
    """Joint of two seeds by one sampler; Joint and cRT of one seed by another; no medium-shot class."""
    return [
        folder_of("a", {"joint": (0.90, None, 0.10, 0.50)}),
        folder_of("b", {"joint": (0.94, None, 0.14, 0.54)}, seed=1),
        folder_of("c", {"joint": (0.80, None, 0.30, 0.55), "crt": (0.70, None, 0.40, 0.55)}, sampler="square_root"),
    ]


def grouped(folders):
    return group_seeds([FinishedRun.read(folder) for folder in folders])


def test_the_table_by_hand(folders):
    table = table_of(grouped(folders))
    assert list(table.header) == ["sampler", "Classifier", "many", "medium", "few", "all"]
    assert table.names == 2
    # 90 and 94: mean 92, deviation sqrt(8) = 2.83; the same spread in each group
    assert [[cell[0] for cell in row] for row in table.rows] == [
        ["instance_balanced", "Joint", "92.0 ± 2.8", "—", "12.0 ± 2.8", "52.0 ± 2.8"],
        ["square_root", "Joint", "80.0", "—", "30.0", "55.0"],
        ["square_root", "cRT", "70.0", "—", "40.0", "55.0"],
    ]
    assert [[cell[1] for cell in row[2:]] for row in table.rows] == [
        [True, False, False, False],
        [False, False, False, True],
        [False, False, True, True],
    ]


def test_runs_are_told_apart_by_the_flags_that_decide_their_numbers(folder_of):
    row = {"joint": (0.5, 0.5, 0.5, 0.5)}
    runs = [folder_of("a", row), folder_of("b", row, epochs=30, loss="focal", data_dir="elsewhere")]
    assert [label(flags) for flags in grouped(runs)] == ["epochs=90, loss=cross_entropy", "epochs=30, loss=focal"]
    assert [label(flags) for flags in grouped([runs[0], folder_of("c", row, seed=1)])] == ["run"]
    added = grouped([runs[0], folder_of("d", row, feature_loss="range")])
    assert [label(flags) for flags in added] == ["none", "range"]


def test_a_run_on_features_has_no_backbone_to_differ_by(folder_of):
    row = {"joint": (0.5, 0.5, 0.5, 0.5)}
    folders = [folder_of("a", row, dataset="features"), folder_of("b", row, backbone="resnet32")]
    path = pathlib.Path(folders[0], "results.json")
    write_json(path, read_json(path) | {"backbone": ""})
    for order in (folders, folders[::-1]):
        table = table_of(grouped(order))
        column = list(table.header).index("backbone")
        assert {row[column].text for row in table.rows} == {"none", "resnet32"}


def test_the_same_run_twice_and_an_unfinished_one_are_refused(folders, folder_of, tmp_path):
    twice = folder_of("again", {"joint": (0.5, 0.5, 0.5, 0.5)})
    with pytest.raises(ValueError, match=r"Expected runs that differ\. Received: \S+/a, \S+/again"):
        grouped([*folders, twice])
    with pytest.raises(FileNotFoundError, match=r"a finished run, as .*Not found: \S+nothing/results\.json"):
        FinishedRun.read(str(tmp_path / "nothing"))


def test_a_dot_per_run_classifier_and_group():
    nan = [math.nan]
    joint = {"many": [0.9, 0.94], "medium": nan, "few": [0.1, 0.14], "all": [0.5, 0.54]}
    crt = {"many": [0.7], "medium": nan, "few": [0.4], "all": [0.55]}
    figure = draw_dots({"instance": {"joint": joint}, "square": {"joint": crt, "crt": crt}})
    assert [ax.get_title() for ax in figure.axes] == ["many", "few", "all"]  # no medium-shot class
    many = figure.axes[0]
    assert [tick.get_text() for tick in many.get_yticklabels()] == ["Joint", "cRT"]
    (first, _, (bar,)), (second, _, _) = (container.lines for container in many.containers)
    np.testing.assert_allclose(first.get_xdata(), [92])
    np.testing.assert_allclose(bar.get_segments()[0][:, 0], [92 - math.sqrt(8), 92 + math.sqrt(8)])
    np.testing.assert_allclose(second.get_xdata(), [70, 70])
    assert first.get_ydata()[0] < 0 < second.get_ydata()[0] < 0.5  # below each other, around Joint's place
    assert len({first.get_marker(), second.get_marker()}) == 2
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["instance", "square"]


def test_the_command_writes_the_table_and_the_figure(folders, tmp_path, capsys):
    main([*folders, f"--output_dir={tmp_path}/out"])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"compare.md", "compare.png", "compare.svg"}
    text = (tmp_path / "out/compare.md").read_text(encoding="utf-8")
    assert "| square_root | cRT | 70.0 | — | **40.0** | **55.0** |" in text
    assert all(folder in text for folder in folders)
    with PIL.Image.open(tmp_path / "out/compare.png") as image:
        assert image.size[0] > 1000
    assert "instance_balanced" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="Not found"):
        main([str(tmp_path / "nothing")])


def test_the_figure_is_no_image_of_the_data(folder_of, tmp_path):
    (tmp_path / "photos/train/ant").mkdir(parents=True)
    (tmp_path / "photos/test").mkdir()
    run = folder_of("run", {"joint": (0.9, None, 0.1, 0.5)}, dataset="folder", data_dir=str(tmp_path / "photos"))
    with pytest.raises(SystemExit, match="must lie outside of the images that are read"):
        main([run, f"--output_dir={tmp_path}/photos/train/ant"])


@pytest.mark.parametrize("write", range(3))
def test_a_comparison_killed_in_any_write_is_done_again_to_the_same_bytes(folders, tmp_path, monkeypatch, write):
    with monkeypatch.context() as patch:
        killed_in_write(patch, write)
        with pytest.raises(KeyboardInterrupt):
            main([*folders, f"--output_dir={tmp_path}/out"])
    main([*folders, f"--output_dir={tmp_path}/out"])
    main([*folders, f"--output_dir={tmp_path}/whole"])
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
