"""Speculative decoding against decoding token by token, and against the model's own distribution."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tests.generation.test_generation import (
    PROMPTS,
    SMALL,
    Ids,
    decoder,  # noqa: F401  fixtures
    encoder_decoder,  # noqa: F401
    log_probabilities,
    padded,
    rows_of,
)
from tests.reference.weights import randomise
from tfmodels import generate
from tfmodels.generation import speculative
from tfmodels.models import gpt2


@pytest.fixture(scope="module")
def draft(decoder):  # noqa: F811
    """Nearly the model: some guesses are right."""
    model = decoder.__class__.from_config(decoder.get_config())
    rng = np.random.default_rng(0)
    for mine, its in zip(model.trainable_variables, decoder.trainable_variables, strict=True):
        mine.assign(its + rng.normal(0, 0.1, its.shape))
    return model


def test_greedy_tokens_are_the_same(decoder, draft):  # noqa: F811
    """Up to the end of the positions, in mixed batches."""
    options = {"frequency_penalty": 0.3, "min_new_tokens": 3, "return_scores": True}
    prompts = padded([*PROMPTS, [3, 7, 3, 7, 3]])
    plain = generate(decoder, prompts, Ids, max_new_tokens=9, **options)
    for guesser in ("prompt", draft):
        found = generate(decoder, prompts, Ids, max_new_tokens=9, draft=guesser, draft_tokens=3, **options)
        assert rows_of(found) == rows_of(plain)
        assert found.end_reason.tolist() == plain.end_reason.tolist()
        np.testing.assert_allclose(found.log_probabilities, plain.log_probabilities, atol=1e-5)


def test_greedy_of_an_encoder_decoder(encoder_decoder):  # noqa: F811
    prompts = padded(PROMPTS, "encoder_token_ids")
    plain = generate(encoder_decoder, prompts, Ids, max_new_tokens=20)
    found = generate(encoder_decoder, prompts, Ids, max_new_tokens=20, draft="prompt")
    assert rows_of(found) == rows_of(plain)


@pytest.mark.parametrize("kind", ["decoder", "encoder_decoder"])
def test_a_draft_may_read_less_than_its_model(request, kind):
    """It guesses up to its own length; a prompt that it cannot read is told of before any work."""
    model = request.getfixturevalue(kind)
    ids_name = next(iter(model.input_pairs))
    draft = model.__class__(dataclasses.replace(model.config, max_sequence_length=6))
    randomise(draft, seed=3, scale=0.5)
    prompts = padded(PROMPTS, ids_name)
    plain = generate(model, prompts, Ids, max_new_tokens=9)
    found = generate(model, prompts, Ids, max_new_tokens=9, draft=draft)
    assert rows_of(found) == rows_of(plain)
    with pytest.raises(ValueError, match="the draft's max_sequence_length=6 tokens. Received: prompt 0 of 7"):
        generate(model, {ids_name: [[1] * 7]}, draft=draft)


def test_right_guesses_save_calls(decoder, monkeypatch):  # noqa: F811
    """The model as its own draft: all guesses are kept, 8 tokens in two checks of four."""
    kept, choose = [], speculative._choose_greedily

    def counting(*args):
        result = choose(*args)
        tf.py_function(lambda k: kept.append(k.numpy().tolist()), [result[0]], [])
        return result

    monkeypatch.setattr(speculative, "_choose_greedily", counting)
    result = generate(decoder, {"token_ids": [[9]]}, draft=decoder, draft_tokens=3, max_new_tokens=8, stop=())
    assert result.lengths.tolist() == [8] and kept == [[3], [3]]


def test_looked_up_text_goes_on_as_it_did_before():
    history = tf.constant(
        [[5, 7, 9, 5, 7, 0, 0], [8, 4, 8, 4, 0, 0, 0], [1, 2, 3, 0, 0, 0, 0], [6, 6, 0, 0, 0, 0, 0]]
    )
    tokens, real = speculative._looked_up(history, tf.constant([5, 4, 3, 2]), 4)
    assert np.asarray(real).all(1).tolist() == [True, True, False, True]
    assert not np.asarray(real)[2].any()  # its last token is new
    assert np.asarray(tokens)[[0, 1, 3]].tolist() == [[9, 5, 7, 9], [8, 4, 8, 4], [6] * 4]


@pytest.mark.parametrize("guesser", ["prompt", "draft"])
def test_samples_have_the_models_distribution(request, decoder, guesser):  # noqa: F811
    """Chi-square over all texts of two tokens, below 1e-4 once in 10,000 seeds, and the seed is fixed."""
    guesser = guesser if guesser == "prompt" else request.getfixturevalue(guesser)
    prompt, draws, k = [4, 1, 7, 4, 1], 4000, 3
    options = dict(method="sample", temperature=1.5, top_k=k, max_new_tokens=2, num_return_sequences=draws)
    found = generate(decoder, {"token_ids": [prompt]}, stop=(), draft=guesser, draft_tokens=2, **options)

    def filtered(written):
        logits = log_probabilities(decoder, prompt, written) / 1.5
        chance = np.where(logits >= np.sort(logits)[-k], np.exp(logits), 0)
        return chance / chance.sum()

    expected = np.array(
        [p * filtered([first]) if p else np.zeros(13) for first, p in enumerate(filtered([]))]
    )
    tokens = found.token_ids[0]
    counts = np.zeros((13, 13))
    np.add.at(counts, (tokens[:, 0], tokens[:, 1]), 1)
    assert not counts[expected == 0].any()
    real = expected * draws >= 5
    rest = [counts[~real].sum()], [expected[~real].sum() * draws]
    observed = np.append(counts[real], rest[0] if rest[1][0] else [])
    wanted = np.append(expected[real] * draws, rest[1] if rest[1][0] else [])
    assert stats.chisquare(observed, wanted * observed.sum() / wanted.sum()).pvalue > 1e-4


def test_bad_drafts(decoder):  # noqa: F811
    other = gpt2("tiny", **SMALL, vocabulary_size=14)
    randomise(other, seed=1)
    for guesser, options, message in (
        (other, {}, "same vocabulary. Received: vocabulary_size=14"),
        ("lookup", {}, "Received: 'lookup'"),
        ("prompt", dict(method="beam"), "Received: method='beam'"),
    ):
        with pytest.raises(ValueError, match=message):
            generate(decoder, {"token_ids": [[1]]}, draft=guesser, **options)
