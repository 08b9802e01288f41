"""Checkpoints laid out as the reference and torchvision lay theirs out, with the weights of a small net."""

import collections
import os
import sys

import keras
import numpy as np
import pytest
import torch

from keras_lt import backbones, import_checkpoint, train
from keras_lt.config import RunConfig
from keras_lt.datasets import arrays
from keras_lt.preprocessing import Preprocessing
from keras_lt.stages import Representation
from tests import torch_resnet
from tests.conftest import some_of
from tests.tiny_backbone import tiny

CLASSES = 3


@pytest.fixture(scope="module")
def net():
    return torch_resnet.drawn(torch_resnet.resnet10(CLASSES)).eval()


def parallel(state):
    return collections.OrderedDict((f"module.{name}", tensor) for name, tensor in state.items())


def split(state):
    """As the reference: backbone and classifier apart."""
    classifier = {name: tensor for name, tensor in state.items() if name.startswith("fc.")}
    backbone = {name: tensor for name, tensor in state.items() if name not in classifier}
    return {"feat_model": parallel(backbone), "classifier": parallel(classifier)}


def final(state):
    best = {"epoch": 90, "best_epoch": 88, "best_acc": 0.444, "centroids": None}
    return {**best, "state_dict_best": split(state), "state_dict": split({name: 0 * t for name, t in state.items()})}


LAYOUTS = {
    "the reference's final": final,
    "the reference's latest": lambda state: {"epoch": 3, "state_dict": split(state)},
    "torchvision's": dict,
    "torchvision's, wrapped": lambda state: {"epoch": 3, "arch": "resnet10", "state_dict": parallel(state)},
    "half precision": lambda state: {n: t.half() if t.is_floating_point() else t for n, t in state.items()},
}


@pytest.fixture
def saved(net, tmp_path):
    """A function: layout -> path of such a checkpoint."""

    def save(layout=final):
        torch.save(layout(net.state_dict()), tmp_path / "checkpoint.pth")
        return tmp_path / "checkpoint.pth"

    return save


def run(checkpoint, output, *more, backbone="resnet10"):
    arguments = [f"--checkpoint={checkpoint}", f"--backbone={backbone}", f"--output={output}", *more]
    import_checkpoint.main(arguments)


def noise():
    return np.random.default_rng(0).standard_normal((2, 64, 64, 3)).astype(np.float32)


def logits_of(net, images):
    with torch.no_grad():
        return net(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()


def assert_close(ours, theirs, *, tolerance=1e-4):
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


@pytest.mark.parametrize("layout", some_of(LAYOUTS, "the reference's final"))
def test_the_logits_are_pytorchs(layout, net, saved, tmp_path):
    run(saved(LAYOUTS[layout]), tmp_path / "run", "--image_size=64")
    loaded = Representation.load(tmp_path / "run" / "representation")
    tolerance = 1e-2 if layout == "half precision" else 1e-4  # its weights are rounded to 11 bits
    logits = keras.ops.convert_to_numpy(loaded.model(noise()))
    assert_close(logits, logits_of(net, noise()), tolerance=tolerance)
    assert loaded.head.kernel.shape == (512, CLASSES)
    assert loaded.history == []


def test_the_images_go_through_what_the_flags_say(saved, tmp_path):
    run(saved(), tmp_path / "default")
    imagenet = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "crop_fraction": 224 / 256}
    loaded = Representation.load(tmp_path / "default" / "representation")
    assert loaded.preprocessing == Preprocessing(224, augmentation="imagenet", **imagenet)
    inaturalist = ("--mean=.466,.471,.380", "--std=.195,.194,.192", "--augmentation=resized_crop_flip")
    run(saved(), tmp_path / "other", "--image_size=32", *inaturalist)
    loaded = Representation.load(tmp_path / "other" / "representation").preprocessing
    assert (loaded.image_size, loaded.augmentation) == (32, "resized_crop_flip")
    assert (loaded.mean, loaded.std) == ((0.466, 0.471, 0.380), (0.195, 0.194, 0.192))


def train_on(arrays_dir, workdir, **changes):
    flags = {"dataset": "arrays", "data_dir": str(arrays_dir), "workdir": str(workdir), "backbone": "resnet10"}
    sizes = {"epochs": 1, "batch_size": 16, "classifier_epochs": 1, "classifiers": ("joint", "lws")}
    return train.run(RunConfig(**{**flags, **sizes, **changes}))


@pytest.mark.usefixtures("bare")
def test_training_goes_on_from_the_work_folder_with_stage_two(net, saved, arrays_dir, tmp_path, capsys):
    run(saved(), tmp_path / "run", "--image_size=32")
    said = capsys.readouterr().out
    assert "fc.weight (3, 512), fc.bias (3,)" in said
    assert f"python -m keras_lt.train --workdir={tmp_path / 'run'} --backbone=resnet10" in said
    results = train_on(arrays_dir, tmp_path / "run")
    assert f"found in {tmp_path / 'run' / 'representation'}" in capsys.readouterr().out
    unknown = dict.fromkeys(("recipe", "images_per_second", "train_class_mean"))
    assert results["stage_one"] == {"epochs": 0, "seconds": 0, **unknown}

    test = arrays(str(arrays_dir)).test
    preprocessing = Representation.load(tmp_path / "run" / "representation").preprocessing
    predictions = logits_of(net, preprocessing.evaluate(test.images).numpy()).argmax(1)
    assert results["classifiers"]["joint"]["test"]["all"] == pytest.approx(np.mean(predictions == test.labels))
    again = train_on(arrays_dir, tmp_path / "run")
    assert again["classifiers"]["lws"]["test"] == results["classifiers"]["lws"]["test"]


def test_weights_to_begin_with_need_no_classifier(net, saved, tmp_path, capsys):
    headless = saved(lambda state: {name: tensor for name, tensor in state.items() if not name.startswith("fc.")})
    weights = tmp_path / "begin.weights.h5"
    run(headless, weights)
    assert f"python -m keras_lt.train --pretrained={weights} --backbone=resnet10" in capsys.readouterr().out
    backbone = backbones.build("resnet10", image_size=64, pretrained=str(weights))
    features = keras.ops.convert_to_numpy(backbone(noise()))
    kernel, bias = (net.state_dict()[name].numpy() for name in ("fc.weight", "fc.bias"))
    assert_close(features @ kernel.T + bias, logits_of(net, noise()))


@pytest.mark.exhaustive
@pytest.mark.usefixtures("bare")
def test_a_training_begins_with_imported_weights(saved, arrays_dir, tmp_path):
    run(saved(), tmp_path / "begin.weights.h5")
    begin = {"pretrained": str(tmp_path / "begin.weights.h5"), "image_size": 16, "classifiers": ("joint",)}
    assert train_on(arrays_dir, tmp_path / "run", **begin)["stage_one"]["epochs"] == 1


class Malicious:
    """Unpickled without care, it makes a folder."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_code_in_a_checkpoint_is_refused_and_does_not_run(net, tmp_path, zipped):
    checkpoint, mark = tmp_path / "checkpoint.pth", tmp_path / "mark"
    content = {**final(net.state_dict()), "best_acc": Malicious(mark)}
    torch.save(content, checkpoint, _use_new_zipfile_serialization=zipped)
    with pytest.raises(SystemExit, match=r"what could run code is refused\. Received: .*checkpoint\.pth: .*mkdir"):
        run(checkpoint, tmp_path / "run")
    assert not mark.exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"", b"hello world\n", b"PK\x03\x04 cut short", bytes(range(256))])
def test_what_is_no_pytorch_file_is_refused(tmp_path, content):
    (tmp_path / "checkpoint.pth").write_bytes(content)
    with pytest.raises(SystemExit, match=r"Error: --checkpoint must be a file that torch\.save wrote, of tensors"):
        run(tmp_path / "checkpoint.pth", tmp_path / "run")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SystemExit, match=r"Error: --checkpoint must be a file that .* Not found: .*nowhere\.pth"):
        run(tmp_path / "nowhere.pth", tmp_path / "run")


def without(*names):
    return lambda state: {name: tensor for name, tensor in state.items() if name not in names}


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (lambda state: {"epoch": 1, "model": state}, r"must hold a state dict, .* with epoch, model"),
        (lambda state: state["fc.bias"], r"must hold a state dict, .* with Tensor"),
        (without("fc.weight", "fc.bias"), r"needs stage one's dense classifier.*<name>\.weights\.h5.*Received: none"),
        (without("fc.bias"), r"needs stage one's dense classifier, .* Received: fc\.weight"),
        (
            lambda state: {**state, "fc.scales": torch.ones(CLASSES)},
            r"needs stage one's dense classifier, .* Received: fc\.bias, fc\.scales, fc\.weight",
        ),
        (
            lambda state: {**state, "fc.weight": torch.zeros(CLASSES, 2048)},
            r"fc\.weight must be \[C, 512\] and fc\.bias \[C\] .* Received: \(3, 2048\) and \(3,\)",
        ),
        (
            lambda state: {**state, "fc.bias": torch.zeros(4)},
            r"fc\.weight must be \[C, 512\] .* Received: \(3, 512\) and \(4,\)",
        ),
        (without("bn1.weight"), r"must fit resnet10 exactly\. Received: bn1\.weight is missing"),
        (lambda state: {**state, "fc_add.weight": state["fc.weight"]}, r"Received: fc_add\.weight is unknown"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_and_says_why(saved, tmp_path, layout, message):
    with pytest.raises(SystemExit, match=f"Error: .*{message}"):
        run(saved(layout), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_backbone_is_refused(saved, tmp_path):
    with pytest.raises(SystemExit, match=r"must fit resnet50 exactly.*layer1\.0\.conv3\.weight is missing"):
        run(saved(), tmp_path / "run", backbone="resnet50")


def test_nothing_is_overwritten(saved, tmp_path):
    for output, made in (("run", "run/representation"), ("begin.weights.h5", "begin.weights.h5")):
        run(saved(), tmp_path / output)
        with pytest.raises(SystemExit, match=f"--output must be new. Received: .*{made}, which exists"):
            run(saved(), tmp_path / output)


@pytest.mark.parametrize("output", ["file/run", "file/begin.weights.h5"])
def test_a_place_below_a_file_is_refused_before_the_checkpoint_is_read(tmp_path, output):
    for name in ("file", "checkpoint.pth"):
        (tmp_path / name).touch()
    with pytest.raises(SystemExit, match=rf"Received: {tmp_path}/{output}.*, which is no place for one"):
        run(tmp_path / "checkpoint.pth", tmp_path / output)


def test_an_import_that_was_stopped_leaves_a_folder_that_is_new(monkeypatch, tmp_path):
    parameters = {"fc.weight": np.zeros((CLASSES, 4), "f"), "fc.bias": np.zeros(CLASSES, "f")}
    monkeypatch.setattr(import_checkpoint, "_read", lambda *_, **__: (tiny(), parameters))
    preprocessing = Preprocessing(image_size=8, mean=(0.5,) * 3, std=(0.25,) * 3)
    asked = {"backbone": "tiny", "preprocessing": preprocessing, "output": tmp_path}

    def stopped(_, folder):
        folder.mkdir()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Representation, "save", stopped)
        with pytest.raises(KeyboardInterrupt):
            import_checkpoint.import_representation(tmp_path / "x.pth", **asked)
    assert not list(tmp_path.iterdir())
    import_checkpoint.import_representation(tmp_path / "x.pth", **asked)
    assert Representation.load(tmp_path / "representation").preprocessing == preprocessing


def test_a_data_set_of_other_classes_is_refused(saved, arrays_dir, tmp_path):
    run(saved(), tmp_path / "run")
    with np.load(arrays_dir / "train.npz") as images_and_labels:
        images, labels = images_and_labels["images"], images_and_labels["labels"]
    labels[:10] = 3
    np.savez(arrays_dir / "train.npz", images=images, labels=labels)
    with pytest.raises(SystemExit, match=r"squares needs a representation of its 4 classes\. Received: one of 3"):
        train_on(arrays_dir, tmp_path / "run")


def test_without_pytorch_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"pip install 'keras_lt\[torch\]'"):
        import_checkpoint.read_checkpoint(tmp_path / "checkpoint.pth")


@pytest.mark.parametrize("argument", ["--mean=.4,.4", "--std=1,2,x", "--backbone=resnet51", "--augmentation=all"])
def test_a_typo_is_answered_by_the_command_line(argument, tmp_path):
    said = rf"^Error: argument {argument.partition('=')[0]}: .+ --help lists all flags\.$"
    with pytest.raises(SystemExit, match=said):
        run(tmp_path / "checkpoint.pth", tmp_path / "run", argument)
