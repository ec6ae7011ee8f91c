"""WordPiece's greedy longest match (Wu et al. 2016, section 4.1) of many words at once, on flat arrays.

The longest piece is searched from every character of every word together, down a trie that is one hash
table, a round a character. Then each word follows its own pieces from its first character on.
"""

import tensorflow as tf

from tfmodels.tokenizers import _utf8
from tfmodels.tokenizers._rows import repeat

_FIRST, _FURTHER = 0, 1  # the trie's two roots: pieces that begin a word, and those that continue one
_NOTHING = -1
_POINT_BITS = 21  # of a Unicode code point


class LongestMatch(tf.Module):
    """The trie of a vocabulary.

    Args:
        first: dict from str to id, the pieces that begin a word.
        further: dict from str to id, those that continue one, without their prefix.
        unknown_id: int, for a word that the pieces do not make.
        max_characters: int, longer words are unknown.
    """

    def __init__(self, first, further, unknown_id, max_characters, name=None):
        super().__init__(name=name)
        self._unknown_id, self._max_characters = unknown_id, max_characters
        edges, ids, count = {}, {}, 2
        for root, pieces in ((_FIRST, first), (_FURTHER, further)):
            for piece, i in pieces.items():
                node = root
                for character in piece:
                    key = node << _POINT_BITS | ord(character)
                    node = edges.get(key)
                    if node is None:
                        node = edges[key] = count
                        count += 1
                if piece:
                    ids[node] = i
        # An edge leads to a node and the id of the piece that ends there, plus 1: 0 is none.
        values = [node << 32 | ids.get(node, -1) + 1 for node in edges.values()]
        self._edges = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(
                tf.constant(list(edges), tf.int64), tf.constant(values, tf.int64)
            ),
            default_value=_NOTHING,
        )

    def encode(self, words):
        """Cuts words into pieces.

        Args:
            words: string tensor, (words,), valid UTF-8, none of them empty.

        Returns:
            (tokens, token_counts): int64 tensors, (tokens,) and (words,).
        """
        points, splits = _utf8.decode(words)
        points = tf.cast(points, tf.int64)  # (characters,)
        begins, ends = splits[:-1], splits[1:]  # (words,)
        fits = ends - begins <= self._max_characters
        ids, lengths = self._from_each_character(points, begins, ends, fits)
        tokens, failed = self._follow(ids, lengths, begins, ends, fits)
        word = repeat(tf.range(tf.size(begins, tf.int64)), ends - begins)
        tokens = tf.where(tf.gather(failed, word), _i64(_NOTHING), tokens)
        unknown = tf.boolean_mask(begins, failed)
        tokens = tf.tensor_scatter_nd_update(
            tokens, unknown[:, None], tf.fill(tf.shape(unknown), tf.constant(self._unknown_id, tf.int64))
        )
        counts = tf.math.unsorted_segment_sum(
            tf.cast(tokens != _NOTHING, tf.int64), word, tf.size(begins, tf.int64)
        )
        return tf.boolean_mask(tokens, tokens != _NOTHING), counts

    def _from_each_character(self, points, begins, ends, fits):
        """Id and length of the longest piece that begins at each character; id -1: none."""
        size = tf.size(points, tf.int64)
        nodes = tf.fill([size], tf.constant(_FURTHER, tf.int64))
        nodes = tf.tensor_scatter_nd_update(nodes, begins[:, None], tf.fill(tf.shape(begins), _i64(_FIRST)))
        ends = repeat(ends, ends - begins)  # (characters,)
        nothing = tf.fill([size], tf.constant(_NOTHING, tf.int64))
        at = tf.where(repeat(fits, _row_lengths(begins, size)))[:, 0]

        def body(step, at, nodes, ids, lengths):
            key = nodes * 2**_POINT_BITS + tf.gather(points, at + step)
            edge = self._edges.lookup(key)
            found, step = edge != _NOTHING, step + 1
            at, edge = tf.boolean_mask(at, found), tf.boolean_mask(edge, found)
            piece = edge % 2**32 - 1
            ended = tf.where(piece >= 0)[:, 0]
            places = tf.gather(at, ended)[:, None]
            ids = tf.tensor_scatter_nd_update(ids, places, tf.gather(piece, ended))
            lengths = tf.tensor_scatter_nd_update(lengths, places, tf.fill(tf.shape(ended), step))
            goes_on = at + step < tf.gather(ends, at)
            at, edge = tf.boolean_mask(at, goes_on), tf.boolean_mask(edge, goes_on)
            return step, at, edge // 2**32, ids, lengths

        any_size = tf.TensorShape([None])
        *_, ids, lengths = tf.while_loop(
            lambda step, at, *_: tf.size(at) > 0,
            body,
            [_i64(0), at, tf.gather(nodes, at), nothing, tf.zeros_like(nothing)],
            shape_invariants=[tf.TensorShape([]), *[any_size] * 4],
        )
        return ids, lengths

    def _follow(self, ids, lengths, begins, ends, fits):
        """The pieces of each word at their first characters, and the words that have none."""
        words = tf.where(fits)[:, 0]

        def body(words, at, tokens, failed):
            piece = tf.gather(ids, at)
            lost = piece == _NOTHING
            lost_words = tf.boolean_mask(words, lost)
            failed = tf.tensor_scatter_nd_update(
                failed, lost_words[:, None], tf.ones_like(lost_words, tf.bool)
            )
            tokens = tf.tensor_scatter_nd_update(tokens, at[:, None], piece)
            after = at + tf.gather(lengths, at)
            goes_on = ~lost & (after < tf.gather(ends, words))
            return tf.boolean_mask(words, goes_on), tf.boolean_mask(after, goes_on), tokens, failed

        _, _, tokens, failed = tf.while_loop(
            lambda words, *_: tf.size(words) > 0,
            body,
            [words, tf.gather(begins, words), tf.fill(tf.shape(ids), _i64(_NOTHING)), ~fits],
            shape_invariants=[tf.TensorShape([None])] * 4,
        )
        return tokens, failed


def _row_lengths(begins, size):
    return tf.concat([begins[1:], [size]], 0) - begins


def _i64(value):
    return tf.constant(value, tf.int64)
