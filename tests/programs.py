"""Short programs in processes of their own, for what a process can set only once, or dies of.

Most of what such a program takes is the import of TensorFlow. So they begin as copies of a process that has it.
"""

import atexit
import contextlib
import multiprocessing
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import types
from multiprocessing.connection import Connection

ROOT = pathlib.Path(__file__).parents[1]
TWO_CPUS = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
"""
KNOW_TINY = """
from keras_lt import backbones
from tests.tiny_backbone import TINY
backbones.BACKBONES["tiny"] = TINY
"""
NOISE = f"""{KNOW_TINY}
import dataclasses
import numpy as np
from keras_lt import Recipe, learn_classifier, learn_representation
from keras_lt.datasets import LongTailed, Split
from keras_lt.distribution import make_strategy

rng = np.random.default_rng(0)
splits = [Split(rng.integers(0, 256, (n, 8, 8), np.uint8), np.arange(n) % 3) for n in (32, 9, 9)]
data = LongTailed("noise", *splits, class_names="abc", augmentation="none", crop_fraction=1.0)
"""
copies = multiprocessing.get_context("forkserver")
copies.set_forkserver_preload(["tests.loaded_once"])


def _run(program, arguments, folder, environment, outputs):
    """What `python -c program arguments` does, in a copy."""
    for number, output in enumerate(outputs, start=1):
        os.dup2(output.fileno(), number)
        output.close()
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["-c", *arguments]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        exec(program, vars(sys.modules["__main__"]))
    finally:
        atexit._run_exitfuncs()  # a copy's end leaves them out


class Program:
    """`python -c program arguments`, as `subprocess.Popen` would have it."""

    def __init__(self, program, *arguments, folder=ROOT, environment=None):
        ours, theirs = copies.Pipe(duplex=False)
        self._complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115 - `communicate` closes it
        errors = Connection(os.dup(self._complaints.fileno()), readable=False)
        environment = {**os.environ, **(environment or {})}
        words = [str(argument) for argument in arguments]
        self._process = copies.Process(target=_run, args=(program, words, folder, environment, (theirs, errors)))
        with theirs, errors:
            self._process.start()
        with ours:
            self.stdout = os.fdopen(os.dup(ours.fileno()))
        self.pid = self._process.pid

    def send_signal(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def poll(self):
        """The exit status, negative of a signal's number; None while it runs."""
        return self._process.exitcode

    def communicate(self, timeout=None):
        """Waits for its end, and kills it after so many seconds: what it said, and what it said on stderr."""
        limit = threading.Timer(timeout or threading.TIMEOUT_MAX, self.send_signal, [signal.SIGKILL])
        limit.daemon = True
        limit.start()
        with self.stdout, self._complaints:
            said = self.stdout.read()
            self._process.join()
            limit.cancel()
            self._complaints.seek(0)
            return said, self._complaints.read()

    @property
    def returncode(self):
        return self._process.exitcode


def run(program, *arguments, **options):
    """As `subprocess.run` with its output captured, in a copy."""
    process = Program(program, *arguments, **options)
    said, complaints = process.communicate()
    return subprocess.CompletedProcess([program, *arguments], process.returncode, said, complaints)


def command(module, *arguments, before=""):
    """`python -m module arguments`, where the tests' own backbone is known and `before` was run."""
    run_module = f"import runpy; runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    return run(KNOW_TINY + before + run_module, *arguments)


def lines_of(*parts, loads_tensorflow=False):
    """What a program of these parts prints; one that sets what TensorFlow reads as it is loaded has to load it."""
    words = [sys.executable, "-c", "".join(parts)]
    if loads_tensorflow:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    else:
        done = run(words[-1])
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def run_on_jax(program, *jobs, timeout):
    """Runs a program at once on JAX by (arguments, variables of the environment) each; all must end well."""
    shared = {"KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_backend_optimization_level=0"}  # it runs a few times only
    processes = [Program(program, *arguments, environment={**shared, **variables}) for arguments, variables in jobs]
    try:
        for process in processes:
            _, complaints = process.communicate(timeout=timeout)
            assert process.returncode == 0, complaints[-3000:]
    finally:
        for process in processes:
            process.send_signal(signal.SIGKILL)


def two_hosts():
    """By which two processes of this machine find each other, the variables of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        hosts = {"JOB_ADDRESSES": f"127.0.0.1:{free.getsockname()[1]}", "NUM_PROCESSES": "2"}
    of_each = [{**hosts, "PROCESS_ID": str(process)} for process in (0, 1)]
    return [{f"KERAS_DISTRIBUTION_{key}": value for key, value in variables.items()} for variables in of_each]
