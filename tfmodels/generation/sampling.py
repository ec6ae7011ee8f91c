"""Choosing the next token. Shape letters: b batch, v vocabulary."""

import tensorflow as tf


def greedy(logits):
    """The most probable token: logits (b, v) -> int32 (b,)."""
    return tf.argmax(logits, axis=-1, output_type=tf.int32)


def sample(logits, temperature, top_k, seed):
    """A token drawn from the softmax of the top_k logits over the temperature.

    Args:
        logits: float32 tensor, (batch, vocabulary).
        temperature: float above 0.
        top_k: int, candidates; 0: all.
        seed: int tensor, (2,).

    Returns:
        int32 tensor, (batch,).
    """
    logits = logits / temperature
    if top_k:
        lowest = tf.math.top_k(logits, top_k).values[:, -1:]  # (b, 1)
        logits = tf.where(logits < lowest, -float("inf"), logits)
    # Gumbel-max: the largest of logits plus Gumbel noise is a draw from their softmax.
    uniform = tf.random.stateless_uniform(tf.shape(logits), seed, minval=1e-20, maxval=1.0)
    return greedy(logits - tf.math.log(-tf.math.log(uniform)))
