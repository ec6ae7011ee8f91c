"""Layers against NumPy written from the papers. Sizes all differ: 2 rows, 5 and 7 tokens, 3 heads of
4, 11 inner."""

import keras
import numpy as np
import pytest

from tests.checks import check_layer
from tests.reference import transformer as reference
from tests.reference import weights as read
from tfmodels.layers import (
    FeedForward,
    FirstToken,
    LastToken,
    MeanToken,
    MultiHeadCrossAttention,
    MultiHeadSelfAttention,
    PositionalEmbedding,
    ShiftRight,
    TransformerBlock,
)
from tfmodels.layers.relative_attention import RelativePositions

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 5, 12)).astype("float32")
MEMORY = RNG.normal(size=(2, 7, 12)).astype("float32")
MASKS = {
    "all real": np.ones((2, 5), int),
    "padded": np.array([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1]]),
    "packed": np.array([[1, 1, 2, 2, 2], [1, 2, 3, 3, 0]]),
}
MEMORY_MASKS = {
    "all real": np.ones((2, 7), int),
    "padded": np.array([[1, 1, 1, 1, 0, 0, 0], [0, 1, 1, 1, 1, 1, 1]]),
    "packed": np.array([[1, 1, 1, 2, 2, 2, 0], [1, 2, 2, 3, 3, 3, 0]]),
}
ATOL = 1e-5  # float32, one or two layers, values of the order of 1


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("causal", [False, True])
def test_self_attention(mask, causal):
    layer = MultiHeadSelfAttention(num_heads=3, causal=causal)
    layer.build(X.shape)
    read.randomise(layer, seed=1)
    outputs, weights = layer(X, padding_mask=MASKS[mask], return_attention=True)

    def may_see(b, i, j):
        return MASKS[mask][b, i] == MASKS[mask][b, j] and (j <= i or not causal)

    expected, expected_weights = reference.multi_head_attention(X, X, read.attention(layer), 3, may_see)
    np.testing.assert_allclose(outputs, expected, atol=ATOL)
    np.testing.assert_allclose(weights, expected_weights, atol=ATOL)
    np.testing.assert_array_equal(layer(X, padding_mask=MASKS[mask]), outputs)


@pytest.mark.parametrize("blockwise", [False, True])
def test_boolean_masks(blockwise, monkeypatch):
    """As Keras has them: True = real."""
    if blockwise:
        monkeypatch.setattr("tfmodels.layers.attention._BLOCKWISE_LENGTH", 1)
    mask, memory_mask = MASKS["padded"], MEMORY_MASKS["padded"]
    block = TransformerBlock(3, 11, causal=True, cross_attention=True)
    for layer, inputs, masks in (
        (MultiHeadSelfAttention(num_heads=3), X, {"padding_mask": mask}),
        (block, X, {"padding_mask": mask, "encoder_padding_mask": memory_mask}),
        (PositionalEmbedding(8), X, {"padding_mask": mask}),
        (FirstToken(), X, {"padding_mask": mask}),
        (LastToken(), X, {"padding_mask": mask}),
        (MeanToken(), X, {"padding_mask": mask}),
        (ShiftRight(9), mask, {"padding_mask": mask}),
    ):
        others = {"encoder_output": MEMORY} if layer is block else {}
        boolean = {name: value == 1 for name, value in masks.items()}
        expected = layer(inputs, **others, **masks)
        np.testing.assert_array_equal(layer(inputs, **others, **boolean), expected)
    windows = (RelativePositions(12)(given) for given in (mask, mask == 1))
    for number, boolean in zip(*(keras.tree.flatten(window) for window in windows), strict=True):
        np.testing.assert_array_equal(number, boolean)


def test_self_attention_without_mask_sees_all():
    layer = MultiHeadSelfAttention(num_heads=3, causal=True)
    np.testing.assert_array_equal(layer(X), layer(X, padding_mask=MASKS["all real"]))


@pytest.mark.parametrize("mask", MASKS)
def test_cross_attention(mask):
    layer = MultiHeadCrossAttention(num_heads=3)
    layer.build(X.shape, MEMORY.shape)
    read.randomise(layer, seed=1)
    outputs, weights = layer(
        X,
        MEMORY,
        encoder_padding_mask=MEMORY_MASKS[mask],
        padding_mask=MASKS[mask],
        return_attention=True,
    )

    def may_see(b, i, j):
        return MASKS[mask][b, i] == MEMORY_MASKS[mask][b, j]

    expected, expected_weights = reference.multi_head_attention(X, MEMORY, read.attention(layer), 3, may_see)
    real = MASKS[mask] != 0
    np.testing.assert_allclose(np.asarray(outputs)[real], expected[real], atol=ATOL)
    weights = np.swapaxes(weights, 1, 2)[real]
    np.testing.assert_allclose(weights, np.swapaxes(expected_weights, 1, 2)[real], atol=ATOL)


def test_head_dim_of_its_own():
    layer = MultiHeadSelfAttention(num_heads=3, head_dim=2)
    layer.build(X.shape)
    read.randomise(layer, seed=1)
    expected, _ = reference.multi_head_attention(X, X, read.attention(layer), 3, lambda b, i, j: True)
    np.testing.assert_allclose(layer(X), expected, atol=ATOL)


def test_sinusoidal_code():
    layer = PositionalEmbedding(max_sequence_length=50)
    zeros = np.zeros((1, 50, 7), "float32")
    expected = np.array([reference.position_code(p, 7) for p in range(50)])
    np.testing.assert_allclose(layer(zeros)[0], expected, atol=1e-6)  # float32 rounding of sines
    np.testing.assert_allclose(layer(X[:, :, :7]), X[:, :, :7] + expected[:5], atol=1e-6)


@pytest.mark.parametrize("kind", ["sinusoidal", "sinusoidal_halves", "learned"])
def test_positions_restart_and_start(kind):
    layer = PositionalEmbedding(max_sequence_length=9, kind=kind)
    codes = np.asarray(layer(np.zeros((1, 9, 7), "float32")))[0]
    mask = np.array([[1, 1, 1, 2, 2, 3, 3, 3, 0], [0, 0, 1, 1, 1, 1, 2, 0, 0]])
    result = layer(np.zeros((2, 9, 7), "float32"), padding_mask=mask)
    np.testing.assert_array_equal(result, codes[reference.positions(mask)])
    started = layer(np.zeros((2, 3, 7), "float32"), start_index=np.array([4, 6]))
    np.testing.assert_array_equal(started, np.stack([codes[4:7], codes[6:9]]))
    assert len(np.unique(codes.round(6), axis=0)) == 9


def test_positions_after_unused_rows():
    layer = PositionalEmbedding(max_sequence_length=5, kind="learned", offset=2)
    codes = np.asarray(layer(np.zeros((1, 5, 7), "float32")))[0]
    assert layer.table.shape == (7, 7)
    np.testing.assert_array_equal(codes, np.asarray(layer.table)[2:])


def test_first_real_token():
    x = np.arange(24.0, dtype="float32").reshape(2, 4, 3)
    mask = np.array([[0, 0, 1, 1], [1, 2, 2, 0]])
    first = FirstToken()(x, padding_mask=mask)
    np.testing.assert_array_equal(first, [[6, 7, 8], [12, 13, 14]])


def test_shift_right_starts_each_sequence():
    ids = np.array([[4, 5, 6, 7, 3], [0, 0, 5, 6, 7]])
    mask = np.array([[1, 1, 2, 2, 0], [0, 0, 1, 1, 1]])
    shifted = np.asarray(ShiftRight(9)(ids, padding_mask=mask))
    assert shifted[mask != 0].tolist() == [9, 4, 9, 6, 9, 5, 6]


@pytest.mark.parametrize("hidden_dim", [7, 8])
def test_sines_before_cosines(hidden_dim):
    layer = PositionalEmbedding(max_sequence_length=5, kind="sinusoidal_halves")
    codes = np.asarray(layer(np.zeros((1, 5, hidden_dim), "float32")))[0]
    code = np.stack([reference.position_code(position, hidden_dim) for position in range(5)])
    np.testing.assert_allclose(codes, np.concatenate([code[:, 0::2], code[:, 1::2]], axis=1), atol=1e-6)
    assert not layer.trainable_variables and len(layer.variables) == 1  # checkpoints store it


def test_too_long_for_the_positions():
    with pytest.raises(ValueError, match="max_sequence_length=4.*length=5"):
        PositionalEmbedding(max_sequence_length=4)(X)


@pytest.mark.parametrize("activation", ["relu", "gelu_tanh"])
def test_feed_forward(activation):
    layer = FeedForward(intermediate_dim=11, activation=activation)
    layer.build(X.shape)
    read.randomise(layer, seed=1)
    inner = reference.linear(X, read.dense(layer.intermediate_dense))
    expected = reference.linear(getattr(reference, activation)(inner), read.dense(layer.output_dense))
    np.testing.assert_allclose(layer(X), expected, atol=ATOL)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("cross_attention", [False, True])
def test_block(mask, norm_first, cross_attention):
    layer = TransformerBlock(
        num_heads=3,
        intermediate_dim=11,
        causal=cross_attention,
        cross_attention=cross_attention,
        norm_first=norm_first,
    )
    memory = {"encoder_output": MEMORY, "encoder_padding_mask": MEMORY_MASKS[mask]}
    memory = memory if cross_attention else {}
    layer(X, padding_mask=MASKS[mask], **memory)
    read.randomise(layer, seed=1)
    outputs = layer(X, padding_mask=MASKS[mask], **memory)
    expected = reference.block(
        X.astype("float64"),
        read.block(layer),
        3,
        MASKS[mask],
        causal=cross_attention,
        norm_first=norm_first,
        activation=reference.relu,
        epsilon=1e-5,
        memory=MEMORY if cross_attention else None,
        memory_mask=MEMORY_MASKS[mask],
    )
    real = MASKS[mask] != 0
    np.testing.assert_allclose(np.asarray(outputs)[real], expected[real], atol=ATOL)


def test_dropout_stands_where_the_papers_put_it():
    """Dropped: sublayer outputs before the residual, never the residual itself."""
    block = TransformerBlock(num_heads=3, intermediate_dim=11, norm_first=True, dropout=0.999999)
    # Nearly all sublayer outputs are dropped, so what stays is the residual stream.
    np.testing.assert_allclose(block(X, training=True), X, atol=1e-6)
    assert np.abs(np.asarray(block(X, training=False)) - X).max() > 0.1
    block = TransformerBlock(num_heads=3, intermediate_dim=11, intermediate_dropout=0.999999)
    inside = np.asarray(block(X, training=True))
    block.feed_forward.output_dense.kernel.assign(np.zeros((11, 12)))
    np.testing.assert_allclose(inside, block(X, training=False), atol=ATOL)
    attention = MultiHeadSelfAttention(num_heads=3, dropout=0.5)
    first, second = (np.asarray(attention(X, training=True)) for _ in range(2))
    assert np.abs(first - second).max() > 1e-3  # another mask each call


@pytest.mark.parametrize(
    "layer, inputs",
    [
        (MultiHeadSelfAttention(3, head_dim=5, causal=True, use_bias=False), (X,)),
        (MultiHeadCrossAttention(3, kernel_initializer="he_normal"), (X, MEMORY)),
        (PositionalEmbedding(8, kind="learned", offset=3), (X,)),
        (FeedForward(11, activation="gelu_tanh", output_initializer="zeros"), (X,)),
        (FeedForward(11, activation=keras.ops.tanh, use_bias=False), (X,)),
        (TransformerBlock(3, 11, norm_first=True, dropout=0.2, norm_epsilon=1e-3), (X,)),
        (TransformerBlock(3, 11, intermediate_dropout=0.2), (X,)),
    ],
    ids=lambda x: getattr(x, "name", None),
)
def test_config_round_trip(layer, inputs):
    check_layer(layer, *inputs)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: MultiHeadSelfAttention(num_heads=5)(X), "hidden_dim=12, num_heads=5"),
        (lambda: MultiHeadSelfAttention(num_heads=0), "num_heads=0"),
        (lambda: MultiHeadSelfAttention(num_heads=3)(X[0]), r"\(batch, length, hidden_dim\).*\(5, 12\)"),
        (lambda: MultiHeadCrossAttention(num_heads=3)(X, MEMORY[0]), r"hidden_dim\).*\(7, 12\)"),
        (lambda: PositionalEmbedding(9, kind="sine"), "kind='sine'"),
        (
            lambda: MultiHeadSelfAttention(num_heads=3)(X, cache={"key": X}, index=0),
            "causal=False",
        ),
        (lambda: TransformerBlock(3, 11)(X, np.ones((2, 4))), r"padding_mask must.*\(2, 4\).*\(2, 5, 12\)"),
        (lambda: TransformerBlock(3, 11)(X, np.ones((2, 1))), r"padding_mask must.*\(2, 1\)"),
        (lambda: TransformerBlock(3, 11)(X, MEMORY), r"\(batch, length\). Received: shape \(2, 7, 12\)"),
        (lambda: TransformerBlock(3, 11)(X, encoder_output=MEMORY), "cross_attention=True"),
        (lambda: TransformerBlock(3, 11, cross_attention=True)(X), "needs encoder_output"),
        (
            lambda: MultiHeadCrossAttention(3)(X, MEMORY, encoder_padding_mask=np.ones((2, 5))),
            r"encoder_padding_mask must.*\(2, 5\)",
        ),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_attention_in_float64():
    x = np.random.default_rng(0).normal(size=(2, 5, 12))
    layer = MultiHeadSelfAttention(3, causal=True, dtype="float64")
    output, weights = layer(x, return_attention=True)
    np.testing.assert_allclose(np.sum(weights, axis=-1), np.ones((2, 3, 5)), rtol=1e-14)
    assert output.dtype == "float64"
