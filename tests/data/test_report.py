"""What the report says, against a count by hand."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from tfmodels.data import Reader, causal_language_modelling, item_sequences, report

SEQUENCES = [[1] * n for n in (3, 3, 9, 5, 3)]  # 2, 2, 8, 4, 2 tokens


def test_report(capsys):
    examples = item_sequences(SEQUENCES, length=20)
    result = report(Reader(examples, batch_size=2))
    assert capsys.readouterr().out.strip() == str(result)
    # 2 and 2; 8 and 4, padded to 8; 2.
    assert (result.batches, result.sequences, result.tokens, result.positions) == (3, 5, 18, 22)
    assert result.tokens_per_batch == (2, 6, 12) and result.padding == pytest.approx(4 / 22)
    assert result.lengths.tolist() == [0, 0, 3, 0, 1, 0, 0, 0, 1]
    assert "18.18% padding" in str(result) and "6 tokens a batch, from 2 to 12" in str(result)
    edges, counts = result.histogram(bins=3)
    assert edges.tolist() == [0, 3, 6, 9] and counts.tolist() == [3, 1, 1]


def test_packed_sequences_are_counted_one_by_one():
    examples = item_sequences(SEQUENCES, length=20)
    result = report(Reader(examples, batch_size=2, pack=10))
    assert (result.batches, result.sequences, result.tokens, result.positions) == (1, 5, 18, 20)
    assert result.lengths.tolist() == [0, 0, 3, 0, 1, 0, 0, 0, 1]


def test_both_sides_count(tokenizer, bible):
    from tfmodels.data import sequence_to_sequence

    examples = sequence_to_sequence(bible[:40], tokenizer)
    result = report(Reader(examples, tokens_per_batch=400).dataset())
    assert result.sequences == 40
    assert result.tokens == sum(int(lengths.sum()) for lengths in examples.lengths.values())
    assert result.lengths.sum() == 80


def test_a_stream_without_end(tokenizer):
    reader = Reader(item_sequences(SEQUENCES, 20), batch_size=2, repeat=True)
    with pytest.raises(ValueError, match="repeats has no end"):
        report(reader)
    assert report(reader, max_batches=7).batches == 7


def test_bad_input(byte_pair, monkeypatch):
    data = tf.data.Dataset.from_tensors(({"ids": np.zeros((1, 2))}, np.zeros((1, 2))))
    with pytest.raises(ValueError, match=r"padding mask. Received: \['ids'\]"):
        report(data)
    with pytest.raises(ValueError, match="report takes a Reader or .* Received: Examples"):
        report(causal_language_modelling(["a"], byte_pair, 4))
    with pytest.raises(ValueError, match="at least one batch"):
        report(data.take(0))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        report(Reader(causal_language_modelling(["a"], byte_pair, 4), 1), picture="x.png")


def test_picture(tmp_path):
    pytest.importorskip("matplotlib")
    report(Reader(item_sequences(SEQUENCES, 20), batch_size=2), picture=tmp_path / "lengths.png")
    assert (tmp_path / "lengths.png").read_bytes().startswith(b"\x89PNG")
