"""Greedy decoding and sampling as a loop in the graph. Shape letters: b batch, n new tokens, v vocabulary."""

import tensorflow as tf

from tfmodels.generation import sampling


def decode(model, inputs, prompt, lengths, config, end_id):
    """Writes tokens after the prompt until each row has written `end_id` or its limit.

    Args:
        model: keeps the protocol of `GenerativeModel`.
        inputs: dict for `model.init_cache`.
        prompt: int32 tensor, (batch, prompt_length), the decoder's prompt, padded on the right.
        lengths: int32 tensor, (batch,), real tokens of each prompt, at least 1.
        config: a `GenerationConfig`.
        end_id: int, or -1 for none.

    Returns:
        int32 tensors: new tokens, (batch, max_new_tokens), `end_id` included; how many there are
        in each row, (batch,).
    """
    cache, limits = prefill(model, inputs, prompt, lengths, config.max_new_tokens)
    batch = tf.shape(prompt)[0]
    first = tf.gather(prompt, lengths - 1, batch_dims=1)  # (b,)

    def body(step, token, written, count, done, cache):
        # A row that is done may stand at the end already: it stays there, to no effect.
        index = tf.minimum(lengths - 1 + step, model.config.max_sequence_length - 1)
        logits, cache = model.decode_step(token[:, None], cache, index)
        logits = tf.cast(logits[:, 0], tf.float32)  # (b, v)
        if config.method == "sample":
            seed = tf.stack([config.seed, step])
            token = sampling.sample(logits, config.temperature, config.top_k, seed)
        else:
            token = sampling.greedy(logits)
        here = (tf.range(config.max_new_tokens) == step)[None] & ~done[:, None]  # (b, n)
        written = tf.where(here, token[:, None], written)
        count = count + tf.cast(~done, tf.int32)
        done = done | (token == end_id) | (step + 1 >= limits)
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
    """The cache after all prompt tokens but each row's last, and each row's room for new tokens.

    The last token is the first that the loop feeds, so that prompts of mixed lengths need no
    special case: what stands after a row's own prompt in the cache is overwritten before any
    token may see it.
    """
    # The last new token is never fed back.
    longest = tf.minimum(tf.shape(prompt)[1] + max_new_tokens, model.config.max_sequence_length)
    cache = model.init_cache(inputs, longest)
    if prompt.shape[1] != 1:
        _, cache = model.decode_step(prompt[:, :-1], cache, 0)
    return cache, tf.minimum(model.config.max_sequence_length - lengths + 1, max_new_tokens)
