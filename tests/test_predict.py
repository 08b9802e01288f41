"""`python -m keras_lt.predict`: of a model whose answers are known by hand."""

import csv
import math
import os
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lt import predict
from keras_lt.datasets import ImageFiles
from keras_lt.serving import export_saved_model

GREYS = {"a.png": 255, "below/b.png": 51, "below/c.jpg": 0}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Logits 0, 2 g and -2 g of an image's mean grey g in [0, 1]."""
    inputs = keras.Input((8, 8, 3))
    dense = keras.layers.Dense(3, use_bias=False)
    network = keras.Model(inputs, dense(keras.layers.GlobalAveragePooling2D()(inputs)))
    dense.set_weights([np.array([[0, 2, -2]] * 3, np.float32) / 3])
    path = tmp_path_factory.mktemp("exported") / "1"
    return export_saved_model(
        network, path, class_names=["none", "light", "dark"], image_size=8, mean=(0,) * 3, std=(1,) * 3
    )


@pytest.fixture
def photos(tmp_path):
    for name, grey in GREYS.items():
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = np.full((12, 8, 3), grey, np.uint8)
        path.write_bytes((tf.io.encode_png if name.endswith("png") else tf.io.encode_jpeg)(image).numpy())
    (tmp_path / "photos/below/d.png").write_bytes(b"<html>")
    (tmp_path / "photos/notes.txt").write_text("no image")
    return tmp_path / "photos"


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_image_has_its_classes_the_surest_first_or_a_problem(model, photos, tmp_path, capsys):
    output = tmp_path / "out/p.csv"
    predict.main([f"--model={model}", f"--images={photos}", f"--output={output}", "--top_k=2"])
    rows = rows_of(output)
    assert [row["image"] for row in rows] == [
        str(photos / name) for name in ("a.png", "below/b.png", "below/c.jpg", "below/d.png")
    ]
    for row, grey in zip(rows, (1.0, 0.2, 0.0), strict=False):
        total = 1 + math.exp(2 * grey) + math.exp(-2 * grey)
        first, second = ("light", "none") if grey else ("none", "light")
        assert (row["label"], row["label_2"], row["problem"]) == (first, second, "")
        assert float(row["probability"]) == pytest.approx(math.exp(2 * grey) / total, abs=1e-5)
        assert float(row["probability_2"]) == pytest.approx(1 / total, abs=1e-5)
    assert rows[3]["label"] == ""
    assert "not a complete image" in rows[3]["problem"]
    said = capsys.readouterr().out
    assert "3 images predicted, 1 could not be read" in said
    page = (tmp_path / "out/p.html").read_text(encoding="utf-8")
    assert page.index("below/c.jpg") < page.index("below/b.png") < page.index("a.png")  # the least certain first
    assert page.count("data:image/png;base64,") == 5  # all three, and the least likely of two classes
    assert "3 images predicted: light (2), none (1)." in page
    predict.main([f"--model={model}", f"--images={photos / 'a.png'}", f"--output={output}"])  # one image, its own again
    (row,) = rows_of(output)
    assert row["label_3"] == "dark"


def test_names_of_any_bytes_can_be_read_in_table_and_page(model, tmp_path):
    names = [os.fsdecode(b"caf\xe9.png"), "a,b\nc.png", "ümläut.png"]
    (tmp_path / "photos").mkdir()
    for name in names:
        (tmp_path / "photos" / name).write_bytes(tf.io.encode_png(np.zeros((8, 8, 3), np.uint8)).numpy())
    output = tmp_path / "p.csv"
    predict.main([f"--model={model}", f"--images={tmp_path / 'photos'}", f"--output={output}"])
    found = {pathlib.Path(row["image"]).name: row["label"] for row in rows_of(output)}
    assert found == {name.replace("\udce9", "\\udce9"): "none" for name in names}
    assert "caf\\udce9.png" in output.with_suffix(".html").read_text(encoding="utf-8")
    files = ImageFiles(np.array([str(tmp_path / "photos" / name) for name in names]))
    read = files.reader()
    assert [read(row).numpy() for row in range(3)] == [files.read(row) for row in range(3)]


def test_what_cannot_be_is_said_in_one_line_and_nothing_is_written_over(model, photos, tmp_path):
    foreign = tmp_path / "theirs.csv"
    foreign.write_text("name,price\n")
    beside = tmp_path / "mine.html"
    beside.write_text("a page of mine")
    empty = tmp_path / "empty"
    empty.mkdir()
    broken = photos / "below/d.png"
    for changes, message in {
        (f"--output={foreign}",): "theirs.csv was not written by this command",
        (f"--output={tmp_path / 'mine.csv'}",): "mine.html was not written by this command",
        (f"--output={tmp_path / 'x.html'}",): "--output is a csv file",
        (f"--images={tmp_path / 'gone'}",): "folder of images, or one image. Not found",
        (f"--images={empty}",): "--images must hold images",
        (f"--images={broken}",): "No image can be read",
        (f"--model={empty}",): "--model must be the work folder of a run, or hold saved_model.pb",
        ("--classifier=lws",): "--classifier names one of a run",
        ("--top_k=0",): "--top_k must be at least 1",
    }.items():
        with pytest.raises(SystemExit, match=message):
            predict.main([f"--model={model}", f"--images={photos}", f"--output={tmp_path / 'p.csv'}", *changes])
    assert foreign.read_text() == "name,price\n"
    assert beside.read_text() == "a page of mine"
    assert not (tmp_path / "p.csv").exists()
