"""Flags that nobody said follow from the data set."""

import pathlib
import types

import numpy as np
import PIL.Image
import pytest
from absl import flags

import keras_lt
from keras_lt import config, train
from keras_lt.comparison.runs import command_of
from keras_lt.config import RunConfig
from keras_lt.config.fitted import FITTED, fitted
from tests.conftest import save_squares

FLAGS = pathlib.Path(__file__).parents[1] / "flags"


def parse(*arguments):
    flag_values = flags.FlagValues()
    config.define_flags(flag_values)
    flag_values(["keras_lt", *arguments])
    run_config = config.from_flags(flag_values)
    return run_config, config.said(run_config, flag_values)


def fit(examples, *arguments, image_size=32, sizes=None):
    run_config, said = parse(*arguments)
    encoded = types.SimpleNamespace(encoded=sizes is not None)
    train_split = types.SimpleNamespace(examples=encoded, labels=range(examples))
    data = types.SimpleNamespace(train=train_split, image_size=image_size)
    return fitted(run_config, data, lambda: np.array(sizes), said=said)


@pytest.mark.parametrize(
    ("examples", "flag_file"),
    [(115_846, "imagenet_lt"), (62_500, "places_lt"), (12_406, "cifar10_lt"), (2_480, "fashion_lt")],
)
def test_batch_and_rate_are_those_of_the_flag_files(examples, flag_file):
    published = config.read_flag_file(FLAGS / f"{flag_file}.cfg")
    found = fit(examples)
    assert (found["batch_size"], found["learning_rate"]) == (published.batch_size, published.learning_rate)


@pytest.mark.parametrize(
    ("examples", "image_size", "batch_size", "epochs", "learning_rate"),
    [
        (1, 32, 1, 90, 0.1 / 64),
        (3, 32, 2, 90, 0.2 / 64),
        (50, 224, 8, 90, 0.0125),
        (20_000, 32, 256, 50, 0.1),
        (50_000, 224, 64, 30, 0.1),
        (50_000, 1000, 2, 30, 0.2 / 64),
        (50_000, 0, 256, 30, 0.1),  # features
    ],
)
def test_there_is_a_batch_of_any_number_of_images(examples, image_size, batch_size, epochs, learning_rate):
    found = fit(examples, image_size=image_size)
    assert found["batch_size"] == batch_size <= examples
    assert (found["epochs"], found["classifier_epochs"]) == (epochs, epochs // 3)
    assert found["learning_rate"] == pytest.approx(learning_rate)


def test_adamw_has_a_rate_of_its_own():
    assert [fit(examples, "--optimizer=adamw")["learning_rate"] for examples in (50, 115_846)] == [1e-3, 1e-3]


@pytest.mark.parametrize(
    ("arguments", "stay"),
    [
        (["--batch_size=512"], {"batch_size"}),  # also where it is the default
        (["--epochs=7"], {"epochs"}),
        (["--warmup_epochs=5"], {"epochs"}),
        (["--schedule=multistep", "--decay_epochs=60,80"], {"epochs"}),
        (["--base_batch_size=256"], {"learning_rate"}),
        (["--classifier_epochs=10"], {"classifier_epochs"}),
        ([f"--flagfile={FLAGS}/fashion_lt.cfg"], {*FITTED} - {"image_size"}),
    ],
)
def test_what_is_said_stays(arguments, stay):
    assert fit(50, *arguments).keys() == {*FITTED} - {"image_size"} - stay


def test_the_rate_follows_a_batch_that_is_said_and_stage_two_the_epochs():
    found = fit(50, "--batch_size=16", "--epochs=7")
    assert found == {"learning_rate": 0.025, "classifier_epochs": 2}


def test_no_flag_file_but_that_of_own_images_leaves_batch_epochs_or_rate_to_the_data():
    """By own_images.cfg photographs as many as elpv's have elpv.cfg's recipe."""
    left = {path.stem: {*FITTED} - {"image_size"} - parse(f"--flagfile={path}")[1] for path in FLAGS.glob("*.cfg")}
    assert {name for name in left if left[name]} == {"own_images"}
    elpv = config.read_flag_file(FLAGS / "elpv.cfg")
    found = fit(2_384, f"--flagfile={FLAGS}/own_images.cfg", image_size=224)
    assert found == {"batch_size": elpv.batch_size, "learning_rate": elpv.learning_rate}


@pytest.mark.parametrize(
    ("sizes", "arguments", "expected"),
    [
        ([(120, 160), (160, 120), (4000, 3000)], [], 112),
        ([(4000, 3000)], [], 224),
        ([(9, 9)], [], 32),
        ([(120, 160)], ["--image_size=64"], None),
        ([(120, 160)], ["--pretrained=imagenet", "--backbone=efficientnet_lite0"], None),
        ([(120, 160)], ["--backbone=keras_applications/ResNet50"], None),
        (None, [], None),  # pixels
    ],
)
def test_images_are_as_large_as_half_of_them_are(sizes, arguments, expected):
    assert fit(50, *arguments, image_size=224, sizes=sizes).get("image_size") == expected


def test_a_command_says_what_would_be_made_to_fit():
    said = command_of(RunConfig(workdir="runs/x"))
    assert {"--batch_size=512", "--epochs=90", "--image_size=0", "--workdir=runs/x"} <= set(said)


@pytest.fixture
def without_extras(monkeypatch):
    """Report and SavedModel take seconds, and other tests look at them."""
    monkeypatch.setattr(train, "write_report", lambda *_: {})
    monkeypatch.setattr(train, "export", lambda *_: "none")


@pytest.fixture
def photos(tmp_path):
    """25 small images in two classes."""
    pixels = np.random.default_rng(0).integers(0, 256, (25, 40, 50, 3), np.uint8)
    for row, image in enumerate(pixels):
        path = tmp_path / "photos" / ("ant" if row < 18 else "bee") / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(image).save(path)
    return tmp_path / "photos"


@pytest.mark.usefixtures("without_extras")
def test_the_first_command_on_a_folder_trains_and_goes_on_as_it_began(photos, tmp_path, capsys):
    arguments = ["--dataset=folder", f"--data_dir={photos}", f"--workdir={tmp_path / 'run'}", "--backbone=tiny"]
    run_config, said = parse(*arguments, "--epochs=1", "--classifiers=joint", "--image_size=32")
    train.run(run_config, said=said)
    out = capsys.readouterr().out
    assert "Not said, so by the data set: --batch_size=8 --learning_rate=0.0125 --classifier_epochs=1" in out
    begun = keras_lt.Run(tmp_path / "run").config
    assert (begun.batch_size, begun.learning_rate, begun.classifier_epochs) == (8, 0.0125, 1)
    train.run(run_config, said=said)
    assert "Not said" not in capsys.readouterr().out
    run_config, said = parse(*arguments, "--epochs=1", "--batch_size=16")
    with pytest.raises(SystemExit, match="--batch_size=8 there, --batch_size=16 now"):
        train.run(run_config, said=said)


@pytest.mark.usefixtures("without_extras")
def test_a_run_that_began_by_other_defaults_goes_on_by_them(tmp_path):
    save_squares(tmp_path)
    arguments = ["--dataset=arrays", f"--data_dir={tmp_path}", f"--workdir={tmp_path / 'run'}", "--backbone=tiny"]
    arguments += ["--epochs=1", "--batch_size=50", "--classifiers=joint"]
    train.run(parse(*arguments)[0])  # as a version that fitted nothing
    run_config, said = parse(*arguments, "--classifiers=joint,ncm")
    assert train.run(run_config, said=said)["classifiers"].keys() == {"joint", "ncm"}
    assert keras_lt.Run(tmp_path / "run").config.classifier_epochs == 10
