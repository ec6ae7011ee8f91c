"""The attention of generated texts against the weights of the full forward pass, a row at a time."""

import numpy as np
import pytest

from tests.generation.test_generation import (
    PROMPTS,
    Ids,
    decoder,  # noqa: F401  a fixture
    encoder_decoder,  # noqa: F401  a fixture
    padded,
)
from tests.reference.weights import randomise
from tfmodels import generate
from tfmodels.models import transformer_xl


def full_pass(model, prompt, text):
    """Weights of each block over prompt and text but the last token, which nothing was chosen by."""
    if "encoder_token_ids" in model.input_pairs:
        inputs = {"encoder_token_ids": [prompt], "decoder_token_ids": [[Ids.start_id, *text[:-1]]]}
    else:
        inputs = {"token_ids": [[*prompt, *text[:-1]]]}
    with model.record_attention() as attention:
        model({name: np.array(ids) for name, ids in inputs.items()})
    layers = model.config.num_layers  # the last are the decoder's
    return {kind: [np.asarray(each)[0] for each in weights[-layers:]] for kind, weights in attention.items()}


def check(model, result, kinds):
    attention, copies = result.attention, result.token_ids.ndim == 3
    assert sorted(attention) == sorted(kinds)
    for kind in kinds:
        assert len(attention[kind]) == model.config.num_layers
    for row, prompt in enumerate(PROMPTS):
        for place in np.ndindex(result.lengths.shape[1:]):
            at = (row, *place)
            text = result.token_ids[at][: result.lengths[at]].tolist()
            expected = full_pass(model, prompt, text)
            for kind in kinds:
                for found, weights in zip(attention[kind], expected[kind], strict=True):
                    assert found.ndim == 4 + copies and found.dtype == "float32"
                    weights = weights[:, -len(text) :]
                    here = found[at][:, : len(text), : weights.shape[-1]]
                    np.testing.assert_allclose(here, weights, atol=1e-5)  # float32, 2 layers
                    # Nothing stands outside.
                    np.testing.assert_allclose(found[at].sum(), weights.sum(), rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        dict(max_new_tokens=30, stop=()),  # each row to the end of the positions
        dict(method="beam", num_beams=2, num_return_sequences=2),
    ],
)
def test_a_decoders_attention(decoder, options):  # noqa: F811
    options = dict(max_new_tokens=4, return_attention=True) | options
    check(decoder, generate(decoder, padded(PROMPTS), **options), ["self"])


def test_attention_to_the_source(encoder_decoder):  # noqa: F811
    inputs = padded(PROMPTS, "encoder_token_ids", left=True)
    result = generate(encoder_decoder, inputs, Ids, max_new_tokens=4, return_attention=True)
    check(encoder_decoder, result, ["self", "cross"])
    assert result.attention["cross"][0].shape[-1] == 5  # the longest source, without the rounding


def test_attention_by_distance():
    sizes = dict(hidden_dim=12, intermediate_dim=11, head_dim=4, num_heads=3, vocabulary_size=13)
    model = transformer_xl("tiny", **sizes, num_layers=1, memory_length=None, max_sequence_length=9)
    randomise(model, seed=5, scale=0.5)
    result = generate(model, padded(PROMPTS), max_new_tokens=3, return_attention=True)
    check(model, result, ["self"])
