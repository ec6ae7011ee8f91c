"""Contrastive search in the graph.

Shape letters: b rows, k candidates, t tokens of prompt and text, d hidden_dim, v vocabulary.
"""

import tensorflow as tf

from tfmodels.generation import loop
from tfmodels.generation.rules import adjust


def contrastive_search(model, inputs, prompt, lengths, options, rules):
    """Writes probable tokens whose hidden states are unlike those before (Su et al. 2022, section 3.2).

    Of the `top_k` candidates it is the one with the highest (1 - alpha) * probability - alpha *
    likeness, which is the greatest cosine between its hidden state and those of all tokens before it. At the
    model's `max_sequence_length` a last token has no hidden state: it is the most probable one.

    Args and returns as of `loop.decode`.
    """
    state = begin(model, inputs, prompt, lengths, options)
    (state,) = tf.while_loop(
        lambda state: ~tf.reduce_all(state["done"]),
        lambda state: (advance(model, state, options, rules),),
        (state,),
    )
    return loop.finish(state, options)


def begin(model, inputs, prompt, lengths, options):
    """The state before the first token: that of `loop.begin`, with logits and hidden states."""
    state = loop.begin(model, inputs, prompt, lengths, options)
    logits, state["cache"], hidden = model.decode_step(prompt, state["cache"], 0, return_hidden=True)
    state["logits"] = tf.cast(tf.gather(logits, lengths - 1, batch_dims=1), tf.float32)  # (b, v)
    state["hidden"] = tf.pad(_unit(hidden), ((0, 0), (0, options.max_new_tokens), (0, 0)))  # (b, t, d)
    return state


def advance(model, state, options, rules):
    """The state after one token more in each row that has not ended."""
    step, count, logits = state["step"], state["lengths"] + state["step"], state["logits"]
    scores = adjust(logits, state["history"], count, step, state["limits"], options, rules)
    candidates = tf.minimum(options.top_k, logits.shape[-1])
    probability, tokens = tf.math.top_k(tf.nn.softmax(scores), candidates)  # (b, k)

    def repeated(leaf):
        return tf.repeat(leaf, candidates, axis=0)

    index = repeated(tf.minimum(count, state["last_index"]))
    following, cache, hidden = model.decode_step(
        tf.reshape(tokens, (-1, 1)),
        tf.nest.map_structure(repeated, state["cache"]),
        index,
        return_hidden=True,
    )
    rows = tf.shape(tokens)[0]
    hidden = tf.reshape(_unit(hidden), (rows, candidates, hidden.shape[-1]))  # (b, k, d)
    cosine = tf.matmul(hidden, state["hidden"], transpose_b=True)  # (b, k, t)
    before = tf.sequence_mask(count, tf.shape(cosine)[2]) & (count <= state["last_index"])[:, None]
    before = before[:, None]
    likeness = tf.reduce_max(tf.where(before, cosine, -1.0), axis=-1)
    alpha = options.penalty_alpha
    value = (1 - alpha) * probability - alpha * likeness
    # Of fewer than `top_k` tokens that may stand the rest are none.
    value = tf.where(tf.gather(scores, tokens, batch_dims=1) > -float("inf"), value, -float("inf"))
    best = tf.argmax(value, axis=1, output_type=tf.int32)  # (b,)
    chosen = tf.range(rows) * candidates + best
    position = tf.range(tf.shape(cosine)[2])[None, :, None] == count[:, None, None]  # (b, t, 1)
    new = {
        "cache": tf.nest.map_structure(lambda leaf: tf.gather(leaf, chosen), cache),
        "token": tf.gather(tokens, best, batch_dims=1),
        "logits": tf.cast(tf.gather(following[:, 0], chosen), tf.float32),
        "hidden": tf.where(position, tf.gather(hidden, best, batch_dims=1)[:, None], state["hidden"]),
    }
    return state | new | loop.accept(state, new["token"], logits, options, rules)


def _unit(hidden):
    return tf.math.l2_normalize(tf.cast(hidden, tf.float32), axis=-1)
