"""Pre-tokenisation on flat arrays of code points.

The originals are regular expressions, GPT-2's (encoder.py) and Llama 3's, which Qwen2 shares:

    's|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+

    (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*
    |\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+

RE2, all that TensorFlow has, knows no look-ahead, and its Unicode tables differ by release. Here each
character has a class from a fixed table, and a word begins where a rule on neighbouring classes says so.
"""

import functools
from importlib import resources

import numpy as np
import tensorflow as tf

from tfmodels.tokenizers._rows import repeat

# NONE stands for what is before a text's first character and after its last.
SPACE, LETTER, NUMBER, OTHER, NONE = range(5)
_CODE_POINTS = 0x110000
_BLANK, _APOSTROPHE = 0x20, 0x27
_LONG_S = 0x17F  # the one letter beside S that is an "s" where case does not count


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


def split_words(points, splits, whole, classes, rules):
    """Cuts texts into words.

    Args:
        points: int32 tensor, (characters,), code points of all texts.
        splits: int64 tensor, (batch + 1,): text k has those from splits[k] to splits[k + 1].
        whole: bool tensor, (batch,): such a text is one word.
        classes: uint8 tensor, the table of `character_classes`.
        rules: str, one of `RULES`.

    Returns:
        (words, splits): int32 ragged tensor of code points, (words, characters), and int64 tensor,
        (batch + 1,): text k has the words from splits[k] to splits[k + 1].
    """
    begins = tf.boolean_mask(splits[:-1], splits[:-1] < splits[1:])
    first = _mark(begins, tf.size(points))
    starts = RULES[rules](points, first, tf.gather(classes, points))
    starts = tf.cond(
        tf.reduce_any(whole),
        lambda: tf.where(repeat(whole, splits[1:] - splits[:-1]), first, starts),
        lambda: starts,
    )
    starts = tf.where(starts)[:, 0]
    words = tf.RaggedTensor.from_row_starts(points, starts, validate=False)
    return words, tf.searchsorted(starts, splits, out_type=tf.int64)


def _gpt2_starts(points, first, classes):
    """Whether a word begins at each character; all arguments and the result are (characters,)."""
    before, after = _neighbours(first, classes)
    after_blank = (before == SPACE) & (_previous(points) == _BLANK)
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


def _single_digit_starts(points, first, classes):
    """As by GPT-2's, of the texts that digits, each a word, leave between them."""
    return _gpt2_starts(points, first | (classes == NUMBER), classes)


def _llama3_starts(points, first, classes, digits=3):
    """As above; of digits at most so many are a word."""
    before, after = _neighbours(first, classes)
    place = tf.range(tf.size(points, tf.int64))
    run_starts = before != classes
    run = tf.cumsum(tf.cast(run_starts, tf.int64)) - 1
    head = tf.gather(tf.where(run_starts)[:, 0], run)  # of each character's run

    newline = (points == ord("\n")) | (points == ord("\r"))
    after_newline = _previous(newline) & ~first
    # Signs take the lines' ends right after them: [\r\n]*.
    other_space = tf.where((classes == SPACE) & ~newline, place, tf.size(points, tf.int64))
    other_space = tf.gather(tf.math.segment_min(other_space, run), run)
    taken = newline & (tf.gather(before, head) == OTHER) & (place < other_space)
    # The rest of a run is one word up to its last line's end. What is after it leaves its last space.
    last_newline = tf.gather(tf.math.segment_max(tf.where(newline, place, -1), run), run)
    space_starts = tf.where(
        place <= last_newline,
        ~taken & ((before != SPACE) | (_previous(taken) & ~first)),
        (before != SPACE) | after_newline | ((after != SPACE) & (after != NONE)),
    )
    # Signs take a blank. One sign alone, with none, or any space but a line's end is the letters' after it.
    sign_starts = (before != OTHER) & ((before != SPACE) | (_previous(points) != _BLANK))
    letter_starts = tf.where(before == OTHER, ~_previous(sign_starts), after_newline | (before == NUMBER))
    starts = tf.where(classes == LETTER, letter_starts | first, sign_starts)
    starts = tf.where(classes == NUMBER, (place - head) % digits == 0, starts)
    starts = tf.where(classes == SPACE, space_starts, starts)
    apostrophes = tf.where((points == _APOSTROPHE) & sign_starts & (after == LETTER))[:, 0]
    lower = tf.where((points >= ord("A")) & (points <= ord("Z")), points + 32, points)
    lower = tf.where(points == _LONG_S, ord("s"), lower)
    return _cut_contractions(lower, first, starts, apostrophes)


# The names of the rules -> which characters begin a word.
RULES = {
    "gpt2": _gpt2_starts,
    "gpt2_digits": _single_digit_starts,
    "llama3": _llama3_starts,
    "qwen2": functools.partial(_llama3_starts, digits=1),
}


def _previous(values):
    """The value before each, (characters,); before the first one that of the last."""
    return tf.roll(values, 1, 0)


def _neighbours(first, classes):
    """The classes before and after each character, NONE beyond a text's ends."""
    before = tf.where(first, tf.constant(NONE, tf.uint8), _previous(classes))
    last = tf.concat([first[1:], [True]], 0)
    return before, tf.where(last, tf.constant(NONE, tf.uint8), tf.roll(classes, -1, 0))


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
