"""Caches of fewer bits against the one that the model computes in."""

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from tests.generation.test_generation import PROMPTS, decoder, encoder_decoder, padded  # noqa: F401  fixtures
from tests.reference.weights import randomise
from tfmodels import generate
from tfmodels.layers import cache as caches
from tfmodels.models import gpt2, transformer_xl


def quantised(x):
    """Absmax quantisation of each last axis to 8 bits, and back, in float64."""
    x = x.astype("float64")
    scale = np.abs(x).max(-1, keepdims=True) / 127
    return np.round(x / np.where(scale == 0, 1, scale)) * scale


def test_what_a_cache_holds():
    rng = np.random.default_rng(0)
    keys = {name: rng.normal(size=(2, 3, 5, 7)).astype("float32") for name in ("key", "value")}
    keys["key"][0, 1, 2] = 0  # a position of zeros divides by none
    positions = np.array([[0, 1, 2, 3, 4], [2, 3, 4, 5, 6]])
    expected = {
        "float32": lambda x: x,
        "bfloat16": lambda x: x.astype(ml_dtypes.bfloat16),
        "int8": quantised,
    }
    for dtype, rounded in expected.items():
        cache = caches.write(caches.empty((2, 3, 9, 7), dtype), keys, positions)
        for name, loaded in caches.load(cache, "float32").items():
            assert cache[name].dtype == dtype and loaded.shape == (2, 3, 9, 7)
            x = np.asarray(rounded(keys[name]), "float64")
            # A number between two steps may fall on either side in float32.
            atol = 1e-6 if dtype != "int8" else np.abs(keys[name]).max() / 127 * 1e-3
            np.testing.assert_allclose(loaded[0, :, :5], x[0], atol=atol)
            np.testing.assert_allclose(loaded[1, :, 2:7], x[1], atol=atol)
    assert cache["key_scale"].shape == (2, 3, 9, 1)


def leaf_dtypes(cache):
    return {leaf.dtype.name for leaf in tf.nest.flatten(cache) if leaf.shape.rank == 4}


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_logits_are_near(policy, dtype):
    """A prompt, then a token: the cache keeps its dtype, whatever the layers compute in."""
    sizes = dict(num_layers=2, num_heads=3, hidden_dim=12, intermediate_dim=11, max_sequence_length=9)
    model = gpt2("tiny", **sizes, vocabulary_size=13, dtype=policy)
    randomise(model, seed=3, scale=0.5)
    ids = np.array([[3, 7, 1, 4, 9], [2, 2, 8, 0, 1]])
    found = {}
    for each in (None, dtype):
        cache = model.init_cache({"token_ids": ids}, 6, each)
        _, cache = model.decode_step(ids[:, :4], cache, 0)
        found[each], cache = model.decode_step(ids[:, 4:], cache, 4)
    assert leaf_dtypes(cache) == ({dtype, "float32"} if dtype == "int8" else {dtype})
    difference = np.abs(np.asarray(found[None] - found[dtype], "float32")).max()
    if dtype == policy or (policy, dtype) == ("mixed_bfloat16", "float32"):
        assert difference == 0  # bfloat16 keys are what they are in float32
    else:  # logits of the order of 3, through 2 layers
        assert difference < 0.1 and (difference > 0 or policy != "float32")


@pytest.mark.parametrize("kind", ["decoder", "encoder_decoder"])
def test_beams_of_int8(kind, request):
    """The loop keeps the cache's dtypes; texts of these models stay the same."""
    model = request.getfixturevalue(kind)
    inputs = padded(PROMPTS, "encoder_token_ids" if kind == "encoder_decoder" else "token_ids")
    options = dict(method="beam", num_beams=2, max_new_tokens=3)
    expected = generate(model, inputs, **options)
    found = generate(model, inputs, cache_dtype="int8", **options)
    np.testing.assert_array_equal(found.token_ids, expected.token_ids)
    assert leaf_dtypes(model.init_cache(inputs, 4, "int8")) == {"int8", "float32"}


def test_a_memory_keeps_the_dtype():
    sizes = dict(hidden_dim=12, intermediate_dim=11, head_dim=4, num_heads=3, vocabulary_size=13)
    model = transformer_xl("tiny", **sizes, num_layers=1, memory_length=3)
    cache = model.init_cache(padded(PROMPTS), 4, "bfloat16")
    _, cache = model.decode_step(np.array([[3], [9], [0]]), cache, 0)
    assert leaf_dtypes(cache["blocks"]) == {"bfloat16"}


def test_an_unknown_dtype(decoder):  # noqa: F811
    with pytest.raises(ValueError, match="one of None, float32, bfloat16, int8. Received: 'int4'"):
        generate(decoder, padded(PROMPTS), cache_dtype="int4")
