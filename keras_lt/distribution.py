"""Where a run computes: one device, or the same model on every GPU of this host."""

import itertools

import tensorflow as tf

STRATEGIES = ("auto", "none", "mirrored")


def make_strategy(name: str = "auto", devices: list[str] | None = None) -> tf.distribute.Strategy:
    """The `tf.distribute` strategy of that name.

    Args:
      name: "none" is one device; "mirrored" copies the model to every device; "auto" mirrors where this host has
        several GPUs.
      devices: for "mirrored", such as ["GPU:0", "GPU:1"]; default every GPU, or the CPU where there is none.
    """
    if name not in STRATEGIES:
        raise ValueError(f"strategy must be one of {STRATEGIES}. Received: strategy={name!r}")
    several_gpus = len(tf.config.list_logical_devices("GPU")) > 1
    if name == "mirrored" or (name == "auto" and several_gpus):
        return tf.distribute.MirroredStrategy(devices)
    return tf.distribute.get_strategy()


def check_batch_size(strategy: tf.distribute.Strategy, batch_size: int):
    """Raises ValueError where a global batch cannot be shared out equally; Keras fails from inside on such a batch."""
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise ValueError(
            "The global batch must divide by the number of devices. "
            f"Received: batch_size={batch_size}, {replicas} devices"
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
