"""Text with hidden words, for BERT and its kin."""

import itertools

import numpy as np

from tfmodels.data.examples import Examples
from tfmodels.data.masking import MaskedExamples
from tfmodels.data.ragged import Ragged, positions
from tfmodels.data.tokens import (
    Frame,
    Table,
    blank_before,
    check_text,
    listed,
    padding_id,
    special_id,
    tokenize,
    where,
    written,
)


def masked_language_modelling(
    texts,
    tokenizer,
    length,
    next_sentence=False,
    mask_rate=0.15,
    whole_words=False,
    seed=0,
):
    """Running text to rows with hidden words, other ones each epoch (Devlin et al. 2019, section 3.1).

    Of the tokens, `mask_rate` are chosen, each drawn on its own; of those 80% become the mask token, 10% a
    random one, and 10% stay. Special tokens are never chosen.

    Args:
        texts: list of str, in their order, with an empty one between documents. For `next_sentence`
            each is a sentence.
        tokenizer: has `tokenize`, `encode`, `template`, `mask_id` and `vocabulary_size`.
        length: int, tokens a row, special ones included.
        next_sentence: bool, whether rows are pairs (appendix A.2): half of them a text and its
            continuation, half a text and one from another document. Where two sentences do not fit into a
            row, or a document has only one, it is always the latter: give length room for several.
        mask_rate: float, share of the tokens that are chosen.
        whole_words: bool, whether a word's tokens are chosen together; words are what white space
            separates.
        seed: int, of masks and pairs.

    Returns:
        `Examples` of x, a dict of `token_ids` and, if the tokenizer has them, `segment_ids`; y, int32
        (length,), the words; sample_weight, 1 where one was chosen. With `next_sentence` y and
        sample_weight are dicts of `token_logits` and `next_sentence_logits`, () int32, 0 = follows, 1 =
        does not.

    Raises:
        ValueError: there is no text, the tokenizer has no mask token, length has no room for text, or
            there is only one document to make pairs from.
    """
    documents = _documents(texts)
    mask_id = special_id(tokenizer, "mask_id")
    frame = Frame(tokenizer, pair=next_sentence)
    if length < frame.size + 2:
        raise ValueError(
            f"length must have room for {frame.size} special tokens and text. Received: length={length}."
        )
    sentences = [text for document in documents for text in document]
    ids, units = _units(sentences, tokenizer, whole_words)
    ends = np.cumsum([len(document) for document in documents])
    room = length - frame.size
    if next_sentence:
        target = "y/token_logits"
        ranges, follows_not = _pairs(ids, ends, room, np.random.default_rng(seed))
        dense = {"y/next_sentence_logits": np.array(follows_not, np.int32)}
    else:
        target, dense = "y", {}
        ranges = [_cut(ids, ends, room)]
    x, begins = frame.around(*(_take(ids.values, *pieces) for pieces in ranges))
    unit = np.full(len(x["x/token_ids"].values), -1, np.int32)
    for pieces, begin in zip(ranges, begins, strict=True):
        unit[positions(x["x/token_ids"].begins + begin, pieces[1])] = _take(units, *pieces).values
    parts = x | {"unit": Ragged(unit, x["x/token_ids"].lengths)}
    examples = Examples.from_ragged(
        {"padding_mask": parts}, pad={"x/token_ids": padding_id(tokenizer)}, **dense
    )
    return MaskedExamples(examples, target, mask_rate, mask_id, tokenizer.vocabulary_size, seed)


def _documents(texts):
    """Lists of sentences, cut at empty texts."""
    texts = listed(texts)
    checked = [text and check_text(text, where(texts, i)) for i, text in enumerate(texts)]
    documents = [list(group) for filled, group in itertools.groupby(checked, bool) if filled]
    if not documents:
        raise ValueError("There must be at least one text. Received: none.")
    return documents


def _units(sentences, tokenizer, whole_words):
    """Ids of all sentences, and for each token the number of what is hidden together."""
    if not whole_words:
        ids = tokenize(tokenizer, sentences)
        return ids, np.arange(len(ids.values), dtype=np.int32)
    blank = blank_before(tokenizer)
    words = [written(sentence.split(), blank) for sentence in sentences]
    table = Table(tokenizer, itertools.chain.from_iterable(words))
    rows = [table[word] for word in itertools.chain.from_iterable(words)]
    by_word = Ragged.from_rows(rows)
    word_ends = np.cumsum(np.fromiter(map(len, words), np.int64, len(words)))
    token_ends = np.concatenate([[0], np.cumsum(by_word.lengths)])[word_ends]
    ids = Ragged(by_word.values, np.diff(token_ends, prepend=0))
    return ids, np.repeat(np.arange(len(rows), dtype=np.int32), by_word.lengths)


def _take(values, begins, lengths):
    return Ragged(values[positions(begins, lengths)], lengths)


def _cut(ids, ends, room):
    """Each document, its sentences joined, cut into rows: where they begin, and their lengths."""
    token_ends = np.concatenate([[0], np.cumsum(ids.lengths)])[ends]
    begins = [np.arange(a, b, room) for a, b in zip([0, *token_ends[:-1]], token_ends, strict=True)]
    lengths = [np.minimum(room, b - begin) for begin, b in zip(begins, token_ends, strict=True)]
    return np.concatenate(begins), np.concatenate(lengths)


def _pairs(ids, ends, room, generator):
    """Pairs of stretches of text (appendix A.2): two (begins, lengths), and whether they belong apart.

    A stretch is a run of sentences of one document, so it is a range of tokens.
    """
    if len(ends) < 2:
        raise ValueError(
            "next_sentence=True needs at least two documents, with an empty text between. Received: one."
        )
    token = np.concatenate([[0], np.cumsum(ids.lengths)])  # where each sentence begins
    starts = [0, *ends[:-1]]
    first, second, apart = [], [], []
    for document, (begin, end) in enumerate(zip(starts, ends, strict=True)):
        while begin < end:
            # As many sentences as fit, at least one.
            stop = max(begin + 1, min(end, int(np.searchsorted(token, token[begin] + room, "right")) - 1))
            middle = begin + 1 if stop - begin < 2 else int(generator.integers(begin + 1, stop))
            is_random = stop - begin < 2 or generator.random() < 0.5
            if is_random:
                other = int(generator.integers(len(ends) - 1))
                other += other >= document
                follow = int(generator.integers(starts[other], ends[other]))
                b = (token[follow], token[ends[other]] - token[follow])
                begin_next = middle  # what was not used stands at the next pair's beginning
            else:
                b = (token[middle], token[stop] - token[middle])
                begin_next = stop
            # The second text gets the room that the first leaves, at least half.
            a_length = min(token[middle] - token[begin], room - min(b[1], room // 2))
            first.append((token[begin], a_length))
            second.append((b[0], min(b[1], room - a_length)))
            apart.append(is_random)
            begin = begin_next
    return [tuple(np.array(part).T) for part in (first, second)], apart
