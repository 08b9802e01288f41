"""Where a run computes: one device, or the same model on every GPU of this host."""

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
