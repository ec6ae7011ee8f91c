"""Weights that a loop has made ready against the model's own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.generation.test_generation import Ids
from tests.reference.weights import randomise
from tfmodels import GenerationConfig, generate, stream
from tfmodels.generation import products
from tfmodels.generation.products import choose_layout
from tfmodels.generation.step_model import StepModel
from tfmodels.layers import attention, cache
from tfmodels.layers.steps import Dense, side_by_side, stepping
from tfmodels.models import gpt2, llama, transformer, transformer_xl


class SmallIds(Ids):
    vocabulary_size = 11


SIZE = dict(num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=12, max_sequence_length=40)
XL = dict(num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=12, vocabulary_size=11, cutoffs=())
WORDS = dict(source_vocabulary_size=11, target_vocabulary_size=11)


def model_of(dtype, seed=1):
    model = gpt2("tiny", vocabulary_size=11, dtype="float32" if dtype == "int8" else dtype, **SIZE)
    randomise(model, seed=seed, scale=0.5)
    if dtype == "int8":
        model.quantize("int8")
    return model


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "int8"])
@pytest.mark.parametrize("layout", ["own", "apart", "turned", "swapped", "blocks"])
@pytest.mark.parametrize("eager", [False, True])
def test_a_step_is_the_models_own(dtype, layout, eager):
    model, ids = model_of(dtype), tf.constant([[3, 7], [2, 9]])

    def logits(ready):
        stepped = StepModel(model, layout) if ready else model

        def body(i, _):
            return i + 1, stepped.decode_step(ids, model.init_cache({"token_ids": ids}, 16), 0)[0]

        return tf.while_loop(lambda i, _: i < 1, body, (0, tf.zeros((2, 2, 11), model.compute_dtype)))[1]

    run = logits if eager else tf.function(logits, autograph=False)
    own, ready = (tf.cast(run(ready), tf.float32) for ready in (False, True))
    # bfloat16 has 8 bits, and other kernels of the processor round elsewhere.
    np.testing.assert_allclose(ready, own, atol=3e-2 if dtype == "mixed_bfloat16" else 5e-6)


def test_the_loop_casts_no_matrix():
    """All casts stand before it."""
    model = model_of("mixed_bfloat16")
    generate(model, {"token_ids": [[3, 7]]}, max_new_tokens=20, stop=())
    assert not cast_matrices(body_of(model))


def test_a_stream_casts_no_matrix():
    """All casts stand before its first step, and new weights are read by the next stream."""
    model, new = model_of("mixed_bfloat16"), model_of("mixed_bfloat16", seed=2)
    prompt, options = {"token_ids": [[3, 7]]}, dict(max_new_tokens=20, stop=())
    list(stream(model, prompt, SmallIds, **options))
    functions = {key[0]: function for key, function in vars(model)["_generate_functions"].items()}
    nodes = {name: each.graph.as_graph_def(add_shapes=True).node for name, each in functions.items()}
    assert cast_matrices(nodes["stream"]) and not cast_matrices(nodes["stream step"])
    model.set_weights(new.get_weights())
    text = "".join(stream(model, prompt, SmallIds, **options))
    assert text == generate(new, prompt, SmallIds, **options).text[0]


def cast_matrices(nodes):
    """Casts to a shape of the model's matrices."""
    shapes = [node.attr["_output_shapes"].list.shape for node in nodes if node.op == "Cast"]
    sizes = [11, 8], [8, 12], [12, 8], [8, 24], [24, 8]
    return [shape for (shape,) in shapes if [d.size for d in shape.dim] in sizes]


def body_of(model):
    """The operations of the one loop that has been traced for a model."""
    (function,) = vars(model)["_generate_functions"].values()
    library = function.graph.as_graph_def(add_shapes=True).library.function
    (body,) = (f for f in library if f.signature.name.startswith("while_body"))
    return body.node_def


@pytest.mark.parametrize("kind", [gpt2, llama])
def test_what_projects_one_vector_is_one_product(kind):
    model = kind("tiny", vocabulary_size=11, **SIZE)
    generate(model, {"token_ids": [[3, 7]]}, max_new_tokens=20, stop=())
    # Of queries, keys and values, attention's own two, its output, the inner vector with its gate, the
    # feed-forward network's output, and the logits.
    assert sum("MatMul" in node.op for node in body_of(model)) == 7


def test_a_users_projection_stays_in_its_place():
    model, changed = model_of("float32"), model_of("float32")
    dense = changed.blocks[0].attention.value_dense
    call = dense.call
    dense.call = lambda x, training=None: 2 * call(x, training=training)
    doubled = model.blocks[0].attention.value_dense

    def log_probabilities(model):
        options = dict(max_new_tokens=20, stop=(), return_scores=True)
        return generate(model, {"token_ids": [[3, 7]]}, **options).log_probabilities

    plain = log_probabilities(model)
    doubled.set_weights([2 * weight for weight in doubled.get_weights()])
    expected = log_probabilities(model)
    assert np.abs(plain - expected).max() > 1e-3
    np.testing.assert_allclose(log_probabilities(changed), expected, atol=1e-5)


def test_a_users_layer_is_called_in_a_step():
    class Doubled(keras.layers.Layer):
        def call(self, x):
            return 2 * x

    dense = Dense(3)
    dense.build((None, 3))
    x = tf.ones((2, 3))
    with stepping(multiply=lambda x, matrices, turned: [x - i for i in range(len(matrices))]):
        own, called = side_by_side(x, dense, Doubled())
        joined = side_by_side(x, dense, dense)
    for found, expected in ((own, x), (called, 2 * x), (joined[1], x - 1)):
        np.testing.assert_array_equal(found, expected)


def test_new_weights_are_read():
    """Nothing is kept from one call to the next."""
    first, second = model_of("float32", seed=1), model_of("float32", seed=2)
    prompt = {"token_ids": [[3, 7]]}
    options = dict(max_new_tokens=20, stop=())
    before = generate(first, prompt, **options).token_ids
    expected = generate(second, prompt, **options).token_ids
    assert (before != expected).any()
    first.set_weights(second.get_weights())
    np.testing.assert_array_equal(generate(first, prompt, **options).token_ids, expected)


@pytest.mark.filterwarnings("error::UserWarning")
def test_a_quantised_model_generates_by_its_rounded_weights():
    """Also after it has generated by its own; and no step casts a matrix."""
    model, options = model_of("float32"), dict(max_new_tokens=20, stop=(), return_scores=True)
    before = generate(model, {"token_ids": [[3, 7]]}, **options)
    model.quantize("int8")
    after = generate(model, {"token_ids": [[3, 7]]}, **options)
    assert (before.log_probabilities != after.log_probabilities).any()
    ids = np.concatenate([[[3, 7]], after.token_ids[:, :-1]], axis=1)
    logits = model.predict({"token_ids": ids}, verbose=0)[:, 1:]
    expected = tf.gather(tf.nn.log_softmax(logits), after.token_ids, batch_dims=2)
    np.testing.assert_allclose(after.log_probabilities, expected, atol=1e-5)
    assert not cast_matrices(body_of(model))


def test_the_layout_of_kernels_follows_rows_and_steps(monkeypatch):
    model, half, int8 = (model_of(dtype) for dtype in ("float32", "mixed_bfloat16", "int8"))
    monkeypatch.setattr(products, "has_fast_batches", lambda: True)
    assert {choose_layout(each, 8, 64) for each in (model, half, int8)} == {"blocks"}
    assert choose_layout(model, 8, 64, compiled=False, here=False) == "swapped"
    monkeypatch.setattr(products, "has_fast_batches", lambda: False)
    assert choose_layout(model, 1, 64) == choose_layout(half, 64, 64) == "turned"
    assert choose_layout(model, 8, 64) == "swapped"
    assert choose_layout(model, 64, 64) == choose_layout(int8, 1, 4) == choose_layout(model, 1, 4) == "own"
    assert choose_layout(half, 200, 64) == choose_layout(half, 1, 4) == "apart"
    assert choose_layout(int8, 200, 64) == "swapped"  # a cast at every step would take longer
    monkeypatch.setattr(products, "_WORTH_COMPILING", 0)
    assert {choose_layout(each, 1, 64) for each in (model, half, int8)} == {"compiled"}
    assert choose_layout(model, 2, 64) == choose_layout(model, 16, 64) == "compiled rows"
    with monkeypatch.context() as large:
        large.setattr(products, "_MOST_BYTES", 0)
        assert choose_layout(model, 1, 64) == "compiled as stored"
        assert choose_layout(half, 1, 64) == "apart" and choose_layout(int8, 1, 64) == "own"
    assert choose_layout(model, 1, 64, compiled=False) == choose_layout(half, 2, 64) == "turned"
    assert choose_layout(int8, 3, 64) == choose_layout(model, 17, 64) == "swapped"
    model.blocks[0].attention.query_dense.enable_lora(2)
    assert choose_layout(model, 1, 64) == choose_layout(transformer("tiny", **WORDS), 1, 64) == "turned"
    assert GenerationConfig().rows_a_prompt() == 1  # the beams of the default are those of another method
    assert GenerationConfig(method="beam", num_beams=5).rows_a_prompt() == 5
    assert GenerationConfig(method="sample", num_return_sequences=3).rows_a_prompt() == 3
    assert GenerationConfig(method="contrastive", top_k=6).rows_a_prompt() == 6


def test_a_row_in_bfloat16_is_the_same_among_many():
    """Whatever way its products are made: all round at the same places."""
    model = gpt2("tiny", vocabulary_size=11, dtype="mixed_bfloat16", **(SIZE | {"num_layers": 3}))
    randomise(model, seed=1, scale=0.5)
    options = dict(max_new_tokens=30, stop=(), return_scores=True)
    one, many = (generate(model, {"token_ids": [[3, 7]] * rows}, **options) for rows in (2, 130))
    few = generate(model, {"token_ids": [[3, 7]]}, **(options | dict(max_new_tokens=15)))
    np.testing.assert_allclose(many.log_probabilities[0], one.log_probabilities[0], atol=1e-6)
    np.testing.assert_allclose(few.log_probabilities[0], one.log_probabilities[0, :15], atol=1e-6)


METHODS = {
    "greedy": dict(no_repeat_ngram_size=2, min_new_tokens=3),
    "sample": dict(method="sample", seed=3, temperature=1.3, top_k=7, top_p=0.9),
    "beam": dict(method="beam", num_beams=3),
    "contrastive": dict(method="contrastive", top_k=3, penalty_alpha=0.6),
    "small cache": dict(cache_dtype="int8"),
}
DECODERS = {
    "gpt2": lambda dtype: gpt2("tiny", vocabulary_size=11, dtype=dtype, **SIZE),
    "llama": lambda dtype: llama(
        "tiny", vocabulary_size=11, window=5, num_key_value_heads=1, dtype=dtype, **SIZE
    ),
    "transformer_xl": lambda dtype: transformer_xl("tiny", dtype=dtype, memory_length=6, **XL),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", DECODERS)
def test_a_compiled_step_writes_the_same_text(kind, method, monkeypatch):
    """Rows of mixed lengths, up to the end of the cache; and one row as it comes."""
    model = DECODERS[kind]("float32")
    randomise(model, seed=1, scale=0.5)
    prompt = {"token_ids": [[3, 7, 2, 9], [2, 9, 0, 0]], "padding_mask": [[1] * 4, [1, 1, 0, 0]]}
    options = dict(max_new_tokens=38, stop=(), return_scores=True) | METHODS[method]
    expected = generate(model, prompt, **options)
    monkeypatch.setattr(products, "has_fast_batches", lambda: False)
    monkeypatch.setattr(products, "_WORTH_COMPILING", 0)
    found = generate(model, prompt, **options)
    np.testing.assert_array_equal(found.token_ids, expected.token_ids)
    np.testing.assert_allclose(found.log_probabilities, expected.log_probabilities, atol=2e-5)
    assert {key[-1] for key in vars(model)["_generate_functions"]} >= {"compiled rows"}
    if method in ("greedy", "sample"):
        row = {"token_ids": [[3, 7, 2, 9]]}
        text = "".join(stream(model, row, SmallIds, **options | {"return_scores": False}))
        assert text == " ".join(map(str, expected.token_ids[0][: expected.lengths[0]]))


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


@pytest.mark.parametrize("method", ["greedy", "sample"])
def test_a_large_model_compiles_its_matrices_as_stored(method, monkeypatch):
    model, options = model_of("float32"), dict(max_new_tokens=20, stop=(), return_scores=True, method=method)
    expected = generate(model, {"token_ids": [[3, 7]]}, **options)
    monkeypatch.setattr(products, "_WORTH_COMPILING", 0)
    monkeypatch.setattr(products, "_MOST_BYTES", 0)
    found = generate(model, {"token_ids": [[3, 7]]}, **options)
    np.testing.assert_array_equal(found.token_ids, expected.token_ids)
    np.testing.assert_allclose(found.log_probabilities, expected.log_probabilities, atol=2e-5)
    functions = {key[-1]: function.graph for key, function in vars(model)["_generate_functions"].items()}
    transposed = {
        layout: sum(op.type == "Transpose" and op.inputs[0].shape.rank == 2 for op in graph.get_operations())
        for layout, graph in functions.items()
    }
    # Queries, keys and values as one, attention's output, and the feed-forward network's two.
    assert transposed["turned"] - transposed["compiled as stored"] == 4


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "bfloat16", "int8"])
def test_a_compiled_step_reads_small_weights(dtype, monkeypatch):
    """Of one row, as they stand: no step casts a matrix before its program of XLA's."""
    model, options = model_of(dtype), dict(max_new_tokens=20, stop=(), return_scores=True)
    prompt = {"token_ids": [[3, 7]]}
    expected = generate(model, prompt, **options)
    monkeypatch.setattr(products, "_WORTH_COMPILING", 0)
    found = generate(model, prompt, **options)
    same = np.cumprod(found.token_ids == expected.token_ids, axis=1) == 1
    assert same.sum() > 5  # bfloat16 rounds elsewhere, and another word leads elsewhere
    difference = (found.log_probabilities - expected.log_probabilities)[same]
    assert np.abs(difference).max() < (1e-4 if dtype == "int8" else 0.1)
    function = next(f for key, f in vars(model)["_generate_functions"].items() if key[-1] == "compiled")
    library = function.graph.as_graph_def(add_shapes=True).library.function
    (body,) = (f for f in library if f.signature.name.startswith("while_body"))
    assert not cast_matrices(body.node_def)
    block = max((f for f in library if f.attr["_XlaMustCompile"].b), key=lambda f: len(f.signature.input_arg))
    kinds = [tf.as_dtype(each.type).name for each in block.signature.input_arg]
    assert kinds.count("int8" if dtype == "int8" else "bfloat16") >= 6  # four of attention, two after it


def test_a_compiled_step_has_few_sizes():
    """A hundred prompts of any length compile four times at most."""
    stepped = StepModel(gpt2("tiny", vocabulary_size=11, **SIZE), "compiled")
    sizes = {min(int(stepped.room(tf.constant(prompt + 64))), 1024) for prompt in range(1, 1025, 10)}
    assert sizes == {128, 256, 512, 1024}
    assert [int(stepped.room(tf.constant(n))) for n in (1025, 1537, 2049)] == [1536, 2048, 3072]


def test_all_layers_share_positions_and_masks(monkeypatch):
    """Of the prompts, whose length is unknown, and of a step."""
    calls = []

    def count(module, name):
        made = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *arguments: calls.append(name) or made(*arguments))

    count(cache, "_indices")
    count(attention, "cached_attention_mask")
    model = gpt2("tiny", vocabulary_size=11, **(SIZE | {"num_layers": 3}))
    generate(model, {"token_ids": [[3, 7]]}, max_new_tokens=5, stop=())
    assert sorted(calls) == ["_indices"] * 2 + ["cached_attention_mask"] * 2


@pytest.mark.parametrize("method", ["greedy", "sample", "beam"])
def test_a_loop_copies_no_cache(method, monkeypatch):
    """And a short prompt beside a longer one leaves nothing behind it that a step would add to."""
    model = model_of("float32")
    ids, mask = [[3, 7, 2, 9, 4, 1], [2, 9, 0, 0, 0, 0]], [[1] * 6, [1, 1, 0, 0, 0, 0]]
    options = dict(max_new_tokens=36, method=method, num_beams=2, stop=(), return_scores=True)
    together = generate(model, {"token_ids": ids, "padding_mask": mask}, **options)
    functions = vars(model)["_generate_functions"].values()
    (body,) = (
        f
        for function in functions
        for f in function.graph.as_graph_def().library.function
        if f.signature.name.startswith("while_body")
    )
    operations = [node.op for node in body.node_def]
    assert operations.count("ScatterNdNonAliasingAdd") == 2 and "TensorScatterUpdate" not in operations
    monkeypatch.setattr(products, "has_gpu", lambda: True)  # where caches are replaced, not added to
    expected = generate(model_of("float32"), {"token_ids": ids, "padding_mask": mask}, **options)
    np.testing.assert_array_equal(together.token_ids, expected.token_ids)
    np.testing.assert_allclose(together.log_probabilities, expected.log_probabilities, atol=1e-5)
