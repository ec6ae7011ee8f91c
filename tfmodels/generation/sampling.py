"""Choosing the next token. Shape letters: b rows, v vocabulary, n steps."""

import tensorflow as tf

_NEVER = float("-inf")


def greedy(logits):
    """The most probable token: logits (b, v) -> int32 (b,)."""
    return tf.argmax(logits, axis=-1, output_type=tf.int32)


def uniforms(prompt, lengths, seed, copies, steps):
    """Numbers by which to draw, which depend on the seed and a row's own prompt alone.

    So a prompt gives the same text whatever else is in its batch.

    Args:
        prompt: int32 tensor, (batch, length), padded on the right.
        lengths: int32 tensor, (batch,).
        seed: int scalar.
        copies: int, rows a prompt.
        steps: int scalar, tokens to draw.

    Returns:
        float32 tensor, (batch * copies, steps), from 0 to below 1.
    """
    real = tf.sequence_mask(lengths, tf.shape(prompt)[1])
    # A polynomial of the ids modulo 2^64; the random generator mixes its bits.
    power = tf.math.cumprod(tf.fill(tf.shape(prompt), tf.constant(0x5851F42D4C957F2D, tf.int64)), axis=1)
    ids = tf.cast(tf.where(real, prompt + 1, 0), tf.int64)
    digest = tf.reduce_sum(ids * power, axis=1)  # (b,)
    digest = tf.repeat(digest, copies) + tf.tile(tf.range(copies, dtype=tf.int64), tf.shape(digest))
    seeds = tf.stack([tf.fill(tf.shape(digest), tf.cast(seed, tf.int64)), digest], axis=1)
    return tf.map_fn(
        lambda each: tf.random.stateless_uniform((steps,), each), seeds, fn_output_signature=tf.float32
    )


def sample(logits, uniform, options):
    """A token drawn from the softmax of the logits that pass the filters.

    The order is the field's: temperature, top_k, top_p, min_p, typical_p, each on what is left.

    Args:
        logits: float32 tensor, (batch, vocabulary).
        uniform: float32 tensor, (batch,), from 0 to below 1.
        options: `Options`.

    Returns:
        int32 tensor, (batch,).
    """
    return draw(tf.nn.softmax(filtered(logits / options.temperature, options)), uniform)


def draw(probabilities, uniform):
    """A token of each row: probabilities (b, v), uniform (b,) -> int32 (b,)."""
    # Inverse of the distribution function: the first token whose cumulated probability is above.
    cumulated = tf.cumsum(probabilities, axis=-1)
    # Rounding leaves the whole a little off 1: scaled, no draw falls behind the last token.
    above = cumulated > uniform[:, None] * cumulated[:, -1:]
    return greedy(tf.cast(above, tf.float32))


def filtered(logits, options):
    """Logits with -inf for tokens that the options leave out: (b, v)."""
    if "top_k" in options.active:
        most = tf.minimum(options.top_k, tf.shape(logits)[1])
        lowest = tf.math.top_k(logits, most).values[:, -1:]  # (b, 1)
        logits = tf.where(logits < lowest, _NEVER, logits)
    if "top_p" in options.active:
        logits = _fewest(logits, -tf.nn.log_softmax(logits), options.top_p)
    if "min_p" in options.active:
        probabilities = tf.nn.softmax(logits)
        least = options.min_p * tf.reduce_max(probabilities, axis=-1, keepdims=True)
        logits = tf.where(probabilities < least, _NEVER, logits)
    if "typical_p" in options.active:
        surprise = -tf.nn.log_softmax(logits)
        entropy = tf.reduce_sum(tf.math.multiply_no_nan(surprise, tf.nn.softmax(logits)), -1, keepdims=True)
        logits = _fewest(logits, tf.abs(surprise - entropy), options.typical_p)
    return logits


def _fewest(logits, order, probability):
    """Keeps the tokens of lowest `order` (b, v) until they have this probability together."""
    ranked = tf.argsort(order, stable=True)  # (b, v)
    ordered = tf.gather(tf.nn.softmax(logits), ranked, batch_dims=1)
    before = tf.cumsum(ordered, axis=-1, exclusive=True)
    # The token that reaches the probability is kept, and so is always the first.
    count = tf.reduce_sum(tf.cast(before < probability, tf.int32), axis=-1, keepdims=True)
    last = tf.gather(ranked, tf.maximum(count - 1, 0), batch_dims=1)  # (b, 1)
    worst = tf.gather(order, last, batch_dims=1)
    # By value, and by place among equals: a second sort to undo the first would cost as much again.
    place = tf.range(tf.shape(logits)[1])[None]
    return tf.where((order < worst) | ((order == worst) & (place <= last)), logits, _NEVER)
