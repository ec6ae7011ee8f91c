"""Texts to tokens that know where they stand, in graph ops.

As `tfmodels.data` does it for training: word by word, a word's parts where the tokenizer cuts it as if
they stood alone (WordPiece does), else the whole word.
"""

import dataclasses

import tensorflow as tf

# What \s of RE2 lacks, and \w: Unicode.
_SPACE = r"\t-\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}"
_LETTERS = r"\pL\pM\pN_"
_WORDS = rf"([{_SPACE}]+)"
_PARTS = rf"([{_LETTERS}]+|[^{_LETTERS}])"
_MARK = b"\xff"  # no valid UTF-8 has it


@dataclasses.dataclass(frozen=True)
class Located:
    """Tokens of texts, all ragged, (batch, tokens), int32.

    Attributes:
        ids: the tokens.
        begins, ends: the characters (Unicode code points) of the text at which each begins and ends.
        words: the number of each token's word in its text.
        text: string tensor, (batch,), valid UTF-8, which the characters count in.
    """

    ids: tf.RaggedTensor
    begins: tf.RaggedTensor
    ends: tf.RaggedTensor
    words: tf.RaggedTensor
    text: tf.Tensor

    def cut(self, room):
        """The first `room` tokens of each text (a number, or one a text), and which texts had more."""
        lengths = tf.cast(self.ids.row_lengths(), tf.int32)
        kept = tf.sequence_mask(tf.minimum(lengths, room), tf.reduce_max(tf.concat([lengths, [0]], 0)))
        mask = tf.RaggedTensor.from_tensor(kept, lengths=lengths)
        parts = (tf.ragged.boolean_mask(x, mask) for x in (self.ids, self.begins, self.ends, self.words))
        return Located(*parts, self.text), lengths > room


def locate(tokenizer, texts, blank):
    """`Located` of texts, (batch,).

    Args:
        tokenizer: has `tokenize`.
        texts: string tensor, (batch,).
        blank: str, what stands before a word that is not its text's first: " " or "".
    """
    # As Python decodes them: a decoder of JSON counts in the same characters.
    texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8")
    words, word_begins, word_splits = _pieces(texts, _WORDS, skip_spaces=True)
    row = tf.RaggedTensor.from_row_splits(words, word_splits, validate=False).value_rowids()
    number = tf.range(tf.size(words, tf.int64)) - tf.gather(word_splits, row)
    before = tf.where(number > 0, blank, "")
    parts, part_begins, part_splits = _pieces(words, _PARTS)
    part_word = tf.RaggedTensor.from_row_splits(parts, part_splits, validate=False).value_rowids()
    first = tf.range(tf.size(parts, tf.int64)) == tf.gather(part_splits, part_word)
    whole = tokenizer.tokenize(tf.strings.join([before, words]))
    by_part = tokenizer.tokenize(
        tf.strings.join([tf.where(first, tf.gather(before, part_word), ""), parts])
    )  # (parts, tokens)
    # Of the words whose tokens are those of their parts each token has its part's place.
    counts = tf.gather(by_part.row_splits, part_splits)
    alone = tf.RaggedTensor.from_row_splits(by_part.flat_values, counts, validate=False)  # (words, tokens)
    same = _rows_equal(whole, alone)
    begins = tf.gather(part_begins, by_part.value_rowids())
    lengths = tf.strings.length(parts, unit="UTF8_CHAR")
    ends = begins + tf.gather(lengths, by_part.value_rowids())
    word_lengths = tf.strings.length(words, unit="UTF8_CHAR")
    token_word = whole.value_rowids()
    # The k-th token of a word is the k-th of its parts, too, where both are the same.
    place = tf.range(tf.size(token_word, tf.int64)) - tf.gather(whole.row_splits, token_word)
    at = tf.gather(alone.row_splits, token_word) + place
    at = tf.minimum(at, tf.maximum(tf.size(begins, tf.int64) - 1, 0))
    exact = tf.gather(same, token_word)
    begins = tf.where(exact, tf.gather(tf.concat([begins, [0]], 0), at), 0)
    ends = tf.where(exact, tf.gather(tf.concat([ends, [0]], 0), at), tf.gather(word_lengths, token_word))
    shift = tf.gather(word_begins, token_word)
    splits = tf.gather(whole.row_splits, word_splits)

    def ragged(values):
        return tf.RaggedTensor.from_row_splits(tf.cast(values, tf.int32), splits, validate=False)

    return Located(
        ragged(whole.flat_values),
        ragged(begins + shift),
        ragged(ends + shift),
        ragged(tf.gather(number, token_word)),
        texts,
    )


def _pieces(texts, pattern, skip_spaces=False):
    """Cuts texts around what the pattern finds.

    Returns:
        The pieces, (pieces,), none empty; the character at which each begins in its text; and splits,
        (batch + 1,).
    """
    marked = tf.strings.regex_replace(texts, pattern, _MARK + rb"\1" + _MARK)
    rows = tf.strings.split(marked, _MARK)
    pieces, row = rows.flat_values, rows.value_rowids()
    lengths = tf.strings.length(pieces, unit="UTF8_CHAR")
    ends = tf.cumsum(lengths)
    firsts = tf.concat([[0], ends], 0)
    begins = ends - lengths - tf.gather(firsts, tf.gather(rows.row_splits, row))
    kept = lengths > 0
    if skip_spaces:
        kept &= ~tf.strings.regex_full_match(pieces, _WORDS)
    seen = tf.concat([[0], tf.cumsum(tf.cast(kept, tf.int64))], 0)
    return (
        tf.boolean_mask(pieces, kept),
        tf.boolean_mask(begins, kept),
        tf.gather(seen, rows.row_splits),
    )


def _rows_equal(one, other):
    """Which rows of two ragged tensors are the same: bool, (rows,)."""
    lengths = one.row_lengths() == other.row_lengths()
    one, other = one.to_tensor(-1), other.to_tensor(-1)
    width = tf.minimum(tf.shape(one)[1], tf.shape(other)[1])  # what is beyond differs in length
    return lengths & tf.reduce_all(one[:, :width] == other[:, :width], 1)
