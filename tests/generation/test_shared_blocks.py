"""Equal blocks traced once, against the same blocks traced one by one."""

import collections
import gc
import os
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.reference.weights import randomise
from tfmodels import generate
from tfmodels.generation import products, step_model
from tfmodels.generation.protocol import compiled
from tfmodels.layers import FeedForward
from tfmodels.models import bart, gpt2, llama, t5

SIZE = dict(vocabulary_size=11, num_layers=4, num_heads=2, hidden_dim=8, intermediate_dim=12, dropout=0.0)
KINDS = {
    "gpt2": lambda **options: gpt2("tiny", max_sequence_length=40, **SIZE | options),
    "llama": lambda **options: llama(
        "tiny", max_sequence_length=40, window=5, num_key_value_heads=1, **SIZE | options
    ),
    "t5": lambda **options: t5("tiny", head_dim=4, **SIZE | options),
    "bart": lambda **options: bart("tiny", max_sequence_length=40, **SIZE | options),
}


class Twice(FeedForward):
    """A user's, of which its config says nothing new."""

    def call(self, x, training=None):
        return 2 * super().call(x, training=training)


def with_lora(block, monkeypatch):
    dense = block.attention.query_dense
    dense.enable_lora(2)
    dense.lora_kernel_b.assign(np.full(dense.lora_kernel_b.shape, 0.5, "float32"))


def with_a_method_of_its_own(block, monkeypatch):
    call = block.feed_forward.call
    block.feed_forward.call = lambda x, training=None: 2 * call(x, training=training)


def with_a_method_of_the_class(block, monkeypatch):
    call, layer = FeedForward.call, block.feed_forward
    monkeypatch.setattr(
        FeedForward, "call", lambda self, x, training=None: (1 + (self is layer)) * call(self, x, training)
    )


CHANGES = {
    "window": lambda block, _: setattr(block.attention, "window", 2),
    "int8": lambda block, _: block.attention.query_dense.quantize("int8"),
    "dtype": lambda block, _: setattr(
        block.attention_norm, "dtype_policy", keras.DTypePolicy("mixed_bfloat16")
    ),
    "class": lambda block, _: setattr(block.feed_forward, "__class__", Twice),
    "lora": with_lora,
    "method": with_a_method_of_its_own,
    "methods": with_a_method_of_the_class,
}


def body_of(function):
    """The FunctionDef of a traced function's only loop."""
    library = function.graph.as_graph_def().library.function
    (body,) = (each for each in library if each.signature.name.startswith("while_body"))
    return body


def prompt_of(model):
    ids, mask = [[3, 7, 2, 9, 4, 1, 8, 3, 5, 6], [2, 9, 5] + [0] * 7], [[1] * 10, [1] * 3 + [0] * 7]
    name = next(iter(model.input_pairs))
    return {name: ids, model.input_pairs[name][0]: mask}


def check(model, monkeypatch, atol=2e-5):
    """The text of the model, and of the same with each block traced."""
    options = dict(max_new_tokens=24, stop=(), return_scores=True)
    found = generate(model, prompt_of(model), **options)
    vars(model).pop("_generate_functions")
    monkeypatch.setattr(step_model, "SharedBlocks", lambda weights, made, compiled=False: None)
    monkeypatch.setattr(step_model, "CopiedBlocks", lambda weights, made: None)
    expected = generate(model, prompt_of(model), **options)
    same = np.cumprod(found.token_ids == expected.token_ids, axis=1) == 1
    assert same.mean() > 0.5 if atol > 1e-3 else same.all()
    np.testing.assert_allclose(found.log_probabilities[same], expected.log_probabilities[same], atol=atol)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_blocks_have_their_own_weights(kind, dtype, compiled, monkeypatch):
    model = KINDS[kind](dtype=dtype)
    randomise(model, seed=1, scale=0.5)
    if compiled:
        monkeypatch.setattr(products, "_WORTH_COMPILING", 0)
    check(model, monkeypatch, 2e-5 if dtype == "float32" else 0.1)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_is_the_models_own(kind, dtype):
    """Also where blocks attend to an encoder, whose keys no step changes."""
    model = KINDS[kind](dtype=dtype)
    randomise(model, seed=1, scale=0.5)
    inputs = tf.nest.map_structure(tf.constant, prompt_of(model))

    def run(stepped):
        cache = model.init_cache(inputs, 16)
        logits, after = stepped.decode_step(tf.reshape(tf.range(20) % 11, (2, 10)), cache, 0)
        kept = [new is old for new, old in zip(tf.nest.flatten(after), tf.nest.flatten(cache), strict=True)]
        return kept, tf.cast(logits, tf.float32), [tf.cast(x, tf.float32) for x in tf.nest.flatten(after)]

    kept, found = [], []
    for stepped in (model, step_model.StepModel(model)):

        @tf.function(autograph=False)
        def traced(stepped=stepped):
            which, *tensors = run(stepped)
            kept.append(which)
            return tensors

        found.append(traced())
    assert kept[0] == kept[1]
    atol = 2e-5 if dtype == "float32" else 5e-2
    tf.nest.map_structure(lambda own, shared: np.testing.assert_allclose(shared, own, atol=atol), *found)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_blocks_that_differ_are_not_taken_for_equal(change, compiled, monkeypatch):
    model = KINDS["llama"](dtype="float32")
    randomise(model, seed=1, scale=0.5)
    CHANGES[change](model.blocks[2], monkeypatch)
    if compiled:
        monkeypatch.setattr(products, "_WORTH_COMPILING", 0)
    check(model, monkeypatch)


def test_functions_of_one_name_are_not_taken_for_equal(monkeypatch):
    model = KINDS["gpt2"](dtype="float32")
    randomise(model, seed=1, scale=0.5)
    for factor, block in enumerate(model.blocks, 1):
        block.feed_forward.activation = times(factor)
    check(model, monkeypatch)


def times(factor):
    def scaled(x):
        return factor * x

    return scaled


@pytest.mark.parametrize("lists_variables", [False, True])
def test_a_users_class_around_a_model(lists_variables):
    """It keeps the protocol and is no Keras model."""
    model = KINDS["gpt2"](dtype="mixed_bfloat16")
    randomise(model, seed=1, scale=0.5)
    names = [
        "config",
        "input_pairs",
        "complete_inputs",
        "init_cache",
        "decode_step",
        "stepping",
        "put_in_cache",
    ]
    names += ["variables"] * lists_variables
    around = types.SimpleNamespace(**{name: getattr(model, name) for name in names})
    options = dict(max_new_tokens=24, stop=())
    found = generate(around, prompt_of(model), **options)
    np.testing.assert_array_equal(found.token_ids, generate(model, prompt_of(model), **options).token_ids)


@pytest.mark.parametrize("compiled", [False, True])
def test_the_graph_of_a_prompt_grows_with_no_block(compiled, monkeypatch):
    """Of eight blocks as of four: the first, and one that stands for the others."""
    if compiled:
        monkeypatch.setattr(products, "_WORTH_COMPILING", 0)

    def count(num_layers):
        model = KINDS["gpt2"](num_layers=num_layers)
        generate(model, prompt_of(model), max_new_tokens=16, stop=())
        (function,) = vars(model)["_generate_functions"].values()
        graph = function.graph.as_graph_def()
        parts = [
            function.node_def
            for function in graph.library.function
            if "while_" not in function.signature.name
        ]
        return [node.op for part in (graph.node, *parts) for node in part].count("MatMul")

    assert count(4) == count(8)


def test_what_does_more_than_make_a_result_is_done_for_each_block(monkeypatch):
    """Such as a check: a copy without it would not check."""
    plain = FeedForward.call

    def checked(self, x, training=None):
        tf.debugging.assert_all_finite(x, "")
        with tf.control_dependencies([tf.debugging.assert_less(tf.reduce_max(x), 1e9)]):
            return plain(self, tf.identity(x), training=training)

    checked.__module__ = plain.__module__  # as if it were the project's own
    monkeypatch.setattr(FeedForward, "call", checked)
    model = KINDS["gpt2"](dtype="float32")
    randomise(model, seed=1, scale=0.5)
    generate(model, prompt_of(model), max_new_tokens=24, stop=())
    (function,) = vars(model)["_generate_functions"].values()
    ops = [node.op for node in body_of(function).node_def]
    assert sum(op in ("Assert", "If", "StatelessIf") for op in ops) == SIZE["num_layers"]
    vars(model).pop("_generate_functions")
    check(model, monkeypatch)


@pytest.mark.parametrize("collects", [False, True])
def test_tracing_leaves_the_search_for_garbage_as_it_was(collects):
    during = []

    def function(x):
        during.append(gc.isenabled())
        raise RuntimeError

    (gc.enable if collects else gc.disable)()
    try:
        with pytest.raises(RuntimeError):
            compiled(types.SimpleNamespace(), "key", function, tf.TensorSpec(()))
        assert (during, gc.isenabled()) == ([False], collects)
    finally:
        gc.enable()


def body_of_a_loop(kind, num_layers, rows=2, layout=None):
    """Its FunctionDef, of a model of so many blocks."""
    model = KINDS[kind](num_layers=num_layers)
    prompt = {name: ids[:rows] for name, ids in prompt_of(model).items()}
    generate(model, prompt, max_new_tokens=24, stop=())
    ((key, function),) = vars(model)["_generate_functions"].items()
    assert layout in (None, key[-1])
    return body_of(function)


@pytest.mark.parametrize("layout", [None, "compiled"])
def test_a_loop_reads_vectors_of_one_shape_as_one_tensor(layout, monkeypatch):
    if layout:
        monkeypatch.setattr(products, "_WORTH_COMPILING", 0)
    bodies = [body_of_a_loop("gpt2", number, 1 if layout else 2, layout) for number in (2, 4)]
    two, four = (len(body.signature.input_arg) for body in bodies)
    assert 0 < four - two <= 2 * (6 + 2)  # matrices and caches, and none of a block's ten vectors


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_has_constants_and_masks_once(kind):
    """With four blocks as with two, however many products."""

    def count(num_layers):
        return collections.Counter(node.op for node in body_of_a_loop(kind, num_layers).node_def)

    two, four = count(2), count(4)
    products = [op for op in two if "MatMul" in op]
    assert sum(four[op] - two[op] for op in products) >= 2 * 6  # a block has at least six
    assert all(two[op] == four[op] for op in ("Const", "Range", "LogicalAnd", "LogicalOr", "Less", "Equal"))


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_equal_blocks_are_one_program(dtype, monkeypatch):
    """Of XLA's, for the first of them too."""
    model = KINDS["gpt2"]()
    randomise(model, seed=1, scale=0.5)
    if dtype == "int8":
        model.quantize("int8")
    prompt, options = {"token_ids": [[3, 7]]}, dict(max_new_tokens=24, stop=(), return_scores=True)
    expected = generate(model, prompt, **options)
    monkeypatch.setattr(products, "_WORTH_COMPILING", 0)
    found = generate(model, prompt, **options)
    np.testing.assert_array_equal(found.token_ids, expected.token_ids)
    np.testing.assert_allclose(found.log_probabilities, expected.log_probabilities, atol=1e-4)
    function = next(f for key, f in vars(model)["_generate_functions"].items() if key[-1] == "compiled")
    library = {f.signature.name: f for f in function.graph.as_graph_def().library.function}
    nodes = body_of(function).node_def
    calls = [node.attr["f"].func.name for node in nodes if node.op.endswith("PartitionedCall")]
    (block,) = (name for name in set(calls) if len(library[name].signature.input_arg) > 2)  # others: products
    assert calls.count(block) == SIZE["num_layers"] and library[block].attr["_XlaMustCompile"].b


@pytest.mark.parametrize("worth_compiling", [0, 2**26])
def test_a_first_text_says_nothing_on_standard_error(worth_compiling, tmp_path):
    """TensorFlow complains of tensors of which it knows no rank, and of types oneDNN does not know."""
    script = tmp_path / "first.py"
    script.write_text(
        "import tfmodels\n"
        "from tfmodels.generation import products\n"
        f"products._WORTH_COMPILING = {worth_compiling}\n"
        "sizes = dict(num_layers=3, num_heads=2, hidden_dim=8, intermediate_dim=12)\n"
        "model = tfmodels.models.gpt2('tiny', vocabulary_size=11, **sizes)\n"
        "filters = dict(method='sample', top_k=9, top_p=0.9, min_p=0.01, typical_p=0.9)\n"
        "for options in ({}, filters, dict(method='beam')):\n"
        "    tfmodels.generate(model, {'token_ids': [[3, 7], [2, 9]]}, max_new_tokens=20, **options)\n"
    )
    command = [sys.executable, str(script)]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "0"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert "PredictCost" not in done.stderr and "oneDNN supports" not in done.stderr
