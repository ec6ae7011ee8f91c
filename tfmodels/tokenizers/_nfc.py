"""Unicode's composed form, NFC (Unicode 3.11), in core ops on flat arrays of code points."""

import functools
import unicodedata

import numpy as np
import tensorflow as tf

from tfmodels.tokenizers._unicode import (
    CODE_POINTS,
    Sequences,
    combining_classes,
    decompositions,
    sort_marks,
)

_POINT_BITS = 21


class Composer(tf.Module):
    """Texts to their composed form."""

    def __init__(self, name=None):
        super().__init__(name=name)
        sequences, pairs, classes = decompositions(), composed_pairs(), combining_classes()
        self._sequences, self._classes = Sequences(sequences), tf.constant(classes)
        keys = [first << _POINT_BITS | second for first, second in pairs]
        self._pairs = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(
                tf.constant(keys, tf.int64), tf.constant(list(pairs.values()), tf.int32)
            ),
            default_value=-1,
        )
        # Characters that may not stay as they are: a text without them is composed.
        changing = np.zeros(CODE_POINTS, bool)
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
        source, is_part, parts, splits = self._sequences.expand(points, splits)
        points = tf.where(is_part, parts, tf.gather(points, source))
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
def composed_pairs():
    """Dict from each pair of characters that become one to that one."""
    sequences = decompositions()
    whole = {tuple(parts): point for point, parts in sequences.items() if _is_composed(point)}
    pairs = {}
    for parts, point in whole.items():
        if len(parts) > 1:
            rest = parts[:-1]
            pairs[rest[0] if len(rest) == 1 else whole[rest], parts[-1]] = point
    return pairs


def _is_composed(point):
    """Whether composition makes this character (Unicode's composition exclusions, which never change)."""
    return unicodedata.normalize("NFC", chr(point)) == chr(point)
