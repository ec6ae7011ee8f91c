"""Texts to token ids, all at once, with errors that name the text.

What the tasks need of a tokenizer: `tokenize(texts)`, a list of str to an int32 ragged tensor (batch,
length) without special tokens; `vocabulary_size`; and, where a task puts them, the ids `end_id` (what
ends a text; BERT's [SEP]), `start_id` (what begins it; BERT's [CLS]), `mask_id` and `pad_id`, -1 where
there is none.
"""

import concurrent.futures
import os

import numpy as np

from tfmodels.data.ragged import Ragged

# What one call of a tokenizer takes: enough to make its overhead vanish, with bounded memory.
_TEXTS_A_CALL = 1024
_CHARACTERS_A_CALL = 1_000_000


def tokenize(tokenizer, texts):
    """Token ids of texts, as a `Ragged`; calls of the tokenizer run side by side.

    Raises:
        ValueError: an id is outside the tokenizer's vocabulary.
    """

    def ids(chunk):
        ragged = tokenizer.tokenize(chunk)
        return ragged.flat_values.numpy(), ragged.row_lengths().numpy()

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = list(pool.map(ids, _chunks(texts)))
    values = np.concatenate([np.zeros(0, np.int32), *(values for values, _ in parts)])
    if values.size and not 0 <= values.min() <= values.max() < tokenizer.vocabulary_size:
        raise ValueError(
            f"Ids must be at least 0 and below vocabulary_size={tokenizer.vocabulary_size}. Received: from "
            f"{values.min()} to {values.max()}. The tokenizer contradicts itself."
        )
    return Ragged(values, np.concatenate([np.zeros(0, np.int64), *(lengths for _, lengths in parts)]))


def _chunks(texts):
    chunk, size = [], 0
    for text in texts:
        chunk.append(text)
        size += len(text)
        if len(chunk) == _TEXTS_A_CALL or size >= _CHARACTERS_A_CALL:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


class Words:
    """Token ids of words, each tokenized alone but for the blank before it; each distinct word once.

    A word is what white space separates. It is tokenized with one blank before it (the first of a text
    without), so the tokens of a text's words, joined, are the tokens of the text for tokenizers that
    never join letters across a blank (WordPiece, SentencePiece, GPT-2's byte pairs), wherever the text
    has single blanks.

    Args:
        tokenizer: as this file's head has it.
        texts: iterable of lists of str, the words of each text.
    """

    def __init__(self, tokenizer, texts):
        self._numbers = {}
        for words in texts:
            for i, word in enumerate(words):
                self._numbers.setdefault(self._written(i, word), len(self._numbers))
        self._ids = tokenize(tokenizer, list(self._numbers))

    @staticmethod
    def _written(i, word):
        return word if i == 0 else " " + word

    def __call__(self, words):
        """Ids of a text's words and the number of the word of each: (tokens,), (tokens,)."""
        rows = [self._ids[self._numbers[self._written(i, word)]] for i, word in enumerate(words)]
        ragged = Ragged.from_rows(rows)
        return ragged.values, np.repeat(np.arange(len(rows), dtype=np.int32), ragged.lengths)


def special_id(tokenizer, name):
    """The id of a special token that a task cannot do without, such as "mask_id"."""
    token_id = getattr(tokenizer, name, -1)
    if token_id is None or token_id < 0:
        raise ValueError(
            f"The task puts the tokenizer's {name} into its examples. Received: "
            f"{type(tokenizer).__name__} without {name}. Use a tokenizer with this special token."
        )
    return int(token_id)


def padding_id(tokenizer):
    """What stands where no token is; any id will do, since the padding mask hides it."""
    return max(0, getattr(tokenizer, "pad_id", -1))


def where(records, i):
    """What to call the i-th record in an error: its file and line, where it came from one."""
    name = getattr(records, "where", None)
    return name(i) if name else f"number {i}"


def check_text(text, place):
    """A text as str; raises ValueError if it is none, is empty or cannot be written in UTF-8."""
    if isinstance(text, bytes | np.bytes_):
        try:
            text = text.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{place}: a text must be UTF-8. Received: {text[:60]!r}.") from error
    if not isinstance(text, str):
        raise ValueError(f"{place}: a text must be a string. Received: {text!r}.")
    if not text:
        raise ValueError(f"{place}: a text must not be empty. Leave the example out.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{place}: a text must be Unicode. Received: half of a surrogate pair, "
            f"{text[error.start]!r}, at character {error.start}."
        ) from error
    return text


def check_texts(texts):
    """A list of checked texts; raises ValueError if there is none."""
    texts = _listed(texts)
    checked = [check_text(text, where(texts, i)) for i, text in enumerate(texts)]
    if not checked:
        raise ValueError("There must be at least one text. Received: none.")
    return checked


def check_pairs(pairs, what="(source, target)"):
    """Two lists of checked texts; raises ValueError if there is no pair, or an element is none."""
    pairs = _listed(pairs)
    for i, pair in enumerate(pairs):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ValueError(f"Each example must be a {what} pair. {where(pairs, i).capitalize()}: {pair!r}.")
    if not pairs:
        raise ValueError(f"There must be at least one pair of texts, {what}. Received: none.")
    sides = zip(*pairs, strict=True)
    return tuple([check_text(text, where(pairs, i)) for i, text in enumerate(side)] for side in sides)


def _listed(records):
    """A list, with its places if it has them; elements of a tf.data.Dataset become NumPy's."""
    if isinstance(records, str | bytes):
        raise ValueError(f"Give a list of texts. Received: one string, {records[:60]!r}.")
    if hasattr(records, "as_numpy_iterator"):
        records = records.as_numpy_iterator()
    return records if isinstance(records, list) else list(records)
