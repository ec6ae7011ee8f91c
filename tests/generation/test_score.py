"""Scores against the full forward pass on each prefix, and zero-shot labels against sums by hand."""

import numpy as np
import pytest
import tensorflow as tf

from tests.generation.test_generation import (
    PROMPTS,
    decoder,  # noqa: F401  fixtures
    encoder_decoder,  # noqa: F401
    log_probabilities,
)
from tfmodels import classify, score
from tfmodels.generation.score import token_log_probabilities

ATOL = 1e-5  # float32, logits of the order of 10


class Characters:
    """A tokenizer of the letters a to k as 2 to 12; start and end 1."""

    vocabulary_size = 13
    start_id = end_id = 1

    @staticmethod
    def tokenize(texts):
        return tf.ragged.constant([[ord(c) - 95 for c in text] for text in texts], tf.int32, ragged_rank=1)


def by_hand(model, row, max_length=9):
    """Of each id after the first, given at most max_length - 1 ids before it."""
    return [
        log_probabilities(model, row[max(i - max_length + 1, 0) : i], [])[row[i]] for i in range(1, len(row))
    ]


def test_scores_of_ids(decoder):  # noqa: F811
    result = score(decoder, PROMPTS, tokens_per_batch=6)
    for i, prompt in enumerate(PROMPTS):
        expected = by_hand(decoder, prompt)
        assert result.token_ids[i].tolist() == prompt[1:]
        np.testing.assert_allclose(result.log_probabilities[i], expected, atol=ATOL)
        np.testing.assert_allclose(result.log_likelihood[i], sum(expected), atol=ATOL)
        if expected:
            np.testing.assert_allclose(result.perplexity[i], np.exp(-np.mean(expected)), rtol=ATOL)
    assert np.isnan(result.perplexity[1])  # one id alone has no score


def test_padding_and_packing(decoder):  # noqa: F811
    ids, mask = [[5, 3, 7, 1, 8, 2, 0]], [[1, 1, 1, 2, 2, 2, 0]]
    found = token_log_probabilities(decoder, {"token_ids": ids, "padding_mask": mask})[0]
    expected = [0, *by_hand(decoder, [5, 3, 7]), 0, *by_hand(decoder, [1, 8, 2]), 0]
    np.testing.assert_allclose(found, expected, atol=ATOL)


@pytest.mark.parametrize("stride", [1, 3])
def test_a_window_slides_over_long_texts(decoder, stride):  # noqa: F811
    row = np.random.default_rng(0).integers(0, 13, 25).tolist()
    found = score(decoder, [row, row[:4]], max_length=7, stride=stride).log_probabilities
    if stride == 1:
        expected = by_hand(decoder, row, 7)
    else:
        expected, done = [], 1
        for begin in range(0, 25, 3):
            end = min(begin + 7, 25)
            expected += [log_probabilities(decoder, row[begin:i], [])[row[i]] for i in range(done, end)]
            done = end
    np.testing.assert_allclose(found[0], expected, atol=ATOL)
    np.testing.assert_allclose(found[1], by_hand(decoder, row[:4]), atol=ATOL)


def test_texts(decoder, encoder_decoder):  # noqa: F811
    """Every token of a text is scored, the first after the end token; of a target its end too."""
    found = score(decoder, ["bad", ""], Characters).log_probabilities
    np.testing.assert_allclose(found[0], by_hand(decoder, [1, 3, 2, 5]), atol=ATOL)
    assert len(found[1]) == 0
    result = score(encoder_decoder, [("face", "bad"), ("a", "cabbage")], Characters)
    assert result.token_ids[0].tolist() == [3, 2, 5, 1]
    logits = encoder_decoder(
        {"encoder_token_ids": np.array([[7, 2, 4, 6, 1]]), "decoder_token_ids": np.array([[1, 3, 2, 5]])}
    )[0]
    expected = tf.nn.log_softmax(logits).numpy()[range(4), [3, 2, 5, 1]]
    np.testing.assert_allclose(result.log_probabilities[0], expected, atol=ATOL)


@pytest.mark.parametrize("calibrate", [False, True])
def test_labels(decoder, calibrate, monkeypatch):  # noqa: F811
    monkeypatch.setattr("tfmodels.generation.zero_shot._CONTENT_FREE", ("", "k"))
    labels = ["a", "bc", "d"]

    def chances(text):
        rows = [[1, 6, *[ord(c) - 95 for c in text], *[ord(c) - 95 for c in label]] for label in labels]
        chance = np.exp([sum(by_hand(decoder, row)) for row in rows])
        return chance / chance.sum()

    found = classify(decoder, ["ef", "g"], labels, "e{text}{label}", Characters, calibrate=calibrate)
    for i, text in enumerate(["ef", "g"]):
        expected = chances(text)
        if calibrate:
            expected /= (chances("") + chances("k")) / 2
            expected /= expected.sum()
        np.testing.assert_allclose(found.probabilities[i], expected, atol=ATOL)
        assert found.label[i] == labels[expected.argmax()]


def test_labels_of_an_encoder_decoder(encoder_decoder):  # noqa: F811
    found = classify(encoder_decoder, "ab", ["c", "d"], "e{text} {label}", Characters, calibrate=False)
    pairs = score(encoder_decoder, [("eab", "c"), ("eab", "d")], Characters).log_likelihood
    np.testing.assert_allclose(np.diff(np.log(found.probabilities[0])), np.diff(pairs), atol=ATOL)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda m: score(m, []), "at least one text"),
        (lambda m: score(m, [[13]]), "size 13. Received: .13."),
        (lambda m: score(m, [[]]), "at least one id"),
        (lambda m: score(m, "ab"), "Without a tokenizer"),
        (lambda m: score(m, [[1]], max_length=10), "at most the model's 9. Received: 10"),
        (lambda m: score(m, [[1]], stride=9), "below max_length=9. Received: 9"),
        (lambda m: score(m, [[1]], stride=1.5), "stride must be a whole number, or None. Received: 1.5"),
        (lambda m: score(m, [[1]], tokens_per_batch="x"), "tokens_per_batch must be .* Received: 'x'"),
        (lambda m: score(m, 5, Characters), "texts must be a str or a list. Received: 5"),
        (lambda m: score(m, [[1]], Characters), "With a tokenizer each text is a str.*Received: .1."),
        (lambda m: score(m, ["a", "\udce9"], Characters), "text 1 with .*udce9.* as its character 0"),
        (lambda m: classify(m, "a", "bc", "{text}{label}", Characters), "labels must be a list.*'bc'"),
        (lambda m: classify(m, [3], ["b", "c"], "{text}{label}", Characters), "texts must be a list.*3"),
        (lambda m: classify(m, "a", ["b", "c"], None, Characters), "needs .* a template.*None"),
        (lambda m: classify(m, "a", ["b", "c"], "{text}{label}", None), "needs a tokenizer.*None"),
        (lambda m: classify(m, "a", ["b"], "{text}{label}", Characters), "two or more"),
        (lambda m: classify(m, "a", ["b", "c"], "{text}", Characters), "label. once"),
        (lambda m: classify(m, [], ["b", "c"], "{text}{label}", Characters), "at least one text"),
    ],
)
def test_bad_input(decoder, call, message):  # noqa: F811
    with pytest.raises(ValueError, match=message):
        call(decoder)


def test_pairs_of_an_iterator(encoder_decoder):  # noqa: F811
    sources, targets = [[3, 7], [1]], [[0, 2], [0, 4, 5]]
    expected = score(encoder_decoder, list(zip(sources, targets, strict=True)))
    found = score(encoder_decoder, zip(sources, targets, strict=True))
    np.testing.assert_array_equal(found.log_likelihood, expected.log_likelihood)


def test_an_encoder_decoder_needs_pairs(encoder_decoder):  # noqa: F811
    with pytest.raises(ValueError, match="pairs of source and target. Received: texts.0.='abc'"):
        score(encoder_decoder, ["abc"], Characters)
    with pytest.raises(ValueError, match="not be longer than 9 tokens. Received: 11"):
        score(encoder_decoder, ("ab", "abcdabcda"), Characters)
