"""Blockwise attention against NumPy and the plain form; rematerialised blocks against plain ones."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmodels.layers import MultiHeadSelfAttention, TransformerBlock, _kernels, attention
from tfmodels.layers.dropout import Dropout
from tfmodels.layers.steps import stepping
from tfmodels.models import bart

# 300 keys in blocks of 128: two whole blocks and a part.
BATCH, LENGTH, HEADS, SIZE = 2, 300, 4, 5


@pytest.fixture(autouse=True)
def _blocks_of_128(monkeypatch):
    monkeypatch.setattr(_kernels, "_BLOCK_ROWS", 128)


def masks(kind):
    mask = np.ones((BATCH, LENGTH), "int32")
    if kind == "padded":
        mask[0, 211:] = 0
        mask[1, :7] = 0
    if kind == "packed":
        mask[0] = np.repeat([1, 2, 3, 0], [130, 20, 129, 21])
        mask[1] = np.repeat([1, 2], [5, 295])
    return mask


def by_hand(query, key, value, mask, causal, window):
    """Attention in float64 over the whole matrix, a head at a time."""
    shared = query.shape[1] // key.shape[1]
    place = np.arange(query.shape[2])
    seen = mask[:, :, None] == mask[:, None, :]
    if causal:
        distance = place[:, None] - place[None]
        seen = seen & (distance >= 0) & (distance < (window or LENGTH))
    outputs = np.zeros(query.shape)
    for n in range(query.shape[1]):
        scores = query[:, n] @ key[:, n // shared].swapaxes(1, 2)
        weights = np.where(seen, np.exp(scores - scores.max(-1, keepdims=True)), 0.0)
        outputs[:, n] = weights / weights.sum(-1, keepdims=True) @ value[:, n // shared]
    return outputs


def tensors(groups, seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(BATCH, heads, LENGTH, SIZE) for heads in (HEADS, groups, groups, HEADS)]
    return [rng.normal(size=shape) for shape in shapes]


@pytest.mark.parametrize(
    "kind, causal, window, groups",
    [
        ("whole", True, None, 4),
        ("padded", True, None, 2),
        ("packed", True, None, 4),
        ("packed", True, 17, 2),
        ("padded", False, None, 4),
        ("packed", False, None, 1),
    ],
)
def test_blockwise_attention(kind, causal, window, groups):
    query, key, value, upstream = tensors(groups)
    mask = masks(kind)
    real = (mask != 0)[:, None, :, None]
    upstream = upstream * real  # no loss reads padding
    inputs = [tf.constant(x, tf.float32) for x in (query, key, value)]

    def whole(query, key, value):
        distance = tf.range(LENGTH)[:, None] - tf.range(LENGTH)[None]
        seen = mask[:, :, None] == mask[:, None, :]
        seen = seen & (distance >= 0) & (distance < (window or LENGTH)) if causal else seen
        key, value = (tf.repeat(x, HEADS // groups, axis=1) for x in (key, value))
        scores = tf.matmul(query, key, transpose_b=True)
        weights = tf.nn.softmax(tf.where(tf.convert_to_tensor(seen)[:, None], scores, -1e9))
        return tf.matmul(weights, value)

    def blockwise(*inputs):
        return _kernels.blockwise_attention(*inputs, *[tf.constant(mask)] * 2, causal, window)

    results = {}
    for name, function in (("whole", whole), ("blockwise", blockwise), ("compiled", blockwise)):

        @tf.function(autograph=False, jit_compile=name == "compiled")
        def run(function=function):
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                output = function(*inputs)
                loss = tf.reduce_sum(output * tf.constant(upstream, tf.float32))
            return output, *tape.gradient(loss, inputs)

        results[name] = [x.numpy() for x in run()]
    expected = by_hand(query, key, value, mask, causal, window)
    for name in ("blockwise", "compiled"):
        np.testing.assert_allclose(results[name][0] * real, expected * real, atol=2e-6)
        for mine, theirs in zip(results[name][1:], results["whole"][1:], strict=True):
            np.testing.assert_allclose(mine, theirs, atol=2e-5)  # float32, sums of 300 terms of size 5


def test_blocks_that_are_wholly_masked_are_skipped():
    blocks = 3
    mask = tf.constant(masks("packed")[:1])
    starts, ends = _kernels._key_ranges(blocks, mask, mask, LENGTH, False, None)
    # Queries 0..127 are of sequence 1, 128..255 of 1, 2 and 3, 256..299 of 3 and padding.
    assert [*zip(starts.numpy(), ends.numpy(), strict=True)] == [(0, 130), (0, 279), (150, 279)]
    starts, ends = _kernels._key_ranges(blocks, None, None, LENGTH, True, 17)
    assert [*zip(starts.numpy(), ends.numpy(), strict=True)] == [(0, 128), (112, 256), (240, 300)]


@pytest.mark.parametrize("static", [True, False])
def test_long_rows_go_by_blocks(static, monkeypatch):
    """The layer gives the same output either way; dropout changes it, and gradients stay finite."""
    layer = MultiHeadSelfAttention(HEADS, causal=True, num_key_value_heads=2, dropout=0.5)
    x = keras.random.normal((BATCH, LENGTH, HEADS * SIZE))
    mask = tf.constant(masks("packed"))
    real = (mask.numpy() != 0)[..., None]
    plain = layer(x, padding_mask=mask, training=False).numpy() * real
    calls = []
    monkeypatch.setattr(attention, "_BLOCKWISE_LENGTH", LENGTH)
    kernel = attention.blockwise_attention
    monkeypatch.setattr(attention, "blockwise_attention", lambda *a: calls.append(a) or kernel(*a))
    spec = tf.TensorSpec(x.shape if static else (None, None, x.shape[-1]))

    @tf.function(input_signature=[spec], autograph=False)
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            dropped = layer(x, padding_mask=mask, training=True)
        return layer(x, padding_mask=mask, training=False), dropped, tape.gradient(dropped, x)

    blockwise, dropped, gradient = (value.numpy() for value in run(x))
    assert len(calls) == 2
    np.testing.assert_allclose(blockwise * real, plain, atol=2e-6)
    assert np.abs(dropped - blockwise).max() > 0.1 and np.isfinite(gradient).all()


def test_dropped_weights_are_the_same_in_both_directions():
    """With dropout the gradient is that of the masked weights: finite differences agree."""
    query, key, value, upstream = (tf.constant(x[:1, :1], tf.float32) for x in tensors(4))
    seed = tf.constant([3, 4])

    def loss(query):
        output = _kernels.blockwise_attention(query, key, value, None, None, True, None, 0.3, seed)
        return tf.reduce_sum(output * upstream)

    direction = tf.constant(tensors(4, seed=1)[0][:1, :1], tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(query)
        slope = tf.reduce_sum(tape.gradient(loss(query), query) * direction)
    difference = (loss(query + 1e-2 * direction) - loss(query - 1e-2 * direction)) / 2e-2
    np.testing.assert_allclose(slope, difference, rtol=1e-2)


def test_rematerialised_blocks_have_the_same_gradients_with_dropout():
    x = keras.random.normal((2, 6, 8))
    mask = tf.constant([[1] * 6, [1] * 4 + [0] * 2])

    def gradients(rematerialise):
        keras.utils.set_random_seed(0)
        block = TransformerBlock(
            2, 11, causal=True, dropout=0.3, attention_dropout=0.2, rematerialise=rematerialise
        )
        block.build(x.shape)

        @tf.function(autograph=False)
        def run(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = tf.reduce_sum(block(x, padding_mask=mask, training=True) ** 2)
            return loss, tape.gradient(loss, [x, *(v.value for v in block.trainable_variables)])

        steps = [run(x) for _ in range(2)]
        operations = [op.type for op in run.get_concrete_function(x).graph.get_operations()]
        return steps, operations.count("Softmax")

    (plain, once), (again, twice) = gradients(False), gradients(True)
    assert plain[0][0] != plain[1][0]  # the state of the random numbers moves on
    tf.nest.map_structure(np.testing.assert_array_equal, plain, again)
    assert twice > once  # it is computed again indeed


@pytest.mark.slow
def test_a_rematerialised_model_trains_to_the_same_weights():
    """In float64, where another order of sums shows below 1e-12, with cross-attention and micro-batches."""
    ids = np.random.default_rng(0).integers(3, 20, (4, 6)).astype("int32")
    inputs = {"encoder_token_ids": ids, "decoder_token_ids": ids[:, :5]}

    def weights(rematerialise):
        keras.utils.set_random_seed(0)
        model = bart(
            "tiny",
            dtype="float64",
            source_vocabulary_size=20,
            target_vocabulary_size=20,
            num_layers=1,
            num_heads=2,
            hidden_dim=8,
            intermediate_dim=12,
            max_sequence_length=8,
            dropout=0.3,
            rematerialise=rematerialise,
        )
        model.compile(keras.optimizers.SGD(0.5), micro_batches=2)
        model.fit(inputs, ids[:, 1:], batch_size=2, shuffle=False, verbose=0)
        return model.get_weights()

    for plain, again in zip(weights(False), weights(True), strict=True):
        np.testing.assert_allclose(again, plain, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
@pytest.mark.parametrize("size", [1, 3, 4, 6, 8])
def test_axes_swapped_in_words(dtype, size):
    """Also sizes that are no whole number of words."""
    x = tf.cast(np.random.default_rng(0).normal(size=(2, 3, 4, size)), dtype)
    traced = tf.function(
        _kernels.swap_in_words, input_signature=[tf.TensorSpec((None, None, 4, size), x.dtype)]
    )
    for swap in (_kernels.swap_in_words, traced):
        found = swap(x)
        assert found.shape[3] == size and found.dtype == x.dtype
        np.testing.assert_array_equal(found, tf.transpose(x, (0, 2, 1, 3)))


@pytest.mark.parametrize("size", [1000, 100_000])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_dropout_drops_its_share_and_again_for_the_gradient(size, dtype):
    x = tf.cast(tf.random.stateless_normal((size // 10, 10), (1, 2)), dtype)

    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = _kernels.dropped(x, 0.3, tf.constant([3, 4]))
        return y, tape.gradient(y, x)

    y, grad = run(x)
    kept = np.asarray(y) != 0
    assert abs(kept.mean() - 0.7) < 4 * (0.3 * 0.7 / size) ** 0.5
    np.testing.assert_array_equal(np.asarray(grad) != 0, kept)
    scaled = np.where(kept, np.asarray(x, "float64") / 0.7, 0)
    np.testing.assert_allclose(np.asarray(y, "float64"), scaled, rtol=1e-2 if dtype == "bfloat16" else 1e-6)
    for other in (tf.function(run, jit_compile=True)(x), tf.function(run)(x)):
        for ours, theirs in zip((y, grad), other, strict=True):
            np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


def test_masks_of_dropout_are_independent():
    """Neighbours, rows and calls: correlations within four and a half of their deviations."""
    size = 2**18
    seeds = [(5, 7), (5, 8), (6, 7), (7, 5), (12345, 0), (12345, 1)]
    masks = np.stack([np.asarray(_kernels.dropped(tf.ones(size), 0.5, tf.constant(s))) for s in seeds]) - 1
    assert np.abs(masks.mean(axis=1)).max() < 4.5 * size**-0.5
    for lag in (0, 1, 2, 64, 768, 1024):
        products = masks[:, : size - lag] @ masks[:, lag:].T / (size - lag)
        assert np.abs(products - (lag == 0) * np.eye(len(seeds))).max() < 4.5 * size**-0.5


def test_a_layer_drops_otherwise_at_each_call():
    layer = Dropout(0.5, seed=1)
    x = tf.ones((4, 50))
    first, second = (np.asarray(layer(x, training=True)) for _ in range(2))
    assert (first != second).any() and set(np.unique(first)) == {0.0, 2.0}
    np.testing.assert_array_equal(layer(x), x)
    again = Dropout.from_config(layer.get_config())
    np.testing.assert_array_equal(again(x, training=True), first)
    np.testing.assert_array_equal(Dropout(1.0)(x, training=True), tf.zeros_like(x))


@pytest.mark.parametrize("heads", [(6, 6), (6, 2)])
@pytest.mark.parametrize("length", [1, 3])
def test_heads_of_a_step_that_writes_in_place(heads, length):
    rng = np.random.default_rng(0)
    x, keys = rng.normal(size=(2, heads[0], length, 5)), rng.normal(size=(2, heads[1], 7, 5))
    each = np.repeat(keys, heads[0] // heads[1], axis=1)
    x32, keys32 = tf.constant(x, "float32"), tf.constant(keys, "float32")
    with stepping(until=tf.constant([7, 7])):
        scores = _kernels.matmul_heads(x32, keys32, transpose=True)
        back = _kernels.matmul_heads(scores, keys32)
    expected = np.einsum("bnqh,bnkh->bnqk", x, each)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(back, np.einsum("bnqk,bnkh->bnqh", expected, each), rtol=1e-5, atol=1e-5)
