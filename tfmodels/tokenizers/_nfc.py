"""Unicode's composed form, NFC (Unicode 3.11), in core ops on flat arrays of code points."""

import functools
import unicodedata

import numpy as np
import tensorflow as tf

from tfmodels.tokenizers._bert_text import decompositions, properties, sort_marks
from tfmodels.tokenizers._rows import repeat

_CODE_POINTS, _POINT_BITS = 0x110000, 21


class Composer(tf.Module):
    """Texts to their composed form."""

    def __init__(self, name=None):
        super().__init__(name=name)
        pairs, classes = _tables()
        sequences = decompositions()
        self._classes = tf.constant(classes)
        self._decomposed = tf.constant(sorted(sequences), tf.int32)
        rows = tf.ragged.constant([sequences[point] for point in sorted(sequences)], tf.int32)
        self._parts, self._part_splits = rows.flat_values, tf.cast(rows.row_splits, tf.int64)
        keys = [first << _POINT_BITS | second for first, second in pairs]
        self._pairs = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(
                tf.constant(keys, tf.int64), tf.constant(list(pairs.values()), tf.int32)
            ),
            default_value=-1,
        )
        # Characters that may not stay as they are: a text without them is composed.
        changing = np.zeros(_CODE_POINTS, bool)
        changing[[second for _, second in pairs]] = True
        changing[list(set(sequences) - set(pairs.values()))] = True
        changing[classes > 0] = True
        self._changing = tf.constant(changing)

    def compose(self, points, splits):
        """Composes texts.

        Args:
            points: int32 tensor, (characters,), code points of all texts.
            splits: int64 tensor, (batch + 1,): text k has those from splits[k] to splits[k + 1].

        Returns:
            Both, of the composed texts.
        """
        return tf.cond(
            tf.reduce_any(tf.gather(self._changing, points)),
            lambda: self._compose(*self._decompose(points, splits)),
            lambda: (points, splits),
        )

    def _decompose(self, points, splits):
        place = tf.minimum(tf.searchsorted(self._decomposed, points), tf.size(self._decomposed) - 1)
        found = tf.gather(self._decomposed, place) == points
        begins = tf.gather(self._part_splits, place)
        lengths = tf.where(found, tf.gather(self._part_splits, place + 1) - begins, 1)
        ends = tf.concat([[0], tf.cumsum(lengths)], 0)
        source = repeat(tf.range(tf.size(points, tf.int64)), lengths)
        at = tf.range(ends[-1]) - tf.gather(ends, source) + tf.gather(begins, source)
        at = tf.clip_by_value(at, 0, tf.size(self._parts, tf.int64) - 1)
        points = tf.where(tf.gather(found, source), tf.gather(self._parts, at), tf.gather(points, source))
        splits = tf.gather(ends, splits)
        return sort_marks(points, tf.gather(self._classes, points), splits), splits

    def _compose(self, points, splits):
        points, splits, _ = tf.while_loop(
            lambda points, splits, more: more,
            self._compose_once,
            (points, splits, tf.constant(True)),
            shape_invariants=(tf.TensorShape([None]), splits.shape, tf.TensorShape([])),
        )
        return points, splits

    def _compose_once(self, points, splits, _):
        """Gives each starter the first mark that it can take, and says whether any took one.

        In Unicode's table no composed starter takes a mark that the one before it could not take in their
        order, and none that goes into the one before it takes marks itself: rounds need no more memory.
        """
        size = tf.size(points, tf.int64)
        place, classes = tf.range(size), tf.gather(self._classes, points)
        begins = tf.boolean_mask(splits[:-1], splits[:-1] < splits[1:])
        first = tf.tensor_scatter_nd_update(
            tf.zeros([size], tf.bool), begins[:, None], tf.ones_like(begins, tf.bool)
        )
        heads = (classes == 0) | first
        number = tf.cumsum(tf.cast(heads, tf.int64)) - 1
        number = tf.maximum(tf.where(heads, number - 1, number), 0)
        starter = tf.gather(tf.where(heads)[:, 0], number)  # the last one before each character
        # Between them may be marks of lower classes only.
        free = (starter == place - 1) | ((classes > 0) & (tf.roll(classes, 1, 0) < classes))
        keys = tf.gather(points, starter), points
        keys = tf.bitwise.left_shift(tf.cast(keys[0], tf.int64), _POINT_BITS) | tf.cast(keys[1], tf.int64)
        made = self._pairs.lookup(keys)
        fits = free & ~first & (made >= 0)
        chosen = tf.math.unsorted_segment_min(tf.where(fits, place, size), starter, size)
        goes = fits & (place == tf.gather(chosen, starter))
        at = tf.boolean_mask(starter, goes)
        points = tf.tensor_scatter_nd_update(points, at[:, None], tf.boolean_mask(made, goes))
        seen = tf.concat([[0], tf.cumsum(tf.cast(~goes, tf.int64))], 0)
        return tf.boolean_mask(points, ~goes), tf.gather(seen, splits), tf.reduce_any(goes)


@functools.cache
def _tables():
    """Dict from a pair of characters to what they become, and the combining class of every character."""
    sequences = decompositions()
    whole = {tuple(parts): point for point, parts in sequences.items() if _is_composed(point)}
    pairs = {}
    for parts, point in whole.items():
        if len(parts) > 1:
            rest = parts[:-1]
            pairs[rest[0] if len(rest) == 1 else whole[rest], parts[-1]] = point
    classes = np.zeros(_CODE_POINTS, np.int32)
    for first, last, (number,) in properties()["combining"]:
        classes[first : last + 1] = number
    return pairs, classes


def _is_composed(point):
    """Whether composition makes this character (Unicode's composition exclusions, which never change)."""
    return unicodedata.normalize("NFC", chr(point)) == chr(point)
