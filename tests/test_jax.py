"""The whole command on Keras's JAX backend, by one process and by two: TensorFlow's numbers, and one writer."""

import dataclasses
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from keras_lt import train
from keras_lt.checkpoints import read_history
from keras_lt.config import RunConfig
from keras_lt.files import read_json
from keras_lt.run import Run
from tests.conftest import save_squares
from tests.programs import run_on_jax, two_hosts

pytestmark = pytest.mark.exhaustive  # `test_losses` and `test_stages_mixing` show parts on JAX

# Process 1 may not give anything its place on the disk. Each process counts the images that its batches read.
RUN = """
import os, sys
import numpy as np
import tensorflow as tf
from keras_lt import backbones, train
from keras_lt.config import read_flag_file
from keras_lt.datasets import Pixels
from tests.tiny_backbone import TINY

def refuse(*paths):
    raise OSError(f"process 1 writes {paths}")

backbones.BACKBONES["tiny"] = TINY
images_read, reader = [], Pixels.reader

def counted_reader(examples):
    read = reader(examples)

    def count(rows):
        images_read.append(rows.size)
        return rows

    def counted(rows):
        return read(tf.ensure_shape(tf.numpy_function(count, [rows], rows.dtype), rows.shape))

    return counted

Pixels.reader = counted_reader
if os.environ.get("KERAS_DISTRIBUTION_PROCESS_ID") == "1":
    os.replace = os.mkdir = refuse
train.run(read_flag_file(sys.argv[1]))
with open(f"{sys.argv[1]}.read-{os.environ.get('KERAS_DISTRIBUTION_PROCESS_ID', 0)}", "w") as file:
    file.write(str(sum(images_read)))
"""


@pytest.fixture(scope="module")
def on_tensorflow(tmp_path_factory, tiny_backbone):
    """A finished run; the odd number of validation images fills no last batch of two devices."""
    folder = tmp_path_factory.mktemp("jax")
    save_squares(folder, val=(9, 9, 9))
    config = RunConfig(
        dataset="arrays",
        data_dir=str(folder),
        workdir=str(folder / "tensorflow"),
        backbone=tiny_backbone,
        augmentation="crop_flip",
        epochs=2,
        batch_size=16,
        learning_rate=0.05,
        schedule="cosine_per_step",
        nesterov=True,
        clip_norm=1.0,
        class_weights="inverse_frequency",
        stage_two="images",
        classifiers=("joint", "ncm", "tau_norm", "lws"),  # cRT begins with random weights, other ones on each backend
        classifier_epochs=2,
    )
    train.run(config)
    return config


@pytest.fixture(scope="module")
def on_jax(on_tensorflow):
    """The same run on JAX from the end of TensorFlow's first epoch on: by one process, and by two."""
    configs = {}
    for name, strategy in {"one": "auto", "two": "multi_host"}.items():
        folder = on_tensorflow.folder.with_name(name)
        configs[name] = dataclasses.replace(on_tensorflow, workdir=str(folder), strategy=strategy)
        (folder / "representation/checkpoints").mkdir(parents=True)
        first_epoch = "representation/checkpoints/epoch-00001.npz"
        shutil.copy(on_tensorflow.folder / first_epoch, folder / first_epoch)
        configs[name].save(folder.with_suffix(".cfg"))
    jobs = zip(("one", "two", "two"), ({}, *two_hosts()), strict=True)
    run_on_jax(RUN, *(([configs[name].folder.with_suffix(".cfg")], variables) for name, variables in jobs), timeout=300)
    return configs


@pytest.mark.parametrize("name", ["one", "two"])
def test_stage_one_goes_on_with_tensorflows_numbers(on_tensorflow, on_jax, name):
    ours, theirs = (
        read_history(config.folder / "representation/history.csv") for config in (on_jax[name], on_tensorflow)
    )
    assert len(ours) == len(theirs) == 2
    for our_epoch, their_epoch in zip(ours, theirs, strict=True):
        for log in ("loss", "val_loss", "val_class_mean", "learning_rate"):
            assert our_epoch[log] == pytest.approx(their_epoch[log], rel=1e-3)


@pytest.mark.parametrize("name", ["one", "two"])
def test_every_classifier_scores_as_on_tensorflow(on_tensorflow, on_jax, name):
    ours, theirs = (
        read_json(config.folder / "results.json")["classifiers"] for config in (on_jax[name], on_tensorflow)
    )
    assert list(ours) == list(theirs)
    for classifier, row in theirs.items():
        for split in ("val", "test"):
            assert ours[classifier][split] == pytest.approx(row[split], abs=1e-6)


def test_each_of_two_processes_reads_its_share_alone(on_jax):
    """An epoch of nine steps of 16, and val, 27 images filled up to 28; then two epochs of LWS, without val."""
    of_both = 9 * 16 + 28 + 2 * 9 * 16
    ahead = 2 * 8 * 8  # Keras starts a stream anew where it ends, and some batches of eight are made that nobody takes
    extracted = 150 + 27 + 21  # features of every image once, which the second process finds on disk
    for process, others in ((0, extracted), (1, 0)):
        read = int(pathlib.Path(f"{on_jax['two'].folder}.cfg.read-{process}").read_text()) - others
        assert of_both / 2 <= read <= of_both / 2 + ahead


def test_what_two_processes_trained_is_exported_on_tensorflow(on_jax):
    folder, data = on_jax["two"].folder, on_jax["two"].load_data()
    assert not (folder / "export").exists()
    served = tf.saved_model.load(Run(folder).export("lws")).signatures["images"]
    logits = served(images=tf.constant(np.repeat(data.test.images, 3, -1)))["logits"]
    hits = np.argmax(logits, 1) == data.test.labels
    assert read_json(folder / "results.json")["classifiers"]["lws"]["test"]["all"] == pytest.approx(hits.mean())
