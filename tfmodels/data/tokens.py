"""Texts to token ids, all at once, with errors that name the text.

What the tasks need of a tokenizer: `tokenize(texts)`, a list of str to an int32 ragged tensor (batch,
length) without special tokens; `vocabulary_size`; the ids `end_id`, `start_id`, `mask_id` and `pad_id`
where a task puts them, -1 where there is none; and, for encoders, `encode(texts, pairs, max_length)`,
`template` and `has_segments`, as tfmodels.tokenizers have them.
"""

import numpy as np

from tfmodels.data.ragged import Ragged

# What one call of a tokenizer takes: enough to make its overhead vanish, with bounded memory.
_TEXTS_A_CALL = 1024
_CHARACTERS_A_CALL = 1_000_000


def tokenize(tokenizer, texts):
    """Token ids of texts, as a `Ragged`.

    Raises:
        ValueError: an id is outside the tokenizer's vocabulary.
    """

    def ids(chunk):
        ragged = tokenizer.tokenize(chunk)
        return ragged.flat_values.numpy(), ragged.row_lengths().numpy()

    parts = [ids(chunk) for chunk in _chunks(texts)]
    values = np.concatenate([np.zeros(0, np.int32), *(values for values, _ in parts)])
    if values.size and not 0 <= values.min() <= values.max() < tokenizer.vocabulary_size:
        raise ValueError(
            f"Ids must be at least 0 and below vocabulary_size={tokenizer.vocabulary_size}. Received: from "
            f"{values.min()} to {values.max()}. The tokenizer contradicts itself."
        )
    return Ragged(values, np.concatenate([np.zeros(0, np.int64), *(lengths for _, lengths in parts)]))


def encode(tokenizer, texts, pairs=None, max_length=None):
    """Rows with the template's special tokens, cut to max_length: dict of x's names to `Ragged`."""

    def rows(chunk):
        first, second = zip(*chunk, strict=True)
        second = None if pairs is None else list(second)
        encoded = tokenizer.encode(list(first), second, max_length=max_length)
        encoded = {name: tensor.numpy() for name, tensor in encoded.items()}
        real = encoded.pop("padding_mask") != 0
        return {name: (ids[real], real.sum(axis=1)) for name, ids in encoded.items()}

    parts = [rows(chunk) for chunk in _chunks(zip(texts, pairs or texts, strict=True))]
    return {
        f"x/{name}": Ragged(
            *(np.concatenate(arrays) for arrays in zip(*(p[name] for p in parts), strict=True))
        )
        for name in parts[0]
    }


def _chunks(texts):
    chunk, size = [], 0
    for text in texts:
        chunk.append(text)
        size += len(text) if isinstance(text, str) else sum(map(len, text))
        if len(chunk) == _TEXTS_A_CALL or size >= _CHARACTERS_A_CALL:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


class Table:
    """Token ids of strings, each distinct one tokenized once.

    Args:
        tokenizer: as this file's head has it.
        strings: iterable of str.
    """

    def __init__(self, tokenizer, strings):
        distinct = list(dict.fromkeys(strings))
        self._numbers = {string: i for i, string in enumerate(distinct)}
        self._ids = tokenize(tokenizer, distinct)

    def __getitem__(self, string):
        return self._ids[self._numbers[string]]


def check_distinct(values, name):
    """Raises ValueError for a value that comes twice: each has one id."""
    seen = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{name} must have each once. Received: {value!r} twice.")
        seen.add(value)


def blank_before(tokenizer):
    """What a word that is not a text's first is tokenized with: a blank, where it belongs to the word.

    The tokens of words, each tokenized so, and joined, are those of the text, for tokenizers that join
    nothing across a blank (WordPiece, SentencePiece, GPT-2's byte pairs), wherever it has single blanks.
    """
    whole, alone = tokenize(tokenizer, ["a b"]).values, tokenize(tokenizer, ["a", "b"]).values
    return "" if np.array_equal(whole, alone) else " "


def written(words, blank):
    """Words as they stand in a text: with `blank_before` before all but the first."""
    return [word if i == 0 else blank + word for i, word in enumerate(words)]


class Frame:
    """The special tokens around one text or two, by the tokenizer's template.

    Args:
        tokenizer: as this file's head has it.
        pair: bool, whether there are two texts.
    """

    def __init__(self, tokenizer, pair=False):
        if not hasattr(tokenizer, "template"):
            raise ValueError(
                "The task puts special tokens where the tokenizer's template and encode say. Received: "
                f"{type(tokenizer).__name__} without them."
            )
        form = tokenizer.template.pair if pair else tokenizer.template.single
        # Empty texts leave the special tokens alone, in their order.
        ids = tokenizer.encode([""], [""] if pair else None)["token_ids"][0].numpy().tolist()
        self.size = len(ids)
        ids = iter(ids)
        self._items = [(t if t in ("$A", "$B") else next(ids), segment) for t, segment in form]
        self._has_segments = tokenizer.has_segments

    @property
    def last(self):
        """The id that ends a row, or "$A" or "$B" where a text does."""
        return self._items[-1][0]

    def before(self):
        """Ids that stand before the first text."""
        return [token for token, _ in self._items[: [token for token, _ in self._items].index("$A")]]

    def around(self, *texts):
        """Puts the special tokens around rows of ids.

        Args:
            *texts: one or two `Ragged`.

        Returns:
            A tuple of a dict of x's names to `Ragged`, and for each text the place where it begins in its
            row, (rows,).
        """
        named = dict(zip(("$A", "$B"), texts, strict=False))
        ids = segments = Ragged(np.zeros(0, np.int32), np.zeros(len(texts[0]), np.int64))
        begins = []
        for token, segment in self._items:
            part = named.get(token)
            if part is None:
                part = Ragged(np.full(len(ids), token, np.int32), np.ones(len(ids), np.int64))
            else:
                begins.append(ids.lengths)
            ids, segments = ids.followed_by(part), segments.followed_by(part.filled(segment))
        x = {"x/token_ids": ids}
        if self._has_segments:
            x["x/segment_ids"] = segments
        return x, begins


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
    texts = listed(texts)
    checked = [check_text(text, where(texts, i)) for i, text in enumerate(texts)]
    if not checked:
        raise ValueError("There must be at least one text. Received: none.")
    return checked


def check_pairs(pairs, what="(source, target)"):
    """Two lists of checked texts; raises ValueError if there is no pair, or an element is none."""
    pairs = listed(pairs)
    for i, pair in enumerate(pairs):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            place = where(pairs, i).replace(f"number {i}", f"Number {i}")
            raise ValueError(f"Each example must be a {what} pair. {place}: {pair!r}.")
    if not pairs:
        raise ValueError(f"There must be at least one pair of texts, {what}. Received: none.")
    sides = zip(*pairs, strict=True)
    return tuple([check_text(text, where(pairs, i)) for i, text in enumerate(side)] for side in sides)


def listed(records):
    """A list, with its places if it has them; elements of a tf.data.Dataset become NumPy's."""
    if isinstance(records, str | bytes):
        raise ValueError(f"Give a list of texts. Received: one string, {records[:60]!r}.")
    if hasattr(records, "as_numpy_iterator"):
        records = records.as_numpy_iterator()
    return records if isinstance(records, list) else list(records)
