"""Byte-pair merges (Sennrich et al. 2016) of many words at once, on flat arrays.

The order of the merges is that of the rule, one at a time: the pair of the lowest rank, of several the
leftmost. A round does every word's next merges together, with one table look-up for all pairs that changed.

A very long word would need thousands of rounds over its whole length. It is cut into chunks instead, twice,
the second time half a chunk later, and the two results are stitched where they agree on a token. That is
exact, since tokens are the encoding of their text if and only if each neighbouring two of them are the
encoding of theirs: no merge crosses a boundary in the whole text before one would in the pair alone.
Where the two never agree the word is tried again with chunks of double size, up to its length.
"""

import tensorflow as tf

from tfmodels.tokenizers._rows import repeat

# Half a chunk holds some fifteen tokens to agree on; larger chunks need more rounds.
_CHUNK_BYTES = 128
_NO_MERGE = tf.int64.max


class Merges(tf.Module):
    """The table of merges.

    Args:
        pairs: list of (left id, right id), in the order of their ranks.
        merged: list of int, the id that each pair becomes.
    """

    def __init__(self, pairs, merged, name=None):
        super().__init__(name=name)
        keys = [left << 32 | right for left, right in pairs]
        values = [rank << 32 | new for rank, new in enumerate(merged)]
        # A pair given twice keeps its last rank, as in the tokenizers library. No pair has the key -1, which
        # is there since a table may not be empty.
        table = {-1: _NO_MERGE} | dict(zip(keys, values, strict=True))
        self._table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(
                tf.constant(list(table.keys()), tf.int64), tf.constant(list(table.values()), tf.int64)
            ),
            default_value=_NO_MERGE,
        )
        # Equal pairs of a word merge in one round if no merge makes a pair of a lower rank than its own.
        last = {}
        for rank, new in enumerate(merged):
            last[new] = rank
        self._all_equal_pairs_at_once = all(
            rank > max(last.get(left, -1), last.get(right, -1)) for rank, (left, right) in enumerate(pairs)
        )

    def encode(self, ids, lengths):
        """Merges the bytes of words.

        Args:
            ids: int64 tensor, (bytes,), the ids of single bytes, all words after each other.
            lengths: int64 tensor, (words,), bytes of each.

        Returns:
            (tokens, token_counts): int64 tensors, (tokens,) and (words,).
        """
        word = repeat(tf.range(tf.size(lengths, tf.int64)), lengths)  # (bytes,)
        offset = tf.range(tf.size(ids, tf.int64)) - repeat(tf.cumsum(lengths, exclusive=True), lengths)

        def body(chunk, pending, tokens):
            at = tf.where(tf.gather(pending, word))[:, 0]
            words = tf.gather(word, at)
            new, failed = self._encode_by_chunks(
                tf.gather(ids, at), words, tf.gather(offset, at), tf.gather(lengths, words), chunk
            )
            tokens = tf.tensor_scatter_nd_update(tokens, at[:, None], new)
            failures = tf.math.unsorted_segment_sum(
                tf.cast(failed, tf.int64), words, tf.size(lengths, tf.int64)
            )
            return chunk * 2, failures > 0, tokens

        # A token's id at its first byte, else -1.
        none = tf.fill(tf.shape(ids), tf.constant(-1, tf.int64))
        _, _, tokens = tf.while_loop(
            lambda chunk, pending, tokens: tf.reduce_any(pending),
            body,
            [tf.constant(_CHUNK_BYTES, tf.int64), lengths > 0, none],
            shape_invariants=[tf.TensorShape([]), tf.TensorShape([None]), tf.TensorShape([None])],
        )
        counts = tf.math.unsorted_segment_sum(
            tf.cast(tokens >= 0, tf.int64), word, tf.size(lengths, tf.int64)
        )
        return tf.boolean_mask(tokens, tokens >= 0), counts

    def _encode_by_chunks(self, ids, word, offset, length, chunk):
        """Tokens by first byte, and where the chunks could not be stitched; all (bytes,)."""
        early = self._merge_rows(ids, _rows(word, offset // chunk))

        def stitch():
            late = self._merge_rows(ids, _rows(word, (offset + chunk // 2) // chunk))
            return _stitch(early, late, word, offset, length, chunk)

        return tf.cond(tf.reduce_any(length > chunk), stitch, lambda: (early, tf.zeros_like(early, tf.bool)))

    def _merge_rows(self, ids, rows):
        """Merges until no row has a pair left; gives tokens by first byte, (bytes,)."""
        size = tf.size(ids, tf.int64)
        begins = tf.range(size)
        values = self._pair_values(ids, rows, begins)

        def body(ids, rows, begins, values):
            take = self._next_merges(rows, values)
            new = tf.gather(values, take) % 2**32
            ids = tf.tensor_scatter_nd_update(ids, take[:, None], new)
            dropped = tf.scatter_nd(take[:, None] + 1, tf.ones_like(take), [tf.size(ids, tf.int64)])
            kept = tf.where(dropped == 0)[:, 0]
            ids, rows, begins, values = (tf.gather(x, kept) for x in (ids, rows, begins, values))
            # Each merge on the left has dropped one. Only pairs with a new token have changed.
            place = take - tf.range(tf.size(take, tf.int64))
            changed = tf.concat([tf.maximum(place - 1, 0), place], 0)
            values = tf.tensor_scatter_nd_update(
                values, changed[:, None], self._pair_values(ids, rows, changed)
            )
            return ids, rows, begins, values

        ids, _, begins, _ = tf.while_loop(
            lambda ids, rows, begins, values: tf.reduce_any(values != _NO_MERGE),
            body,
            [ids, rows, begins, values],
            shape_invariants=[tf.TensorShape([None])] * 4,
        )
        return tf.tensor_scatter_nd_update(tf.fill([size], tf.constant(-1, tf.int64)), begins[:, None], ids)

    def _pair_values(self, ids, rows, at):
        """rank << 32 | merged id of the pairs that begin at the positions, or _NO_MERGE."""
        after = tf.minimum(at + 1, tf.size(ids, tf.int64) - 1)
        values = self._table.lookup(tf.gather(ids, at) * 2**32 + tf.gather(ids, after))
        return tf.where((at != after) & (tf.gather(rows, at) == tf.gather(rows, after)), values, _NO_MERGE)

    def _next_merges(self, rows, values):
        """Positions of the pairs that each row merges next, ascending."""
        best = tf.math.segment_min(values, rows)
        take = tf.where((values == tf.gather(best, rows)) & (values != _NO_MERGE))[:, 0]
        if not self._all_equal_pairs_at_once:
            row = tf.gather(rows, take)
            return tf.boolean_mask(take, tf.concat([[True], row[1:] != row[:-1]], 0))
        fresh = tf.concat([[True], take[1:] != take[:-1] + 1], 0)

        def every_second_of_a_run():
            # Of "aaaaa" the first and the third pair merge.
            run = tf.cumsum(tf.cast(fresh, tf.int64)) - 1
            run_begin = tf.gather(tf.gather(take, tf.where(fresh)[:, 0]), run)
            return tf.gather(take, tf.where((take - run_begin) % 2 == 0)[:, 0])

        return tf.cond(tf.reduce_all(fresh), lambda: take, every_second_of_a_run)


def _rows(*keys):
    """Numbers the runs of equal keys from 0; keys and result are (bytes,)."""
    changes = tf.reduce_any([key[1:] != key[:-1] for key in keys], 0)
    return tf.concat([tf.zeros_like(keys[0][:1]), tf.cumsum(tf.cast(changes, tf.int64))], 0)


def _stitch(early, late, word, offset, length, chunk):
    """One encoding of two, by tokens on which both agree.

    Half-chunks are numbered from each word's begin. `early` has its seams before the even ones, `late`
    before the odd ones, so that in an even half the result turns from late to early, in an odd one back.
    """
    half = offset // (chunk // 2)
    index = tf.range(tf.size(early, tf.int64))
    rows = _rows(word, half)
    agreed = tf.where((early >= 0) & (early == late), index, tf.int64.max)
    turn = tf.gather(tf.math.segment_min(agreed, rows), rows)
    # No seam lies before the first half, and none after the last.
    short = length <= chunk
    last = half == (length - 1) // (chunk // 2)
    failed = (turn == tf.int64.max) & (half > 0) & ~last & ~short
    turn = tf.where(last, tf.int64.max, turn)
    use_early = short | (half == 0) | tf.where(half % 2 == 0, index > turn, index <= turn)
    return tf.where(use_early, early, late), failed
