"""Choosing the next token. Shape letters: b rows, v vocabulary, n steps."""

import tensorflow as tf

_NEVER = float("-inf")
_WIDTH = 256  # of the blocks in which chances are summed up


def greedy(logits):
    """The most probable token: logits (b, v) -> int32 (b,)."""
    return tf.argmax(logits, axis=-1, output_type=tf.int32)


def uniforms(prompt, lengths, seed, copies, steps):
    """Numbers by which to draw, which depend on the seed and a row's own prompt, or source, alone.

    So a prompt gives the same text whatever else is in its batch.

    Args:
        prompt: int32 tensor, (batch, length), padded on the right.
        lengths: int32 tensor, (batch,).
        seed: int scalar, or (batch * copies, 1).
        copies: int, rows a prompt.
        steps: int scalar, tokens to draw.

    Returns:
        float32 tensor, (batch * copies, steps), from 0 to below 1.
    """
    real = tf.sequence_mask(lengths, tf.shape(prompt)[1])
    # A polynomial of the ids modulo 2^64, of which the bits are mixed below.
    power = tf.math.cumprod(tf.fill(tf.shape(prompt), tf.constant(0x5851F42D4C957F2D, tf.int64)), axis=1)
    ids = tf.cast(tf.where(real, prompt + 1, 0), tf.int64)
    digest = tf.reduce_sum(ids * power, axis=1)  # (b,)
    digest = tf.repeat(digest, copies) + tf.tile(tf.range(copies, dtype=tf.int64), tf.shape(digest))
    seed = tf.reshape(tf.cast(seed, tf.int64), (-1,))
    # SplitMix64 (Steele et al. 2014, figure 16). TensorFlow's generators give other numbers under XLA.
    start = _mixed(_mixed(seed) + digest)[:, None]
    numbers = _mixed(start + tf.range(1, tf.cast(steps, tf.int64) + 1)[None] * _signed(0x9E3779B97F4A7C15))
    return tf.cast(_shifted(numbers, 40), tf.float32) * 2.0**-24  # as many bits as a float holds


def _mixed(x):
    x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shifted(x, 31)


def _shifted(x, places):
    """An int64 as without a sign, shifted to the right."""
    return tf.bitwise.right_shift(x, places) & (2 ** (64 - places) - 1)


def _signed(number):
    return number - 2**64


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
    # Inverse of the distribution function: the first token whose cumulated probability is above. Rounding
    # leaves the whole a little off 1.
    return _first(probabilities, tf.greater, lambda whole: uniform[:, None] * whole)[:, 0]


def _first(chances, reaches, target, start=0.0):
    """The first place of each row at which the sum of its chances (b, v) so far reaches a target.

    Where none does, the place after which nothing is added.

    Args:
        chances: float32 tensor, (b, v), 0 or above.
        reaches: `tf.greater` or `tf.greater_equal`, of sums and targets.
        target: function of the sum of all, (b, 1), that returns a tensor that broadcasts to it.
        start: float32 tensor, (b, 1), to which the chances are added.

    Returns:
        int32 tensor, (b, 1).
    """
    # Block by block, and within that block only: TensorFlow takes five times as long to sum up all of them.
    missing = -chances.shape[1] % _WIDTH
    whole = tf.pad(chances, ((0, 0), (0, missing)))
    blocks = tf.reshape(whole, (-1, whole.shape[1] // _WIDTH, _WIDTH))  # (b, n, w)
    added = tf.pad(tf.reduce_sum(blocks, axis=-1), ((0, 0), (1, 0)))
    sums = start + tf.cumsum(added, axis=-1)  # (b, 1 + n), before each block and after the last
    target = target(sums[:, -1:])

    def place(before, added):
        # Not reached, since blocks are summed up in another order: where something was added last.
        reached = reaches(before + added, target) | (added >= added[:, -1:])
        return tf.argmax(reached, axis=-1, output_type=tf.int32)[:, None]

    block = place(0.0, sums[:, 1:])
    within = tf.cumsum(tf.gather(blocks, block, batch_dims=1)[:, 0], axis=-1)  # (b, w)
    return block * _WIDTH + place(tf.gather(sums, block, batch_dims=1), within)


def filtered(logits, options):
    """Logits with -inf for tokens that the options leave out: (b, v)."""
    if "top_k" in options.active:
        logits = tf.where(_below_top(logits, options.top_k), _NEVER, logits)
    if "top_p" in options.active:
        logits = _fewest(logits, lambda: tf.nn.log_softmax(logits), options.top_p)
    if "min_p" in options.active:
        probabilities = tf.nn.softmax(logits)
        least = options.min_p * tf.reduce_max(probabilities, axis=-1, keepdims=True)
        logits = tf.where(probabilities < least, _NEVER, logits)
    if "typical_p" in options.active:
        logits = _fewest(logits, lambda: _from_typical(logits), options.typical_p)
    return logits


def _below_top(logits, top_k):
    """Whether tokens are below the row's `top_k` highest, a scalar or (b, 1); 0: none is. Bool (b, v)."""
    vocabulary_size = tf.shape(logits)[1]
    count = tf.minimum(tf.where(top_k < 1, vocabulary_size, top_k), vocabulary_size)

    def below():
        # As many as the rows with a limit need: a row without one is left as it is.
        most = tf.reduce_max(tf.where(top_k < 1, 1, count))
        highest = tf.math.top_k(logits, most).values  # (b, most)
        place = tf.broadcast_to(tf.minimum(count, most) - 1, (tf.shape(logits)[0], 1))
        lowest = tf.gather(highest, place, batch_dims=1)  # (b, 1)
        return (logits < lowest) & (top_k >= 1)

    return tf.cond(tf.reduce_any(top_k >= 1), below, lambda: tf.zeros_like(logits, tf.bool))


def _from_typical(logits):
    """How far each token's surprise is above the entropy: (b, v)."""
    surprise = -tf.nn.log_softmax(logits)
    entropy = tf.reduce_sum(tf.math.multiply_no_nan(surprise, tf.nn.softmax(logits)), -1, keepdims=True)
    return surprise - entropy


def _fewest(logits, order, probability):
    """Keeps the tokens of which `order()` (b, v) is nearest to 0, until they have this probability together.

    The token that reaches it is kept, and so is always the first; of equals those that stand first.
    """

    def fewest():
        # Numbers that are not negative are ordered as their bits are: the last one that is kept is found by a
        # third of them at a time, in half the time in which all tokens are sorted.
        bits = tf.bitcast(tf.abs(order()), tf.int32)
        chances = tf.nn.softmax(logits)
        last, before, left = tf.zeros((), tf.int32), tf.zeros((tf.shape(bits)[0], 1)), chances
        for shift, places in ((20, 2**11), (10, 2**10), (0, 2**10)):
            upper = tf.bitwise.right_shift(bits, shift)
            digits = tf.bitwise.bitwise_and(upper, places - 1)
            digit, before = _reaching(left, digits, places, before, probability)
            last = last * places + digit  # (b, 1)
            left = tf.where(upper == last, chances, 0)
        end = _first(left, tf.greater_equal, lambda _: probability, before)  # of equals
        kept = (bits < last) | ((bits == last) & (tf.range(tf.shape(bits)[1]) <= end))
        # A probability of 1 keeps all, whatever rounding makes of the sum.
        return tf.where(kept | (probability >= 1), logits, _NEVER)

    return tf.cond(tf.reduce_any(probability < 1), fewest, lambda: logits)


def _reaching(chances, digits, number, before, probability):
    """The digit, below `number`, at which each row's chances (b, v) reach a probability together.

    Returns:
        int32 (b, 1); and the sum of `before` and the chances of all digits before it, float32 (b, 1).
    """
    # As numbers of one row, of which the op takes half the time of several rows.
    rows = tf.shape(digits)[0]
    digits = tf.reshape(digits + number * tf.range(rows)[:, None], (-1,))
    sums = tf.raw_ops.DenseBincount(input=digits, size=number * rows, weights=tf.reshape(chances, (-1,)))
    sums = before + tf.cumsum(tf.reshape(sums, (-1, number)), axis=-1, exclusive=True)
    digit = tf.reduce_sum(tf.cast(sums < probability, tf.int32), axis=-1, keepdims=True) - 1
    return digit, tf.gather(sums, digit, batch_dims=1)
