import argparse
import csv
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import torch

from keras_lt.backbones import BACKBONES, EFFICIENTNET_LITE, load_torch_state
from tests.conftest import some_of
from tools.benchmarks import backbones, control, growth, timing, torch_efficientnet_lite, torch_resnet

ROOT = pathlib.Path(__file__).parents[1]
NUMBER = r"[\d.]+"


@pytest.mark.exhaustive
def test_sampling_prints_a_row_per_sampler(benchmark):
    output = benchmark("sampling --classes 10 --examples_per_class 2000 --seconds 0.01")
    assert "C = 10, N = 20000" in output
    for rival in (
        "keras_lt weighted",
        "keras_lt stratified",
        "keras_lt instance",
        "keras_lt rejection",
        "tf rejection",
    ):
        assert re.search(rf"^{rival}.* {NUMBER} s +{NUMBER} M/s", output, re.MULTILINE)


@pytest.mark.exhaustive
def test_backbones_print_a_row_per_rival():
    """In a process of its own: training of PyTorch's may end one that has loaded TensorFlow before."""
    sizes = "--backbones resnet8 --precisions bfloat16 --image_size 8 --batch_size 2 --seconds 0.01"
    command = [sys.executable, "-m", "tools.benchmark", "backbones", *sizes.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    output = done.stdout
    assert "resnet8, 8x8, batch 2, one thread" in output
    for rival in ("ours bfloat16", "ours bfloat16 XLA", "PyTorch bfloat16"):
        assert re.search(rf"^{rival} +{NUMBER} s( +{NUMBER}){{4}}$", output, re.MULTILINE)


@pytest.mark.exhaustive
def test_input_prints_a_row_per_reader_and_how_long_training_waits(benchmark):
    output = benchmark("input --images 4 --batch_size 2 --image_size 16 --seconds 0.01 --rounds 1 --no-determinism")
    assert len(re.findall(r"^(?:500x375|256x256), \d+ kB -> 16 pixels", output, re.MULTILINE)) == 2
    for augmentation in ("resized_crop_flip", "imagenet"):
        for rival in ("ours, files", "ours, records", "Pillow and NumPy"):
            assert len(re.findall(rf"^{augmentation}, {rival}( +{NUMBER}){{3}}$", output, re.MULTILINE)) == 2
    assert len(re.findall(r"^resnet8 .* waits \d+% of the time$", output, re.MULTILINE)) == 2


@pytest.mark.parametrize("cycle", [False, True])
def test_the_control_draws_by_the_samplers_probabilities(cycle):
    labels = torch.tensor([0] * 300 + [1] * 15)
    rows = torch.stack(list(control._rows(labels, sampler="class_balanced", epochs=1, steps=20, seed=0, cycle=cycle)))
    assert rows.shape == (20, control.BATCH)
    times = torch.bincount(rows.ravel(), minlength=315)
    assert abs(float(times[300:].sum() / rows.numel()) - 0.5) < 0.04
    if cycle:  # each image of a class as often as the others
        assert times[:300].max() - times[:300].min() <= 1
        assert times[300:].max() - times[300:].min() <= 1
    once = list(control._rows(labels, sampler="instance_balanced", epochs=1, steps=2, seed=0, cycle=cycle))
    assert len(torch.stack(once).unique()) == 2 * control.BATCH


def test_the_control_crops_each_image_in_its_own_place():
    images = torch.arange(2 * 64).reshape(2, 1, 8, 8).expand(-1, 3, -1, -1) + 1.0
    cropped = control._cropped(images, torch.tensor(-1.0), torch.Generator().manual_seed(0))
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (4, 4), (4, 4)), constant_values=-1)
    for i in range(2):
        places = [(y, x) for y in range(9) for x in range(9)]
        assert any(np.array_equal(cropped[i], padded[i, :, y : y + 8, x : x + 8]) for y, x in places)


def test_the_control_is_a_row_per_sampler_and_a_file(tmp_path, capsys):
    for split, counts in {"train": (140, 30, 12), "val": (2,) * 3, "test": (3,) * 3}.items():
        labels = np.repeat(np.arange(3), counts)
        np.savez(tmp_path / split, images=np.repeat(80 * labels, 64).reshape(-1, 8, 8).astype(np.uint8), labels=labels)
    parser = argparse.ArgumentParser()
    control.add_arguments(parser)
    table = tmp_path / "table.csv"
    control.run(parser.parse_args(f"--data_dir {tmp_path} --epochs 3 --samplers square_root --output {table}".split()))
    assert re.search(
        rf"^square_root( +{NUMBER} \({NUMBER}\)){{5}}$",
        re.sub(r"^(\S+) +\S+", r"\1", capsys.readouterr().out, flags=re.M),
        re.M,
    )
    rows = list(csv.DictReader(table.open()))
    assert [row["classifier"] for row in rows] == list(control.CLASSIFIERS)
    assert all(float(row["few"]) == 1 for row in rows if row["classifier"] in ("ncm", "crt"))  # plain colours


def test_ours_stands_beside_the_control_by_hand(tmp_path):
    """Two seeds of the control, 70 and 80 percent: 75; one of ours, whose train accuracy is the mean over classes."""
    control_rows = ("rate,augmentation,draws,epochs,seed,sampler,classifier,train,few,all",)
    control_rows += tuple(f"cosine,none,cycle,6,{s},square_root,ncm,0.9,0.{1 + 2 * s},0.{7 + s}" for s in (0, 1))
    ours = ("column,run,seed,epochs,train_class_mean,classifier,few,all", ",square_root,0,6,0.5,joint,,0.625")
    for name, lines in {"control.csv": control_rows, "runs.csv": ours}.items():
        (tmp_path / name).write_text("\n".join(lines))
    head, _, *lines = control.beside([tmp_path / "control.csv", tmp_path / "runs.csv"]).splitlines()
    assert head == "| sampler | epochs | by | seeds | train | joint | ncm | crt | tau_norm | lws |"
    assert lines == [
        "| square_root | 6 | control, cosine, none, cycle | 2 | 90.0 | — | 75.0 (20.0) | — | — | — |",
        f"| square_root | 6 | ours, {tmp_path}/runs.csv | 1 | 50.0 | 62.5 (nan) | — | — | — | — |",
    ]


@pytest.mark.exhaustive
def test_the_gpus_benchmark_runs_where_there_is_none(benchmark, tmp_path):
    sizes = "--backbones resnet10 --image_size 16 --batch_size 2 --images 4 --seconds 0.01 --epochs 1"
    output = benchmark(f"gpu {sizes} --output {tmp_path}/gpu.md")
    written = (tmp_path / "gpu.md").read_text()
    assert written.startswith("# no GPU, ")
    rows = re.findall(rf"^\| (CPU alone|one device)( \| {NUMBER} \({NUMBER}\)){{5}} \| \d+ \|$", written, re.M)
    assert [title for title, _ in rows] == ["CPU alone", "one device"]
    for part in ("ours float32 XLA", "PyTorch bfloat16", "imagenet, ours, files"):
        assert part in written
    # Of each of the two sizes of files, by the nets asked for and not the default.
    assert re.findall(r"^(\S+) trains on \d+ images per second and waits", written, re.M) == ["resnet10"] * 2
    assert f"Written: {tmp_path}/gpu.md" in output


def test_every_backbone_has_its_rival():
    assert set(BACKBONES) - {"tiny"} == set(backbones.RESNETS) == set(torch_resnet.NETS)


@pytest.mark.parametrize(
    "name", some_of(["resnet8", "resnet10", "resnet32", "resnet50", "resnext50"], "resnet8", "resnet10")
)
def test_the_rival_is_the_same_net(name):
    torch.manual_seed(0)
    rival, ours = torch_resnet.ResNet(**torch_resnet.NETS[name]).eval(), BACKBONES[name](image_size=32)
    load_torch_state(ours, {key: value.numpy() for key, value in rival.state_dict().items()})
    images = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)
    with torch.inference_mode():
        theirs = rival(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(ours(images), theirs, rtol=1e-3, atol=1e-5)


def test_the_rival_of_efficientnet_lite_is_the_same_net():
    """At 33 pixels, where both pad alike; the weights lie in the same order."""
    torch.manual_seed(0)
    rival = torch_efficientnet_lite.EfficientNetLite().eval()
    for parameters in rival.parameters():
        torch.nn.init.uniform_(parameters, -0.2, 0.3)
    ours = EFFICIENTNET_LITE["efficientnet_lite0"].function(image_size=33)
    state = [array.numpy() for name, array in rival.state_dict().items() if not name.endswith("tracked")]
    for layer in (layer for layer in ours.layers if layer.weights):
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        own = [state.pop(0) for _ in layer.weights]
        layer.set_weights([w.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0)) if w.ndim == 4 else w for w in own])
    assert not state
    images = np.random.default_rng(0).standard_normal((2, 33, 33, 3)).astype(np.float32)
    with torch.inference_mode():
        theirs = rival(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(keras.ops.mean(ours(images), (1, 2)), theirs, rtol=1e-3, atol=1e-4)


def test_fastest_gives_every_rival_its_turn_and_keeps_the_least():
    turns = []
    now = iter([0.0, 5.0, 10.0, 17.0])  # first takes 5, second 7
    times = timing.fastest(
        {name: lambda name=name: turns.append(name) for name in ("first", "second")},
        seconds=0,
        clock=lambda: next(now),
    )
    assert turns == ["first", "second"]
    assert times == {"first": 5.0, "second": 7.0}


@pytest.mark.exhaustive
def test_growth_prints_a_row_per_task_and_size(benchmark, monkeypatch):
    monkeypatch.setattr(growth, "SECONDS", 0.01)
    output = benchmark("growth --same_process --classes 4 --examples_per_class 5 --doublings 0 --width 3")
    for task in growth.TASKS:
        assert re.search(rf"^{task} +4 +20 +{NUMBER} +{NUMBER}", output, re.MULTILINE), task


def test_growth_doubles_examples_and_then_classes():
    assert growth.doubled(3, 6, 2) == [(3, 6), (3, 12), (3, 24), (6, 24), (12, 24)]


def test_embeddings_print_a_row_per_classifier(benchmark):
    sizes = "--examples 60 --width 4 --classes 3 --methods crt ncm --max_iter 5"
    output = benchmark(f"embeddings {sizes}")
    assert "N = 60, D = 4, C = 3, 54 to 1 per class" in output
    for name in ("LongTailClassifier crt", "LongTailClassifier ncm", "LogisticRegression balanced"):
        assert re.search(rf"^{name}( +{NUMBER}){{4}}(  5 iterations)?$", output, re.MULTILINE)
