"""All private names of Keras and TensorFlow that training touches, but `_flatten_layers`; no other file may.

Each stands in for something that Keras 3.15 does wrong or not at all on TensorFlow; the canary tests in
tests/training/test_keras_internals.py fail on the day that Keras mends it, and say what can go.
"""

import contextlib
import functools
import os

import keras
import tensorflow as tf
from tensorflow.python.data.ops import multi_device_iterator_ops


class StrategyModel(keras.Model):
    """A `keras.Model` that fits under `MultiWorkerMirroredStrategy` too, and whose epochs end at once."""

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        if iterator is not None:
            _without_tuning(iterator)
        # Keras reduces a nested batch over the workers, to learn nothing but shapes, and fails. Each
        # worker's own rows tell as much.
        if is_multi_worker(self.distribute_strategy) and iterator is not None:
            for _, _, batches in iterator:
                data_batch = tf.nest.map_structure(self._first_local, next(batches))
                break
            iterator = None
        if vars(self).get("_run"):
            # What a checkpoint puts back must be there before the first step, where Keras makes the
            # metrics of `compile(loss=..., metrics=...)`.
            with self.distribute_strategy.scope():
                self._symbolic_build(iterator, data_batch)
        else:
            super()._maybe_symbolic_build(iterator, data_batch)

    def _first_local(self, value):
        if not isinstance(value, tf.distribute.DistributedValues):
            return value
        return self.distribute_strategy.experimental_local_results(value)[0]  # fit may be out of its scope

    def _logs_of_replica(self, logs):
        """Logs of a step as Keras can reduce them: over several workers it takes means along axis 0."""
        if not is_multi_worker(self.distribute_strategy):
            return logs
        return tf.nest.map_structure(lambda value: tf.reshape(value, (1,)), logs)


def _without_tuning(epoch_iterator):
    """Takes the thread that tunes it from the data of `fit` or `evaluate`, unless its options ask for it.

    Whoever frees an iterator waits for that thread. TensorFlow wakes it before it marks it as cancelled, so
    it often sleeps on: for as long as it had run, up to a minute, at the end of each epoch and validation.
    `tf.data.AUTOTUNE` then means as many parallel calls as there are cores.
    """
    dataset = epoch_iterator._distributed_dataset
    if isinstance(dataset, tf.data.Dataset):
        epoch_iterator._distributed_dataset = _untuned(dataset)
    elif hasattr(dataset, "_cloned_datasets"):  # of tf.distribute
        dataset._cloned_datasets = [_untuned(part) for part in dataset._cloned_datasets]
        epoch_iterator._distributed_dataset = _UntunedDevices(dataset)


def _untuned(dataset):
    if dataset.options().autotune.enabled is not None:
        return dataset
    options = tf.data.Options()
    options.autotune.enabled = False
    options.autotune.initial_parallelism = os.cpu_count()
    return dataset.with_options(options)


class _UntunedDevices:
    """Distributed data that is not tuned on the devices either, whose iterators have options of their own."""

    def __init__(self, dataset):
        self._dataset = dataset

    def __iter__(self):
        make = multi_device_iterator_ops._create_device_dataset
        multi_device_iterator_ops._create_device_dataset = lambda *args: _untuned(make(*args))
        try:
            return iter(self._dataset)
        finally:
            multi_device_iterator_ops._create_device_dataset = make


def is_multi_worker(strategy):
    """Whether a strategy spans several processes."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def inner_optimizer(optimizer):
    """What a `LossScaleOptimizer` wraps, or the optimizer itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def leave_out_of_weight_decay(optimizer, variables):
    """Excludes variables from weight decay, unless somebody has decided before or it is too late."""
    optimizer = inner_optimizer(optimizer)
    if not optimizer.built and not hasattr(optimizer, "_exclude_from_weight_decay"):
        optimizer.exclude_from_weight_decay(var_list=variables)


def forget_loss(model):
    """Drops the loss and the metrics that a model was compiled with before; Keras keeps them."""
    model.loss = model._compile_loss = model._compile_metrics = None


def has_weight_decay(optimizer, variable):
    """Whether nobody has excluded a variable from weight decay."""
    return optimizer._use_weight_decay(variable)


def variable_index(optimizer, variable):
    """The place of a variable among those that an optimizer was built for."""
    return optimizer._get_variable_index(variable)


@contextlib.contextmanager
def of_summed_gradients(optimizer):
    """Within it `optimizer.apply` takes gradients that are summed over the replicas already.

    Keras sums them only after it has clipped, tested and unscaled them, so that under a strategy it
    clips by norms of parts. And it averages weights (EMA) in a replica, where it must not: so not here.
    Adam's update is made by one op, where Keras goes over the memory of each variable a dozen times.
    """
    optimizer = inner_optimizer(optimizer)
    use_ema = optimizer.use_ema
    own = {"_all_reduce_sum_gradients": lambda pairs: pairs}
    if type(optimizer).update_step is keras.optimizers.Adam.update_step and not optimizer.amsgrad:
        own["update_step"] = functools.partial(_adam_step, optimizer)
    vars(optimizer).update(own)
    optimizer.use_ema = False
    try:
        yield
    finally:
        for name in own:
            del vars(optimizer)[name]
        optimizer.use_ema = use_ema


def _adam_step(optimizer, gradient, variable, learning_rate):
    """Adam.update_step of Keras in one op.

    The same arithmetic, but that 1 - beta is taken in float32: updates differ by up to 3e-5 of themselves.
    """
    if variable.dtype == tf.float64:
        return type(optimizer).update_step(optimizer, gradient, variable, learning_rate)
    if variable.dtype != tf.float32:
        return _narrow_adam_step(optimizer, gradient, variable, learning_rate)
    index = variable_index(optimizer, variable)
    step = tf.cast(optimizer.iterations + 1, tf.float32)
    return tf.raw_ops.ResourceApplyAdam(
        var=variable.handle,
        m=optimizer._momentums[index].value.handle,
        v=optimizer._velocities[index].value.handle,
        beta1_power=tf.pow(optimizer.beta_1, step),
        beta2_power=tf.pow(optimizer.beta_2, step),
        lr=tf.cast(learning_rate, tf.float32),
        beta1=optimizer.beta_1,
        beta2=optimizer.beta_2,
        epsilon=optimizer.epsilon,
        grad=tf.cast(gradient, tf.float32),
    )


def _narrow_adam_step(optimizer, gradient, variable, learning_rate):
    """The same of a variable of 16 bits, in float32: in bfloat16 Keras's beta_2 is 1, and its steps are 0."""
    index = variable_index(optimizer, variable)
    step = tf.cast(optimizer.iterations + 1, tf.float32)
    gradient = tf.cast(gradient, tf.float32)

    def moved(moment, value, beta):
        before = tf.cast(moment.value, tf.float32)
        after = before + (value - before) * (1 - beta)
        moment.assign(tf.cast(after, moment.dtype))
        return after

    momentum = moved(optimizer._momentums[index], gradient, optimizer.beta_1)
    velocity = moved(optimizer._velocities[index], tf.square(gradient), optimizer.beta_2)
    rate = tf.cast(learning_rate, tf.float32)
    rate *= tf.sqrt(1 - tf.pow(optimizer.beta_2, step)) / (1 - tf.pow(optimizer.beta_1, step))
    change = rate * momentum / (tf.sqrt(velocity) + optimizer.epsilon)
    variable.assign(tf.cast(tf.cast(variable, tf.float32) - change, variable.dtype))


def merge_replicas(function, *args):
    """Calls `function(strategy, *args)` once for all replicas, where the strategy has such a place."""
    strategy = tf.distribute.get_strategy()
    return tf.__internal__.distribute.interim.maybe_merge_call(function, strategy, *args)


def in_each_replica(strategy, function, *args):
    """From inside `merge_replicas`: calls a function in each replica with its own arguments."""
    if tf.__internal__.distribute.strategy_supports_no_merge_call():
        return function(*args)
    return strategy.extended.call_for_each_replica(function, args=args)


def update_averages(strategy, optimizer, variables):
    """Moves the averages of weights (EMA) by one step, and the weights onto them when it is time.

    From inside `merge_replicas`, after the step.
    """
    optimizer = inner_optimizer(optimizer)
    first = tf.equal(tf.convert_to_tensor(optimizer.iterations), 1)
    momentum = tf.where(first, 0.0, optimizer.ema_momentum)

    def move(average, value):
        share = tf.cast(momentum, average.dtype)
        average.assign(share * average + (1 - share) * value)

    pairs = zip(variables, optimizer._model_variables_moving_average, strict=True)
    pairs = [(variable.value, average.value) for variable, average in pairs if average is not None]
    for variable, average in pairs:
        strategy.extended.update(average, move, args=(variable,), group=False)
    if optimizer.ema_overwrite_frequency:

        def overwrite():
            for variable, average in pairs:
                assign = lambda variable, average: variable.assign(average)  # noqa: E731
                strategy.extended.update(variable, assign, args=(average,), group=False)
            return 0

        due = tf.equal(tf.convert_to_tensor(optimizer.iterations) % optimizer.ema_overwrite_frequency, 0)
        tf.cond(due, overwrite, lambda: 0)
