"""The ways in which a loop makes its products, and which of them it chooses."""

import numpy as np
import pytest
import tensorflow as tf

from tests.generation.test_step_model import SIZE, model_of
from tests.reference.weights import randomise
from tfmodels import GenerationConfig, generate
from tfmodels.generation import products
from tfmodels.generation.products import choose_layout
from tfmodels.models import gpt2, transformer


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("outputs", [11, 64, 100])
def test_a_product_by_blocks(dtype, outputs):
    """Of matrices of one block, of several, and with a last one that is filled up."""
    x = tf.cast(tf.random.normal((3, 5, 24)), dtype)
    matrix = tf.cast(tf.random.normal((24, outputs)), dtype)
    for blocks in (products.in_blocks(matrix), products.turned_in_blocks(tf.transpose(matrix))):
        product = products.times(x, blocks, False, "blocks")
        assert blocks.shape[2] * x.dtype.size == 128 and product.shape[2] % blocks.shape[2] == 0
        expected = tf.cast(tf.matmul(tf.cast(x, tf.float32), tf.cast(matrix, tf.float32)), dtype)
        found, expected = tf.cast(product[..., :outputs], tf.float32), tf.cast(expected, tf.float32)
        np.testing.assert_allclose(found, expected, rtol=1e-2 if dtype == "bfloat16" else 1e-5, atol=1e-5)


@pytest.mark.parametrize("slow_seconds, fast", [(0.0, True), (0.2, True), (1e9, False)])
def test_a_core_that_is_taken_away_for_a_moment_makes_no_blocks_slow(slow_seconds, fast, monkeypatch):
    now = [0.0]
    matmul = tf.matmul

    def timed_matmul(x, matrix):
        slow = len(matrix.shape) == 3 and now[0] < slow_seconds
        now[0] += 1e-3 if slow else 2e-4
        return matmul(x, matrix)

    monkeypatch.setattr(products.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(tf, "matmul", timed_matmul)
    assert products.has_fast_batches.__wrapped__("float32") == fast


def test_the_layout_of_kernels_follows_rows_and_steps(monkeypatch):
    model, half, int8 = (model_of(dtype) for dtype in ("float32", "mixed_bfloat16", "int8"))
    monkeypatch.setattr(products, "has_fast_batches", lambda dtype: True)
    assert {choose_layout(each, 8, 64) for each in (model, half, int8)} == {"blocks"}
    assert choose_layout(model, 8, 64, compiled=False, here=False) == "swapped"
    assert choose_layout(half, 64, 64, here=False) == "turned"
    assert choose_layout(half, 200, 64) == choose_layout(half, 1, 4) == "apart"
    monkeypatch.setattr(products, "has_fast_batches", lambda dtype: False)
    assert choose_layout(model, 1, 64) == "turned"
    for here in (True, False):
        assert {choose_layout(half, r, steps, here=here) for r in (1, 200) for steps in (4, 64)} == {"wide"}
    assert choose_layout(model, 8, 64) == "swapped"
    assert choose_layout(model, 64, 64) == choose_layout(int8, 1, 4) == choose_layout(model, 1, 4) == "own"
    assert choose_layout(int8, 200, 64) == "swapped"  # a cast at every step would take longer
    monkeypatch.setattr(products, "_WORTH_COMPILING", 0)
    assert {choose_layout(each, 1, 64) for each in (model, half, int8)} == {"compiled"}
    assert choose_layout(model, 2, 64) == choose_layout(model, 4, 64) == "compiled rows"
    with monkeypatch.context() as large:
        large.setattr(products, "_MOST_BYTES", 0)
        assert choose_layout(model, 1, 64) == "compiled as stored"
        assert choose_layout(half, 1, 64) == "apart" and choose_layout(int8, 1, 64) == "own"
    assert choose_layout(model, 1, 64, compiled=False) == "turned"
    assert choose_layout(model, 2, 64, compiled=False) == "swapped"  # Eigen takes long for turned ones
    assert choose_layout(int8, 3, 64) == choose_layout(model, 5, 64) == "swapped"
    model.blocks[0].attention.query_dense.enable_lora(2)
    words = transformer("tiny", source_vocabulary_size=11, target_vocabulary_size=11)
    assert choose_layout(model, 1, 64) == choose_layout(words, 1, 64) == "turned"
    assert GenerationConfig().rows_a_prompt() == 1  # the beams of the default are those of another method
    assert GenerationConfig(method="beam", num_beams=5).rows_a_prompt() == 5
    assert GenerationConfig(method="sample", num_return_sequences=3).rows_a_prompt() == 3
    assert GenerationConfig(method="contrastive", top_k=6).rows_a_prompt() == 6


def test_a_row_in_bfloat16_is_the_same_among_many():
    """Whatever way this machine makes its products: all round at the same places."""
    model = gpt2("tiny", vocabulary_size=11, dtype="mixed_bfloat16", **(SIZE | {"num_layers": 3}))
    randomise(model, seed=1, scale=0.5)
    options = dict(max_new_tokens=30, stop=(), return_scores=True)
    one, many = (generate(model, {"token_ids": [[3, 7]] * rows}, **options) for rows in (2, 130))
    few = generate(model, {"token_ids": [[3, 7]]}, **(options | dict(max_new_tokens=15)))
    np.testing.assert_allclose(many.log_probabilities[0], one.log_probabilities[0], atol=1e-6)
    np.testing.assert_allclose(few.log_probabilities[0], one.log_probabilities[0, :15], atol=1e-6)


@pytest.mark.parametrize("turned", [True, False])
def test_a_compiled_product_of_a_row_is_not_fused_with_a_sum(turned):
    """XLA runs such a fusion, of kind kOutput, on one core."""
    matrix, layout = tf.random.normal((64, 64)), "compiled" if turned else "compiled as stored"

    @tf.function(jit_compile=True, autograph=False)
    def summed(x, bias):
        return products.times(x, matrix, turned, layout) + bias

    x, bias = tf.random.normal((1, 64)), tf.random.normal((64,))
    np.testing.assert_allclose(summed(x, bias), tf.matmul(x, matrix, transpose_b=turned) + bias, atol=1e-4)
    program = summed.experimental_get_compiler_ir(x, bias)(stage="optimized_hlo")
    assert "dot(" in program and "kOutput" not in program


@pytest.mark.parametrize("dtype", ["int8", "bfloat16"])
def test_a_compiled_product_does_not_make_its_row_again(dtype):
    """For each of its results, as XLA does if it fuses the product with what the row is made of."""
    matrix = tf.cast(tf.random.uniform((64, 64), -127, 127), dtype)

    @tf.function(jit_compile=True, autograph=False)
    def scaled(heads, gain):
        x = tf.reshape(tf.transpose(heads * gain + gain, (0, 2, 1, 3)), (1, 64))
        return products.times(x, matrix, True, "compiled")

    heads = tf.cast(tf.random.normal((1, 8, 1, 8)), "float32" if dtype == "int8" else dtype)
    gain = tf.cast(0.5, heads.dtype)
    expected = tf.reshape(heads * gain + gain, (1, 64))
    expected = tf.matmul(expected, tf.cast(matrix, heads.dtype), transpose_b=True)
    found, expected = (tf.cast(x, tf.float32) for x in (scaled(heads, gain), expected))
    np.testing.assert_allclose(found, expected, rtol=2e-2, atol=0.05 if dtype == "int8" else 10)
    program = scaled.experimental_get_compiler_ir(heads, gain)(stage="optimized_hlo")
    (product,) = (part for part in program.split("\n\n") if " dot(" in part)
    assert " convert(" in product and " add(" not in product and " multiply(" not in product
    assert "1,8,1,8" not in product
