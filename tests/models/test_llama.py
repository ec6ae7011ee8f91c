"""Llama against NumPy written from the papers, and what every model must hold."""

import math

import numpy as np
import pytest

from tests.checks import check_model
from tests.reference import rms as reference
from tests.reference import weights as read
from tests.reference.transformer import positions
from tfmodels.layers import RotaryEmbedding
from tfmodels.models import LlamaConfig, llama
from tfmodels.models.llama import SIZES
from tfmodels.pretrained.llama import ARCHITECTURES, tensors

ATOL = 1e-5  # float32, 2 layers, logits of the order of 1
SMALL = dict(
    vocabulary_size=13,
    max_sequence_length=9,
    num_layers=2,
    num_heads=6,
    num_key_value_heads=2,
    head_dim=4,
    hidden_dim=10,
    intermediate_dim=11,
)
LLAMA3 = dict(
    rotary_base=50.0,
    rotary_factor=8.0,
    rotary_low_factor=1.0,
    rotary_high_factor=4.0,
    rotary_original_length=6,
)
IDS = np.array([[3, 7, 1, 12, 5], [9, 0, 4, 4, 11]])
MASK = np.array([[1, 1, 2, 2, 0], [0, 2, 2, 2, 2]])
VARIANTS = {
    "llama": {},
    "tied": dict(tie_embeddings=True, rotary_factor=2.5),
    "llama3": LLAMA3 | dict(head_dim=8),
    "mistral": dict(window=2),
    "qwen2": dict(attention_bias=True, window=2, num_full_layers=1),
    "qwen3": dict(head_norm=True),
    "biases": dict(attention_bias=True, attention_output_bias=True, feed_forward_bias=True),
}


def dense(layer):
    return read.array(layer.kernel), 0 if layer.bias is None else read.array(layer.bias)


def expected_logits(model, ids, mask):
    """The whole model of Touvron et al. 2023, section 2.2, in float64."""
    config = model.config
    embeddings = read.array(model.token_embedding.embeddings)
    kernel = embeddings.T if config.tie_embeddings else read.array(model.token_embedding.reverse_embeddings)
    size = config.head_size()
    frequencies = reference.rotary_frequencies(
        size,
        config.rotary_base,
        config.rotary_factor,
        config.rotary_low_factor,
        config.rotary_high_factor,
        config.rotary_original_length,
    )
    x = embeddings[ids]
    for i, block in enumerate(model.blocks):
        window = config.window if config.window and i >= config.num_full_layers else len(ids[0])
        normed = reference.rms_norm(x, read.array(block.attention_norm.scale), config.norm_epsilon)
        attention, scales = block.attention, None
        if config.head_norm:
            scales = [read.array(norm.scale) for norm in (attention.query_norm, attention.key_norm)]
        x = x + reference.llama_attention(
            normed,
            [dense(getattr(attention, f"{name}_dense")) for name in ("query", "key", "value", "output")],
            config.num_heads,
            config.num_key_value_heads,
            lambda b, q, k, window=window: mask[b, q] == mask[b, k] and 0 <= q - k < window,
            positions(mask),
            frequencies,
            scales,
            config.norm_epsilon,
        )
        normed = reference.rms_norm(x, read.array(block.feed_forward_norm.scale), config.norm_epsilon)
        (gate, a), (up, b), (down, c) = (
            dense(getattr(block.feed_forward, f"{name}_dense")) for name in ("gate", "intermediate", "output")
        )
        x = x + (reference.silu(normed @ gate + a) * (normed @ up + b)) @ down + c
    return reference.rms_norm(x, read.array(model.final_norm.scale), config.norm_epsilon) @ kernel


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_the_papers(variant):
    model = llama("tiny", **SMALL | VARIANTS[variant])
    read.randomise(model, seed=1)
    logits = np.asarray(model({"token_ids": IDS, "padding_mask": MASK}))
    real = MASK != 0
    np.testing.assert_allclose(logits[real], expected_logits(model, IDS, MASK)[real], atol=ATOL, rtol=1e-5)


@pytest.mark.parametrize("scaling", [{}, dict(factor=3.0), dict(factor=8.0, low=1.0, high=4.0, length=64)])
def test_rotary_scaling(scaling):
    """Positions far beyond the original length; all three regimes of the waves occur."""
    names = {"low": "low_factor", "high": "high_factor", "length": "original_length"}
    layer = RotaryEmbedding(16, base=500.0, **{names.get(n, n): x for n, x in scaling.items()})
    frequencies = reference.rotary_frequencies(16, 500.0, **scaling)
    cosines, sines = layer(np.zeros((1, 300, 2)))
    angles = np.arange(300)[:, None] * np.array(frequencies)
    # float32: an angle of 300 is known to 2e-5.
    np.testing.assert_allclose(cosines[0], np.cos(angles), atol=5e-5)
    np.testing.assert_allclose(sines[0], np.sin(angles), atol=5e-5)
    if "low" in scaling:
        waves = [64 * 500.0 ** (-i / 8) / (2 * math.pi) for i in range(8)]
        assert any(w < 1 for w in waves) and any(1 < w < 4 for w in waves) and any(w > 4 for w in waves)


@pytest.mark.slow
def test_check_model(tmp_path):
    check_model(llama("tiny", **SMALL | VARIANTS["qwen2"]), {"token_ids": IDS}, tmp_path)


def test_sizes_are_the_published():
    """Parameters that the model cards count; from the weight map, without building 8B."""
    counts = {}
    head = ARCHITECTURES["llama"].heads["LlamaForCausalLM"]
    for size, fields in SIZES.items():
        config = LlamaConfig(**fields)
        entries = [*tensors(config), *head.tensors(config)]
        counts[size] = sum(math.prod(entry.shape) for entry in entries)
    assert counts["tinyllama"] == 1_100_048_384
    assert counts["llama_2_7b"] == 6_738_415_616
    assert counts["llama_3_8b"] == 8_030_261_248
    assert counts["llama_3_2_1b"] == 1_235_814_400
    assert counts["mistral_7b"] == 7_241_732_096
    assert counts["qwen2_0_5b"] == 494_032_768
    assert llama("tiny").count_params() == counts["tiny"]


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(num_heads=4, num_key_value_heads=3), r"num_heads=4, num_key_value_heads=3"),
        (dict(head_dim=5), r"head_dim must be even. Received: head_dim=5"),
        (dict(head_dim=0), r"head_dim must be a whole number.*Received: 0"),
        (dict(hidden_dim=10), r"hidden_dim=10, num_heads=4"),
        (dict(window=0), r"window must be a whole number.*Received: 0"),
        (dict(num_full_layers=-1), r"num_full_layers must be.*at least 0. Received: -1"),
        (dict(rotary_base=0.5), r"rotary_base must be at least 1. Received: 0.5"),
        (dict(rotary_factor=0.5), r"rotary_factor must be at least 1. Received: 0.5"),
        (dict(rotary_low_factor=1.0), r"go together.*Received: factor=1.0, low_factor=1.0, high"),
        (dict(end_id=(2, 4000)), r"end_id must be.*Received: \(2, 4000\)"),
    ],
)
def test_bad_input(fields, message):
    with pytest.raises(ValueError, match=message):
        llama("tiny", **fields)
