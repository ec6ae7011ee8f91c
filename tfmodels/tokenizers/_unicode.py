"""What Unicode says of characters, and sequences of them, on flat arrays of code points.

The tables are those of Hugging Face's tokenizers, whose Unicode releases differ by property: no other
library's agree with them.
"""

import functools
from importlib import resources

import numpy as np
import tensorflow as tf

from tfmodels.tokenizers._rows import repeat

CODE_POINTS = 0x110000
# Unicode 3.12: a syllable is lead, vowel, and perhaps a tail.
_SYLLABLES, _LEADS, _VOWELS, _TAILS = range(0xAC00, 0xD7A4), 0x1100, 0x1161, 0x11A7


@functools.cache
def properties():
    """The lines of bert_characters.txt: dict from property to list of (first, last, arguments)."""
    properties = {}
    file = resources.files("tfmodels.tokenizers") / "bert_characters.txt"
    for line in file.read_text(encoding="ascii").splitlines():
        name, characters, *arguments = line.split()
        first, _, last = characters.partition("-")
        row = (int(first, 16), int(last or first, 16), [int(x, 16) for x in arguments])
        properties.setdefault(name, []).append(row)
    return properties


def flags(name):
    flags = np.zeros(CODE_POINTS, bool)
    for first, last, _ in properties()[name]:
        flags[first : last + 1] = True
    return flags


def decompositions():
    """Dict from a character to those of its canonical decomposition."""
    sequences = {first: arguments for first, _, arguments in properties()["decomposed"]}
    for index, point in enumerate(_SYLLABLES):
        lead, rest = divmod(index, 588)
        vowel, tail = divmod(rest, 28)
        sequences[point] = [_LEADS + lead, _VOWELS + vowel, *([_TAILS + tail] if tail else [])]
    return sequences


def combining_classes():
    """The combining class of every character: int32 array, (1114112,)."""
    classes = np.zeros(CODE_POINTS, np.int32)
    for first, last, (number,) in properties()["combining"]:
        classes[first : last + 1] = number
    return classes


class Sequences(tf.Module):
    """Characters that become several.

    Args:
        sequences: dict from a code point to a list of int, what it becomes.
    """

    def __init__(self, sequences, name=None):
        super().__init__(name=name)
        points = sorted(sequences)
        self._points = tf.constant(points, tf.int32)
        rows = tf.ragged.constant([sequences[point] for point in points], tf.int32, ragged_rank=1)
        self._parts, self._splits = rows.flat_values, tf.cast(rows.row_splits, tf.int64)

    def expand(self, points, splits):
        """Makes room for them.

        Args:
            points: int32 tensor, (characters,), code points of all texts.
            splits: int64 tensor, (batch + 1,): text k has those from splits[k] to splits[k + 1].

        Returns:
            (source, is_part, parts, splits): for each place of the new texts the place that it comes from,
            whether that character has become several, and which of them this is; and the new splits.
        """
        row = tf.minimum(tf.searchsorted(self._points, points), tf.size(self._points) - 1)
        found = tf.gather(self._points, row) == points
        begins = tf.gather(self._splits, row)
        lengths = tf.where(found, tf.gather(self._splits, row + 1) - begins, 1)
        ends = tf.concat([[0], tf.cumsum(lengths)], 0)
        source = repeat(tf.range(tf.size(points, tf.int64)), lengths)
        at = tf.range(ends[-1]) - tf.gather(ends, source) + tf.gather(begins, source)
        at = tf.clip_by_value(at, 0, tf.size(self._parts, tf.int64) - 1)
        return source, tf.gather(found, source), tf.gather(self._parts, at), tf.gather(ends, splits)


def sort_marks(values, classes, splits):
    """Sorts each run of marks by combining class (Unicode 3.11, D109); a run ends with its text."""
    run = tf.cumsum(tf.cast(classes == 0, tf.int64))
    texts = tf.size(splits, tf.int64) - 1
    text = repeat(tf.range(texts), splits[1:] - splits[:-1])
    at = tf.where(classes > 0)[:, 0]
    # Both counts ascend along the text, and so does their sum.
    keys = tf.gather(run + text, at) * 256 + tf.cast(tf.gather(classes, at), tf.int64)
    order = tf.argsort(keys, stable=True)
    return tf.tensor_scatter_nd_update(values, at[:, None], tf.gather(values, tf.gather(at, order)))
