"""Weights from files of one's own, of either layout; those of another net are refused."""

import zipfile

import keras
import numpy as np
import pytest

from keras_lt import backbones
from keras_lt.backbones.resnets import basic_block, resnet
from tests.conftest import some_of

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.float32)


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_a_deeper_nets_weights_are_refused(suffix, tmp_path):
    """The third stage's second block has two convolutions of 256 channels and their batch norms, 4 x 256 each."""
    deeper, path = resnet((1, 1, 2, 1), block=basic_block, image_size=32, name="resnet12"), tmp_path / f"deeper{suffix}"
    deeper.save_weights(path) if suffix == ".weights.h5" else deeper.save(path)
    problems = (
        r"weights of resnet10\. .* with 3 of shape \(3, 3, 256, 256\) instead of 1, 20 of shape \(256,\) instead of 12$"
    )
    with pytest.raises(ValueError, match=problems):
        backbones.build("resnet10", image_size=32, pretrained=str(path))


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_the_weights_of_a_trained_net_are_taken_without_its_optimizer(suffix, tmp_path):
    model, path = backbones.build("tiny", image_size=16), tmp_path / f"trained{suffix}"
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(np.ones((2, 16, 16, 3)), np.ones((2, 4)), verbose=0)
    model.save_weights(path) if suffix == ".weights.h5" else model.save(path)
    loaded = backbones.build("tiny", image_size=16, pretrained=str(path))
    for ours, theirs in zip(loaded.weights, model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
@pytest.mark.parametrize("file", some_of(["net.weights.h5", "net.h5"], "net.h5"))
@pytest.mark.parametrize("name", some_of(["MobileNetV3Small", "EfficientNetB0"], "MobileNetV3Small"))
def test_applications_take_files_of_either_layout(name, file, tmp_path):
    """EfficientNet has a normalisation with a count and dropouts with seeds beside its weights."""
    theirs = getattr(keras.applications, name)(include_top=False, weights=None)
    theirs.save_weights(tmp_path / file) if file.endswith(".weights.h5") else theirs.save(tmp_path / file)
    ours = backbones.build(f"keras_applications/{name}", image_size=64, pretrained=str(tmp_path / file))
    np.testing.assert_allclose(ours(PIXELS), np.asarray(theirs(PIXELS)).mean((1, 2)), rtol=1e-4, atol=1e-5)


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "notes.h5").write_text("no weights")
    with pytest.raises(ValueError, match=r"pretrained must be a .weights.h5, .h5 or .keras file. Received: .*notes.h5"):
        backbones.build("resnet8", pretrained=str(tmp_path / "notes.h5"))


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_a_file_that_was_cut_short_is_named(suffix, tmp_path):
    net, path = backbones.build("resnet8", image_size=16), tmp_path / f"cut{suffix}"
    net.save_weights(path) if suffix == ".weights.h5" else net.save(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(
        ValueError, match=rf"pretrained must be a .*\.keras file\. Received: .*/cut{suffix}(: |, which)"
    ):
        backbones.build("resnet8", image_size=16, pretrained=str(path))


def test_an_archive_of_something_else_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "net.keras", "w") as archive:
        archive.writestr("notes.txt", "no weights")
    with pytest.raises(ValueError, match=r"whole .*\. Received: .*net\.keras: .*no item named 'model\.weights\.h5'"):
        backbones.build("resnet8", image_size=16, pretrained=str(tmp_path / "net.keras"))
