import dataclasses
import json
import shutil

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

import keras_lt
from keras_lt import config
from keras_lt import describe as describe_command
from keras_lt.config import RunConfig
from keras_lt.datasets import LongTailed, Split
from keras_lt.describe import (
    describe,
    draw_augmented,
    draw_sizes,
    find_duplicates,
    gini,
    print_summary,
    sample_classes,
    summarize,
    to_pixels,
    views,
)
from keras_lt.inspection import Inspection, inspect
from keras_lt.metrics import ShotGroups
from keras_lt.preprocessing import Preprocessing
from tests.programs import command
from tests.test_doors import SMALL, with_flags

SPEC = Preprocessing(4, (0.2, 0.4, 0.6), (0.1, 0.2, 0.3), augmentation="crop_flip")


def found(*hashes):
    count = len(hashes)
    return Inspection(np.full((count, 2), 4), np.ones(count), np.array([h * 16 for h in hashes], "S16"), {})


def pixels(*values):
    """4x4 grey images of these values."""
    return np.broadcast_to(np.array(values, np.uint8)[:, None, None, None], (len(values), 4, 4, 3)).copy()


@pytest.fixture(autouse=True)
def keras_home(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))


@pytest.fixture
def leaky():
    """Train repeats its first image, once under another label; test has two images of train, val one of test."""
    train = Split(pixels(1, 2, 3, 1, 4, 1), [0, 0, 0, 0, 1, 1])
    return LongTailed("toy", train, Split(pixels(9, 5), [0, 1]), Split(pixels(4, 9, 2), [1, 0, 0]), ("cat", "dog"))


def test_gini():
    assert gini(np.array([7, 7, 7])) == 0
    assert gini(np.array([3, 1])) == pytest.approx(1 / 4)  # area under Lorenz: (0 + 1/4)/4 + (1/4 + 1)/4 = 3/8; 1 - 6/8
    assert gini(np.array([0, 0, 0, 8])) == pytest.approx(3 / 4)  # 1 - 1/C


def test_duplicates_within_and_across_splits():
    groups = find_duplicates({"train": found("a", "b", "a"), "val": found("c", "", ""), "test": found("b", "d", "a")})
    groups = sorted(({name: rows.tolist() for name, rows in group.items()} for group in groups), key=str)
    assert groups == [{"train": [0, 2], "test": [2]}, {"train": [1], "test": [0]}]  # bad images are equal to none


def test_summary_of_a_leaky_data_set(leaky):
    inspections = inspect(leaky)
    summary = summarize(leaky, inspections, find_duplicates(inspections))
    assert summary["imbalance_ratio"] == 2  # 4 cats, 2 dogs
    assert summary["gini"] == pytest.approx(1 / 6)  # (-1 * 2 + 1 * 4) / (2 * 6)
    assert summary["groups"] == {"many": 0, "medium": 0, "few": 2}
    assert (summary["head"], summary["tail"]) == ([["cat", 4]], [["dog", 2]])
    assert [row["images"] for row in summary["splits"].values()] == [6, 2, 3]
    assert [row["repeated"] for row in summary["splits"].values()] == [2, 0, 0]
    assert summary["splits"]["val"]["smallest"] == "4 x 4"
    assert summary["leaked"] == {"val in train": 0, "test in train": 2, "test in val": 1}
    assert summary["conflicting_labels"] == 1
    assert {"train": ["4"], "test": ["0"]} in summary["leaks"]
    assert len(summary["leaks"]) == 3


@pytest.mark.parametrize("channel_order", ["rgb", "bgr"])
def test_to_pixels_undoes_normalisation(channel_order):
    spec = Preprocessing(2, SPEC.mean, SPEC.std, channel_order=channel_order)
    image = np.random.default_rng(0).integers(0, 256, (2, 2, 3)).astype(np.uint8)
    np.testing.assert_allclose(to_pixels(spec.evaluate(tf.constant(image)), spec), image / 255, atol=1e-6)


def test_views_are_the_evaluated_image_and_seeded_training_images():
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    split = Split(images, [0, 0])
    first, again = (views(split, [1], preprocessing=SPEC, seed=3)[0] for _ in range(2))
    assert len(first) == 8
    np.testing.assert_allclose(first[0], images[1] / 255, atol=1e-6)
    np.testing.assert_array_equal(first, again)
    assert len({view.tobytes() for view in first}) > 3


def test_views_are_mixed_where_training_mixes():
    """Of an image of value 0 and one of 200; CutMix with a huge alpha swaps half of their pixels."""
    split = Split(np.repeat(np.uint8([[0], [200]]), 48, 1).reshape(2, 4, 4, 3), [0, 1])
    seen = views(split, [0, 1], preprocessing=dataclasses.replace(SPEC, augmentation="none", cutmix=1e4), seed=1)
    np.testing.assert_allclose(seen[:, 0].mean((1, 2, 3)), [0, 200 / 255], atol=1e-6)
    assert (np.ptp(seen[:, 1:], axis=(2, 3, 4)) > 0.7).any()


def test_groups_are_those_of_the_run(tmp_path):
    """Of 101 and 20 listed images a tenth is carved: 91 and 18 are left to train on."""
    pixels = np.arange(121 * 48).astype(np.uint8).reshape(121, 4, 4, 3)
    splits = {"train": Split(pixels, np.repeat([0, 1], [101, 20])), "test": Split(pixels[:2], [0, 1])}
    data = LongTailed.from_splits("carved", splits, class_names=("a", "b"))
    assert describe(data, tmp_path, preprocessing=SPEC)["groups"] == {"many": 1, "medium": 1, "few": 0}


def test_sample_classes_are_the_ends_of_every_group():
    assert sample_classes(ShotGroups([5, 500, 300, 50, 101, 19, 1])) == [1, 4, 3, 5, 6]  # one class is medium-shot


def test_pages_are_drawn_for_one_class_and_for_bad_images(leaky):
    inspections = inspect(leaky)
    blank = dataclasses.replace(inspections["train"], hashes=np.full(6, b"", "S16"))
    assert len(draw_augmented(leaky, blank, preprocessing=SPEC, seed=0).axes) == 2 * 8
    ax, _ = draw_sizes(inspections, image_size=8).axes
    assert ax.texts[0].get_text() == "network's input 8 px, 100% are smaller"
    assert sum(bar.get_height() for bar in ax.patches) == 6 + 2 + 3


def test_the_page_shows_and_names_all_augmentations(leaky):
    """MixUp of two rows, black and white: both become greys that sum to white, or stay as they are."""
    data = dataclasses.replace(leaky, train=Split(pixels(0, 255, 255), [0, 1, 1]))
    mixing = Preprocessing(4, SPEC.mean, SPEC.std, mixup=1.0)
    axes = draw_augmented(data, inspect(data)["train"], preprocessing=mixing, seed=0).axes
    means = np.array([float(ax.images[0].get_array().mean()) for ax in axes]).reshape(2, 8)
    np.testing.assert_allclose(means[:, 0], [0, 1], atol=1e-6)  # as evaluated
    np.testing.assert_allclose(means.sum(0), 1, atol=1e-5)
    assert ((means[0, 1:] > 0.01) & (means[0, 1:] < 0.99)).any()
    assert axes[1].get_title(loc="left") == "training (none, mixup)"
    every = dataclasses.replace(mixing, augmentation="crop", randaugment=2, random_erasing=0.25, cutmix=0.5)
    title = draw_augmented(data, inspect(data)["train"], preprocessing=every, seed=0).axes[1].get_title(loc="left")
    assert title == "training (crop, randaugment, random_erasing, mixup, cutmix)"


def test_describe_writes_four_files(leaky, tmp_path, capsys):
    summary = describe(leaky, tmp_path / "d", preprocessing=SPEC)
    assert json.loads((tmp_path / "d/describe.json").read_text()) == summary
    for name in ("classes.png", "sizes.png", "augmented.png"):
        assert min(PIL.Image.open(tmp_path / "d" / name).size) > 300
    print_summary(summary)
    said = capsys.readouterr().out
    assert "2 of test in train" in said
    assert "leak: train 4 = test 0" in said


def test_bad_images_are_listed_and_must_not_be_all(tmp_path):
    PIL.Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    good, missing = Split(np.array([f"{tmp_path}/a.png"]), [0]), Split(np.array(["no.png"]), [0])
    describe(LongTailed("toy", missing, good, good, ("a",)), tmp_path, preprocessing=SPEC)
    assert json.loads((tmp_path / "describe.json").read_text())["bad_images"] == ["no.png: not found"]
    with pytest.raises(ValueError, match=r"No image can be read\. Received: toy, the first: no\.png: not found"):
        describe(LongTailed("toy", missing, missing, missing, ("a",)), tmp_path, preprocessing=SPEC)


def test_the_command_describes_a_folder_of_arrays(arrays_dir, tmp_path):
    words = ["--dataset=arrays", f"--data_dir={arrays_dir}", f"--output_dir={tmp_path}/d"]
    done = command("keras_lt.describe", *words)
    assert done.returncode == 0
    assert f"{tmp_path}/d/augmented.png" in done.stdout
    assert done.stderr == ""


def test_of_a_work_folder_it_is_the_data_of_the_run_that_are_described(arrays_dir, tmp_path, monkeypatch, capsys):
    data = shutil.copytree(arrays_dir, tmp_path / "data")
    run = keras_lt.Run.of(RunConfig(dataset="arrays", data_dir=str(data), workdir=str(tmp_path / "run"), **SMALL))
    run.save_config()
    (run.representation_folder / "checkpoints").mkdir(parents=True)
    (run.representation_folder / "checkpoints/epoch-00001.npz").touch()
    with np.load(data / "test.npz") as test:
        np.savez(data / "test.npz", images=test["images"][1:], labels=test["labels"][1:])
    for more, changes in ((f"--data_dir={arrays_dir}", 0), ("--seed=0", 1)):
        with monkeypatch.context() as patch:
            with_flags(patch, describe_command, config.define_describe_flags, f"--workdir={run.folder}", more)
        assert json.loads((run.description_folder / "describe.json").read_text())["splits"]["train"]["images"] == 150
        said = capsys.readouterr().out
        assert said.count(f"since {run.folder} was trained: test: images ") == changes
