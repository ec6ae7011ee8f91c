"""Choosing a tf.distribute strategy from what the machine has."""

import tensorflow as tf

STRATEGIES = ("auto", "none", "mirrored")


def make_strategy(name="auto"):
    """A strategy by name. Make the model within its `scope()`.

    Args:
        name: "none", one device; "mirrored", all GPUs (or all logical CPUs where there is none);
            "auto", mirrored where there is more than one GPU.

    Returns:
        A `tf.distribute.Strategy`.

    Raises:
        ValueError: an unknown name.
    """
    if name not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}. Received: {name!r}.")
    gpus = tf.config.list_logical_devices("GPU")
    if name == "mirrored" or (name == "auto" and len(gpus) > 1):
        devices = gpus or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.get_strategy()
