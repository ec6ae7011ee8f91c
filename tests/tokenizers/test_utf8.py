"""Code points equal those of TensorFlow's own op, which is slower."""

import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmodels.tokenizers import _utf8

_decode = tf.function(_utf8.decode, input_signature=[tf.TensorSpec((None,), tf.string)])
# The edges of each length of a character, and bytes that begin, follow or never occur.
_EDGES = "\x00\x7f\x80\u07ff\u0800\ud7ff\ue000\ufeff\uffff\U00010000\U0010ffff"
_BYTES = [0x41, 0x80, 0x9F, 0xA0, 0xBF, 0xC0, 0xC2, 0xE0, 0xED, 0xF0, 0xF4, 0xF5, 0xFF]
_valid = st.text(st.sampled_from(_EDGES) | st.characters(exclude_categories=["Cs"]), max_size=8).map(
    str.encode
)
_broken = st.lists(st.sampled_from(_BYTES), max_size=6).map(bytes)


@settings(max_examples=1000, deadline=None)
@given(st.lists(_valid, max_size=4) | st.lists(_valid | _broken, max_size=4))
def test_equal_to_tensorflows_own(texts):
    points, splits = _decode(tf.constant(texts, tf.string, shape=(len(texts),)))
    expected = tf.strings.unicode_decode(tf.constant(texts, tf.string, shape=(len(texts),)), "UTF-8")
    assert points.numpy().tolist() == expected.flat_values.numpy().tolist()
    assert splits.numpy().tolist() == expected.row_splits.numpy().tolist()


def test_texts_are_not_joined_at_their_ends():
    """Two halves of one character are valid together, but not in two texts."""
    first, second = b"\xc3", b"\xa9"
    points, splits = _decode([first, second])
    assert points.numpy().tolist() == [0xFFFD, 0xFFFD]
    assert splits.numpy().tolist() == [0, 1, 2]
