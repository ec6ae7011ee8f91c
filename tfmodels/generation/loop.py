"""Greedy decoding and sampling as a loop in the graph. Shape letters: b batch, n new tokens, v vocabulary."""

import tensorflow as tf

from tfmodels.generation import sampling


def decode(model, inputs, prompt, lengths, config, rules):
    """Writes tokens after the prompt until each row has written a stop token or its limit.

    Args:
        model: keeps the protocol of `GenerativeModel`.
        inputs: dict for `model.init_cache`.
        prompt: int32 tensor, (batch, prompt_length), the decoder's prompt, padded on the right.
        lengths: int32 tensor, (batch,), real tokens of each prompt, at least 1.
        config: a `GenerationConfig`.
        rules: `TokenRules`.

    Returns:
        int32 tensors: new tokens, (batch, max_new_tokens), the stop token included; how many there are
        in each row, (batch,).
    """
    cache, limits, last_index = prefill(model, inputs, prompt, lengths, config.max_new_tokens)
    batch = tf.shape(prompt)[0]
    first = tf.gather(prompt, lengths - 1, batch_dims=1)  # (b,)

    def body(step, token, written, count, done, cache):
        # A row that is done may stand at the end already: it stays there, to no effect.
        index = tf.minimum(lengths - 1 + step, last_index)
        logits, cache = model.decode_step(token[:, None], cache, index)
        logits = rules.apply(tf.cast(logits[:, 0], tf.float32), step, limits)  # (b, v)
        if config.method == "sample":
            seed = tf.stack([config.seed, step])
            token = sampling.sample(logits, config.temperature, config.top_k, seed)
        else:
            token = sampling.greedy(logits)
        here = (tf.range(config.max_new_tokens) == step)[None] & ~done[:, None]  # (b, n)
        written = tf.where(here, token[:, None], written)
        count = count + tf.cast(~done, tf.int32)
        done = done | rules.ends(token) | (step + 1 >= limits)
        return step + 1, token, written, count, done, cache

    state = (
        tf.constant(0),
        first,
        tf.zeros((batch, config.max_new_tokens), tf.int32),
        tf.zeros_like(lengths),
        limits < 1,
        cache,
    )
    state = tf.while_loop(lambda step, t, w, c, done, k: ~tf.reduce_all(done), body, state)
    return state[2], state[3]


def prefill(model, inputs, prompt, lengths, max_new_tokens):
    """Fills a cache with the prompts.

    All tokens go in but each row's last: it is the first that the loop feeds, so that prompts of
    mixed lengths need no special case: what stands after a row's own prompt in the cache is
    overwritten before any token may see it.

    Returns:
        The cache; each row's room for new tokens, int32 (batch,); the last index of the cache.
    """
    # The last new token is never fed back.
    longest = tf.shape(prompt)[1] + max_new_tokens
    limits = tf.fill(tf.shape(lengths), max_new_tokens)
    max_length = model.config.max_sequence_length
    if max_length is not None:
        longest = tf.minimum(longest, max_length)
        limits = tf.minimum(limits, max_length - lengths + 1)
    cache = model.init_cache(inputs, longest)
    if prompt.shape[1] != 1:
        _, cache = model.decode_step(prompt[:, :-1], cache, 0)
    return cache, limits, longest - 1
