"""UTF-8 to code points on flat arrays: several times faster than TensorFlow's own op."""

import tensorflow as tf

_FOLLOWS = 0x80  # the upper two bits of a character's bytes but the first are 10
_LONGEST = 4
# By a character's first byte: how many bytes it has; 0: none begins so.
_SIZES = [1] * 0x80 + [0] * 0x40 + [2] * 0x20 + [3] * 0x10 + [4] * 0x08 + [0] * 0x08
# By its size: the smallest code point, and the bits of the first byte.
_SMALLEST = [0, 0, 0x80, 0x800, 0x10000]
_FIRST_BITS = [0, 0x7F, 0x1F, 0x0F, 0x07]


def decode(texts):
    """Code points of texts.

    Args:
        texts: string tensor, (batch,); bytes that are no UTF-8 become U+FFFD, as by
            `tf.strings.unicode_decode`.

    Returns:
        (points, splits): int32 tensor, (characters,), and int64 tensor, (batch + 1,): text k has the
        characters from splits[k] to splits[k + 1].
    """
    data = tf.io.decode_raw(tf.strings.reduce_join(texts), tf.uint8)  # (bytes,)
    splits = tf.concat([[0], tf.cumsum(tf.cast(tf.strings.length(texts), tf.int64))], 0)
    return tf.cond(
        tf.reduce_all(data < 0x80),
        lambda: (tf.cast(data, tf.int32), splits),
        lambda: _decode_long(texts, data, splits),
    )


def _decode_long(texts, data, splits):
    """Where some characters have several bytes."""
    leads = tf.where(data & 0xC0 != _FOLLOWS)[:, 0]  # (characters,)
    points = tf.cast(tf.gather(data, leads), tf.int32)
    long = tf.where(points >= 0x80)[:, 0]
    padded = tf.concat([tf.cast(data, tf.int32), tf.zeros([_LONGEST], tf.int32)], 0)
    rows = tf.gather(padded, tf.gather(leads, long)[:, None] + range(_LONGEST))  # (long, 4)
    sizes = tf.gather(tf.constant(_SIZES), rows[:, 0])
    # As if all had four bytes; the bits of those that a shorter one lacks are shifted out.
    first = rows[:, 0] & tf.gather(tf.constant(_FIRST_BITS), sizes)
    bits = tf.concat([first[:, None], rows[:, 1:] & 63], 1)
    value = tf.reduce_sum(bits * [1 << 18, 1 << 12, 1 << 6, 1], 1)
    value = tf.bitwise.right_shift(value, 6 * (_LONGEST - sizes))

    in_character = tf.range(1, _LONGEST)[None] < sizes[:, None]
    complete = tf.reduce_all((rows[:, 1:] & 0xC0 == _FOLLOWS) | ~in_character)
    # If each has all its bytes, and there are no others, none is stray.
    none_stray = tf.reduce_sum(sizes - 1) == tf.size(data) - tf.size(leads)
    whole_texts = tf.reduce_all(tf.gather(padded, splits) & 0xC0 != _FOLLOWS)
    smallest = tf.gather(tf.constant(_SMALLEST), sizes)
    surrogate = (value >= 0xD800) & (value <= 0xDFFF)
    is_character = (sizes > 1) & (value >= smallest) & (value <= 0x10FFFF) & ~surrogate
    valid = complete & none_stray & whole_texts & tf.reduce_all(is_character)

    def tolerant():
        characters = tf.strings.unicode_decode(texts, "UTF-8")
        return characters.flat_values, characters.row_splits

    return tf.cond(
        valid,
        lambda: (
            tf.tensor_scatter_nd_update(points, long[:, None], value),
            tf.searchsorted(leads, splits, out_type=tf.int64),
        ),
        tolerant,
    )
