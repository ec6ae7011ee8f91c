"""GPT-2's pre-tokenisation on flat arrays of code points.

The original is one regular expression (GPT-2's encoder.py):

    's|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+

RE2, all that TensorFlow has, knows no look-ahead, and its Unicode tables differ by release. Here each
character has a class from a fixed table, and a word begins where a rule on neighbouring classes says so.
"""

from importlib import resources

import numpy as np
import tensorflow as tf

from tfmodels.tokenizers import _utf8
from tfmodels.tokenizers._rows import repeat

# NONE stands for what is before a text's first character and after its last.
SPACE, LETTER, NUMBER, OTHER, NONE = range(5)
_CODE_POINTS = 0x110000
_BLANK, _APOSTROPHE = 0x20, 0x27


def character_classes():
    """The class of every code point, by Unicode 16.

    Returns:
        uint8 array, (1114112,), of SPACE, LETTER, NUMBER and OTHER.
    """
    numbers = {"space": SPACE, "letter": LETTER, "number": NUMBER}
    classes = np.full(_CODE_POINTS, OTHER, np.uint8)
    file = resources.files("tfmodels.tokenizers") / "character_classes.txt"
    for line in file.read_text(encoding="ascii").splitlines():
        name, first, *last = line.split()
        last = last[0] if last else first
        classes[int(first, 16) : int(last, 16) + 1] = numbers[name]
    return classes


def split_words(texts, whole, classes):
    """Cuts texts into words.

    Args:
        texts: string tensor, (batch,); bytes that are no UTF-8 become U+FFFD.
        whole: bool tensor, (batch,): such a text is one word.
        classes: uint8 tensor, the table of `character_classes`.

    Returns:
        (words, splits): int32 ragged tensor of code points, (words, characters), and int64 tensor,
        (batch + 1,): text k has the words from splits[k] to splits[k + 1].
    """
    points, splits = _utf8.decode(texts)  # (characters,), (batch + 1,)
    begins = tf.boolean_mask(splits[:-1], splits[:-1] < splits[1:])
    first = _mark(begins, tf.size(points))
    starts = _word_starts(points, first, tf.gather(classes, points))
    starts = tf.cond(
        tf.reduce_any(whole),
        lambda: tf.where(repeat(whole, splits[1:] - splits[:-1]), first, starts),
        lambda: starts,
    )
    starts = tf.where(starts)[:, 0]
    words = tf.RaggedTensor.from_row_starts(points, starts, validate=False)
    return words, tf.searchsorted(starts, splits, out_type=tf.int64)


def _word_starts(points, first, classes):
    """Whether a word begins at each character; all arguments and the result are (characters,)."""
    none = tf.constant([NONE], tf.uint8)
    before = tf.where(first, none, tf.concat([none, classes[:-1]], 0))
    after = tf.where(tf.concat([first[1:], [True]], 0), none, tf.concat([classes[1:], none], 0))
    after_blank = (before == SPACE) & (tf.concat([[0], points[:-1]], 0) == _BLANK)
    # A run of spaces leaves its last one to the word that follows: \s+(?!\S). That word takes it only
    # if it is a blank: " ?".
    starts = tf.where(
        classes == SPACE,
        (before != SPACE) | ((after != SPACE) & (after != NONE)),
        tf.where(before == SPACE, ~after_blank, before != classes),
    )
    # A contraction is seen only where a word begins: not inside other signs, not after a blank.
    apostrophes = tf.where((points == _APOSTROPHE) & (before != OTHER) & ~after_blank)[:, 0]
    return _cut_contractions(points, first, starts, apostrophes)


def _cut_contractions(points, first, starts, apostrophes):
    """Makes words of 's 't 'm 'd 're 've 'll at the given positions."""
    # Two more, that every apostrophe has two characters after it; a text that ends there begins anew.
    points = tf.concat([points, [0, 0]], 0)
    first = tf.concat([first, [True, True]], 0)
    one, two = tf.gather(points, apostrophes + 1), tf.gather(points, apostrophes + 2)
    one = tf.where(tf.gather(first, apostrophes + 1), 0, one)
    two = tf.where(tf.gather(first, apostrophes + 2), 0, two)
    short = tf.reduce_any(one[:, None] == [[ord(c) for c in "stmd"]], 1)
    pairs = tf.constant([[ord(c) for c in pair] for pair in ("re", "ve", "ll")])
    long = tf.reduce_any(tf.reduce_all(tf.stack([one, two], 1)[:, None] == pairs, 2), 1)
    found = tf.boolean_mask(apostrophes, short | long)
    ends = found + 2 + tf.boolean_mask(tf.cast(long, tf.int64), short | long)
    starts = tf.concat([starts, [True, True, True]], 0)
    starts = tf.tensor_scatter_nd_update(starts, found[:, None] + 1, tf.zeros_like(found, tf.bool))
    starts = tf.tensor_scatter_nd_update(starts, ends[:, None], tf.ones_like(found, tf.bool))
    return starts[:-3]


def _mark(positions, size):
    """True at the positions, (size,)."""
    marks = tf.zeros([size], tf.bool)
    return tf.tensor_scatter_nd_update(marks, positions[:, None], tf.ones_like(positions, tf.bool))
