"""Streams against `generate`, and stop strings against the text that nothing stops."""

import numpy as np
import pytest
import tensorflow as tf

from tests.generation.test_generation import PROMPTS, decoder, padded, rows_of  # noqa: F401  fixtures
from tfmodels import generate, stream


class Bytes:
    """Ids that stand for bytes, of which some characters take three; end 12."""

    vocabulary_size = 13
    start_id, end_id = 2, 12
    pieces = tf.constant(
        [b"a", b"b", b"\xe2", b"\x82", b"\xac", b" ", b"c", b"de", b"\xe2\x82", b"f", b"g", b"h", b""]
    )

    @classmethod
    def detokenize(cls, ids):
        text = tf.strings.reduce_join(tf.gather(cls.pieces, ids), axis=-1)
        return tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")


@pytest.mark.parametrize("method", ["greedy", "sample", "contrastive"])
def test_pieces_join_to_the_text(decoder, method):  # noqa: F811
    broken = 0
    for prompt in PROMPTS[:2]:
        for seed in range(3 if method == "sample" else 1):
            options = dict(method=method, seed=seed, max_new_tokens=8)
            options |= dict(top_k=3) if method == "contrastive" else {}
            pieces = list(stream(decoder, {"token_ids": [prompt]}, Bytes, **options))
            whole = generate(decoder, {"token_ids": [prompt]}, Bytes, **options)
            assert "".join(pieces) == whole.text[0] and all(pieces)
            broken += len(pieces) < whole.lengths[0]
            # What is cut off from its character may stand at the very end only.
            assert "\ufffd" not in "".join(pieces[:-1]).rstrip("\ufffd") or "\ufffd" in whole.text[0]
    if method == "sample":
        assert broken  # a character of several tokens waited


def test_a_character_waits_for_its_last_byte(decoder):  # noqa: F811
    """The forced tokens are two euro signs of three and two tokens."""
    forced = (0, 2, 3, 4, 8, 4, 1)
    options = dict(forced_tokens=forced, max_new_tokens=7)
    assert list(stream(decoder, {"token_ids": [[3]]}, Bytes, **options)) == ["a", "€", "€", "b"]


def test_a_stream_ends_with_its_consumer(decoder):  # noqa: F811
    calls = []

    class Counting(Bytes):
        @classmethod
        def detokenize(cls, ids):
            calls.append(1)
            return super().detokenize(ids)

    pieces = stream(decoder, {"token_ids": [[3]]}, Counting, forced_tokens=(0, 1, 6, 0, 1), max_new_tokens=6)
    assert [next(pieces), next(pieces)] == ["a", "b"]
    pieces.close()
    assert len(calls) == 2


@pytest.mark.parametrize(
    "stop, text, pieces",
    [
        (("bd",), "a€ ", ["a", "€", " "]),  # inside the tokens "b" and "de"
        (("€ b",), "a", ["a"]),
        (("nothing", "\n"), "a€ bdec", ["a", "€", " ", "b", "de", "c"]),
        ((6,), "a€ bdec", None),
        (("ec", 7), "a€ bde", None),
    ],
)
def test_stop_strings(decoder, stop, text, pieces):  # noqa: F811
    options = dict(forced_tokens=(0, 2, 3, 4, 5, 1, 7, 6), max_new_tokens=8, stop=stop)
    result = generate(decoder, padded([[9], [3, 7]]), Bytes, **options)
    assert result.text == [text, text]
    if pieces is not None:
        assert list(stream(decoder, {"token_ids": [[3]]}, Bytes, **options)) == pieces
    if stop == ("bd",):
        assert result.end_reason.tolist() == ["stop", "stop"] and result.lengths.tolist() == [7, 7]


@pytest.mark.parametrize(
    "least, stop, text",
    [
        (3, "€", "a"),
        (4, "€", "a"),  # its last byte is the fourth token
        (5, "€", "a€ bdec"),  # it was there before
        (6, "a", "a€ bdec"),
        (6, " b", "a€"),  # begins before the sixth token, and ends with it
        (7, " b", "a€ bdec"),
        (7, "d", "a€ b"),
    ],
)
def test_stop_strings_count_from_the_least_length_on(decoder, least, stop, text):  # noqa: F811
    options = dict(forced_tokens=(0, 2, 3, 4, 5, 1, 7, 6), max_new_tokens=8, stop=(stop, "never"))
    options |= dict(min_new_tokens=least)
    result = generate(decoder, padded([[9], [3, 7]]), Bytes, **options)
    assert result.text == [text, text]
    assert (result.lengths >= least).all() and (result.end_reason == "stop").all() == (text != "a€ bdec")
    assert "".join(stream(decoder, {"token_ids": [[3]]}, Bytes, **options)) == text


def test_stop_strings_of_beams_and_samples(decoder):  # noqa: F811
    for options in (dict(method="beam", num_beams=3), dict(method="sample", seed=4)):
        options |= dict(max_new_tokens=5)
        free = generate(decoder, padded(PROMPTS), Bytes, **options)
        stop = free.text[0][1:2]
        result = generate(decoder, padded(PROMPTS), Bytes, stop=(stop,), **options)
        assert all(stop not in text for text in result.text)
        if options["method"] == "sample":
            assert result.text == [text.split(stop)[0] for text in free.text]
            assert rows_of(result)[0] == rows_of(free)[0][: len(rows_of(result)[0])]


@pytest.mark.parametrize(
    "prompt, options, message",
    [
        ({"token_ids": [[1]]}, dict(method="beam"), "none is before the end. Received: method='beam'"),
        ({"token_ids": [[1]]}, dict(method="sample", num_return_sequences=2), "one text"),
        ({"token_ids": [[1], [2]]}, {}, "2 prompts"),
        (["a", "b"], {}, "one prompt"),
        ({"token_ids": [[1]]}, dict(stop=("",)), "none empty"),
        ({"token_ids": [[13]]}, {}, "Received: 13"),
    ],
)
def test_bad_input(decoder, prompt, options, message):  # noqa: F811
    with pytest.raises(ValueError, match=message):  # at the call, not at the first piece
        stream(decoder, prompt, Bytes, **options)


def test_stop_strings_need_a_tokenizer(decoder):  # noqa: F811
    with pytest.raises(ValueError, match="Stop strings need a tokenizer"):
        generate(decoder, {"token_ids": np.array([[1]])}, stop=("a",))
