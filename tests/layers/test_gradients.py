"""Layers whose training has gradients of its own, against those that TensorFlow derives in evaluation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmodels.layers import FeedForward, _kernels
from tfmodels.layers.masks import masked_softmax
from tfmodels.layers.norm import LayerNormalization, RMSNormalization

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 5, 8))


LAYERS = {
    "layer norm": lambda dtype: LayerNormalization(epsilon=1e-5, dtype=dtype),
    "RMS norm": lambda dtype: RMSNormalization(epsilon=1e-5, dtype=dtype),
    "gelu": lambda dtype: FeedForward(11, activation="gelu", dtype=dtype),
    "gelu_tanh": lambda dtype: FeedForward(11, activation="gelu_tanh", dtype=dtype),
    "silu": lambda dtype: FeedForward(11, activation="silu", gated=True, dtype=dtype),
    "gated gelu": lambda dtype: FeedForward(11, activation=keras.activations.gelu, gated=True, dtype=dtype),
    "relu": lambda dtype: FeedForward(11, gated=True, dtype=dtype),
}


def derivatives(function, x, variables=()):
    """The output, the gradient of a weighted sum of it, and the gradient of that gradient's square."""
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
            weighted = tf.reduce_sum(
                tf.cast(y, tf.float64) * tf.reshape(np.cos(range(y.shape.num_elements())), y.shape)
            )
        gradients = tape.gradient(weighted, [x, *variables])
        square = tf.add_n([tf.reduce_sum(tf.cast(gradient, tf.float64) ** 2) for gradient in gradients])
    return [y, *gradients, outer.gradient(square, x)]


def check(trained, evaluated, tolerance):
    for a, b in zip(trained, evaluated, strict=True):
        a, b = (np.asarray(tf.cast(value, tf.float64)) for value in (a, b))
        np.testing.assert_allclose(a, b, atol=tolerance * np.abs(b).max(), rtol=0)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize(
    "dtype, tolerance",
    [("float64", 1e-12), ("float32", 1e-5), ("mixed_bfloat16", 0.05), ("bfloat16", 0.05)],
)
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name, dtype, tolerance, compiled):
    keras.utils.set_random_seed(0)
    layer = LAYERS[name](dtype)
    layer.build(X.shape)
    for variable in layer.trainable_variables:
        variable.assign(variable + keras.random.normal(variable.shape, 0.0, 0.3))
    x = tf.cast(X, layer.compute_dtype)
    variables = [variable.value for variable in layer.trainable_variables]
    results = []
    for training in (True, False):

        def run(x, training=training):
            return derivatives(lambda x: layer(x, training=training), x, variables)

        results.append((tf.function(run, autograph=False) if compiled else run)(x))
        assert results[-1][0].dtype == layer.compute_dtype
    check(*results, tolerance)


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("bfloat16", 0.02)])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_weights(masked, dtype, tolerance):
    scores = tf.cast(RNG.normal(size=(2, 3, 4, 5)), dtype)
    mask = np.tril(np.ones((2, 4, 5), bool), 1)
    mask[1, 2] = False  # this query may see nothing
    mask = tf.constant(mask) if masked else None
    results = [
        derivatives(lambda x, training=training: masked_softmax(x, mask, dtype, training), scores)
        for training in (True, False)
    ]
    check(*results, tolerance)
    if masked:
        assert not np.asarray(tf.cast(results[0][1][1, :, 2], tf.float32)).any()
        assert np.asarray(tf.cast(results[0][1][1, :, 1, :3], tf.float32)).all()


def reached(graph, starts, following):
    """The ops of a graph that are reached from others, themselves included, by `following(op)`."""
    found, todo = set(), list(starts)
    while todo:
        op = todo.pop()
        if op.name not in found:
            found.add(op.name)
            todo.extend(following(op))
    return found


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("name", ["layer norm", "RMS norm", "attention weights"])
def test_a_gradient_makes_nothing_large_before_it_is_asked_for(name, dtype):
    """TensorFlow runs an op when its inputs are there: within the forward pass, and the result is kept."""
    if name == "attention weights":
        function = lambda x: masked_softmax(x, None, x.dtype, training=True)  # noqa: E731
    else:
        layer = LAYERS[name](dtype)
        layer.build(X.shape)
        function = lambda x: layer(x, training=True)  # noqa: E731

    def run(x, upstream):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return y, tape.gradient(y, x, upstream)

    spec = tf.TensorSpec(X.shape, keras.DTypePolicy(dtype).compute_dtype)
    graph = tf.function(run, autograph=False).get_concrete_function(spec, spec).graph
    users = lambda op: [user for x in op.outputs for user in x.consumers()] + op._control_outputs  # noqa: E731
    after = reached(graph, [graph.inputs[1].op], users)
    makers = lambda op: [x.op for x in op.inputs]  # noqa: E731
    forward = reached(graph, [graph.outputs[0].op], makers)
    computed = [op for op in graph.get_operations() if op.type not in ("Identity", "Const")]
    large = [op.name for op in computed if any(x.shape == X.shape for x in op.outputs)]
    assert set(large) & after and not set(large) - after - forward


def test_a_trained_layer_is_compiled():
    """XLA in training, TensorFlow's operations without, so that exported graphs need no XLA."""
    layer = FeedForward(11, activation="gelu")
    layer.build(X.shape)

    def operations(training):
        run = tf.function(lambda x: layer(x, training=training), autograph=False)
        graph = run.get_concrete_function(tf.TensorSpec((None, 5, 8))).graph
        return [
            op
            for op in graph.get_operations()
            if op.type in ("Erf", "PartitionedCall", "StatefulPartitionedCall")
        ]

    (call,) = operations(True)
    assert call.get_attr("_XlaMustCompile")
    assert not operations(False)


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh"])
def test_gelu_is_rounded_once(activation):
    layer = FeedForward(5, activation, dtype="mixed_bfloat16")
    x = tf.cast(tf.linspace(-4.0, 4.0, 999), tf.bfloat16)
    exact = keras.ops.gelu(tf.cast(x, tf.float64), approximate=activation == "gelu_tanh")
    np.testing.assert_array_equal(layer._activate(x, training=False), tf.cast(exact, tf.bfloat16))


def test_compiled_sizes_are_few():
    sizes = {int(tf.size(_kernels._vector(tf.ones((n,)), n))) for n in range(1024, 2049)}
    assert len(sizes) == 9 and min(sizes) == 1024 and max(sizes) == 2048
    np.testing.assert_array_equal(_kernels._vector(tf.ones((1, 17)), 17), [1.0] * 17 + [0.0])
    empty = _kernels.compiled(keras.activations.gelu)(tf.ones((0, 3)))
    assert empty.shape == (0, 3)
