"""Averages of weights: over the steps of a run, and over checkpoints."""

import contextlib

import keras
import numpy as np
import tensorflow as tf

from tfmodels.training.state_file import read_state
from tfmodels.training.update import count_updates


class AverageWeights(keras.callbacks.Callback):
    """Keeps an average of the weights while they are trained, for evaluation and as the result.

    Validation sees the average, training goes on from where it was, and at the end of `fit` the weights
    are the average. It goes on after `tfmodels.training.Resume`.

    Args:
        decay: float, of an exponential moving average (Polyak & Juditsky 1992); None: all weights since
            `start_step` count the same, which is stochastic weight averaging (Izmailov et al. 2018,
            section 3.2).
        start_step: int, steps before the first weights that count; the average is the weights until then.
        every_steps: int, steps from one update of the average to the next. Of steps that are made at once
            (`steps_per_execution`) it sees the last one's weights, which count for all of them.

    Example:
        >>> model.fit(data, validation_data=valid, callbacks=[tfmodels.training.AverageWeights(0.999)])
    """

    def __init__(self, decay=0.999, start_step=0, every_steps=1):
        super().__init__()
        if decay is not None and not 0 <= decay < 1:
            raise ValueError(f"decay must be at least 0 and below 1, or None. Received: {decay!r}.")
        if start_step < 0 or every_steps < 1:
            raise ValueError(
                "start_step must be at least 0 and every_steps at least 1. "
                f"Received: start_step={start_step}, every_steps={every_steps}."
            )
        self.decay = decay
        self.start_step = start_step
        self.every_steps = every_steps
        self._steps = self._updates_before = 0
        self._averages = self._weights = ()
        self._swapped = False

    def run_variables(self):
        """What `Resume` saves."""
        return {str(i): average for i, average in enumerate(self._averages)}

    def on_train_begin(self, logs=None):
        self._steps = 0
        self._weights = [weight.value for weight in self.model.trainable_variables]
        with self.model.distribute_strategy.scope():
            # Averages in float32: a step of 1e-3 is lost in bfloat16.
            self._averages = [
                tf.Variable(tf.cast(tf.convert_to_tensor(weight), tf.float32), trainable=False)
                for weight in self._weights
            ]
        self._move = tf.function(self._move_averages)

    def _move_averages(self, share):
        for average, weight in zip(self._averages, self._weights, strict=True):
            before = tf.convert_to_tensor(average)
            average.assign(before + share * (tf.cast(tf.convert_to_tensor(weight), tf.float32) - before))

    def on_train_batch_begin(self, batch, logs=None):
        self._updates_before = count_updates(self.model)

    def on_train_batch_end(self, batch, logs=None):
        before = self._updates()
        self._steps += count_updates(self.model) - self._updates_before
        updates = self._updates() - before
        if not updates:
            return
        if self.start_step and not before:
            share = 1.0
        elif self.decay is None:
            share = updates / self._updates()
        else:
            share = 1.0 - self.decay**updates
        self._move(tf.constant(share))

    def _updates(self):
        """Of the average up to this step, that of start_step among them."""
        counted = self._steps - self.start_step
        return 0 if counted < 0 else counted // self.every_steps + (self.start_step > 0)

    def _swap(self):
        for average, weight in zip(self._averages, self._weights, strict=True):
            value = tf.identity(weight)
            weight.assign(tf.cast(tf.convert_to_tensor(average), weight.dtype))
            average.assign(tf.cast(value, tf.float32))

    def _counts(self):
        return bool(self._averages) and self._updates() > 0

    def on_test_begin(self, logs=None):
        if self._counts():
            self._swap()
            self._swapped = True

    def on_test_end(self, logs=None):
        if self._swapped:
            self._swap()
            self._swapped = False

    @contextlib.contextmanager
    def in_place(self):
        """Within it the model has the averaged weights, to be saved or tried."""
        self.on_test_begin()
        try:
            yield
        finally:
            self.on_test_end()

    def on_train_end(self, logs=None):
        if self._counts():
            self._swap()
        self._averages = self._weights = ()


def average_checkpoints(model, paths):
    """Sets a model's weights to the mean of checkpoints' (Vaswani et al. 2017, section 6.1).

    Args:
        model: the model that the checkpoints are of.
        paths: list of str: `.keras` or `.weights.h5` files, or the `.safetensors` files of `Resume`.

    Raises:
        ValueError: no paths, or a checkpoint of another model.

    Example:
        >>> tfmodels.training.average_checkpoints(model, sorted(glob.glob("runs/1/step-*.safetensors"))[-5:])
        >>> model.save("averaged.keras")
    """
    paths = [str(path) for path in ([paths] if isinstance(paths, str) else paths)]
    if not paths:
        raise ValueError(
            "average_checkpoints needs at least one file. Received: none. Name .keras or .weights.h5 files, "
            "or checkpoints of Resume."
        )
    # Sums in float64, so that the mean does not depend on how many there are.
    sums = [np.zeros(weight.shape, np.float64) for weight in model.weights]
    before = model.get_weights()
    try:
        for path in paths:
            for i, weight in enumerate(_weights_of(model, path)):
                sums[i] += weight
    except BaseException:
        model.set_weights(before)
        raise
    for weight, total in zip(model.weights, sums, strict=True):
        weight.assign((total / len(paths)).astype(keras.backend.standardize_dtype(weight.dtype)))


def _weights_of(model, path):
    if not path.endswith(".safetensors"):
        model.load_weights(path)
        return model.get_weights()
    _, arrays = read_state(path)
    positions = {id(variable): f"model/{i}" for i, variable in enumerate(model.variables)}
    found = []
    for weight in model.weights:
        name = positions[id(weight)]
        array = arrays[name]() if name in arrays else None
        if array is None or array.shape != tuple(weight.shape):
            there = "nothing" if array is None else array.shape
            raise ValueError(
                f"{path} is a checkpoint of another model. Received: {there} for {weight.path} "
                f"{tuple(weight.shape)}."
            )
        found.append(array)
    return found
