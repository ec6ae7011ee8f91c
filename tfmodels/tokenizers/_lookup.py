"""Words to tokens: whole words by one table, the distinct rest by an algorithm."""

import tensorflow as tf


class WholeWords(tf.Module):
    """The words that are one token each.

    Args:
        words: dict from bytes to id.
    """

    def __init__(self, words, name=None):
        super().__init__(name=name)
        self._table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(
                tf.constant(list(words), tf.string), tf.constant(list(words.values()), tf.int64)
            ),
            default_value=-1,
        )

    def ids(self, words):
        """int64 tensor, (words,): the id of each word, or -1."""
        return self._table.lookup(words)

    def tokens(self, words, encode):
        """Tokens of words.

        Args:
            words: string tensor, (words,).
            encode: function of distinct words to their tokens, (tokens,), and how many each has; int64.

        Returns:
            (tokens, splits): int64 tensors, (tokens,) and (words + 1,): word k has the tokens from
            splits[k] to splits[k + 1].
        """
        ids = self.ids(words)  # (words,)
        unknown = tf.where(ids < 0)[:, 0]
        distinct, number = tf.unique(tf.gather(words, unknown), tf.int64)
        tokens, counts = encode(distinct)
        # A pool of the one token of each word, or -1, and then those of the encoded words.
        pool = tf.concat([ids, tokens], 0)
        begins = tf.cumsum(counts, exclusive=True) + tf.size(ids, tf.int64)
        begins = tf.tensor_scatter_nd_update(
            tf.range(tf.size(ids, tf.int64)), unknown[:, None], tf.gather(begins, number)
        )
        lengths = tf.tensor_scatter_nd_update(tf.ones_like(ids), unknown[:, None], tf.gather(counts, number))
        return take(pool, begins, lengths)


def take(pool, begins, lengths):
    """Slices of a pool after each other, and their splits, (slices + 1,)."""
    ends = tf.concat([[0], tf.cumsum(lengths)], 0)
    at = tf.repeat(begins - ends[:-1], lengths) + tf.range(ends[-1])
    return tf.gather(pool, at), ends
