"""BERT's normalisation and pre-tokenisation (Devlin et al. 2018, tokenization.py) on flat arrays.

Clean the text, lower it, strip its accents, cut it at white space and around signs and Chinese characters.
Each step acts on one character, so that one table holds all of them. Two things need more: characters
that become several (Hangul syllables), and marks that stay, which canonical decomposition sorts by class.
"""

import functools

import numpy as np
import tensorflow as tf

from tfmodels.tokenizers import _utf8
from tfmodels.tokenizers._unicode import (
    CODE_POINTS,
    Sequences,
    combining_classes,
    decompositions,
    flags,
    properties,
    sort_marks,
)

# What a character is to the words. A value of the table is character << 2 | kind.
_SPACE, _ALONE, _PART = range(3)
# Values without a character. _GONE leaves no trace; a mark that decomposition does not sort still parts
# those that it does, before it is stripped; _OTHERWISE: see the exceptions.
_GONE, _PARTING, _OTHERWISE = -1, -2, -3


class BertWords(tf.Module):
    """Texts to words.

    Args:
        lowercase: bool.
        strip_accents: bool.
        split_chinese: bool, whether each Chinese character is a word.
    """

    def __init__(self, lowercase, strip_accents, split_chinese, name=None):
        super().__init__(name=name)
        values, sequences = _tables(lowercase, strip_accents, split_chinese)
        self._values = tf.constant(values)
        self._exceptions = Sequences(sequences)  # the characters with value _OTHERWISE

    def split(self, texts):
        """Cuts texts into words.

        Args:
            texts: string tensor, (batch,); bytes that are no UTF-8 vanish, as U+FFFD does.

        Returns:
            (words, splits): int32 ragged tensor of code points, (words, characters), and int64 tensor,
            (batch + 1,): text k has the words from splits[k] to splits[k + 1].
        """
        points, splits = _utf8.decode(texts)  # (characters,), (batch + 1,)
        values = tf.gather(self._values, points)
        values, splits = tf.cond(
            tf.reduce_any(values < 0), lambda: self._rewrite(points, values, splits), lambda: (values, splits)
        )
        points, kinds = tf.bitwise.right_shift(values, 2), values & 3
        before = tf.concat([[_SPACE], kinds[:-1]], 0)
        begins = tf.boolean_mask(splits[:-1], splits[:-1] < splits[1:])
        before = tf.tensor_scatter_nd_update(before, begins[:, None], tf.fill(tf.shape(begins), _SPACE))
        starts = (kinds == _ALONE) | ((kinds == _PART) & (before != _PART))
        seen = tf.concat([[0], tf.cumsum(tf.cast(starts, tf.int64))], 0)
        solid = kinds != _SPACE
        words = tf.RaggedTensor.from_row_starts(
            tf.boolean_mask(points, solid), tf.where(tf.boolean_mask(starts, solid))[:, 0], validate=False
        )
        return words, tf.gather(seen, splits)

    def _rewrite(self, points, values, splits):
        """Values and splits with all characters that vanish or become several."""
        values, classes, splits = tf.cond(
            tf.reduce_any(values == _OTHERWISE),
            lambda: self._replace(points, values, splits),
            lambda: (values, tf.zeros_like(values), splits),
        )
        values, classes, splits = _keep(values != _GONE, values, classes, splits)
        values = tf.cond(
            tf.reduce_any(classes > 0), lambda: sort_marks(values, classes, splits), lambda: values
        )
        values, _, splits = _keep(values != _PARTING, values, classes, splits)
        return values, splits

    def _replace(self, points, values, splits):
        """Values and combining classes with the exceptions' sequences in place, and the new splits."""
        source, is_part, parts, splits = self._exceptions.expand(points, splits)
        # A sequence's elements are value << 8 | class.
        values = tf.where(is_part, tf.bitwise.right_shift(parts, 8), tf.gather(values, source))
        return values, tf.where(is_part, parts & 255, 0), splits


def _keep(which, values, classes, splits):
    seen = tf.concat([[0], tf.cumsum(tf.cast(which, tf.int64))], 0)
    return tf.boolean_mask(values, which), tf.boolean_mask(classes, which), tf.gather(seen, splits)


def _lower_table():
    """The lower case of every character, and a dict of those that become several."""
    table, several = np.arange(CODE_POINTS, dtype=np.int32), {}
    for first, last, targets in properties()["lower"]:
        if len(targets) > 1:
            several[first] = targets
        else:
            table[first : last + 1] = np.arange(targets[0], targets[0] + last - first + 1)
    return table, several


@functools.cache
def _tables(lowercase, strip_accents, split_chinese):
    """The value of every character, and the sequences of the exceptions: value << 8 | combining class."""
    kinds = np.full(CODE_POINTS, _PART, np.int32)
    kinds[flags("punctuation") | (flags("chinese") & split_chinese)] = _ALONE
    kinds[0x20] = _SPACE
    lower, several = _lower_table() if lowercase else (np.arange(CODE_POINTS, dtype=np.int32), {})
    values = lower << 2 | kinds[lower]
    classes = np.zeros(CODE_POINTS, np.int32)
    sequences = {point: [point] for point in several}
    if strip_accents:
        classes = combining_classes()
        marks = flags("mark")
        values[marks & (classes == 0)] = _PARTING
        values[marks & (classes > 0)] = _GONE
        sequences = decompositions() | {int(point): [int(point)] for point in np.flatnonzero(classes)}
    exceptions = {}
    for point, sequence in sequences.items():
        lowered = [x for part in sequence for x in several.get(part, [part])]
        row = [(int(values[part]), int(classes[part])) for part in lowered if values[part] != _GONE]
        # Marks after a character that stays part nothing from it: it is no mark itself.
        if row and row[0][1] == 0 and row[0][0] >= 0 and all(v == _PARTING for v, _ in row[1:]):
            values[point] = row[0][0]
        elif row:
            exceptions[point] = [value << 8 | number for value, number in row]
        else:
            values[point] = _GONE
    values[list(exceptions)] = _OTHERWISE
    values[flags("space")] = 0x20 << 2 | _SPACE
    values[flags("dropped")] = _GONE
    return values, {point: row for point, row in exceptions.items() if values[point] == _OTHERWISE}
