"""Special tokens in the text, found before all else."""

import re

import tensorflow as tf

# White space by Unicode, as RE2's \s is ASCII only.
_SPACES = r"[\t-\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]+"
# No valid UTF-8 has this byte.
_MARK = b"\xff"


class SpecialTokens(tf.Module):
    """Finds tokens of a list, of several at one place the longest.

    Args:
        tokens: list of str.
        strip_before: list of str, those of the tokens that swallow the white space before them.
    """

    def __init__(self, tokens, strip_before=(), name=None):
        super().__init__(name=name)
        self._strip_before = [token.encode() for token in strip_before]
        longest_first = sorted(tokens, key=len, reverse=True)
        any_of = "(" + "|".join(re.escape(token) for token in longest_first) + ")"
        self._any = any_of if tokens else None
        self._found = rf"(?s)\C*{any_of}\C*"  # \C is any byte: the text may be no UTF-8

    def cut(self, texts):
        """Cuts texts before and after each special token.

        Args:
            texts: string tensor, (batch,).

        Returns:
            (pieces, is_special, splits): string and bool tensors, (pieces,), and int64 tensor,
            (batch + 1,): text k has the pieces from splits[k] to splits[k + 1].
        """

        def one_piece():
            return texts, tf.zeros_like(texts, tf.bool), tf.range(tf.size(texts, tf.int64) + 1)

        if self._any is None:
            return one_piece()
        found = tf.strings.regex_full_match(texts, self._found)
        return tf.cond(tf.reduce_any(found), lambda: self._cut(texts), one_piece)

    def _cut(self, texts):
        # Valid UTF-8 first, that the mark cannot stand in the text.
        valid = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8")
        marked = tf.strings.regex_replace(valid, self._any, _MARK + rb"\1" + _MARK)
        # Cut at the marks, every second piece of a text is a special token.
        rows = tf.strings.split(marked, _MARK)
        pieces, splits = rows.flat_values, rows.row_splits  # (pieces,), (batch + 1,)
        place = tf.range(tf.size(pieces, tf.int64)) - tf.gather(splits, rows.value_rowids())
        is_special = place % 2 == 1
        if self._strip_before:
            strips = is_special & tf.reduce_any(pieces[:, None] == self._strip_before, 1)
            before = tf.concat([strips[1:], [False]], 0)
            bare = tf.strings.regex_replace(pieces, _SPACES + "$", "")
            pieces = tf.where(before, bare, pieces)
        return pieces, is_special, splits
