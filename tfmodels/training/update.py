"""Applying summed gradients once: steps that are not finite are skipped, and counted."""

import re

import keras
import tensorflow as tf

from tfmodels.training._keras_internals import (
    in_each_replica,
    inner_optimizer,
    merge_replicas,
    of_summed_gradients,
    update_averages,
)

_MOST_SKIPPED_IN_A_ROW = 10


class StepCounts:
    """What training steps have met, each an int32 variable. Make it within the strategy's scope."""

    def __init__(self):
        self.skipped = _counter("skipped")
        self.skipped_in_a_row = _counter("skipped_in_a_row")
        self.most_rows = _counter("most_rows")  # examples of the largest global batch

    def count(self, finite, hopeless, rows):
        """Counts one step.

        Args:
            finite: bool tensor, whether the step was made.
            hopeless: bool tensor, whether the step, if it was not made, belongs to the row of skipped
                ones that training ends with.
            rows: int32 tensor, examples of the global batch.
        """
        skipped = tf.cast(~finite, tf.int32)
        self.skipped.assign_add(skipped)
        self.skipped_in_a_row.assign((self.skipped_in_a_row + 1) * skipped * tf.cast(hopeless, tf.int32))
        self.most_rows.assign(tf.maximum(self.most_rows, rows))


def _counter(name):
    # Each replica counts the same, so any will do.
    return tf.Variable(
        0,
        trainable=False,
        name=name,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )


def apply_gradients(optimizer, gradients, variables):
    """Updates variables once, if all gradients are finite. In a replica, as a part of the step.

    Args:
        optimizer: a Keras optimizer that is built.
        gradients: list of tensors, summed over all replicas, None where there is none.
        variables: list of `keras.Variable`.

    Returns:
        A tuple of bool scalars: whether the update was made, and whether it cannot be mended by a
        smaller loss scale if it was not.
    """
    pairs = [(g, v) for g, v in zip(gradients, variables, strict=True) if g is not None]
    gradients, updated = [list(part) for part in zip(*pairs, strict=True)]
    # One pass over the gradients; a sum of squares beyond float32 is as useless as an infinite one.
    squares = [tf.nn.l2_loss(tf.cast(gradient, tf.float32)) for gradient in gradients]
    finite = tf.math.is_finite(tf.add_n(squares))
    scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    # It halves its scale after each step that is not finite, which is no fault while it can.
    hopeless = tf.convert_to_tensor(optimizer.dynamic_scale) <= 1.0 if scaled else tf.constant(True)

    def merged(strategy, finite, *gradients):
        finite = strategy.experimental_local_results(finite)[0]

        def apply():
            with of_summed_gradients(optimizer):
                in_each_replica(strategy, optimizer.apply, list(gradients), updated)

        def step():
            if not scaled:
                apply()
            if inner_optimizer(optimizer).use_ema:
                update_averages(strategy, optimizer, variables)
            return 0

        if scaled:
            apply()  # with a condition of its own
        # Here and not in a replica, where TensorFlow allows no updates within a condition.
        tf.cond(finite, step, lambda: 0)

    merge_replicas(merged, finite, *gradients)
    return finite, hopeless


def is_bias_or_norm(variable):
    """Whether weight decay leaves a variable out."""
    # Vectors are biases and the weights of norms. Tables of biases, a head or a distance, have two axes.
    return len(variable.shape) < 2 or bool(re.search(r"(?:^|[/_])bias(?:es)?(?:[/_]|$)", variable.path))


def count_updates(model):
    """How often a model's optimizer has changed the weights, an int.

    Keras counts an epoch's last execution (`steps_per_execution`) as a whole one, however many steps it made.
    """
    return int(keras.ops.convert_to_numpy(inner_optimizer(model.optimizer).iterations))


class StepGuard(keras.callbacks.Callback):
    """Ends training with a clear error when steps are skipped in a row, or a batch cannot be cut.

    Args:
        counts: the `StepCounts` of the model.
        least_rows: int, examples that the largest batch must have: one a replica and micro-batch.
    """

    def __init__(self, counts, least_rows):
        super().__init__()
        self._counts = counts
        self._least_rows = least_rows
        self._skipped_before = 0

    def on_train_begin(self, logs=None):
        for counter in vars(self._counts).values():
            counter.assign(0)
        self._skipped_before = 0

    def on_train_batch_end(self, batch, logs=None):
        check_row_count(int(self._counts.most_rows.numpy()), self._least_rows)
        in_a_row = int(self._counts.skipped_in_a_row.numpy())
        if in_a_row >= _MOST_SKIPPED_IN_A_ROW:
            raise FloatingPointError(
                f"Gradients must be finite. Received: infinite or NaN gradients in {in_a_row} steps in a "
                f"row, the last at step {batch + 1} of its epoch; none of them has changed the weights. "
                "Lower the learning rate, clip gradients (global_clipnorm of the optimizer), or look for "
                "broken numbers in the data."
            )

    def on_epoch_end(self, epoch, logs=None):
        skipped = int(self._counts.skipped.numpy())
        if skipped > self._skipped_before and logs is not None:
            logs["skipped_steps"] = skipped - self._skipped_before
        self._skipped_before = skipped


def check_row_count(rows, least_rows):
    """Raises ValueError for a batch that cannot give each micro-batch of each replica an example."""
    if rows < least_rows:
        raise ValueError(
            "A batch must have at least one example for each micro-batch of each replica. Received: a "
            f"batch of {rows} for replicas x micro_batches = {least_rows}. Make batches larger, or "
            "micro_batches smaller."
        )
