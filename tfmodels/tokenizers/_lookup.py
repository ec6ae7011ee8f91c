"""Words to tokens: whole words by tables, the distinct rest by an algorithm."""

import tensorflow as tf

from tfmodels.tokenizers._rows import take

# As many ASCII characters as an int64 holds. Most words are so short, and numbers are made and looked up in
# a fraction of the time that strings take.
_KEY_CHARACTERS, _KEY_BITS = 9, 7


class WholeWords(tf.Module):
    """The words that are one token each.

    Args:
        words: dict from bytes to id.
    """

    def __init__(self, words, name=None):
        super().__init__(name=name)
        self._table = _table(list(words), list(words.values()), tf.string)
        short = {_key(word): i for word, i in words.items() if _has_key(word)}
        self._short = _table(list(short), list(short.values()), tf.int64) if short else None

    def ids(self, words):
        """int64 tensor, (words,): the id of each string, or -1."""
        return self._table.lookup(words)

    def tokens(self, words, encode):
        """Tokens of words.

        Args:
            words: int32 ragged tensor, (words, characters), code points.
            encode: function of distinct words, strings, to their tokens, (tokens,), and how many each has;
                int64.

        Returns:
            (tokens, splits): int64 tensors, (tokens,) and (words + 1,): word k has the tokens from
            splits[k] to splits[k + 1].
        """
        if self._short is None:
            ids = tf.fill([words.nrows()], tf.constant(-1, tf.int64))
        else:
            ids = self._short.lookup(_keys(words))  # (words,)
        long = tf.where(ids < 0)[:, 0]
        strings = tf.strings.unicode_encode(tf.gather(words, long), "UTF-8")
        long_ids = self.ids(strings)
        ids = tf.tensor_scatter_nd_update(ids, long[:, None], long_ids)
        at = tf.where(long_ids < 0)[:, 0]
        unknown = tf.gather(long, at)
        distinct, number = tf.unique(tf.gather(strings, at), tf.int64)
        tokens, counts = encode(distinct)
        # A pool of the one token of each word, or -1, and then those of the encoded words.
        pool = tf.concat([ids, tokens], 0)
        begins = tf.cumsum(counts, exclusive=True) + tf.size(ids, tf.int64)
        begins = tf.tensor_scatter_nd_update(
            tf.range(tf.size(ids, tf.int64)), unknown[:, None], tf.gather(begins, number)
        )
        lengths = tf.tensor_scatter_nd_update(tf.ones_like(ids), unknown[:, None], tf.gather(counts, number))
        return take(pool, begins, lengths)


def _table(keys, values, dtype):
    return tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(tf.constant(keys, dtype), tf.constant(values, tf.int64)),
        default_value=-1,
    )


def _has_key(word):
    return 0 < len(word) <= _KEY_CHARACTERS and word.isascii() and b"\x00" not in word


def _key(word):
    return sum(byte << _KEY_BITS * place for place, byte in enumerate(word))


def _keys(words):
    """The number of each word that has one, else 0, which is no word's."""
    flat, begins, ends = words.flat_values, words.row_splits[:-1], words.row_splits[1:]
    points = tf.concat([tf.cast(flat, tf.int64), tf.zeros([2 * _KEY_CHARACTERS], tf.int64)], 0)

    def then(low, high, characters):
        return low + tf.bitwise.left_shift(high, tf.constant(_KEY_BITS * characters, tf.int64))

    # The numbers of the 2, 4 and 8 characters from each one on.
    two = then(points[:-1], points[1:], 1)
    four = then(two[:-2], two[2:], 2)
    eight = then(four[:-4], four[4:], 4)
    nine = then(tf.gather(eight, begins), tf.gather(points, begins + 8), 8)  # (words,)
    # Longer words have no number; characters after a shorter one's end are cut off.
    masks = [*((1 << _KEY_BITS * n) - 1 for n in range(_KEY_CHARACTERS + 1)), 0]
    masks = tf.gather(tf.constant(masks, tf.int64), tf.minimum(ends - begins, _KEY_CHARACTERS + 1))
    keys = tf.bitwise.bitwise_and(nine, masks)
    # Nor have words with other characters; a zero is none in a number.
    others = tf.where((flat <= 0) | (flat >= 2**_KEY_BITS))[:, 0]
    word = tf.searchsorted(ends, others, side="right", out_type=tf.int64)
    return tf.tensor_scatter_nd_update(keys, word[:, None], tf.zeros_like(word))
