"""What keras.ops has no op for, in TensorFlow: no other file of this room may import it.

Shape letters: b batch, q query length, k key length, n heads, g heads of keys and values, h head_dim,
i blocks, r rows of queries in a block, s keys in a block's range.
"""

import functools
import math

import keras
import tensorflow as tf
from tensorflow.python.ops import control_flow_util

from tfmodels.layers.steps import leading, of_step, once

# Rows of queries that are scored at once: what is held grows with this times the keys' length.
_BLOCK_ROWS = 256
# Of fewer elements the operations themselves take no longer than to begin a program of XLA's.
_FEW_ELEMENTS = 2**13
# Finite, so that a query that may see nothing (padding) gets a softmax without NaN; exp(-1e9) is exactly
# 0 in float32 beside any real score.
_MASKED_SCORE = -1e9


def is_for_xla():
    """Whether what is traced here is within a `tf.function(jit_compile=True)`."""
    if tf.executing_eagerly():
        return False
    return control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def blockwise_attention(query, key, value, query_mask, key_mask, causal, window, dropout=0.0, seed=None):
    """Attention without the whole (query_length, key_length) matrix of weights, in either direction.

    A block of queries meets the one range of keys that any of them may see, so what is wholly masked
    (the future, other packed sequences, padding, what left the window) costs nothing, and its softmax
    is the plain one. The backward pass makes a block's weights again (Rabe & Staats 2021, section 3).

    Args:
        query: float tensor, (batch, heads, query_length, head_dim), scaled.
        key, value: float tensors, (batch, key_value_heads, key_length, head_dim).
        query_mask, key_mask: int tensors, (batch, length), as `attention_mask` takes them, or both None.
        causal: whether a query may not see keys after itself.
        window: int, with `causal`: a query sees this many keys, its own the last; None: all before it.
        dropout: float, share of weights dropped.
        seed: int tensor, (2,), of the dropped weights.

    Returns:
        Float tensor, (batch, heads, query_length, head_dim).
    """
    options = causal, window, dropout, seed
    return _blockwise_attention(query, key, value, query_mask, key_mask, *options, skips=not is_for_xla())


@tf.function(autograph=False)  # traced once for all layers of a model, whose shapes are the same
def _blockwise_attention(query, key, value, query_mask, key_mask, causal, window, dropout, seed, skips):
    """As above; it skips what is masked, or not: XLA must know all sizes."""
    length, rows = keras.ops.shape(query)[2], _BLOCK_ROWS
    blocks = (length + rows - 1) // rows
    missing = blocks * rows - length
    key_length = keras.ops.shape(key)[2]
    if skips:
        starts, ends = _key_ranges(blocks, query_mask, key_mask, key_length, causal, window)

    def key_range(i):
        """The keys that block i meets."""
        return (starts[i], ends[i]) if skips else (0, key_length)

    if query_mask is not None:
        query_mask = tf.pad(query_mask, [[0, 0], [0, missing]])

    def cut(x):  # (b, n, q, h) -> (i, b, n, r, h)
        x = tf.pad(x, [[0, 0], [0, 0], [0, missing], [0, 0]])
        x = tf.reshape(x, tf.concat([tf.shape(x)[:2], [blocks, rows, x.shape[-1]]], axis=0))
        return tf.transpose(x, (2, 0, 1, 3, 4))

    def join(x):
        x = tf.transpose(x, (1, 2, 0, 3, 4))
        shape = tf.shape(x)
        return tf.reshape(x, tf.concat([shape[:2], [blocks * rows, x.shape[-1]]], axis=0))[:, :, :length]

    def weigh(i, query, key):
        """Weights of block i and a function that drops some of them, (b, n, r, s)."""
        scores = tf.cast(matmul_heads(query, key, transpose=True), tf.float32)
        mask = _block_mask(i * rows, rows, *key_range(i), query_mask, key_mask, causal, window)
        if mask is not None:
            scores = mask_scores(scores, mask)
        weights = tf.nn.softmax(scores)
        if not dropout:
            return weights, lambda x: x
        return weights, lambda x: dropped(x, dropout, tf.cast(seed, tf.int32) + [i, 0])

    @tf.custom_gradient
    def attend(query, key, value):
        queries, dtype = cut(query), query.dtype

        def forward(i, outputs):
            part = slice(*key_range(i))
            weights, drop = weigh(i, queries[i], key[:, :, part])
            return i + 1, outputs.write(i, matmul_heads(tf.cast(drop(weights), dtype), value[:, :, part]))

        element = tf.TensorShape([None, query.shape[1], rows, query.shape[-1]])
        output = join(_loop(blocks, forward, tf.TensorArray(dtype, blocks, element_shape=element))[0].stack())

        def gradient(upstream):
            errors = cut(tf.cast(upstream, dtype))
            # The sum of weights times their errors, by way of the output: a sum over h and not over s.
            mean_errors = tf.cast(upstream, tf.float32) * tf.cast(output, tf.float32)
            mean_errors = cut(tf.reduce_sum(mean_errors, axis=-1, keepdims=True))  # (i, b, n, r, 1)

            def backward(i, query_grads, key_grad, value_grad):
                start, end = key_range(i)
                keys, values = key[:, :, start:end], value[:, :, start:end]
                weights, drop = weigh(i, queries[i], keys)
                weight_error = drop(tf.cast(matmul_heads(errors[i], values, transpose=True), tf.float32))
                score_error = tf.cast(weights * (weight_error - mean_errors[i]), dtype)  # (b, n, r, s)
                value_part = _sum_heads(tf.cast(drop(weights), dtype), errors[i], values)
                key_part = _sum_heads(score_error, queries[i], keys)
                around = [[0, 0], [0, 0], [start, key_length - end], [0, 0]]
                return (
                    i + 1,
                    query_grads.write(i, matmul_heads(score_error, keys)),
                    key_grad + tf.pad(key_part, around),
                    value_grad + tf.pad(value_part, around),
                )

            grads = tf.TensorArray(dtype, blocks, element_shape=element)
            # Sums over all blocks in float32.
            zeros = tf.zeros(tf.shape(key)), tf.zeros(tf.shape(value))
            query_grads, key_grad, value_grad = _loop(blocks, backward, grads, *zeros)
            return join(query_grads.stack()), tf.cast(key_grad, dtype), tf.cast(value_grad, dtype)

        return output, gradient

    output = attend(query, key, value)
    output.set_shape(query.shape)
    return output


def _loop(blocks, body, *values):
    values = tf.while_loop(lambda i, *_: i < blocks, body, (tf.constant(0), *values), parallel_iterations=1)
    return values[1:]


def matmul_heads(x, shared, transpose=False):
    """x (b, n, r, c) times shared (b, g, c, d), or (b, g, d, c) transposed: each for n / g heads of x."""
    groups = shared.shape[1]
    if groups == x.shape[1]:
        return _matmul(x, shared, transpose)
    batch, heads, length = leading(x)
    # The heads that share keys stand as more rows of one product, n / g * r: no copies of the keys.
    rows = heads // groups * length if isinstance(batch, int) and batch == -1 else -1
    x = tf.reshape(x, (batch, groups, rows, keras.ops.shape(x)[-1]))  # (b, g, n / g * r, c)
    x = _matmul(x, shared, transpose)
    return tf.reshape(x, (batch, heads, length, keras.ops.shape(x)[-1]))


def _matmul(x, shared, transpose):
    """x (b, g, r, c) times shared (b, g, c, d), or (b, g, d, c) transposed."""
    if x.shape[2] == 1 and x.dtype == tf.float32 and of_step("writes_in_place"):
        # An op that oneDNN does not take over: for one row it needs a fifth to two thirds of the time.
        return tf.raw_ops.BatchMatMulV3(x=x, y=shared, Tout=x.dtype, adj_y=transpose)
    return tf.matmul(x, shared, transpose_b=transpose)


def _sum_heads(weights, x, like):
    """weights (b, n, r, s) and x (b, n, r, h) -> float32 (b, g, s, h), summed over what shares a head."""
    groups, heads = like.shape[1], x.shape[1]
    if groups != heads:

        def rows(x):
            shape = tf.shape(x)
            return tf.reshape(x, tf.stack([shape[0], groups, heads // groups * shape[2], shape[3]]))

        weights, x = rows(weights), rows(x)
    return tf.cast(tf.matmul(weights, x, transpose_a=True), tf.float32)


def _block_mask(first, rows, start, end, query_mask, key_mask, causal, window):
    """Which keys of its range a block may see: boolean (b or 1, r, s), or None: all."""
    mask = None
    if query_mask is not None:
        mask = tf.slice(query_mask, [0, first], [-1, rows])[:, :, None] == key_mask[:, None, start:end]
    if causal:
        query, key = (first + tf.range(rows))[:, None], (start + tf.range(end - start))[None]
        past = query >= key
        past = past if window is None else past & (query - key < window)
        mask = past[None] if mask is None else mask & past[None]
    return mask


def _key_ranges(blocks, query_mask, key_mask, key_length, causal, window):
    """The first key that each block of queries may see and the one after the last, int32 (i,) each."""
    first = tf.range(blocks) * _BLOCK_ROWS
    starts, ends = tf.zeros_like(first), tf.fill([blocks], key_length)
    if causal:
        ends = tf.minimum(ends, first + _BLOCK_ROWS)
        starts = starts if window is None else tf.maximum(first - window + 1, 0)
    if query_mask is not None:
        missing = blocks * _BLOCK_ROWS - tf.shape(query_mask)[1]
        parts = tf.pad(query_mask, [[0, 0], [0, missing]])
        parts = tf.reshape(parts, (-1, blocks, _BLOCK_ROWS, 1))
        # The numbers of the sequences that a block's real tokens lie between.
        most = tf.reduce_max(parts, axis=2)  # (b, i, 1)
        least = tf.reduce_min(tf.where(parts == 0, parts.dtype.max, parts), axis=2)
        keys = key_mask[:, None]  # (b, 1, k)
        seen = tf.reduce_any((keys >= least) & (keys <= most), axis=0)  # (i, k)
        seen = tf.cast(seen, tf.int32)
        starts = tf.maximum(starts, tf.argmax(seen, axis=1, output_type=tf.int32))
        ends = tf.minimum(ends, key_length - tf.argmax(seen[:, ::-1], axis=1, output_type=tf.int32))
    # A block of padding may see nothing: one key keeps its softmax finite.
    starts = tf.minimum(starts, key_length - 1)
    return starts, tf.maximum(ends, starts + 1)


def mask_scores(scores, mask):
    """Attention scores with those far below that may not be seen.

    A selection and not a sum: oneDNN fuses a sum with a mask that is the same in every row into the
    product before it, and then takes a hundred times as long (TensorFlow 2.21).

    Args:
        scores: float32 tensor, (batch, heads, query_length, key_length).
        mask: boolean tensor that broadcasts to (batch, query_length, key_length), True = may attend.
    """
    masked = tf.where(once(lambda: mask[:, None], "of all heads", mask), scores, _MASKED_SCORE)
    # TensorFlow's optimisers know no rank of a mask from outside a function, and say so on standard error.
    return tf.ensure_shape(masked, scores.shape)


def swap_in_words(x):
    """x (b, l, n, h) as (b, n, l, h), without a gradient: in words of 8 bytes, 4 times as fast on a CPU."""
    width = 8 // x.dtype.size
    if x.shape[-1] % width or width == 1:
        return tf.transpose(x, (0, 2, 1, 3))
    words = tf.reshape(x, (*leading(x), x.shape[-1] // width, width))
    # Not int64, of which oneDNN says on standard error that it does not support it.
    words = tf.transpose(tf.bitcast(words, tf.float64), (0, 2, 1, 3))
    words = tf.bitcast(words, x.dtype)  # (b, n, l, h / width, width)
    return tf.reshape(words, (*leading(words)[:3], x.shape[-1]))


def add_in_place(x, indices, updates):
    """x with updates (..., h) added at indices (..., rank - 1), in x's own memory if nothing else reads it.

    Nothing is added where there is no such place. On a CPU the op that replaces elements copies all of x,
    even inside a loop.
    """
    return tf.raw_ops.ScatterNdNonAliasingAdd(
        input=x, indices=indices, updates=updates, bad_indices_policy="IGNORE"
    )


def dropped(x, rate, seed):
    """x with a share of its elements, `rate`, set to 0, and the others divided by 1 - rate.

    An element's number and the seed alone say whether it is kept, whatever the device, so that the gradient
    drops the same again and nothing is kept for it.

    Args:
        x: float tensor.
        rate: float, above 0 and below 1.
        seed: int tensor, (2,).
    """
    # As arguments, so that one program serves all rates and layers.
    least, scale = tf.constant(int(rate * 2**32), tf.uint32), tf.constant(1 / (1 - rate), tf.float64)
    drop = _drop if is_for_xla() else _drop_fast

    @tf.custom_gradient
    def run(x):
        output = drop(x, least, scale, seed)
        output.set_shape(x.shape)
        return output, lambda upstream: dropped(upstream, rate, seed)

    return run(x)


@tf.function(autograph=False, reduce_retracing=True)
def _drop_fast(x, least, scale, seed):
    """As `_drop`, of many elements by a program of XLA's: ten operations would go to memory and back."""
    size = tf.size(x)

    def by_xla():
        vector = _drop_compiled(_vector(x, size), least, scale, seed)
        return tf.reshape(vector[:size], tf.shape(x))

    return tf.cond(size < _FEW_ELEMENTS, lambda: _drop(x, least, scale, seed), by_xla)


def _drop(x, least, scale, seed):
    """x times the scale where an element's random bits, 32, are not below the least; else 0."""
    first, second = tf.unstack(tf.cast(seed, tf.uint32))
    key = _mixed(first + _mixed(second + 0x9E3779B9))
    # A counter, mixed twice as MurmurHash3 ends (Appleby 2011), with a key of its own each time.
    number = tf.cast(tf.range(tf.size(x)), tf.uint32)
    bits = tf.reshape(_mixed(_mixed(number + key) + _mixed(key + second)), tf.shape(x))
    wide = tf.cast(x, tf.float32) if x.dtype.size < 4 else x
    return tf.cast(tf.where(bits >= least, wide * tf.cast(scale, wide.dtype), 0.0), x.dtype)


_drop_compiled = tf.function(_drop, jit_compile=True, autograph=False)


def _mixed(x):
    """uint32, of which each bit depends on all bits of x."""
    x = (x ^ tf.bitwise.right_shift(x, 16)) * 0x85EBCA6B
    x = (x ^ tf.bitwise.right_shift(x, 13)) * 0xC2B2AE35
    return x ^ tf.bitwise.right_shift(x, 16)


@functools.cache
def compiled(function):
    """An elementwise function compiled with XLA, as is its gradient, each to one pass over its arguments.

    TensorFlow's own operations go to memory and back for each sum and product, 6 to 20 times for a GELU
    and its gradient, and keep many of the tensors between. A new size takes a tenth of a second to compile:
    sizes are rounded up to eight between a power of two and the next.

    Args:
        function: takes float tensors of one shape and dtype and returns one; it gets vectors in float32, or
            float64, and zeros after their end.

    Returns:
        Function of the same arguments.
    """

    def wide(*tensors):
        dtype = tensors[0].dtype
        return tf.cast(function(*[tf.cast(x, tf.float32) if dtype.size < 4 else x for x in tensors]), dtype)

    forward = tf.function(wide, jit_compile=True, autograph=False)

    @tf.function(jit_compile=True, autograph=False)
    def backward(upstream, *tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            output = wide(*tensors)
        return tape.gradient(output, tensors, upstream)

    @tf.autograph.experimental.do_not_convert  # which would take the decorator below away
    @tf.custom_gradient
    def run(*tensors):
        shape, size = tf.shape(tensors[0]), tf.size(tensors[0])
        vectors = [_vector(x, size) for x in tensors]

        def cut(vector):
            x = tf.reshape(vector[:size], shape)
            x.set_shape(tensors[0].shape)
            return x

        def gradient(upstream):
            return [cut(error) for error in backward(_vector(upstream, size), *vectors)]

        return cut(forward(*vectors)), gradient

    return lambda *tensors: (wide if is_for_xla() else run)(*tensors)


def _vector(x, size):
    """x as a vector with zeros up to a rounded size: no copy where the size is round."""
    octave = tf.cast(tf.math.log(tf.cast(tf.maximum(size, 1), tf.float64)) / math.log(2), tf.int32)
    unit = tf.bitwise.left_shift(1, tf.maximum(octave - 3, 0))
    return tf.pad(tf.reshape(x, (-1,)), [[0, -size % unit]])


def rematerialise(layer, function, *tensors):
    """Calls a function of a layer, and in the backward pass again, instead of keeping what it computes.

    Its weights and the state of its random numbers are read once and given to both calls, so that
    both drop the same; the state then moves on as it would have.

    Args:
        layer: the Keras layer that has all variables the function uses.
        function: takes the tensors and returns one tensor.
        *tensors: nested float tensors; None may be among them.

    Returns:
        What the function returns.
    """
    weights, states = layer.trainable_variables, layer.non_trainable_variables
    flat = tf.nest.flatten(tensors)
    given = [tensor for tensor in flat if tensor is not None]
    state_values = [tf.identity(state.value) for state in states]
    after = []

    def call(weight_values, given):
        given = iter(given)
        values = [None if tensor is None else next(given) for tensor in flat]
        pairs = zip([*weights, *states], [*weight_values, *state_values], strict=True)
        with keras.StatelessScope(state_mapping=list(pairs)) as scope:
            output = function(*tf.nest.pack_sequence_as(tensors, values))
        return output, [scope.get_current_value(state) for state in states]

    @tf.custom_gradient
    def run(*values):
        output, after[:] = call(values[: len(weights)], values[len(weights) :])

        def gradient(upstream):
            # Not before the gradient is there, and not merged with the first call.
            again = [_after(upstream, value) for value in values[len(weights) :]]
            again = [*values[: len(weights)], *again]
            with tf.GradientTape() as tape:
                tape.watch(again)
                output, _ = call(again[: len(weights)], again[len(weights) :])
            return tape.gradient(output, again, upstream, unconnected_gradients="zero")

        return output, gradient

    output = run(*[tf.convert_to_tensor(weight.value) for weight in weights], *given)
    for state, value in zip(states, after, strict=True):
        if value is not None:
            state.assign(value)
    return output


def not_before(tensor, value):
    """`value`, from which TensorFlow makes nothing until it has made `tensor`.

    It runs an op as soon as its inputs are there. What a gradient makes of the forward pass's tensors alone
    would be made within that pass, and kept until the gradient comes.
    """
    with tf.control_dependencies([tensor]):
        return tf.identity(value)


def _after(tensor, value):
    """`value`, known to the graph's optimisers and to XLA to need `tensor` first."""
    element = tf.reduce_max(tf.reshape(tensor, (-1,))[:1])
    return value + tf.cast(tf.where(tf.equal(element, element), 0.0, float("nan")), value.dtype)
