"""Weights that a loop has made ready against the model's own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.generation.test_generation import Ids
from tests.reference.weights import randomise
from tfmodels import generate, stream
from tfmodels.generation import products
from tfmodels.generation.step_model import StepModel
from tfmodels.layers import attention, cache
from tfmodels.layers.steps import Dense, side_by_side, stepping
from tfmodels.models import gpt2, llama, transformer_xl


class SmallIds(Ids):
    vocabulary_size = 11


SIZE = dict(num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=12, max_sequence_length=40)
XL = dict(num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=12, vocabulary_size=11, cutoffs=())


def model_of(dtype, seed=1):
    model = gpt2("tiny", vocabulary_size=11, dtype="float32" if dtype == "int8" else dtype, **SIZE)
    randomise(model, seed=seed, scale=0.5)
    if dtype == "int8":
        model.quantize("int8")
    return model


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "int8"])
@pytest.mark.parametrize("layout", ["own", "apart", "wide", "turned", "swapped", "blocks"])
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
    # bfloat16 has 8 bits, and other kernels of the processor round elsewhere; without instructions they cut.
    half = 7e-2 if layout == "wide" else 3e-2
    np.testing.assert_allclose(ready, own, atol=half if dtype == "mixed_bfloat16" else 5e-6)


def test_a_wide_product_is_of_the_numbers_that_the_layer_has():
    """Of a matrix as bfloat16, in float32."""
    model, rounded = model_of("mixed_bfloat16"), model_of("mixed_bfloat16")
    for variable in rounded.weights:
        if len(variable.shape) == 2:
            variable.assign(tf.cast(tf.cast(variable, "bfloat16"), "float32"))

    def logits(model):
        ids = {"token_ids": tf.constant([[3, 7], [2, 9]])}
        step = tf.function(StepModel(model, "wide").decode_step, autograph=False)
        return tf.cast(step(ids["token_ids"], model.init_cache(ids, 16), 0)[0], tf.float32)

    np.testing.assert_array_equal(logits(model), logits(rounded))


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
    np.testing.assert_array_equal(own, x)
    np.testing.assert_array_equal(called, 2 * x)
    np.testing.assert_array_equal(joined[1], x - 1)


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
    monkeypatch.setattr(products, "has_fast_batches", lambda dtype: False)
    monkeypatch.setattr(products, "_WORTH_COMPILING", 0)
    monkeypatch.setitem(products._MOST_COMPILED, "float32", 16)
    found = generate(model, prompt, **options)
    np.testing.assert_array_equal(found.token_ids, expected.token_ids)
    np.testing.assert_allclose(found.log_probabilities, expected.log_probabilities, atol=2e-5)
    assert {key[-1] for key in vars(model)["_generate_functions"]} >= {"compiled rows"}
    if method in ("greedy", "sample"):
        row = {"token_ids": [[3, 7, 2, 9]]}
        text = "".join(stream(model, row, SmallIds, **options | {"return_scores": False}))
        assert text == " ".join(map(str, expected.token_ids[0][: expected.lengths[0]]))


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
    # Of queries, keys and values as one, attention's output, and the feed-forward network's two.
    assert kinds.count("int8" if dtype == "int8" else "bfloat16") >= 4


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
