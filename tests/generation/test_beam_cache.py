"""One cache for the beams of a row against a cache for each."""

import numpy as np
import pytest
import tensorflow as tf

from tests.generation.test_shared_blocks import prompt_of
from tests.reference.weights import randomise
from tfmodels import generate
from tfmodels.generation import products
from tfmodels.generation.step_model import StepModel
from tfmodels.models import GPT2, bart, gpt2, llama, t5, transformer, transformer_xl

SIZE = dict(num_layers=2, num_heads=2, hidden_dim=8, intermediate_dim=12, dropout=0.0)
ONE, PLACES = dict(vocabulary_size=11), dict(max_sequence_length=40)
TWO = dict(source_vocabulary_size=11, target_vocabulary_size=11)
MODELS = {
    "gpt2": lambda: gpt2("tiny", **ONE, **PLACES, **SIZE),
    "window": lambda: llama("tiny", window=5, num_key_value_heads=1, **ONE, **PLACES, **SIZE),
    "t5": lambda: t5("tiny", head_dim=4, **ONE, **SIZE),
    "bart": lambda: bart("tiny", **ONE, **PLACES, **SIZE),
    "transformer": lambda: transformer("tiny", **TWO, **PLACES, **SIZE),
}
OPTIONS = {
    "beam": dict(method="beam", num_beams=4),
    "wide": dict(method="beam", num_beams=10, num_return_sequences=3, length_penalty=2.0),
    "diverse": dict(method="diverse_beam", num_beams=4, num_beam_groups=2, repetition_penalty=1.5),
    "small cache": dict(method="beam", num_beams=2, cache_dtype="int8"),
}


def made(kind):
    model = MODELS[kind]()
    randomise(model, seed=1, scale=0.5)
    return model


def in_own_caches(monkeypatch, model, *arguments, **options):
    with monkeypatch.context() as context:
        context.setattr(StepModel, "reads_places", False)
        vars(model).pop("_generate_functions", None)
        return generate(model, *arguments, **options)


@pytest.mark.parametrize("case", OPTIONS)
@pytest.mark.parametrize(
    "kind, compiled", [*((kind, False) for kind in MODELS), ("gpt2", True), ("window", True)]
)
def test_beams_that_share_a_cache_write_the_same(kind, case, compiled, monkeypatch):
    """Rows of mixed lengths, up to the end of what the model reads."""
    model = made(kind)
    if compiled:
        monkeypatch.setattr(products, "_WORTH_COMPILING", 0)
    options = dict(max_new_tokens=36, stop=(), return_scores=True) | OPTIONS[case]
    found = generate(model, prompt_of(model), **options)
    expected = in_own_caches(monkeypatch, model, prompt_of(model), **options)
    np.testing.assert_array_equal(found.token_ids, expected.token_ids)
    np.testing.assert_array_equal(found.lengths, expected.lengths)
    np.testing.assert_allclose(found.log_probabilities, expected.log_probabilities, atol=3e-5)


def test_beams_after_a_shared_prefix(monkeypatch):
    model = made("gpt2")
    options = dict(prefix=[5, 2, 8], max_new_tokens=20, stop=(), **OPTIONS["beam"])
    found = generate(model, prompt_of(model), **options)
    expected = in_own_caches(monkeypatch, model, prompt_of(model), **options)
    np.testing.assert_array_equal(found.token_ids, expected.token_ids)


def shapes_in_loop(model, op):
    """The shapes of what an op of the only traced loop makes that may be keys and values, of heads of 4."""
    (function,) = vars(model)["_generate_functions"].values()
    library = function.graph.as_graph_def(add_shapes=True).library.function
    (body,) = (f for f in library if f.signature.name.startswith("while_body"))
    shapes = [node.attr["_output_shapes"].list.shape[0] for node in body.node_def if node.op == op]
    return [shape for shape in shapes if len(shape.dim) == 4 and shape.dim[3].size == 4]


@pytest.mark.parametrize("kind", MODELS)
def test_no_cache_is_copied_in_a_new_order(kind, monkeypatch):
    model = made(kind)
    options = dict(max_new_tokens=5, stop=(), **OPTIONS["beam"])
    generate(model, prompt_of(model), **options)
    assert not shapes_in_loop(model, "GatherV2")
    in_own_caches(monkeypatch, model, prompt_of(model), **options)
    # Keys and values of two blocks; what was made of a source stays as it is.
    assert len(shapes_in_loop(model, "GatherV2")) == 4


class OwnPositions(GPT2):
    """A user's, which knows an index of each row only."""

    def forward(self, inputs, cache=None, index=None, training=None):
        if cache is not None:
            assert len(getattr(index, "shape", ())) < 2
        return super().forward(inputs, cache=cache, index=index, training=training)


def test_a_users_model_keeps_a_cache_for_each_beam():
    known = made("gpt2")
    model = OwnPositions(known.config)
    model.set_weights(known.get_weights())
    options = dict(max_new_tokens=8, stop=(), **OPTIONS["beam"])
    found, expected = (generate(each, prompt_of(known), **options) for each in (model, known))
    np.testing.assert_array_equal(found.token_ids, expected.token_ids)


def test_which_models_share():
    quantised, adapted = made("gpt2"), made("gpt2")
    quantised.quantize("int8")
    adapted.blocks[0].attention.query_dense.enable_lora(2)
    for model in (quantised, adapted, *map(made, MODELS)):
        assert StepModel(model).reads_places
    activated = made("gpt2")
    activated.blocks[0].feed_forward.activation = lambda x: tf.nn.relu(x)
    for model in (activated, transformer_xl("tiny", vocabulary_size=11, cutoffs=())):
        assert not StepModel(model).reads_places


def test_a_compiled_step_has_few_sizes_of_prompts():
    stepped = StepModel(made("gpt2"), "compiled rows")
    sizes = {int(stepped.room(tf.constant(prompt), more=tf.constant(250))) for prompt in range(0, 1024, 10)}
    assert sizes == {320, 512, 1280}
