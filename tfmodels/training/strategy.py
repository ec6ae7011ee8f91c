"""Choosing a tf.distribute strategy, and what a process may do in it."""

import keras
import tensorflow as tf

from tfmodels.training._keras_internals import is_multi_worker
from tfmodels.training.allocator import share_freed_memory
from tfmodels.training.rendezvous import meet_workers, read_cluster

STRATEGIES = ("auto", "none", "mirrored", "multi_worker")

# What writes files: the first worker does it for all.
_WRITERS = (
    keras.callbacks.CSVLogger,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.RemoteMonitor,
    keras.callbacks.TensorBoard,
)


def make_strategy(name="auto", timeout_seconds=60):
    """A strategy by name. Make the model within its `scope()`.

    Args:
        name: "none", one device; "mirrored", all GPUs (or all logical CPUs where there is none);
            "multi_worker", the processes that the environment's TF_CONFIG lists, made before anything
            else is done with TensorFlow; "auto", multi_worker where there is a TF_CONFIG with several
            workers, mirrored where there is more than one GPU.
        timeout_seconds: float, how long to wait for the other workers.

    Returns:
        A `tf.distribute.Strategy`.

    Raises:
        ValueError: an unknown name, or a TF_CONFIG that is not one or differs among the workers.
        TimeoutError: a worker is missing.
    """
    if name not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}. Received: {name!r}.")
    if name == "multi_worker" or (name == "auto" and len(read_cluster()[0]) > 1):
        meet_workers(*read_cluster(needed=True), timeout_seconds)
        share_freed_memory()
        return tf.distribute.MultiWorkerMirroredStrategy()
    gpus = tf.config.list_logical_devices("GPU")
    if name == "mirrored" or (name == "auto" and len(gpus) > 1):
        devices = gpus or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.get_strategy()


def is_chief(strategy):
    """Whether this process writes files and prints: the first worker, and any that is alone."""
    return not is_multi_worker(strategy) or strategy.cluster_resolver.task_id in (0, None)


def sum_over_replicas(values):
    """Sums nested tensors (None stays None) over all replicas, in a replica."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return values
    flat = tf.nest.flatten(values)
    sums = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, [v for v in flat if v is not None]))
    return tf.nest.pack_sequence_as(values, [None if v is None else next(sums) for v in flat])


def flat(callbacks):
    """What Keras makes of callbacks as `fit` takes them: a list."""
    found = keras.tree.flatten(getattr(callbacks, "callbacks", callbacks))
    return [callback for callback in found if callback is not None]


def without_writers(callbacks):
    """A list of callbacks without those that only the first of several workers runs."""
    return [c for c in callbacks if not isinstance(c, _WRITERS) and not getattr(c, "chief_only", False)]
