"""Callbacks for `model.fit`."""

import math
import os
import time

import keras
import tensorflow as tf

from tfmodels.training._keras_internals import is_multi_worker
from tfmodels.training.update import count_updates


def give_directions(callbacks, metrics):
    """Tells callbacks that watch one of these built-in metrics whether more is better.

    Keras knows it of its own metrics alone.
    """
    names = {metric.name for metric in metrics}
    for callback in callbacks:
        name = str(getattr(callback, "monitor", "")).removeprefix("val_")
        if name in names and getattr(callback, "mode", None) == "auto":
            callback.mode = "max" if name.endswith(("accuracy", "exact_match")) else "min"


class TensorBoard(keras.callbacks.TensorBoard):
    """Keras's callback, with the graph of the forward pass in TensorBoard's Graphs tab.

    Keras writes the graph of plain functional and sequential models only, not of their subclasses.

    Args:
        log_dir: str, the folder of the logs.
        **kwargs: as Keras documents.
    """

    def set_model(self, model):
        super().set_model(model)
        if not self.write_graph:
            return
        specs = {x.name: tf.TensorSpec(x.shape, x.dtype) for x in model.inputs}
        graph = tf.function(model, autograph=False).get_concrete_function(specs).graph
        writer = tf.summary.create_file_writer(os.path.join(self.log_dir, "train"), filename_suffix=".graph")
        with writer.as_default(step=0):
            tf.summary.graph(graph)
        writer.close()


class TimeBudget(keras.callbacks.Callback):
    """Trains for a given time: warm-up in steps, then the learning rate falls to 0 as time runs out.

    The time counts from the end of the first step, which compiles, so that every run has the same share
    of each phase on fast and slow machines. The optimizer must have a plain learning rate.

    Args:
        seconds: float, the time to train.
        learning_rate: float, the highest rate.
        warmup_steps: int, steps of linear warm-up, at least 1.

    Raises:
        ValueError: an argument out of range; at the start of `fit` on several workers, each with its clock.
    """

    def __init__(self, seconds, learning_rate, warmup_steps=100):
        super().__init__()
        if seconds <= 0:
            raise ValueError(f"seconds must be above 0. Received: seconds={seconds}.")
        if warmup_steps < 1:
            raise ValueError(f"warmup_steps must be at least 1. Received: warmup_steps={warmup_steps}.")
        self.seconds = seconds
        self.learning_rate = learning_rate
        self.warmup_steps = warmup_steps
        self._clock = None  # a function, which Resume leaves alone: another process has another clock
        self._used = 0.0  # seconds
        self._steps = self._updates_before = 0

    def on_train_begin(self, logs=None):
        if is_multi_worker(self.model.distribute_strategy):
            raise ValueError(
                "TimeBudget is for one machine: clocks of several workers end at different steps. Received: "
                "a MultiWorkerMirroredStrategy. Give fit a number of epochs, and the optimizer a schedule."
            )

    def on_train_batch_begin(self, batch, logs=None):
        self._updates_before = count_updates(self.model)
        used = (self._clock() if self._clock else self._used) / self.seconds
        warmup = min(1.0, (self._steps + 1) / self.warmup_steps)
        # Half a cosine over time, as Loshchilov & Hutter 2017 have it over steps.
        decay = 0.5 * (1 + math.cos(math.pi * min(used, 1.0)))
        self.model.optimizer.learning_rate = self.learning_rate * warmup * decay

    def on_train_batch_end(self, batch, logs=None):
        self._steps += count_updates(self.model) - self._updates_before
        if self._clock is None:
            start = time.monotonic() - self._used
            self._clock = lambda: time.monotonic() - start
        self._used = self._clock()
        if self._used >= self.seconds:
            self.model.stop_training = True
