"""Beam search in the graph. Shape letters: b batch, k beams, n new tokens, v vocabulary."""

import tensorflow as tf

from tfmodels.generation.loop import prefill

_NEVER = -1e9  # a score below any real one, finite so that it adds and multiplies


def beam_search(model, inputs, prompt, lengths, config, rules):
    """The best of `num_beams` hypotheses, kept side by side with those that have ended.

    A hypothesis ends with a stop token; its score is its log-probability / length ** length_penalty,
    the end counted. A row stops when no open beam can beat its worst ended hypothesis any more
    (for a penalty of 0 or more, by the open beam's score at its present length).

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
    beams, new_tokens = config.num_beams, config.max_new_tokens
    cache, limits, last_index = prefill(model, inputs, prompt, lengths, new_tokens)
    cache = tf.nest.map_structure(lambda leaf: tf.repeat(leaf, beams, axis=0), cache)
    candidates = beams * (1 + max(len(rules.stop), 1))
    batch = tf.shape(prompt)[0]
    first = tf.gather(prompt, lengths - 1, batch_dims=1)
    start = tf.repeat(lengths - 1, beams, axis=0)  # (b * k)

    def penalised(log_probability, length):
        return log_probability / tf.cast(length, tf.float32) ** config.length_penalty

    def body(step, token, open_, ended, done, cache):
        index = tf.minimum(start + step, last_index)
        logits, cache = model.decode_step(token[:, None], cache, index)
        vocabulary = logits.shape[-1]
        log_probabilities = tf.nn.log_softmax(tf.cast(logits[:, 0], tf.float32))  # (b * k, v)
        log_probabilities = rules.apply(log_probabilities, step, tf.repeat(limits, beams, axis=0))
        total = open_["score"][:, :, None] + tf.reshape(log_probabilities, (batch, beams, vocabulary))
        # So many candidates that enough stay open even if each beam's stop tokens are among them.
        score, flat = tf.math.top_k(tf.reshape(total, (batch, beams * vocabulary)), candidates)
        parent, token = flat // vocabulary, flat % vocabulary  # (b, c)
        tokens = tf.gather(open_["tokens"], parent, batch_dims=1)  # (b, c, n)
        tokens = tf.where(tf.range(new_tokens) == step, token[:, :, None], tokens)
        # At its limit of length a hypothesis counts as ended.
        last = (step + 1 >= limits)[:, None]
        ends = rules.ends(token) | last

        # Only candidates among the best k may end: those below would not have been beams.
        can_end = ends & (tf.range(candidates) < beams) & ~done[:, None]
        ended_score = tf.where(can_end, penalised(score, step + 1), _NEVER)
        length = tf.fill(tf.shape(token), step + 1)
        ended = _best(
            beams,
            score=tf.concat([ended["score"], ended_score], 1),
            tokens=tf.concat([ended["tokens"], tokens], 1),
            length=tf.concat([ended["length"], length], 1),
        )
        open_ = _best(beams, score=tf.where(ends, _NEVER, score), tokens=tokens, parent=parent, token=token)
        parent = open_.pop("parent")
        token = tf.reshape(open_.pop("token"), (-1,))
        order = tf.reshape(tf.range(batch)[:, None] * beams + parent, (-1,))
        cache = tf.nest.map_structure(lambda leaf: tf.gather(leaf, order), cache)
        attainable = penalised(open_["score"][:, 0], step + 1)
        worst = tf.reduce_min(ended["score"], axis=1)
        done = done | last[:, 0] | (attainable <= worst)
        if config.early_stopping:
            done = done | (worst > _NEVER)
        return step + 1, token, open_, ended, done, cache

    empty = tf.zeros((batch, beams, new_tokens), tf.int32)
    state = (
        tf.constant(0),
        tf.repeat(first, beams, axis=0),
        # All beams begin alike: only the first may be extended.
        {
            "score": tf.repeat(tf.constant([[0.0] + [_NEVER] * (beams - 1)]), batch, axis=0),
            "tokens": empty,
        },
        {
            "score": tf.fill((batch, beams), _NEVER),
            "tokens": empty,
            "length": tf.zeros((batch, beams), tf.int32),
        },
        limits < 1,
        cache,
    )
    state = tf.while_loop(lambda step, t, o, e, done, c: ~tf.reduce_all(done), body, state)
    ended = state[3]
    return ended["tokens"][:, 0], ended["length"][:, 0]


def _best(count, score, **values):
    """The `count` best hypotheses, best first: score (b, m), values (b, m, ...)."""
    score, index = tf.math.top_k(score, count)
    return {
        "score": score,
        **{name: tf.gather(value, index, batch_dims=1) for name, value in values.items()},
    }
