"""Canaries: each fails on the day that Keras mends what training/_keras_internals.py stands in for."""

import contextlib
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmodels.layers._kernels import is_for_xla
from tfmodels.training import _keras_internals as internals


def source_of_keras(model_class, name):
    """The code that Keras itself has for a method."""
    owner = next(c for c in model_class.__mro__ if name in vars(c) and c.__module__.startswith("keras."))
    return inspect.getsource(vars(owner)[name])


def test_keras_still_sums_gradients_after_it_clips_them():
    """When this fails: `of_summed_gradients` may go, and the optimizer may be handed replicas' gradients."""
    code = source_of_keras(keras.optimizers.SGD, "_backend_apply_gradients")
    assert code.index("self._clip_gradients(grads)") < code.index("self._backend_update_step(")
    code = source_of_keras(keras.optimizers.SGD, "_backend_update_step")
    assert "self._all_reduce_sum_gradients(" in code


def test_keras_still_reduces_whole_batches_to_build():
    """When this fails: `StrategyModel._maybe_symbolic_build` may go."""
    code = source_of_keras(internals.StrategyModel, "_maybe_symbolic_build")
    assert '"MEAN"' in code and "maybe_distributed_data_batch" in code


def test_keras_still_reduces_logs_along_an_axis():
    """When this fails: `StrategyModel._logs_of_replica` may go."""
    module = inspect.getmodule(next(c for c in keras.Model.__mro__ if c.__name__ == "TensorFlowTrainer"))
    assert 'strategy.reduce("MEAN", v, axis=0)' in inspect.getsource(module.reduce_per_replica)


def test_keras_still_updates_averages_in_the_replica():
    """When this fails: `update_averages` may go."""
    code = source_of_keras(keras.optimizers.SGD, "_backend_apply_gradients")
    assert "ops.cond(" in code[code.index("ema_overwrite_frequency") :]


@pytest.fixture
def tuned(monkeypatch):
    """Whether each dataset that is iterated over is tuned."""
    iterate, tuned = type(tf.data.Dataset.range(1)).__iter__, []

    def note(dataset):
        tuned.append(dataset.options().autotune.enabled)
        return iterate(dataset)

    monkeypatch.setattr(tf.data.Dataset, "__iter__", note)
    return tuned


def compiled_model():
    inputs = keras.Input((2,))
    model = internals.StrategyModel(inputs, keras.layers.Dense(1)(inputs))
    model.compile("sgd", "mse")
    return model


ARRAYS = np.ones((4, 2)), np.ones((4, 1))


def test_no_thread_tunes_arrays(tuned):
    model = compiled_model()
    model.fit(*ARRAYS, validation_data=ARRAYS, epochs=2, verbose=0)
    model.evaluate(*ARRAYS, verbose=0)
    assert len(tuned) >= 3 and set(tuned) == {False}


@pytest.mark.parametrize("chosen", [None, True])
def test_a_thread_tunes_a_dataset_whose_options_ask_for_it(tuned, chosen):
    data = tf.data.Dataset.from_tensor_slices(ARRAYS).batch(2)
    options = tf.data.Options()
    if chosen:
        options.autotune.enabled = True
    compiled_model().fit(data.with_options(options), verbose=0)
    assert set(tuned) == {bool(chosen)}


def test_no_thread_tunes_distributed_data(tuned):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = compiled_model()
    data = tf.data.Dataset.from_tensor_slices(ARRAYS).batch(2)
    data = strategy.experimental_distribute_dataset(data)
    make = internals.multi_device_iterator_ops._create_device_dataset
    model.fit(data, epochs=2, verbose=0)
    assert [part.options().autotune.enabled for part in data._cloned_datasets] == [False]
    assert len(tuned) >= 2 and set(tuned) == {False}  # on the device
    assert internals.multi_device_iterator_ops._create_device_dataset is make


def test_what_is_replaced_within_the_context_is_put_back():
    optimizer = keras.optimizers.SGD(use_ema=True)
    with pytest.raises(KeyError), internals.of_summed_gradients(optimizer):
        assert optimizer._all_reduce_sum_gradients([1]) == [1] and not optimizer.use_ema
        raise KeyError
    assert optimizer.use_ema and "_all_reduce_sum_gradients" not in vars(optimizer)
    assert not internals.is_multi_worker(tf.distribute.get_strategy())


@pytest.mark.parametrize("amsgrad", [False, True])
def test_adam_in_one_op_is_keras_adam(amsgrad):
    rng = np.random.default_rng(0)
    start = rng.normal(size=(3, 4)).astype("float32")
    gradients = rng.normal(size=(5, 3, 4)).astype("float32")

    def weights(context):
        variable = keras.Variable(start)
        optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.2, epsilon=1e-3, amsgrad=amsgrad)
        optimizer.build([variable])

        @tf.function(autograph=False)
        def step(gradient):
            with context(optimizer):
                optimizer.apply([gradient], [variable])

        for gradient in gradients:
            step(gradient)
        ops = {op.type for op in step.get_concrete_function(gradients[0]).graph.get_operations()}
        arrays = [np.asarray(v) for v in [variable, *optimizer.variables]]
        return arrays, "ResourceApplyAdam" in ops

    ours, one_op = weights(internals.of_summed_gradients)
    keras_own, _ = weights(contextlib.nullcontext)
    assert one_op is not amsgrad
    for one, other in zip(ours, keras_own, strict=True):
        # The op takes 1 - 0.999 in float32, which is 0.00100005.
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype, tolerance", [("bfloat16", 1e-2), ("float16", 1e-3)])
def test_adam_of_narrow_weights_is_that_of_float32(dtype, tolerance):
    """Its steps, of numbers that are rounded; Keras's own are 0 in bfloat16."""
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(3, 4)), rng.normal(size=(5, 3, 4)).astype("float32")

    def weights(dtype):
        variable = keras.Variable(start, dtype=dtype)
        optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.2, epsilon=1e-3)
        optimizer.build([variable])
        for gradient in gradients:
            with internals.of_summed_gradients(optimizer):
                optimizer.apply([tf.cast(gradient, dtype)], [variable])
        return np.asarray(tf.cast(variable.value, tf.float32))

    np.testing.assert_allclose(weights(dtype), weights("float32"), atol=5 * tolerance)
    assert np.abs(weights(dtype) - start).max() > 0.1


@pytest.mark.parametrize("jit_compile", [True, False])
def test_what_is_compiled_by_xla_is_known_within_loops_too(jit_compile):
    found = []

    def body(i):
        found.append(is_for_xla())
        return i + 1

    @tf.function(autograph=False, jit_compile=jit_compile)
    def call():
        return tf.while_loop(lambda i: i < 2, body, [tf.function(body)(0)])

    call()
    assert set(found) == {jit_compile} and not is_for_xla()
