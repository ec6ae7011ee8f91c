"""Rows of different lengths, one after another, in time and memory linear in all of them."""

import tensorflow as tf


def repeat(values, lengths):
    """`tf.repeat`, whose own mask takes rows times the longest of them.

    Args:
        values: tensor, (rows, ...).
        lengths: int64 tensor, (rows,).

    Returns:
        Tensor, (sum of lengths, ...).
    """
    ends = tf.cumsum(lengths)
    total = tf.reduce_sum(lengths)
    # A place is in the row whose number is that of the ends up to it.
    ended = tf.scatter_nd(ends[:, None], tf.ones_like(ends), tf.reshape(total + 1, [1]))
    return tf.gather(values, tf.cumsum(ended[:-1]))


def take(pool, begins, lengths):
    """Slices of a pool after each other, and their splits, (slices + 1,)."""
    at = tf.ragged.range(begins, begins + lengths)
    return tf.gather(pool, at.values), at.row_splits
