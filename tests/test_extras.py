"""Optional libraries that are missing, or there and no good: one line, with the extra that installs them."""

import sys

import numpy as np
import pytest

from keras_lt import backbones, import_checkpoint
from keras_lt.datasets.hub_sets import hugging_face
from keras_lt.datasets.tfds import tfds_dataset
from keras_lt.extras import library
from keras_lt.resampling.lists import smote
from keras_lt.serving.onnx_model import import_onnx
from keras_lt.serving.saved_model import write_warmup

FOUR = (np.zeros((4, 2)), np.array([0, 0, 1, 1]))
USES = {  # module -> (extra, what imports it)
    "tensorflow_datasets": ("tfds", lambda folder: tfds_dataset("mnist", str(folder))),
    "datasets": ("hf", lambda folder: hugging_face("owner/name", str(folder))),
    "imblearn": ("imblearn", lambda folder: smote(*FOUR, seed=0)),
    "keras_hub": ("keras-hub", lambda folder: backbones.build("keras_hub/resnet_50_imagenet")),
    "keras_cv": ("keras-cv", lambda folder: backbones.build("keras_cv/resnet50")),
    "tf2onnx": ("onnx", lambda folder: import_onnx()),
    "torch": ("torch", lambda folder: import_checkpoint.read_checkpoint(folder / "net.pth")),
}


@pytest.fixture
def instead(tmp_path, monkeypatch):
    """Puts a module of that name and content in the place of what is installed."""

    def put(name, content):
        (tmp_path / f"{name}.py").write_text(content)
        monkeypatch.syspath_prepend(tmp_path)
        for loaded in [loaded for loaded in sys.modules if loaded.split(".")[0] == name]:
            monkeypatch.delitem(sys.modules, loaded)

    yield put
    monkeypatch.undo()


@pytest.mark.parametrize("module", USES)
def test_a_library_that_raises_when_it_is_imported_is_answered_in_one_line(module, instead, tmp_path):
    instead(module, "raise RuntimeError('gencode 6.31.1\\nruntime 5.29.6')")
    extra, use = USES[module]
    with pytest.raises(ImportError) as error:
        use(tmp_path)
    said = str(error.value)
    assert f"pip install 'keras_lt[{extra}]'. Received: gencode 6.31.1 runtime 5.29.6" in said
    assert "\n" not in said


def test_a_library_that_is_hollow_is_answered_in_one_line(instead, tmp_path):
    """TensorFlow Datasets is so beside another protobuf than its metadata's."""
    instead("tensorflow_datasets", "")
    with pytest.raises(ImportError, match=r"tfds:mnist needs .*keras_lt\[tfds\]'. Received: it has no builder"):
        tfds_dataset("mnist", str(tmp_path))


def test_a_server_s_protocol_that_is_no_good_costs_the_warm_up_alone(instead, tmp_path):
    instead("tensorflow_serving", "raise RuntimeError")
    assert not write_warmup(tmp_path, {}, image_size=8)
    assert not list(tmp_path.glob("assets.extra/*"))


def test_what_is_there_is_imported():
    assert library("json", extra="none", needed_by="this test", has="loads") is sys.modules["json"]
