"""Where a run computes: one device, or the same model on every GPU of this host."""

import itertools
from collections.abc import Sequence

import tensorflow as tf

STRATEGIES = ("auto", "none", "mirrored")


def make_strategy(name: str = "auto", devices: Sequence[str] = ()) -> tf.distribute.Strategy:
    """The `tf.distribute` strategy of that name.

    Args:
      name: "none" is one device; "mirrored" copies the model to every device; "auto" mirrors where this host has
        several GPUs.
      devices: for "mirrored", such as ["GPU:0", "GPU:1"]; default every GPU, or the CPU where there is none.
    """
    if devices and name != "mirrored":
        raise ValueError(f"devices belong to strategy 'mirrored'. Received: strategy={name!r}, devices={devices}")
    if name not in STRATEGIES:
        raise ValueError(f"strategy must be one of {STRATEGIES}. Received: strategy={name!r}")
    several_gpus = len(tf.config.list_logical_devices("GPU")) > 1
    if name == "mirrored" or (name == "auto" and several_gpus):
        return tf.distribute.MirroredStrategy(list(devices) or None)
    return tf.distribute.get_strategy()


def describe(strategy: tf.distribute.Strategy, batch_size: int) -> str:
    """The devices, and each one's share of a batch: "2 devices, GPU:0 and GPU:1, 256 images of a batch each"."""
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
        return f"one device, a {kind}"
    names = " and ".join(device.rpartition("/device:")[2] for device in strategy.extended.worker_devices)
    return f"{replicas} devices, {names}, {batch_size // replicas} images of a batch each"


def check_replicas(
    strategy: tf.distribute.Strategy,
    *,
    batch_size: int,
    accumulate_steps: int = 1,
    steps_per_execution: int = 1,
    jit_compile: bool = False,
):
    """Raises ValueError for what Keras cannot do on several devices, where it would fail from inside."""
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise ValueError(
            "The global batch must divide by the number of devices. "
            f"Received: batch_size={batch_size}, {replicas} devices"
        )
    asked = {
        "accumulate_steps": accumulate_steps > 1 and accumulate_steps,
        "steps_per_execution": steps_per_execution > 1 and steps_per_execution,
        "jit_compile": jit_compile and "true",
    }
    refused = ", ".join(f"{name}={value}" for name, value in asked.items() if value)
    if refused and replicas > 1:
        raise ValueError(
            f"Keras can do this on one device only (--strategy=none). Received: {refused}, {replicas} devices"
        )


def evaluation_batch_size(strategy: tf.distribute.Strategy, batch_size: int, examples: int) -> int:
    """A batch size by which every device has an example of every batch, the last included; `batch_size` if it does.

    TensorFlow gives the first devices ceil(batch / devices) examples each, and batch norm fails on a device left empty.
    The next smaller size that will do is taken, else the next larger one.

    Raises:
      ValueError: no size will do, since there are hardly more examples than devices.
    """
    replicas = strategy.num_replicas_in_sync
    largest = batch_size - batch_size % replicas
    smaller, larger = range(largest, 0, -replicas), range(largest + replicas, examples + replicas, replicas)
    for size in itertools.chain(smaller, larger):
        last = examples % size
        if last == 0 or -(-last // replicas) * (replicas - 1) < last:
            return size
    raise ValueError(f"Every device needs examples of every batch. Received: {examples} examples, {replicas} devices")
