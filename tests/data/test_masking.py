"""Hidden words, followed back to the text."""

import collections

import numpy as np
import pytest

from tfmodels.data import Reader, masked_language_modelling
from tfmodels.data.masking import uniform


@pytest.fixture(scope="module")
def documents(bible):
    """Verses as sentences, twenty a document."""
    texts = []
    for i, (verse, _) in enumerate(bible[:400]):
        texts += [""] * (i % 20 == 0) + [verse]
    return texts


def rows(examples, epoch=0):
    """(token_ids, y, weight) of each row in an epoch."""
    fetched = examples.fetch(np.arange(len(examples)), epoch)
    cuts = np.cumsum(examples.lengths["padding_mask"])[:-1]
    names = [name for name in ("y", "y/token_logits") if name in fetched]
    parts = "x/token_ids", names[0], names[0].replace("y", "sample_weight", 1)
    return list(zip(*(np.split(fetched[name], cuts) for name in parts), strict=True))


def test_uniform():
    draws = uniform(3, np.arange(200)[:, None], np.arange(500))
    assert draws.shape == (200, 500) and draws.min() >= 0 and draws.max() < 1
    # 1e5 draws: each of ten bins holds 1e4 with a standard deviation of 95.
    assert np.all(np.abs(np.bincount((draws * 10).astype(int).ravel()) - 1e4) < 500)
    assert np.abs(np.corrcoef(draws[:, :50].T) - np.eye(50)).max() < 0.4
    assert not np.array_equal(draws, uniform(4, np.arange(200)[:, None], np.arange(500)))
    np.testing.assert_array_equal(draws[7, 9], uniform(3, 7, 9)[0])


def test_rows_hold_the_text_and_hide_some_of_it(documents, wordpiece):
    examples = masked_language_modelling(documents, wordpiece, 32, seed=1)
    specials = {wordpiece.start_id, wordpiece.end_id}
    text = [[]]
    for document in documents:
        if document:
            text[-1] += wordpiece.tokenize(document).numpy().tolist()
        elif text[-1]:
            text.append([])
    assert sum((y[1:-1].tolist() for _, y, _ in rows(examples)), []) == sum(text, [])
    counts = collections.Counter()
    for ids, y, weight in rows(examples):
        assert len(ids) <= 32 and y[0] == wordpiece.start_id and y[-1] == wordpiece.end_id
        assert not set(y[weight].tolist()) & specials
        np.testing.assert_array_equal(ids[~weight], y[~weight])
        counts["all"] += len(y) - 2
        counts["chosen"] += weight.sum()
        counts["masked"] += (ids[weight] == wordpiece.mask_id).sum()
        counts["same"] += (ids[weight] == y[weight]).sum()
    # 8,000 tokens, 1,200 chosen: three standard deviations are 0.012 and 0.035.
    assert counts["chosen"] / counts["all"] == pytest.approx(0.15, abs=0.012)
    assert counts["masked"] / counts["chosen"] == pytest.approx(0.8, abs=0.035)
    assert counts["same"] / counts["chosen"] == pytest.approx(0.1, abs=0.03)


def test_masks_are_fresh_each_epoch_and_come_from_the_seed(documents, wordpiece):
    def ids(seed, epoch):
        examples = masked_language_modelling(documents, wordpiece, 32, seed=seed)
        return np.concatenate([row[0] for row in rows(examples, epoch)]).tolist()

    assert ids(1, 0) == ids(1, 0)
    assert len({tuple(ids(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4
    reader = Reader(masked_language_modelling(documents, wordpiece, 32, seed=1), batch_size=500)
    first, second = (next(reader.dataset().as_numpy_iterator())[0] for _ in range(2))
    for epoch, batch in enumerate((first, second)):
        real = batch["padding_mask"] != 0
        assert batch["token_ids"][real].tolist() == ids(1, epoch)


def test_whole_words(documents, wordpiece):
    """All tokens of a word, or none; and the tokens are those of the running text."""
    plain = masked_language_modelling(documents, wordpiece, 32)
    whole = masked_language_modelling(documents, wordpiece, 32, whole_words=True)
    for (_, a, _), (_, b, _) in zip(rows(plain), rows(whole), strict=True):
        np.testing.assert_array_equal(a, b)
    words = [wordpiece.tokenize(word).numpy() for text in documents for word in text.split()]
    number = np.repeat(np.arange(len(words)), [len(word) for word in words])
    chosen = np.concatenate([weight[1:-1] for _, _, weight in rows(whole)])
    inside_row = np.concatenate([np.full(len(y) - 2, i) for i, (_, y, _) in enumerate(rows(whole))])
    shares = collections.defaultdict(set)
    for word, row, weight in zip(number, inside_row, chosen, strict=True):
        shares[word, row].add(bool(weight))
    assert all(len(found) == 1 for found in shares.values())
    assert chosen.mean() == pytest.approx(0.15, abs=0.02)


def test_next_sentences(documents, wordpiece):
    examples = masked_language_modelling(documents, wordpiece, 40, next_sentence=True, seed=3)
    stream = wordpiece.tokenize([text for text in documents if text])
    flat = stream.flat_values.numpy().tolist()
    text = " ".join(map(str, flat))
    found = collections.Counter()
    labels = examples.fetch(np.arange(len(examples)))["y/next_sentence_logits"]
    segments = examples.fetch(np.arange(len(examples)))["x/segment_ids"]
    cuts = np.cumsum(examples.lengths["padding_mask"])[:-1]
    for (_, y, weight), segment, label in zip(rows(examples), np.split(segments, cuts), labels, strict=True):
        assert len(y) <= 40 and not weight[0] and not weight[-1]
        ends = np.flatnonzero(y == wordpiece.end_id)
        a, b = y[1 : ends[0]].tolist(), y[ends[0] + 1 : -1].tolist()
        assert a and b and segment.tolist() == [0] * (len(a) + 2) + [1] * (len(b) + 1)
        joined = " ".join(map(str, a + b))
        for part in (a, b):
            assert " ".join(map(str, part)) in text
        if label == 0:
            assert joined in text
        found[int(label)] += joined in text
        found["all", int(label)] += 1
    assert found["all", 0] > 20 and found["all", 1] > 20
    assert found[1] == 0
    x, y, weight = next(Reader(examples, batch_size=3).dataset().as_numpy_iterator())
    assert y["next_sentence_logits"].shape == weight["next_sentence_logits"].shape == (3,)
    assert y["token_logits"].shape == weight["token_logits"].shape == x["token_ids"].shape


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((["", ""], 32), "at least one text"),
        (("text", 32), "one string, 'text'"),
        ((["a", 3], 32), "number 1: a text must be a string"),
        ((["a"], 3), "room for 2 special tokens"),
        ((["a"], 32, True), "at least two documents"),
        ((["a"], 32, False, 1.5), "mask_rate.*1.5"),
    ],
)
def test_bad_input(wordpiece, arguments, message):
    texts, *rest = arguments
    with pytest.raises(ValueError, match=message):
        masked_language_modelling(texts, wordpiece, *rest)


def test_a_tokenizer_without_mask(byte_pair):
    with pytest.raises(ValueError, match="BytePairTokenizer without mask_id"):
        masked_language_modelling(["a"], byte_pair, 32)
