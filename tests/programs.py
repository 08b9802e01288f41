"""Short programs in processes of their own, for what a process can set only once."""

import os
import socket
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


def run_on_jax(*jobs, timeout):
    """Runs programs at once on JAX, (arguments of python, variables of the environment) each; all must end well."""
    processes = [
        subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            env={**os.environ, "KERAS_BACKEND": "jax", **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for arguments, variables in jobs
    ]
    try:
        for process in processes:
            said, _ = process.communicate(timeout=timeout)
            assert process.returncode == 0, said[-3000:]
    finally:
        for process in processes:
            process.kill()


def two_hosts():
    """By which two processes of this machine find each other, the variables of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        hosts = {"JOB_ADDRESSES": f"127.0.0.1:{free.getsockname()[1]}", "NUM_PROCESSES": "2"}
    of_each = [{**hosts, "PROCESS_ID": str(process)} for process in (0, 1)]
    return [{f"KERAS_DISTRIBUTION_{key}": value for key, value in variables.items()} for variables in of_each]
