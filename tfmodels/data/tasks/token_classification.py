"""Words with a label each, such as names and parts of speech."""

import itertools

import numpy as np

from tfmodels.data.examples import Examples
from tfmodels.data.ragged import Ragged
from tfmodels.data.tasks.classification import label_ids
from tfmodels.data.tokens import Frame, Table, blank_before, check_text, padding_id, where, written


def token_classification(sentences, labels, tokenizer, label_names=None, max_length=512):
    """Words with a label each; a word's first token bears it (Devlin et al. 2019, section 5.3).

    Each word is tokenized alone, as it stands behind a blank, so the alignment is exact. A word that has no
    token, such as a control character, is an error.

    Args:
        sentences: list of lists of str, the words.
        labels: list of lists of as many labels, str or int.
        tokenizer: has `tokenize`, `encode`, `template` and `pad_id`.
        label_names: list of the labels in the order of their ids; None: those of these examples, sorted.
        max_length: int, tokens with special ones; longer sentences are cut into several rows, between
            words.

    Returns:
        `Examples` of x, a dict of `token_ids` and, if the tokenizer has them, `segment_ids`; y, int32
        (length,), and sample_weight, 1 at the first token of each word and 0 elsewhere.

    Raises:
        ValueError: there are no sentences, a sentence has not as many labels as words or no word, a
            label is none of label_names, or a word has no token.
    """
    _check(sentences, labels)
    flat = list(itertools.chain.from_iterable(labels))
    places = [where(sentences, i) for i, words in enumerate(sentences) for _ in words]
    names, ids = label_ids(_Placed(flat, places), label_names)
    blank = blank_before(tokenizer)
    words = [written(sentence, blank) for sentence in sentences]
    table = Table(tokenizer, itertools.chain.from_iterable(words))
    frame = Frame(tokenizer)
    room = max_length - frame.size
    if room < 1:
        raise ValueError(f"max_length must be above {frame.size} special tokens. Received: {max_length}.")
    rows, targets, first = [], [], []
    ids = iter(np.split(ids, np.cumsum([len(sentence) for sentence in sentences])[:-1]))
    for i, sentence in enumerate(words):
        tokens = Ragged.from_rows([table[word] for word in sentence])
        if not tokens.lengths.all():
            word = sentence[int(tokens.lengths.argmin())]
            raise ValueError(f"{where(sentences, i)}: a word must have a token. Received: {word!r}.")
        y = np.repeat(next(ids), tokens.lengths)
        begins_word = np.zeros(len(y), bool)
        begins_word[tokens.begins] = True
        for begin, end in _pieces(begins_word, room):
            rows.append(tokens.values[begin:end])
            targets.append(y[begin:end])
            first.append(begins_word[begin:end])
    x, (begin,) = frame.around(Ragged.from_rows(rows))
    inside = Ragged.from_rows(rows).lengths
    around = x["x/token_ids"].lengths - inside - begin
    y = [np.pad(t, (b, a)) for t, b, a in zip(targets, begin, around, strict=True)]
    weight = [np.pad(f, (b, a)) for f, b, a in zip(first, begin, around, strict=True)]
    parts = x | {"y": Ragged.from_rows(y), "sample_weight": Ragged.from_rows(weight, bool)}
    examples = Examples.from_ragged({"padding_mask": parts}, pad={"x/token_ids": padding_id(tokenizer)})
    examples.labels = names
    return examples


def _pieces(begins_word, room):
    """Cuts a sentence into ranges of at most `room` tokens, between words where a word allows it."""
    begin, count = 0, len(begins_word)
    while begin < count:
        end = min(begin + room, count)
        if end < count:
            words = np.flatnonzero(begins_word[begin + 1 : end + 1])
            end = begin + 1 + int(words[-1]) if len(words) else end
        yield begin, end
        begin = end


def _check(sentences, labels):
    if not len(sentences) or len(sentences) != len(labels):
        raise ValueError(
            "There must be sentences, and as many lists of labels. "
            f"Received: {len(sentences)} and {len(labels)}."
        )
    for i, (words, tags) in enumerate(zip(sentences, labels, strict=True)):
        place = where(sentences, i)
        if isinstance(words, str) or not len(words) or len(words) != len(tags):
            raise ValueError(
                f"{place}: a sentence must be a list of words with as many labels. "
                f"Received: {words!r} and {tags!r}."
            )
        for word in words:
            check_text(word, place)


class _Placed(list):
    """A list whose elements know their places."""

    def __init__(self, elements, places):
        super().__init__(elements)
        self._places = places

    def where(self, i):
        return self._places[i]
