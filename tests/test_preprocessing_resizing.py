"""Resizing as a net wants it: crop or stretch, by which interpolation."""

import dataclasses

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from keras_lt.files import write_json
from keras_lt.preprocessing import Preprocessing
from keras_lt.stages.representation import read_preprocessing

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


PILLOWS = {"bilinear": PIL.Image.Resampling.BILINEAR, "bicubic": PIL.Image.Resampling.BICUBIC}
PILLOWS |= {"lanczos3": PIL.Image.Resampling.LANCZOS}


@pytest.mark.parametrize("interpolation", PILLOWS)
@pytest.mark.parametrize("resize", ["crop", "stretch"])
def test_resizing_is_pillows_for_every_interpolation(resize, interpolation):
    """Within a level of the bytes that Pillow rounds to, twice: its passes over columns and rows."""
    image = np.random.default_rng(0).integers(60, 200, (40, 60, 3), np.uint8)  # Pillow cuts between its passes
    taken = image[:, 10:50] if resize == "crop" else image
    expected = PIL.Image.fromarray(taken).resize((16, 16), PILLOWS[interpolation])
    spec = Preprocessing(16, resize=resize, interpolation=interpolation, **PLAIN)
    result = np.asarray(spec.evaluate(tf.constant(image))) * 255
    inner = np.s_[:, 4:-4] if resize == "crop" else np.s_[:]  # a crop that comes last has neighbours at its edges
    np.testing.assert_allclose(result[inner], np.asarray(expected)[inner], atol=1.1)


def test_cubic_interpolation_stays_within_the_range_of_pixels():
    checks = np.kron(np.indices((4, 4)).sum(0) % 2 * 255, np.ones((2, 2)))[..., None].astype(np.uint8)
    spec = Preprocessing(20, interpolation="bicubic", **PLAIN)
    result = np.asarray(spec.evaluate(tf.constant(checks)))
    assert (result.min(), result.max()) == (0, 1)


def test_training_windows_are_resized_as_the_net_wants_them():
    image = tf.constant(np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8))
    augmented = [
        Preprocessing(16, augmentation="resized_crop_flip", interpolation=interpolation, **PLAIN).train(image, (0, 1))
        for interpolation in ("bilinear", "bicubic")
    ]
    assert 0.01 < np.abs(augmented[0] - augmented[1]).max() < 0.5  # the same window


def test_settings_of_before_there_was_a_choice_stay_as_they_were():
    settings = Preprocessing(16, **PLAIN).evaluation_settings()
    assert set(settings) == {"image_size", "mean", "std", "channel_order", "crop_fraction"}
    spec = Preprocessing(16, resize="stretch", interpolation="bicubic", **PLAIN)
    assert Preprocessing(**spec.evaluation_settings()) == spec


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resize": "pad"}, r"resize must be one of \('crop', 'stretch'\)\. Received: 'pad'"),
        ({"interpolation": "cubic"}, r"interpolation must be one of .*'bicubic'.*Received: 'cubic'"),
        ({"resize": "stretch", "crop_fraction": 0.875}, r"crop_fraction must be 1\. Received: crop_fraction=0\.875"),
    ],
)
def test_resizing_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(16, **settings, **PLAIN)


def test_a_file_of_before_there_was_a_choice_of_resizing_is_read_as_it_was_meant(tmp_path):
    spec = Preprocessing(16, crop_fraction=0.875, augmentation="crop", **PLAIN)
    settings = {
        name: value for name, value in dataclasses.asdict(spec).items() if name not in ("resize", "interpolation")
    }
    write_json(tmp_path / "preprocessing.json", settings)
    assert read_preprocessing(tmp_path) == spec
