"""Beam search in the graph.

Shape letters: b batch, k beams, c candidates, t tokens of prompt and text, n new tokens, v vocabulary.
"""

import tensorflow as tf

from tfmodels.generation.loop import prefill, put, repeat, written
from tfmodels.generation.rules import adjust

_NEVER = -1e9  # a score below any real one, finite so that it adds and multiplies


def beam_search(model, inputs, prompt, lengths, options, rules):
    """The best of `num_beams` hypotheses, kept side by side with those that have ended.

    A hypothesis ends with a stop token; its score is its log-probability / length ** length_penalty,
    the end counted. A row stops when no open beam can beat its worst ended hypothesis any more
    (for a penalty of 0 or more, by the open beam's score at its present length).

    Args:
        model: keeps the protocol of `GenerativeModel`.
        inputs: dict for `model.init_cache`.
        prompt: int32 tensor, (batch, prompt_length), the decoder's prompt, padded on the right.
        lengths: int32 tensor, (batch,), real tokens of each prompt, at least 1.
        options: `Options`.
        rules: `TokenRules`.

    Returns:
        As `loop.decode`: of each row the `num_return_sequences` best, best first.
    """
    beams, new_tokens = options.num_beams, options.max_new_tokens
    cache, limits, last_index = prefill(model, inputs, prompt, lengths, options)
    beam_options = options.repeated(beams)
    batch = tf.shape(prompt)[0]
    cache, prompts, starts, all_limits = repeat((cache, prompt, lengths, limits), beams)
    candidates = beams * (1 + max(len(rules.stop), 1))
    empty = {"tokens": tf.reshape(tf.pad(prompts, ((0, 0), (0, new_tokens))), (batch, beams, -1))}
    if options.return_scores:
        empty["log_probabilities"] = tf.zeros((batch, beams, new_tokens))

    def penalised(log_probability, length):
        return log_probability / tf.cast(length, tf.float32) ** options.length_penalty

    def extended(step, open_, own, parent, token):
        """The candidates' histories (b, c, ...): the parents' with one token more."""
        flat = {name: tf.gather(open_[name], parent, batch_dims=1) for name in empty}  # (b, c, ...)
        width = tf.shape(token)[1]
        row = {name: tf.reshape(value, (batch * width, -1)) for name, value in flat.items()}
        everywhere = tf.ones(batch * width, tf.bool)
        position = tf.repeat(lengths + step, width)
        row["tokens"] = put(row["tokens"], position, tf.reshape(token, (-1,)), everywhere)
        if options.return_scores:
            chosen = tf.gather(tf.reshape(own, (batch, -1)), parent * own.shape[-1] + token, batch_dims=1)
            row["log_probabilities"] = put(
                row["log_probabilities"],
                tf.fill((batch * width,), step),
                tf.reshape(chosen, (-1,)),
                everywhere,
            )
        return {name: tf.reshape(value, (batch, width, -1)) for name, value in row.items()}

    def body(step, token, open_, ended, done, cache):
        index = tf.minimum(starts - 1 + step, last_index)
        logits, cache = model.decode_step(token[:, None], cache, index)
        vocabulary = logits.shape[-1]
        own = tf.nn.log_softmax(tf.cast(logits[:, 0], tf.float32))  # (b * k, v)
        history = tf.reshape(open_["tokens"], (batch * beams, -1))
        scores = adjust(own, history, starts + step, step, all_limits, beam_options, rules)
        total = open_["score"][:, :, None] + tf.reshape(scores, (batch, beams, vocabulary))
        # So many candidates that enough stay open even if each beam's stop tokens are among them.
        score, flat = tf.math.top_k(tf.reshape(total, (batch, beams * vocabulary)), candidates)
        parent, token = flat // vocabulary, flat % vocabulary  # (b, c)
        histories = extended(step, open_, own, parent, token)
        # At its limit of length a hypothesis counts as ended.
        last = (step + 1 >= limits)[:, None]
        stopped = rules.ends(token)
        ends = stopped | last

        # Only candidates among the best k may end: those below would not have been beams.
        can_end = ends & (tf.range(candidates) < beams) & ~done[:, None]
        new = {
            "score": tf.where(can_end, penalised(score, step + 1), _NEVER),
            "length": tf.fill(tf.shape(token), step + 1),
            "stopped": stopped,
            **histories,
        }
        ended = _best(beams, **{name: tf.concat([ended[name], new[name]], 1) for name in ended})
        open_ = _best(beams, score=tf.where(ends, _NEVER, score), parent=parent, token=token, **histories)
        parent = open_.pop("parent")
        token = tf.reshape(open_.pop("token"), (-1,))
        order = tf.reshape(tf.range(batch)[:, None] * beams + parent, (-1,))
        cache = tf.nest.map_structure(lambda leaf: tf.gather(leaf, order), cache)
        attainable = penalised(open_["score"][:, :1], step + 1)[:, 0]
        worst = tf.reduce_min(ended["score"], axis=1)
        done = done | last[:, 0] | (attainable <= worst)
        if options.early_stopping:
            done = done | (worst > _NEVER)
        return step + 1, token, open_, ended, done, cache

    state = (
        tf.constant(0),
        tf.gather(prompts, starts - 1, batch_dims=1),
        # All beams begin alike: only the first may be extended.
        {"score": tf.repeat(tf.constant([[0.0] + [_NEVER] * (beams - 1)]), batch, axis=0), **empty},
        {
            "score": tf.fill((batch, beams), _NEVER),
            "length": tf.zeros((batch, beams), tf.int32),
            "stopped": tf.zeros((batch, beams), tf.bool),
            **empty,
        },
        limits < 1,
        cache,
    )
    state = tf.while_loop(lambda step, t, o, e, done, c: ~tf.reduce_all(done), body, state)
    return _returned(state[3], lengths, options)


def _returned(ended, lengths, options):
    """The best ended hypotheses of each row as rows of their own."""
    copies, new_tokens = options.num_return_sequences, options.max_new_tokens
    flat = {}
    for name, value in ended.items():
        value = value[:, :copies]
        flat[name] = tf.reshape(value, tf.concat([[-1], tf.shape(value)[2:]], 0))
    result = {
        "token_ids": written(flat["tokens"], repeat(lengths, copies), flat["length"], new_tokens),
        "lengths": flat["length"],
        "stopped": flat["stopped"],
    }
    if options.return_scores:
        real = tf.sequence_mask(flat["length"], new_tokens, tf.float32)
        result["log_probabilities"] = flat["log_probabilities"] * real
    return result


def _best(count, score, **values):
    """The `count` best hypotheses, best first: score (b, m), values (b, m, ...)."""
    score, index = tf.math.top_k(score, count)
    return {
        "score": score,
        **{name: tf.gather(value, index, batch_dims=1) for name, value in values.items()},
    }
