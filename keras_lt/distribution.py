"""Where a run computes: one device, the same model on every GPU of this host, or on every device of many hosts."""

import contextlib
import itertools
import os
import types
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_lt.compat import layers_within
from keras_lt.registry import check_choice

STRATEGIES = ("auto", "none", "mirrored", "multi_host")


class OneHost:
    """One device of this host, or several by a `tf.distribute.Strategy`; what `MultiHost` offers, by the same names.

    Attributes:
      one_host: whether one process sees the whole of every batch.
      first: whether this is the process that writes the files of a run.
      share, evaluation_share: this process's part of training and evaluation batches, arguments of what makes them.
    """

    one_host = True
    first = True
    share = types.MappingProxyType({"worker": 0, "workers": 1})
    evaluation_share = share

    def __init__(self, strategy: tf.distribute.Strategy):
        self.strategy = strategy

    @contextlib.contextmanager
    def placing(self, model: keras.Model) -> Iterator[keras.Model]:
        """Gives the model to be compiled and fitted: several devices share the statistics of the global batch."""
        layers = [
            layer
            for layer in layers_within(model)
            if isinstance(layer, keras.layers.BatchNormalization) and self.strategy.num_replicas_in_sync > 1
        ]
        for layer in layers:
            layer.synchronized = True
        try:
            yield model
        finally:
            for layer in layers:
                layer.synchronized = False

    def devices(self) -> str:
        """The devices, as a sentence goes on with them."""
        names = (device.rpartition("/device:")[2] for device in self.strategy.extended.worker_devices)
        return f", {' and '.join(names)}"

    def wait(self):
        """Returns when all processes have come here."""

    def check_same(self, number: int, what: str):
        """Raises ValueError unless all processes come here with the same number of `what`."""


class MultiHost:
    """Data parallelism by Keras itself, on the JAX backend: one process per host, each with all of its devices.

    Every process runs the same program. Models are made and used on one device; only `fit` takes all of them, by
    `placing`. Processes find one another by Keras's variables KERAS_DISTRIBUTION_JOB_ADDRESSES, _NUM_PROCESSES and
    _PROCESS_ID; without them there is one process, and the devices are this host's.

    Attributes: those of `OneHost`, and
      process, processes: the number of this process, from 0, and how many there are.
    """

    one_host = False

    def __init__(self):
        import jax  # noqa: PLC0415 - the other backends need none

        if any(name.startswith("KERAS_DISTRIBUTION_") for name in os.environ):
            keras.distribution.initialize()
        self._parallel = keras.distribution.DataParallel(auto_shard_dataset=False)  # each process takes its own rows
        self.process, self.processes = jax.process_index(), jax.process_count()

    @property
    def num_replicas_in_sync(self) -> int:
        """Devices, over all hosts."""
        return self._parallel.device_mesh.devices.size

    @property
    def first(self) -> bool:
        """As in `OneHost`."""
        return self.process == 0

    @property
    def share(self) -> dict[str, int]:
        """As in `OneHost`."""
        return {"worker": self.process, "workers": self.processes}

    @property
    def evaluation_share(self) -> dict[str, int]:
        """As in `OneHost`; the last batch may not divide by the devices, so it is filled up."""
        return {**self.share, "devices": self.num_replicas_in_sync}

    def scope(self) -> contextlib.AbstractContextManager:
        """As of a `tf.distribute.Strategy`; models are made on one device."""
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def placing(self, model: keras.Model) -> Iterator[keras.Model]:
        """Gives a copy of the model on every device, to be compiled and fitted; its weights come back at the end."""
        with self._parallel.scope():
            copy = keras.models.clone_model(model)
            copy.set_weights(model.get_weights())
            for ours, theirs in zip(copy.variables, model.variables, strict=True):
                ours.trainable = theirs.trainable
            yield copy
        model.set_weights(copy.get_weights())

    def devices(self) -> str:
        """As in `OneHost`."""
        return f" over {self.processes} processes, this is number {self.process}"

    def wait(self):
        """As in `OneHost`."""
        self.check_same(0, "")

    def check_same(self, number: int, what: str):
        """As in `OneHost`."""
        from jax.experimental import multihost_utils  # noqa: PLC0415 - the other backends need none

        numbers = multihost_utils.process_allgather(np.int32(number))
        if np.any(numbers != number):
            raise ValueError(f"All hosts must have the same {what}. Received: {numbers.tolist()}")


Strategy = tf.distribute.Strategy | MultiHost


def hosts(strategy: Strategy) -> OneHost | MultiHost:
    """What a strategy means for processes: which of them writes, and which part of a batch is whose."""
    return strategy if isinstance(strategy, MultiHost) else OneHost(strategy)


def make_strategy(name: str = "auto", devices: Sequence[str] = ()) -> Strategy:
    """The strategy of that name; to be called before anything is computed.

    Args:
      name: "none" is one device; "mirrored" copies the model to every device of this host, on the TensorFlow backend;
        "multi_host" to every device of every host, on the JAX backend; "auto" mirrors where this host has several GPUs
        and Keras runs on TensorFlow.
      devices: for "mirrored", such as ["GPU:0", "GPU:1"]; default every GPU, or the CPU where there is none.
    """
    if devices and name != "mirrored":
        raise ValueError(f"devices belong to strategy 'mirrored'. Received: strategy={name!r}, devices={devices}")
    check_choice(STRATEGIES, strategy=name)
    there = [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices()] if devices else []
    if missing := [device for device in devices if device.lstrip("/").removeprefix("device:").upper() not in there]:
        raise ValueError(f"devices must be of this machine: {', '.join(there)}. Received: {missing[0]}")
    backend = keras.backend.backend()
    needed = {"mirrored": "tensorflow", "multi_host": "jax"}.get(name, backend)
    if backend != needed:
        raise ValueError(
            f"strategy {name!r} runs on the {needed} backend: KERAS_BACKEND={needed}. Received: KERAS_BACKEND={backend}"
        )
    if backend != "tensorflow":
        tf.config.set_visible_devices([], "GPU")  # the input pipeline needs none, and would take all of their memory
    if name == "multi_host":
        return MultiHost()
    several_gpus = len(tf.config.list_logical_devices("GPU")) > 1
    if name == "mirrored" or (name == "auto" and several_gpus):
        return tf.distribute.MirroredStrategy(list(devices) or None)
    return tf.distribute.get_strategy()


def is_first(strategy: Strategy) -> bool:
    """Whether this is the process that writes the files of a run."""
    return hosts(strategy).first


@contextlib.contextmanager
def first_ahead(strategy: Strategy) -> Iterator[bool]:
    """The first process goes through the block, then all others: they find on disk what it has written.

    Gives `is_first`.
    """
    own = hosts(strategy)
    if not own.first:
        own.wait()
    yield own.first
    if own.first:
        own.wait()


def describe(strategy: Strategy, batch_size: int) -> str:
    """The devices, and each one's share of a batch: "2 devices, GPU:0 and GPU:1, 256 images of a batch each"."""
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        cpu = all("cpu" in name.lower() for name in keras.distribution.list_devices())
        return f"one device, a {'CPU' if cpu else 'GPU'}"
    return f"{replicas} devices{hosts(strategy).devices()}, {batch_size // replicas} images of a batch each"


def evaluation_batch_size(strategy: Strategy, batch_size: int, examples: int) -> int:
    """A batch size by which every device has an example of every batch, the last included; `batch_size` if it does.

    TensorFlow gives the first devices ceil(batch / devices) examples each; batch norm fails on a device left empty, and
    Keras where the first batch gives one device more than another. The next smaller size that will do is taken, else
    the next larger one.

    Raises:
      ValueError: no size will do, since there are hardly more examples than devices.
    """
    replicas = strategy.num_replicas_in_sync
    largest = batch_size - batch_size % replicas
    if not hosts(strategy).one_host:  # fills the last one up
        return largest
    even = min(largest, examples - examples % replicas)
    smaller, larger = range(even, 0, -replicas), range(largest + replicas, examples + replicas, replicas)
    for size in itertools.chain(smaller, larger):
        last = examples % size
        if last == 0 or -(-last // replicas) * (replicas - 1) < last:
            return size
    raise ValueError(f"Every device needs examples of every batch. Received: {examples} examples, {replicas} devices")
