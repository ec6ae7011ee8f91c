"""The parts of T5 and Llama against NumPy written from the papers: 6 heads of 4 in 2 groups."""

import numpy as np
import pytest

from tests.checks import check_layer
from tests.layers.test_layers import ATOL, MASKS, MEMORY, RNG, X
from tests.reference import rms as reference
from tests.reference import weights as read
from tests.reference.transformer import positions
from tfmodels.layers import (
    MultiHeadSelfAttention,
    RelativePositionBias,
    RMSNormBlock,
    RotaryEmbedding,
)


def kernels(layer, *names):
    return {name: np.asarray(getattr(layer, f"{name}_dense").kernel, "float64") for name in names}


def projections(attention):
    return kernels(attention, "query", "key", "value", "output")


def seen(mask, causal):
    return lambda b, i, j: mask[b, i] == mask[b, j] and (j <= i or not causal)


@pytest.mark.parametrize("mask", MASKS)
def test_rotary_and_grouped_queries(mask):
    layer = MultiHeadSelfAttention(
        num_heads=6, head_dim=4, num_key_value_heads=2, causal=True, use_bias=False
    )
    layer.build(X.shape)
    read.randomise(layer, seed=1)
    rotary = RotaryEmbedding(head_dim=4, base=100.0)(X, padding_mask=MASKS[mask])
    outputs = layer(X, padding_mask=MASKS[mask], rotary=rotary)
    expected = reference.attention(
        X.astype("float64"),
        projections(layer),
        6,
        2,
        seen(MASKS[mask], True),
        positions=positions(MASKS[mask]),
        base=100.0,
    )
    np.testing.assert_allclose(outputs, expected, atol=ATOL)
    assert layer.key_dense.kernel.shape == (12, 2 * 4)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_buckets, max_distance", [(32, 128), (8, 20)])
def test_relative_position_bias(bidirectional, num_buckets, max_distance):
    layer = RelativePositionBias(3, num_buckets, max_distance, bidirectional)
    bias = np.asarray(layer(np.zeros((1, 150, 2), "float32")))[0]  # (3, 150, 150)
    table = np.asarray(layer.table)
    for query, key in [(0, 0), (5, 0), (0, 5), (140, 3), (3, 140), (20, 8), (8, 20), (60, 45), (149, 0)]:
        row = reference.bucket(key - query, num_buckets, max_distance, bidirectional)
        np.testing.assert_array_equal(bias[:, query, key], table[row])
    started = layer(np.zeros((2, 3, 2), "float32"), key_length=9, start_index=np.array([4, 6]))
    np.testing.assert_array_equal(started[0], bias[:, 4:7, :9])
    np.testing.assert_array_equal(started[1], bias[:, 6:9, :9])


@pytest.mark.parametrize(
    "num_buckets, max_distance, distance, row",
    [(17, 27, 18, 13), (19, 25, 15, 13), (36, 50, 30, 26), (32, 128, 45, 23), (32, 128, 46, 24)],
)
def test_distances_at_borders_fall_where_the_published_models_have_them(
    num_buckets, max_distance, distance, row
):
    """By T5's implementation in PyTorch: a logarithm that is a digit off misses the first three."""
    layer = RelativePositionBias(2, num_buckets, max_distance, bidirectional=False)
    bias = layer(np.zeros((1, 1, 2), "float32"), key_length=1, start_index=distance)
    np.testing.assert_array_equal(np.asarray(bias)[0, :, 0, 0], np.asarray(layer.table)[row])


@pytest.mark.parametrize("mask", MASKS)
def test_block_of_llama(mask):
    block = RMSNormBlock(6, 11, head_dim=4, num_key_value_heads=2, causal=True, gated=True, norm_epsilon=0.01)
    block.build(X.shape)
    read.randomise(block, seed=1)
    rotary = RotaryEmbedding(head_dim=4)(X, padding_mask=MASKS[mask])
    x = X.astype("float64")
    normed = reference.rms_norm(x, np.asarray(block.attention_norm.scale), 0.01)
    x = x + reference.attention(
        normed,
        projections(block.attention),
        6,
        2,
        seen(MASKS[mask], True),
        positions=positions(MASKS[mask]),
        base=10000.0,
    )
    normed = reference.rms_norm(x, np.asarray(block.feed_forward_norm.scale), 0.01)
    x = x + reference.gated(
        normed, kernels(block.feed_forward, "gate", "intermediate", "output"), reference.silu
    )
    np.testing.assert_allclose(block(X, padding_mask=MASKS[mask], rotary=rotary), x, atol=ATOL)


def test_attention_of_t5():
    """No scale, and a bias of the distance."""
    layer = MultiHeadSelfAttention(num_heads=3, head_dim=5, scale=1.0, use_bias=False)
    layer.build(X.shape)
    read.randomise(layer, seed=1)
    bias = RNG.normal(size=(3, 5, 5)).astype("float32")
    expected = reference.attention(
        X.astype("float64"), projections(layer), 3, 3, lambda b, i, j: True, bias=bias, scale=1.0
    )
    np.testing.assert_allclose(layer(X, position_bias=bias[None]), expected, atol=ATOL)


def test_config_round_trips():
    check_layer(RMSNormBlock(6, 11, head_dim=4, num_key_value_heads=3, gated=True, causal=True), X)
    block = RMSNormBlock(3, 11, attention_scale=1.0, activation="relu", cross_attention=True)
    check_layer(block, X, encoder_output=MEMORY)
    check_layer(RelativePositionBias(3, num_buckets=6, max_distance=9, bidirectional=False), X)
    copy = RotaryEmbedding.from_config(RotaryEmbedding(6, base=50.0).get_config())
    np.testing.assert_array_equal(copy(X)[0], RotaryEmbedding(6, base=50.0)(X)[0])


def test_bad_input():
    with pytest.raises(ValueError, match="Received: num_heads=6, num_key_value_heads=4"):
        MultiHeadSelfAttention(6, num_key_value_heads=4)
    with pytest.raises(ValueError, match="Received: num_buckets=8, max_distance=2"):
        RelativePositionBias(2, num_buckets=8, max_distance=2)
    with pytest.raises(ValueError, match="head_dim must be even. Received: head_dim=3"):
        RotaryEmbedding(3)
