"""Examples and batches, followed back to the text."""

import numpy as np
import pytest
import tensorflow as tf

from tfmodels.data import (
    batches,
    causal_language_modelling,
    read_pairs,
    read_texts,
    sequence_to_sequence,
)

PAIRS = [("Jesus wept.", "Y lloró Jesús."), ("God is love", "Dios es amor"), ("a " * 40, "b " * 9)]


def test_sequence_to_sequence(tokenizer):
    examples = list(sequence_to_sequence(PAIRS, tokenizer, max_length=30))
    assert len(examples) == 2  # the third is too long
    for (source, target), (x, y, weight) in zip(PAIRS[:2], examples, strict=True):
        source_ids, target_ids = (tokenizer.tokenize(t).numpy().tolist() for t in (source, target))
        assert x["encoder_token_ids"].tolist() == [*source_ids, tokenizer.end_id]
        assert x["decoder_token_ids"].tolist() == [tokenizer.start_id, *target_ids]
        assert y.tolist() == [*target_ids, tokenizer.end_id]
        assert weight.tolist() == [1.0] * len(y)
        for side in ("encoder", "decoder"):
            assert np.all(x[f"{side}_padding_mask"] == np.ones_like(x[f"{side}_token_ids"]))


def test_special_tokens_of_both_sides(wordpiece, byte_pair):
    """The template's, an end where it has none, and a start of the caller's."""
    ((x, y, _),) = sequence_to_sequence([("God", "Jesus")], wordpiece, byte_pair, start_id=7)
    source, target = wordpiece.encode("God")["token_ids"], byte_pair.tokenize("Jesus")
    assert x["encoder_token_ids"].tolist() == source.numpy().tolist()
    assert y.tolist() == [*target.numpy().tolist(), byte_pair.end_id]
    assert x["decoder_token_ids"].tolist() == [7, *y.tolist()[:-1]]


def test_the_limit_is_exact(tokenizer):
    longest = max(len(tokenizer.tokenize(side)) for side in PAIRS[0]) + 1
    for max_length, kept in ((longest, 1), (longest - 1, 0)):
        assert len(list(sequence_to_sequence(PAIRS[:1], tokenizer, max_length=max_length))) == kept


@pytest.mark.parametrize("stride", [None, 3, 7])
def test_causal_language_modelling(tokenizer, stride):
    texts = ["Jesus wept.", "God is love", "", "In the beginning"]
    stream = [tokenizer.end_id]
    for text in texts:
        if text:
            stream += [*tokenizer.tokenize(text).numpy().tolist(), tokenizer.end_id]
    scored = []
    for i, (x, y, weight) in enumerate(causal_language_modelling(texts, tokenizer, 7, stride)):
        begin = i * (stride or 7)
        real = x["padding_mask"].astype(bool)
        assert x["token_ids"][real].tolist() == stream[begin : begin + 7][: real.sum()]
        assert y[real].tolist() == stream[begin + 1 : begin + 8]
        assert real.all() and not weight[~real].any()
        scored += y[weight == 1].tolist()
    assert scored == stream[1:]  # each token once, in order


def test_batches_by_size_pad_and_keep_all(tokenizer, bible):
    examples = sequence_to_sequence(bible[:50], tokenizer, max_length=60)
    count = 0
    for x, y, weight in batches(examples, batch_size=8):
        count += len(y)
        assert y.shape == weight.shape == x["decoder_token_ids"].shape
        np.testing.assert_array_equal(weight != 0, x["decoder_padding_mask"] != 0)
        np.testing.assert_array_equal(tf.boolean_mask(y, weight == 0), 0)
    assert count == 50


def test_batches_by_tokens(tokenizer, bible):
    examples = sequence_to_sequence(bible, tokenizer, max_length=60)
    real = positions = rows = 0
    for x, y, _ in batches(examples, tokens_per_batch=600, shuffle=True):
        widest = max(x["encoder_token_ids"].shape[1], y.shape[1])
        assert y.shape[0] * widest <= 600
        positions += tf.size(y).numpy()
        real += int(tf.reduce_sum(x["decoder_padding_mask"]))
        rows += len(y)
    assert rows == len(list(examples))
    assert real / positions > 0.8  # random batches of 8 have 0.6 here


def test_shuffle_is_seeded_and_new_each_epoch(tokenizer, bible):
    def first(data):
        return next(iter(data))[1].numpy().tolist()

    examples = sequence_to_sequence(bible[:50], tokenizer)
    data = batches(examples, 50, shuffle=True, seed=3)
    a, b = first(data), first(data)
    again = batches(examples, 50, shuffle=True, seed=3)
    assert a != b and [first(again), first(again)] == [a, b]
    assert first(batches(examples, 50, shuffle=True, seed=4)) != a
    assert sorted(a) != a and sorted(a) == sorted(b)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda t: sequence_to_sequence([], t), "at least one pair"),
        (lambda t: sequence_to_sequence([("a", "b"), ("c",)], t), r"Number 1: \('c',\)"),
        (lambda t: causal_language_modelling(["", ""], t, 5), "at least one text"),
        (lambda t: causal_language_modelling(["a"], t, 5, stride=6), "length=5.*stride=6"),
        (lambda t: batches(tf.data.Dataset.range(3)), "batch_size=None, tokens_per_batch=None"),
    ],
)
def test_bad_input(tokenizer, make, message):
    with pytest.raises(ValueError, match=message):
        make(tokenizer)


def test_files(tmp_path):
    (tmp_path / "pairs.tsv").write_text("a\tb\nc d\té\n", encoding="utf-8")
    assert read_pairs(tmp_path / "pairs.tsv") == [("a", "b"), ("c d", "é")]
    (tmp_path / "texts.txt").write_text("a\n\nb", encoding="utf-8")
    assert read_texts(tmp_path / "texts.txt") == ["a", "", "b"]
    (tmp_path / "one.tsv").write_text("a\tb\nno tab\n")
    with pytest.raises(ValueError, match=r"one.tsv:2: .*Received: 1 in 'no tab'"):
        read_pairs(tmp_path / "one.tsv")
    (tmp_path / "empty.txt").write_text("\n \n")
    for read in (read_pairs, read_texts):
        with pytest.raises(ValueError, match="empty.txt"):
            read(tmp_path / "empty.txt")
    (tmp_path / "latin.txt").write_bytes("ñ".encode("latin-1"))
    with pytest.raises(ValueError, match="UTF-8.*0xf1 at offset 0"):
        read_texts(tmp_path / "latin.txt")
