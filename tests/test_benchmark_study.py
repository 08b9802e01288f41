import re

import numpy as np
import pytest
import tensorflow as tf

from tools.benchmarks import study

NUMBER = r"[\d.]+"


@pytest.fixture
def rows(benchmark):
    """What `tools.benchmark study` prints: (its flags) -> row -> its numbers."""

    def printed(arguments):
        found = re.findall(rf"^([^\d\n]+?)((?: +{NUMBER})+)$", benchmark(f"study {arguments}"), re.MULTILINE)
        return {name: [float(number) for number in numbers.split()] for name, numbers in found}

    return printed


def test_the_reference_runs_the_backbone_over_val_in_every_epoch():
    images = tf.data.Dataset.from_tensor_slices((np.ones((5, 3, 3, 1), np.float32), np.arange(5)))
    calls, stored = [], np.zeros((5, 2), np.float32)

    def forward(batch):
        calls.append(len(batch))
        return 7 * batch[:, 0, :2, 0]

    val = study._ThroughBackbone(
        stored, np.arange(5), images=lambda *, batch_size: images.batch(batch_size), forward=forward
    )
    batches = val.evaluation_batches(batch_size=4)
    for epoch in range(1, 4):
        rows, labels = (np.concatenate(part) for part in zip(*batches.as_numpy_iterator(), strict=True))
        assert (rows == 7).all()
        assert rows.shape == stored.shape
        assert labels.tolist() == [0, 1, 2, 3, 4]
        assert calls == [4, 1] * epoch


@pytest.mark.exhaustive
def test_features_extracted_once_give_the_reference_s_accuracies(rows):
    table = rows("--backbone resnet8 --image_size 8 --fraction 0.1 --stage_one_epochs 1 --crt_epochs 1 --lws_epochs 1")
    for name in ("joint", "ncm", "crt", "tau_norm", "lws"):
        (_, _, *theirs), (_, _, *ours) = table[f"reference, {name}"], table[f"ours, {name}"]
        assert theirs == pytest.approx(ours, abs=0.02)  # two of 107 test images: another order of summing
    for name in ("crt", "lws"):
        assert table[f"one pass, {name}"][2:] == table[f"reference, {name}"][2:]
    assert table["its epochs, times less"] == [2]
    for inputs in ("features", "images"):  # of the reference's seconds, wall and CPU
        assert len(table[f"times less, on {inputs}"]) == 2
    for place in (0, 1):  # wall and CPU seconds
        parts = [numbers[place] for name, numbers in table.items() if name.startswith("ours, ") and "all" not in name]
        assert table["ours, all of it"][place] == pytest.approx(sum(parts), abs=0.4)
