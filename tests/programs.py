"""Short programs in processes of their own, for what a process can set only once."""

import subprocess
import sys

TWO_CPUS = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
"""
NOISE = """
import dataclasses
import numpy as np
from keras_lt import Recipe, learn_classifier, learn_representation
from keras_lt.datasets import LongTailed, Split
from keras_lt.distribution import make_strategy

rng = np.random.default_rng(0)
splits = [Split(rng.integers(0, 256, (n, 8, 8), np.uint8), np.arange(n) % 3) for n in (32, 9, 9)]
data = LongTailed("noise", *splits, class_names="abc", augmentation="none", crop_fraction=1.0)
"""


def lines_of(*parts):
    """What a program of these parts prints."""
    done = subprocess.run([sys.executable, "-c", "".join(parts)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()
