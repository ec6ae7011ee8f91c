"""Generation against step-by-step search in plain Python over the model's full forward pass."""

import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf

from tests.reference.weights import randomise
from tfmodels import GenerationConfig, generate
from tfmodels.generation.prompts import frame_prompts, source_ids
from tfmodels.models import bert, gpt2, transformer

SMALL = dict(num_layers=2, num_heads=3, hidden_dim=12, intermediate_dim=11, max_sequence_length=9)
PROMPTS = [[3, 7, 1], [9], [0, 4, 4, 11, 2]]


@pytest.fixture(scope="module")
def decoder():
    model = gpt2("tiny", **SMALL, vocabulary_size=13)
    randomise(model, seed=3, scale=0.5)
    return model


@pytest.fixture(scope="module")
def encoder_decoder():
    sizes = dict(source_vocabulary_size=17, target_vocabulary_size=13, share_embeddings=False)
    model = transformer("tiny", **SMALL, **sizes)
    randomise(model, seed=4, scale=0.5)
    return model


def padded(rows, name="token_ids", left=False):
    width = max(map(len, rows))
    prefix = "encoder_" if name.startswith("encoder_") else ""
    pad = [(width - len(row)) * [5] for row in rows]
    ids = [p + r if left else r + p for p, r in zip(pad, rows, strict=True)]
    mask = [
        [0] * len(p) + [1] * len(r) if left else [1] * len(r) + [0] * len(p)
        for p, r in zip(pad, rows, strict=True)
    ]
    return {name: np.array(ids), f"{prefix}padding_mask": np.array(mask)}


def log_probabilities(model, prompt, written):
    """Of the next token after `written`, by the full forward pass. Many tests ask the same."""
    return _log_probabilities(model, tuple(prompt), tuple(written)).copy()


@functools.cache
def _log_probabilities(model, prompt, written):
    if "encoder_token_ids" in model.input_pairs:
        inputs = {"encoder_token_ids": [prompt], "decoder_token_ids": [[2, *written]]}
    else:
        inputs = {"token_ids": [[*prompt, *written]]}
    logits = np.asarray(model({k: np.array(v) for k, v in inputs.items()}), "float64")[0, -1]
    return logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()


class Ids:
    """Stands for a tokenizer's ids alone: start 2, end 6."""

    vocabulary_size = 13
    start_id, end_id = 2, 6

    @staticmethod
    def detokenize(ids):
        return tf.map_fn(
            lambda row: tf.strings.reduce_join(tf.strings.as_string(row), separator=" "),
            ids,
            fn_output_signature=tf.string,
        )


def greedy_by_hand(model, prompt, steps, room):
    written = []
    while len(written) < min(steps, room):
        written.append(int(log_probabilities(model, prompt, written).argmax()))
        if written[-1] == Ids.end_id:
            break
    return written


def rows_of(result):
    return [ids[:n].tolist() for ids, n in zip(result.token_ids, result.lengths, strict=True)]


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("steps", [4, 30])
def test_greedy_decoder(decoder, left, steps):
    """Mixed lengths, padded on either side, up to the end of the positions."""
    result = generate(decoder, padded(PROMPTS, left=left), Ids, max_new_tokens=steps)
    expected = [greedy_by_hand(decoder, p, steps, 9 - len(p) + 1) for p in PROMPTS]
    assert rows_of(result) == expected
    assert result.text == [" ".join(map(str, row)) for row in expected]
    if steps == 30:
        assert len({len(row) for row in expected}) > 1  # rows end at different steps


def test_greedy_encoder_decoder(encoder_decoder):
    inputs = padded(PROMPTS, "encoder_token_ids")
    result = generate(encoder_decoder, inputs, Ids, max_new_tokens=30)
    assert rows_of(result) == [greedy_by_hand(encoder_decoder, p, 30, 9) for p in PROMPTS]


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0])
def test_wide_beam_finds_the_best_of_all(encoder_decoder, length_penalty):
    """With as many beams as there are hypotheses, beam search is an exhaustive search."""
    prompt, steps = PROMPTS[2], 2
    scores = {}
    for first in range(13):
        a = log_probabilities(encoder_decoder, prompt, [])[first]
        if first == Ids.end_id:
            scores[(first,)] = a
            continue
        after = log_probabilities(encoder_decoder, prompt, [first])
        for second in range(13):
            scores[first, second] = (a + after[second]) / 2**length_penalty
    best = max(scores, key=scores.get)
    result = generate(
        encoder_decoder,
        {"encoder_token_ids": [prompt]},
        Ids,
        method="beam",
        num_beams=13,
        max_new_tokens=steps,
        length_penalty=length_penalty,
    )
    assert rows_of(result) == [list(best)]


def beam_by_hand(model, prompt, beams, steps, length_penalty):
    """Beam search over Python lists: open hypotheses and the best ended ones."""
    open_, ended = [(0.0, [])], []
    for step in range(1, steps + 1):
        candidates = sorted(
            (
                (score + log_probability, [*written, token])
                for score, written in open_
                for token, log_probability in enumerate(log_probabilities(model, prompt, written))
            ),
            key=lambda candidate: -candidate[0],
        )[: 2 * beams]
        open_ = []
        for rank, (score, written) in enumerate(candidates):
            if written[-1] == Ids.end_id or step == steps:
                if rank < beams:
                    ended.append((score / step**length_penalty, written))
            else:
                open_.append((score, written))
        open_ = open_[:beams]
        ended = sorted(ended, key=lambda hypothesis: -hypothesis[0])[:beams]
        if len(ended) == beams and open_ and open_[0][0] / step**length_penalty < ended[-1][0]:
            break
    return ended[0][1]


@pytest.mark.parametrize(
    "options",
    [
        dict(length_penalty=-30.0),  # scores leave the range of float32
        dict(length_penalty=80.0),
        dict(no_repeat_ngram_size=1, bad_words=tuple((each,) for each in range(4, 13))),  # soon none is left
    ],
)
def test_beams_keep_their_text(decoder, options):
    for method in ("beam", "diverse_beam"):
        result = generate(decoder, padded(PROMPTS), method=method, max_new_tokens=5, stop=(), **options)
        assert result.lengths.tolist() == [5, 5, 5]
        if "bad_words" in options:
            new = [set(range(4)) - set(prompt) for prompt in PROMPTS]
            for row, free in zip(rows_of(result), new, strict=True):
                assert set(row[: len(free)]) == free


@pytest.mark.parametrize("beams, length_penalty", itertools.product([1, 2, 4], [-1.0, 0.0, 1.0]))
def test_beam_search(encoder_decoder, decoder, beams, length_penalty):
    options = dict(method="beam", num_beams=beams, max_new_tokens=5, length_penalty=length_penalty)
    result = generate(encoder_decoder, padded(PROMPTS, "encoder_token_ids"), Ids, **options)
    expected = [beam_by_hand(encoder_decoder, p, beams, 5, length_penalty) for p in PROMPTS]
    assert rows_of(result) == expected
    result = generate(decoder, padded(PROMPTS), Ids, **options)
    expected = [beam_by_hand(decoder, p, beams, min(5, 9 - len(p) + 1), length_penalty) for p in PROMPTS]
    assert rows_of(result) == expected


def test_sampling_is_seeded(decoder):
    def run(seed):
        return generate(decoder, padded(PROMPTS), method="sample", seed=seed, max_new_tokens=4)

    np.testing.assert_array_equal(run(1).token_ids, run(1).token_ids)
    assert (run(1).token_ids != run(2).token_ids).any()


def test_strings(tokenizer, bible):
    model = transformer("tiny", vocabulary_size=tokenizer.vocabulary_size)
    sources = [source for source, _ in bible[:5]] + [""]
    together = generate(model, sources, tokenizer, max_new_tokens=6).text
    alone = [generate(model, source, tokenizer, max_new_tokens=6).text[0] for source in sources]
    assert together == alone and all(isinstance(text, str) for text in together)


def test_the_compiled_function_goes_with_the_model(tokenizer):
    import gc
    import weakref

    model = gpt2("tiny", vocabulary_size=tokenizer.vocabulary_size)
    generate(model, "God", tokenizer, max_new_tokens=2)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    "prompts, options, message",
    [
        ({"token_ids": [[13]]}, {}, "size 13. Received: 13"),
        ({"token_ids": [[1] * 10]}, {}, "max_sequence_length=9 tokens. Received: prompt 0 of 10"),
        ({"token_ids": np.zeros((1, 0), int)}, {}, "at least one token"),
        ({"token_ids": [[1]], "padding_mask": [[0]]}, {}, "1 empty rows"),
        ({"ids": [[1]]}, {}, "under 'token_ids'. Received: ids"),
        ({"token_ids": [[1]], "attention_mask": [[1]]}, {}, "padding_mask. Received: attention_mask"),
        (
            {"token_ids": [[1]], "position_ids": [[1]]},
            {},
            "token_ids, padding_mask. Received: 'position_ids'",
        ),
        ("text", {}, "tokenizer=None"),
        ({"token_ids": [[1]]}, {"tempature": 1}, "mean 'temperature'"),
        ({"token_ids": [[1], [1, 2]]}, {}, "rows of one length"),
        ({"token_ids": [[1.5]]}, {}, "must be whole numbers"),
        ({"token_ids": [[1, 2]], "padding_mask": [[1, 2]]}, {}, "0 for padding. Received: 2"),
        ([[1, 2]], {}, "a dict of ids such as {'token_ids': .*Received: ..1, 2"),
        ({"token_ids": [[1]]}, {"config": {"top_p": 1}}, "config must be a GenerationConfig"),
        ({"token_ids": [[1]]}, {"max_new_tokens": 0}, "max_new_tokens.*Received: 0"),
        ({"token_ids": [[1]]}, {"max_new_tokens": 2.5}, "a whole number. Received: 2.5"),
        ({"token_ids": [[1]]}, {"repetition_penalty": float("nan")}, "a finite number. Received: nan"),
        ({"token_ids": [[1]]}, {"method": "best"}, "contrastive. Received: 'best'"),
        ({"token_ids": [[1]]}, {"temperature": 0.0}, "temperature.*Received: 0.0"),
    ],
)
def test_bad_input(decoder, prompts, options, message):
    with pytest.raises(ValueError, match=message):
        generate(decoder, prompts, **options)


def test_no_more_room_than_the_model_has(decoder):
    """Memory for a billion tokens would not be there."""
    result = generate(decoder, padded(PROMPTS), max_new_tokens=10**9, stop=())
    assert result.lengths.tolist() == [7, 9, 5]


def test_a_model_that_writes_nothing():
    with pytest.raises(ValueError, match="one that writes text.*Received: Bert"):
        generate(bert("tiny", num_layers=1), "text")


def test_bad_tokenizer_and_no_prompts(decoder, tokenizer):
    with pytest.raises(ValueError, match="tokenizer.vocabulary_size=700, vocabulary_size=13"):
        generate(decoder, ["text"], tokenizer)
    with pytest.raises(ValueError, match="at least one prompt"):
        generate(gpt2("tiny", vocabulary_size=700), [], tokenizer)


class Bare:
    """Characters from a to m, and no special token."""

    vocabulary_size, start_id, end_id, template = 13, -1, -1, None

    @staticmethod
    def tokenize(texts):
        return tf.ragged.constant([[ord(x) - 97 for x in text] for text in texts], tf.int32, ragged_rank=1)

    @staticmethod
    def detokenize(ids):
        return tf.strings.reduce_join(tf.strings.as_string(ids), -1, separator=" ")


def test_a_tokenizer_without_special_tokens(decoder, encoder_decoder):
    """Nothing is put where it has no token: an id of -1 would be read as the last one of the vocabulary."""
    options = {"max_new_tokens": 4, "stop": ()}
    expected = generate(decoder, {"token_ids": [[3, 7]]}, **options).token_ids
    np.testing.assert_array_equal(generate(decoder, ["dh"], Bare, **options).token_ids, expected)
    expected = generate(decoder, {"token_ids": [[2, 3]]}, **options).token_ids
    np.testing.assert_array_equal(generate(decoder, ["d"], Bare, prefix=[2], **options).token_ids, expected)
    with pytest.raises(ValueError, match="an end token, which stands for it. Received: prompt 1, ''"):
        generate(decoder, ["a", ""], Bare, **options)
    with pytest.raises(ValueError, match="neither its config nor the tokenizer has"):
        generate(encoder_decoder, ["a"], Bare, **options)
    assert source_ids(Bare) == ([], [])
    framed = tf.function(lambda ids: frame_prompts(decoder, Bare, ids), autograph=False)
    np.testing.assert_array_equal(framed(Bare.tokenize(["dh"]))["token_ids"], [[3, 7]])
    with pytest.raises(tf.errors.InvalidArgumentError, match="must not be empty"):
        framed(Bare.tokenize(["a", ""]))


def test_what_a_training_batch_has_for_the_decoder_is_passed_over(encoder_decoder):
    x = {"encoder_token_ids": np.array([[3, 7, 1]]), "encoder_padding_mask": np.array([[1, 1, 1]])}
    both = x | {"decoder_token_ids": np.array([[5, 9]]), "decoder_padding_mask": np.array([[1, 1]])}
    found, expected = (generate(encoder_decoder, each, max_new_tokens=4).token_ids for each in (both, x))
    np.testing.assert_array_equal(found, expected)


def test_config_overrides():
    with pytest.raises(ValueError, match="num_beams"):
        GenerationConfig(num_beams=0)
