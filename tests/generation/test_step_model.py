"""Weights that a loop has made ready against the model's own."""

import numpy as np
import pytest
import tensorflow as tf

from tests.generation.test_generation import Ids
from tests.reference.weights import randomise
from tfmodels import GenerationConfig, generate, stream
from tfmodels.generation import step_model
from tfmodels.generation.step_model import StepModel, choose_layout
from tfmodels.models import gpt2


class SmallIds(Ids):
    vocabulary_size = 11


SIZE = dict(num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=12, max_sequence_length=40)


def model_of(dtype, seed=1):
    model = gpt2("tiny", vocabulary_size=11, dtype=dtype, **SIZE)
    randomise(model, seed=seed, scale=0.5)
    return model


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("layout", ["own", "turned", "swapped"])
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
    np.testing.assert_allclose(ready, own, atol=5e-6 if dtype == "float32" else 3e-2)


def test_the_loop_casts_no_matrix():
    """All casts stand before it."""
    model = model_of("mixed_bfloat16")
    generate(model, {"token_ids": [[3, 7]]}, max_new_tokens=20, stop=())
    (function,) = vars(model)["_generate_functions"].values()
    library = function.graph.as_graph_def(add_shapes=True).library.function
    (body,) = (f for f in library if f.signature.name.startswith("while_body"))
    assert not cast_matrices(body.node_def)


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
    return [shape for (shape,) in shapes if [d.size for d in shape.dim] in ([11, 8], [8, 12], [12, 8])]


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


def test_the_layout_of_kernels_follows_rows_and_steps():
    model, half = model_of("float32"), model_of("mixed_bfloat16")
    assert choose_layout(model, 1, 64) == choose_layout(half, 64, 64) == "turned"
    assert choose_layout(model, 8, 64) == "swapped"
    assert choose_layout(model, 64, 64) == choose_layout(half, 200, 64) == choose_layout(model, 1, 4) == "own"
    assert GenerationConfig().rows_a_prompt() == 1  # the beams of the default are those of another method
    assert GenerationConfig(method="beam", num_beams=5).rows_a_prompt() == 5
    assert GenerationConfig(method="sample", num_return_sequences=3).rows_a_prompt() == 3
    assert GenerationConfig(method="contrastive", top_k=6).rows_a_prompt() == 6


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
    monkeypatch.setattr(step_model, "has_gpu", lambda: True)  # where caches are replaced, not added to
    expected = generate(model_of("float32"), {"token_ids": ids, "padding_mask": mask}, **options)
    np.testing.assert_array_equal(together.token_ids, expected.token_ids)
    np.testing.assert_allclose(together.log_probabilities, expected.log_probabilities, atol=1e-5)
