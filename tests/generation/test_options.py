"""Penalties, forbidden and forced tokens, filters of sampling: against plain Python and chi-square."""

import types

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tests.generation.test_generation import (
    PROMPTS,
    Ids,
    decoder,  # noqa: F401  fixtures
    encoder_decoder,  # noqa: F401
    log_probabilities,
    padded,
    rows_of,
)
from tfmodels import GenerationConfig, generate
from tfmodels.generation import sampling
from tfmodels.generation.config import Options

STEPS = 5


def by_hand(model, prompt, change, stop=6):
    """Greedy text over lists; change(scores, context, written) returns the scores to choose by."""
    start = [2] if "encoder_token_ids" in model.input_pairs else list(prompt)
    written = []
    room = 9 - len(start) + 1
    while len(written) < min(STEPS, room):
        scores = change(log_probabilities(model, prompt, written), start + written, written)
        written.append(int(np.argmax(scores)))
        if written[-1] == stop:
            break
    return written


def repetition(scores, context, written):
    for token in set(context):
        scores[token] = scores[token] * 1.5 if scores[token] < 0 else scores[token] / 1.5
    return scores


def presence_and_frequency(scores, context, written):
    for token in set(written):
        scores[token] -= 0.7 + 0.4 * written.count(token)
    return scores


def no_repeated_pair(scores, context, written):
    pairs = set(zip(context, context[1:], strict=False))
    for token in range(13):
        if (context[-1], token) in pairs:
            scores[token] = -np.inf
    return scores


def no_repeated_token(scores, context, written):
    scores[context] = -np.inf
    return scores


# Single tokens, pairs and a triple, some of which the models would write.
BAD_WORDS = ((3,), (12,), (1, 10), (7, 1, 8), *((token, token) for token in range(13)))


def no_bad_words(scores, context, written):
    for *before, last in BAD_WORDS:
        if context[len(context) - len(before) :] == before:
            scores[last] = -np.inf
    return scores


def late_end(scores, context, written):
    if len(written) < 3:
        scores[6] = -np.inf
    return scores


def forced(scores, context, written):
    if len(written) < 2:
        scores[:] = -np.inf
        scores[[11, 4][len(written)]] = 0
    return scores


CHANGES = [
    (dict(presence_penalty=0.7, frequency_penalty=0.4), presence_and_frequency),
    (dict(no_repeat_ngram_size=2), no_repeated_pair),
    (dict(no_repeat_ngram_size=1), no_repeated_token),
    (dict(bad_words=BAD_WORDS), no_bad_words),
    (dict(min_new_tokens=3), late_end),
    (dict(forced_tokens=(11, 4)), forced),
]


@pytest.mark.parametrize("options, change", CHANGES)
def test_greedy_with_options(request, options, change):
    changed = 0
    for name, ids_name in (("decoder", "token_ids"), ("encoder_decoder", "encoder_token_ids")):
        model = request.getfixturevalue(name)
        result = generate(model, padded(PROMPTS, ids_name), Ids, max_new_tokens=STEPS, **options)
        expected = [by_hand(model, prompt, change) for prompt in PROMPTS]
        assert rows_of(result) == expected
        changed += expected != [by_hand(model, prompt, lambda s, *_: s) for prompt in PROMPTS]
    assert changed  # the option is not without effect here


def test_repetition_penalty(encoder_decoder):  # noqa: F811
    """In beam search scores are log-probabilities, as by hand; one beam is greedy."""
    options = dict(method="beam", num_beams=1, repetition_penalty=1.5, max_new_tokens=STEPS)
    result = generate(encoder_decoder, padded(PROMPTS, "encoder_token_ids"), Ids, **options)
    expected = [by_hand(encoder_decoder, prompt, repetition) for prompt in PROMPTS]
    assert rows_of(result) == expected
    assert expected != [by_hand(encoder_decoder, prompt, lambda s, *_: s) for prompt in PROMPTS]


def kept_by_hand(logits, temperature, top_k, top_p, min_p, typical_p):
    """The distribution after the filters, each on what is left, in Python floats: one row."""
    probabilities = np.exp(np.asarray(logits, "float64") / temperature)
    probabilities /= probabilities.sum()

    def only(tokens):
        left = np.zeros_like(probabilities)
        left[tokens] = probabilities[tokens]
        return left / left.sum()

    def fewest(order, mass):
        tokens = []
        for token in order:
            tokens.append(token)
            if probabilities[tokens].sum() >= mass:
                break
        return only(tokens)

    if top_k:
        probabilities = only(np.argsort(-probabilities)[:top_k])
    if top_p < 1:
        probabilities = fewest(np.argsort(-probabilities), top_p)
    if min_p:
        probabilities = only(np.flatnonzero(probabilities >= min_p * probabilities.max()))
    if typical_p < 1:
        real = np.flatnonzero(probabilities)
        surprise = -np.log(probabilities[real])
        entropy = (surprise * probabilities[real]).sum()
        probabilities = fewest(real[np.argsort(np.abs(surprise - entropy))], typical_p)
    return probabilities


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.5},
        {"top_k": 3},
        {"top_k": 100},
        {"top_p": 0.8},
        {"min_p": 0.25},
        {"typical_p": 0.6},
        {"temperature": 1.4, "top_k": 6, "top_p": 0.95, "min_p": 0.05, "typical_p": 0.9},
    ],
)
def test_sampling_has_the_filtered_distribution(options):
    """Chi-square over 20,000 draws: below 1e-4 once in 10,000 seeds, and the seed is fixed."""
    logits = np.array([[2.0, 1.1, 0.9, 0.2, -0.3, -1.0, -2.5]], "float32")
    config = GenerationConfig(method="sample", **options)
    draws = 20_000
    prompt = tf.constant([[5, 1]])
    uniform = sampling.uniforms(prompt, tf.constant([2]), 3, 1, draws)[0]
    options = Options(config, config.numbers())
    tokens = np.asarray(sampling.sample(tf.repeat(logits, draws, axis=0), uniform, options))
    numbers = config.numbers()
    names = ("temperature", "top_k", "top_p", "min_p", "typical_p")
    expected = kept_by_hand(logits[0], **{name: numbers[name] for name in names})
    counts = np.bincount(tokens, minlength=7)
    assert not counts[expected == 0].any()
    real = expected > 0
    assert stats.chisquare(counts[real], expected[real] * draws).pvalue > 1e-4


@pytest.mark.parametrize("size", [255, 256, 257, 1000])
def test_draws_from_many_tokens(size):
    """The first token whose cumulated probability is above the number, and never one of probability 0."""
    rng = np.random.default_rng(size)
    logits = rng.normal(size=(50, size)) * 3
    logits[:, rng.random(size) < 0.5] = -np.inf
    logits[0], logits[1, :3], logits[1, 3:], logits[2, -1], logits[2, :-1] = 0.0, 1.0, -np.inf, 0.0, -np.inf
    uniform = np.append(rng.random(48), [0.0, 1 - 2.0**-24]).astype("float32")
    chances = np.asarray(tf.nn.softmax(tf.constant(logits, "float32")))
    tokens = np.asarray(sampling.draw(chances, uniform))
    cumulated = np.cumsum(chances, axis=1, dtype="float64")
    target = uniform * cumulated[:, -1]
    rows, slack = np.arange(50), 1e-5
    assert (chances[rows, tokens] > 0).all()
    assert (cumulated[rows, tokens] >= target - slack).all()
    assert (cumulated[rows, tokens] - chances[rows, tokens] <= target + slack).all()


def test_no_forbidden_token_is_drawn_at_the_end_of_rounding():
    """What is left after the first block is about as much as a float of 1 can tell."""
    rng = np.random.default_rng(0)
    chances = np.zeros((2000, 600), "float32")
    chances[:, 7] = 1.0
    rest = rng.random((2000, 100))
    chances[:, 300:400] = rest / rest.sum(axis=1, keepdims=True) * 2.0**-24
    for number in (0.0, 1 - 2.0**-24):
        tokens = np.asarray(sampling.draw(chances, np.full(2000, number, "float32")))
        assert (chances[np.arange(2000), tokens] > 0).all()


@pytest.mark.parametrize("option", ["top_p", "typical_p"])
def test_filters_of_many_tokens(option):
    """Of equally probable tokens, all of one row and a few of another, the first are kept."""
    rng = np.random.default_rng(0)
    logits = np.round(rng.normal(size=(4, 1000)) * 2, 3).astype("float32")
    logits[1], logits[2, :4], logits[2, 4:] = 0.0, 0.0, -np.inf
    for share in (0.1, 0.5, 0.9):
        config = GenerationConfig(method="sample", **{option: share})
        filtered = np.asarray(sampling.filtered(tf.constant(logits), Options(config, config.numbers())))
        kept = (filtered > -np.inf).sum(axis=1)
        if option == "top_p":
            expected = [np.count_nonzero(kept_by_hand(row, 1.0, 0, share, 0, 1)) for row in logits]
            assert np.abs(kept - expected).max() <= 1  # where a sum is the share but for rounding
            least = np.where(filtered > -np.inf, logits, np.inf).min(axis=1)
            np.testing.assert_array_equal((filtered > -np.inf)[0], logits[0] >= least[0])
        assert kept[1] == pytest.approx(1000 * share, abs=1)
        assert (filtered[1] > -np.inf).argmin() == kept[1] and kept[2] == np.ceil(4 * share)


def test_a_prompt_gives_the_same_text_in_any_batch(decoder):  # noqa: F811
    def run(prompts, **options):
        return generate(decoder, padded(prompts), method="sample", max_new_tokens=4, seed=5, **options)

    together = rows_of(run(PROMPTS))
    assert together == [rows_of(run([prompt]))[0] for prompt in PROMPTS]
    assert rows_of(run(PROMPTS[::-1])) == together[::-1]
    three = run(PROMPTS, num_return_sequences=3)
    assert three.token_ids.shape[:2] == (3, 3)
    np.testing.assert_array_equal(run(PROMPTS[1:2], num_return_sequences=3).token_ids[0], three.token_ids[1])
    assert len({tuple(row) for row in three.token_ids[1].tolist()}) > 1  # they differ among themselves


def test_sources_draw_numbers_of_their_own(encoder_decoder):  # noqa: F811
    """At a high temperature 200 sources have all first words about as often."""
    sources = {"encoder_token_ids": np.random.default_rng(0).integers(0, 17, (200, 5))}
    options = dict(method="sample", temperature=1e3, max_new_tokens=1, stop=())
    for draft in (None, "prompt"):
        found = generate(encoder_decoder, sources, draft=draft, **options).token_ids[:, 0]
        assert stats.chisquare(np.bincount(found, minlength=13)).pvalue > 1e-4
    alone = generate(encoder_decoder, {"encoder_token_ids": sources["encoder_token_ids"][7:8]}, **options)
    assert alone.token_ids[0, 0] == generate(encoder_decoder, sources, **options).token_ids[7, 0]


@pytest.mark.parametrize("method", ["greedy", "sample", "beam"])
def test_scores_and_end_reasons(decoder, method):  # noqa: F811
    """Log-probabilities are the model's own, whatever the options changed."""
    copies = 1 if method == "greedy" else 2
    options = dict(method=method, num_return_sequences=copies, max_new_tokens=4, no_repeat_ngram_size=2)
    result = generate(decoder, padded(PROMPTS), Ids, return_scores=True, **options)
    shape = (3, copies) if copies > 1 else (3,)
    assert result.lengths.shape == result.end_reason.shape == shape
    assert len(result.text) == 3 and np.shape(result.text) == shape
    for row, prompt in enumerate(PROMPTS):
        for copy in range(copies):
            at = (row, copy) if copies > 1 else row
            tokens = result.token_ids[at][: result.lengths[at]].tolist()
            for i, token in enumerate(tokens):
                expected = log_probabilities(decoder, prompt, tokens[:i])[token]
                # float32, logits of the order of 10
                np.testing.assert_allclose(result.log_probabilities[at][i], expected, atol=1e-5)
            assert result.end_reason[at] == ("stop" if tokens[-1] == Ids.end_id else "length")


def test_beams_come_best_first(encoder_decoder):  # noqa: F811
    inputs = padded(PROMPTS, "encoder_token_ids")
    options = dict(method="beam", num_beams=4, length_penalty=0.0, max_new_tokens=3, return_scores=True)
    result = generate(encoder_decoder, inputs, Ids, num_return_sequences=4, **options)
    totals = result.log_probabilities.sum(axis=-1)
    assert (np.diff(totals, axis=1) <= 0).all()
    best = generate(encoder_decoder, inputs, Ids, **options)
    length = best.token_ids.shape[1]
    np.testing.assert_array_equal(best.token_ids, result.token_ids[:, 0, :length])


def test_another_number_compiles_nothing(decoder):  # noqa: F811
    functions = vars(decoder).setdefault("_generate_functions", {})
    inputs = {"token_ids": [[3, 7]]}
    generate(decoder, inputs, method="sample", top_p=0.9, temperature=0.7, max_new_tokens=2)
    before = len(functions)
    for seed in range(3):
        options = dict(seed=seed, top_p=0.5 + 0.1 * seed, temperature=1.1, max_new_tokens=3 + seed)
        generate(decoder, inputs, method="sample", **options)
    assert len(functions) == before


def test_stop(decoder):  # noqa: F811
    free = rows_of(generate(decoder, {"token_ids": [PROMPTS[0]]}, Ids, stop=(), max_new_tokens=6))[0]
    stopped = generate(decoder, {"token_ids": [PROMPTS[0]]}, Ids, stop=(12, free[2]), max_new_tokens=6)
    assert rows_of(stopped)[0] == free[: free.index(free[2]) + 1]
    assert stopped.end_reason[0] == "stop"


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(method="sample", top_p=0.0), "top_p must be above 0 and at most 1.*Received: 0.0"),
        (dict(method="sample", temperature=-1.0), "temperature must be above 0"),
        (dict(top_p=0.5), 'top_p is an option of method="sample". Received: top_p=0.5, method=.greedy'),
        (dict(method="beam", temperature=0.5), "temperature is an option of method"),
        (dict(num_return_sequences=2), "'contrastive'. Received: 2"),
        (dict(method="beam", num_beams=2, num_return_sequences=3), "at most num_beams.*Received: 3"),
        (dict(min_new_tokens=65), "min_new_tokens must be from 0 to max_new_tokens. Received: 65"),
        (dict(bad_words=("word",)), "bad_words must be a tuple of tuples of ids. Received: .'word'"),
        (dict(stop=(13,)), "stop must hold ids below the vocabulary size 13. Received: 13"),
        (dict(forced_tokens=(99,)), "forced_tokens must hold ids.*Received: 99"),
        (dict(seed=2**31), "seed must be from 0"),
        (dict(method="sample", typical_p=1e-50), "typical_p must be above 0 .*1e-30.*Received: 1e-50"),
        (dict(method="sample", temperature=1e-39), "temperature must be above 0 .*1e-30.*Received: 1e-39"),
        (
            dict(presence_penalty=1e300),
            "presence_penalty must be at most 1e.38 .*Received: 1e.300",
        ),
        (
            dict(method="sample", top_k=2**40),
            "top_k must be at most 2147483647 .*Received: 1099511627776",
        ),
        (dict(stop=np.array([5, 6])), r"stop must be a tuple of ids and strings. Received: array\(\[5, 6"),
        (dict(stop=True), "stop must be a tuple of ids and strings, none empty. Received: True"),
        (dict(bad_words=None), "bad_words must be a tuple of tuples of ids. Received: None"),
        (dict(bad_words=5), "bad_words must be a tuple of tuples of ids. Received: 5"),
        (dict(prefix=["a", "b"]), "prefix must be a text or a list of ids.*Received: .'a', 'b'."),
        (dict(prefix=[1.5, 2]), "prefix must be a text or a list of ids.*Received: .1.5, 2."),
        (dict(tokenizer="gpt2"), "tokenizer must be one of tfmodels.tokenizers.*Received: 'gpt2'"),
        (dict(draft=5), 'draft must be "prompt" or a model.*Received: 5'),
        (dict(draft="prompt", draft_tokens=9), "draft_tokens must be below .*length=9. Received: 9"),
    ],
)
def test_bad_options(decoder, options, message):  # noqa: F811
    with pytest.raises(ValueError, match=message):
        generate(decoder, {"token_ids": [[1]]}, **options)


def test_prompts_of_many_lengths_compile_once_a_kind(decoder):  # noqa: F811
    """100 prompts of different lengths and batch sizes, one trace; lengths are no part of a function."""
    model = decoder.__class__.from_config(decoder.get_config())
    traced, step = [], model.decode_step
    model.decode_step = lambda *args, **kwargs: (traced.append(1), step(*args, **kwargs))[1]
    rng = np.random.default_rng(0)
    for i in range(100):
        prompt = rng.integers(0, 13, (1 + i % 3, 1 + i % 9))
        generate(model, {"token_ids": prompt}, max_new_tokens=1 + i % 4)
        if i == 0:
            first = len(traced)
    assert 0 < len(traced) == first and len(vars(model)["_generate_functions"]) == 1


class Words(Ids):
    """Texts of the ids themselves."""

    @staticmethod
    def tokenize(texts):
        words = tf.strings.split(texts)
        return tf.ragged.map_flat_values(tf.strings.to_number, words, tf.int32)


class WithStart(Words):
    """With a start token before each text."""

    template = types.SimpleNamespace(tokens=("<s>",), single=(("<s>", 0), ("$A", 0)))

    @staticmethod
    def encode(text):
        assert text == ""
        return {"token_ids": tf.constant([2])}


def test_one_id_or_string_stops_as_a_tuple_of_it():
    assert GenerationConfig(stop=np.int64(0)).stop == (0,) and GenerationConfig(stop="no").stop == ("no",)
    assert GenerationConfig(stop=[np.int32(5), "no"]).stop == (5, "no")
    assert [type(each) for each in GenerationConfig(bad_words=[[np.int64(3)]]).bad_words[0]] == [int]


def test_a_text_must_be_unicode(decoder):  # noqa: F811
    with pytest.raises(ValueError, match="prompt 1 with .*udce9.* as its character 2"):
        generate(decoder, ["1", "2 \udce9"], Words)


def test_a_prefix_is_shared(decoder):  # noqa: F811
    """The texts of prefix and prompt together; the prefix is computed for one row."""
    widths = []
    model = decoder.__class__.from_config(decoder.get_config())
    model.set_weights(decoder.get_weights())
    step = model.decode_step
    model.decode_step = lambda ids, *args, **kw: (widths.append(ids.shape[0]), step(ids, *args, **kw))[1]
    whole = padded([[4, 9, *prompt] for prompt in PROMPTS])
    for options in (dict(), dict(method="sample", seed=3, num_return_sequences=2)):
        expected = generate(decoder, whole, Ids, max_new_tokens=3, **options)
        found = generate(model, padded(PROMPTS), Ids, prefix=[4, 9], max_new_tokens=3, **options)
        np.testing.assert_array_equal(found.token_ids, expected.token_ids)
    assert widths[0] == 1
    # Of empty prompts, the prefix alone goes on.
    for prefix, prompts in (("4 9", ["", "3"]), ("4 9", [""]), ("4", [""])):
        options = dict(max_new_tokens=3, return_scores=True)
        expected = generate(decoder, [f"{prefix} {prompt}" for prompt in prompts], Words, **options)
        found = generate(decoder, prompts, Words, prefix=prefix, **options)
        np.testing.assert_allclose(found.log_probabilities, expected.log_probabilities, atol=1e-5)
    with pytest.raises(ValueError, match="below the vocabulary size 13, not empty. Received: .13."):
        generate(decoder, whole, prefix=[13])
    # A start token stands once, before a prefix of text; ids stand as they are given.
    expected = generate(decoder, padded([[2, 4, 9, *prompt] for prompt in PROMPTS[:2]]), max_new_tokens=3)
    texts, ids = [" ".join(map(str, prompt)) for prompt in PROMPTS[:2]], padded(PROMPTS[:2])
    for prompts in (texts, ids):
        for prefix in ("4 9", [2, 4, 9]):
            found = generate(decoder, prompts, WithStart, prefix=prefix, max_new_tokens=3, stop=None)
            np.testing.assert_array_equal(found.token_ids, expected.token_ids)
    with pytest.raises(ValueError, match="max_sequence_length=9 tokens. Received: prompt 2 of 10"):
        generate(decoder, padded(PROMPTS), prefix=[1] * 5)
