"""Greedy decoding and sampling as a loop in the graph.

Shape letters: b rows, t tokens of prompt and text, n new tokens, v vocabulary.
"""

import tensorflow as tf

from tfmodels.generation import sampling
from tfmodels.generation.protocol import prompt_names
from tfmodels.generation.rules import adjust


def decode(model, inputs, prompt, lengths, options, rules):
    """Writes tokens after the prompt until each row has written a stop token or its limit.

    Args:
        model: keeps the protocol of `GenerativeModel`.
        inputs: dict for `model.init_cache`.
        prompt: int32 tensor, (batch, prompt_length), the decoder's prompt, padded on the right.
        lengths: int32 tensor, (batch,), real tokens of each prompt, at least 1.
        options: `Options`.
        rules: `TokenRules`.

    Returns:
        Dict of `token_ids`, int32 (rows, max_new_tokens), the stop token included; `lengths`, int32
        (rows,), how many there are; `stopped`, bool (rows,), whether they end with a stop token or
        string; and, if asked for, `log_probabilities`, float32 (rows, max_new_tokens). The
        `num_return_sequences` rows of a prompt follow one another.
    """
    state = begin(model, inputs, prompt, lengths, options)
    by_row = options.repeated(options.num_return_sequences)
    (state,) = tf.while_loop(
        lambda state: ~tf.reduce_all(state["done"]),
        lambda state: (advance(model, state, by_row, rules),),
        (state,),
        parallel_iterations=1,  # else the next step begins while the cache is still read, and copies it
    )
    return finish(state, options)


def begin(model, inputs, prompt, lengths, options, spare=0):
    """The state before the first token: a dict of tensors, and the cache.

    Args:
        model, inputs, prompt, lengths, options: as of `decode`.
        spare: int, room in the cache beyond the text.
    """
    copies, new_tokens = options.num_return_sequences, options.max_new_tokens
    cache, limits, last_index = prefill(model, inputs, prompt, lengths, options, spare)
    state = {"step": tf.constant(0), "last_index": last_index}
    if options.method == "sample":
        state["uniform"] = uniforms(model, inputs, options, new_tokens)
    cache, prompt, lengths, limits = repeat((cache, prompt, lengths, limits), copies)
    state |= {
        "cache": cache,
        "lengths": lengths,
        "limits": limits,
        "token": tf.gather(prompt, lengths - 1, batch_dims=1),
        "history": tf.pad(prompt, ((0, 0), (0, new_tokens))),
        "count": tf.zeros_like(lengths),
        "stopped": tf.zeros_like(lengths, tf.bool),
        "done": limits < 1,
    }
    if options.return_scores:
        state["log_probabilities"] = tf.zeros((tf.shape(prompt)[0], new_tokens))
    return state


def uniforms(model, inputs, options, steps):
    """Numbers by which to draw, of each text: float32 (rows, steps)."""
    ids, mask = (inputs[name] for name in prompt_names(model))
    copies = options.num_return_sequences
    seed = options.repeated(copies).seed
    return sampling.uniforms(ids, tf.reduce_sum(mask, axis=1), seed, copies, steps)


def advance(model, state, options, rules):
    """The state after one token more in each row that has not ended."""
    step, lengths = state["step"], state["lengths"]
    index, until = place(lengths - 1 + step, state["last_index"])
    logits, cache = model.decode_step(state["token"][:, None], state["cache"], index, until)
    logits = tf.cast(logits[:, 0], tf.float32)  # (b, v)
    scores = adjust(logits, state["history"], lengths + step, step, state["limits"], options, rules)
    if options.method == "sample":
        token = sampling.sample(scores, state["uniform"][:, step], options)
    else:
        token = sampling.greedy(scores)
    return state | {"cache": cache, "token": token} | accept(state, token, logits, options, rules)


def accept(state, token, logits, options, rules):
    """What changes of the state when each row that has not ended writes its token (b,)."""
    step, lengths, done = state["step"], state["lengths"], state["done"]
    history = put(state["history"], lengths + step, token, ~done)
    ends = rules.ends(token) | rules.has_stop_string(history, lengths, step + 1, options)
    new = {
        "step": step + 1,
        "history": history,
        "count": state["count"] + tf.cast(~done, tf.int32),
        "stopped": state["stopped"] | (ends & ~done),
        "done": done | ends | (step + 1 >= state["limits"]),
    }
    if options.return_scores:
        log_probability = tf.gather(tf.nn.log_softmax(logits), token, batch_dims=1)
        new["log_probabilities"] = put(
            state["log_probabilities"], tf.fill(tf.shape(token), step), log_probability, ~done
        )
    return new


def finish(state, options):
    """What `decode` returns, of the last state."""
    result = {
        "token_ids": written(state["history"], state["lengths"], state["count"], options.max_new_tokens),
        "lengths": state["count"],
        "stopped": state["stopped"],
    }
    if options.return_scores:
        result["log_probabilities"] = state["log_probabilities"]
    return result


def prefill(model, inputs, prompt, lengths, options, spare=0, room=None):
    """Fills a cache with the prompts.

    All tokens go in but each row's last: it is the first that the loop feeds, so that prompts of
    mixed lengths need no special case. After a row's own prompt its cache stays empty.

    Args:
        model, inputs, prompt, lengths, options: as of `decode`.
        spare: int, room in the cache beyond the text.
        room: int, the places of the cache; None: as many as a row's text has positions.

    Returns:
        The cache; each row's room for new tokens, int32 (batch,); a text's last position.
    """
    # The last new token is never fed back.
    longest = model.room(tf.shape(prompt)[1] + options.max_new_tokens + spare)
    limits = tf.fill(tf.shape(lengths), options.max_new_tokens) if options.limits is None else options.limits
    max_length = model.config.max_sequence_length
    if max_length is not None:
        longest = tf.minimum(longest, max_length)
        limits = tf.minimum(limits, max_length - lengths + 1)
    room = longest if room is None else room
    inputs, shared = dict(inputs), 0
    prefix_length = inputs.pop("prefix_length", None)
    cache = model.init_cache(inputs, room, options.cache_dtype)
    if prefix_length is not None:
        cache = _share(model, inputs, cache, prompt[0, None, :prefix_length], room, options.cache_dtype)
        shared = prefix_length
    if prompt.shape[1] != 1:
        _, cache = model.decode_step(prompt[:, shared:-1], cache, shared, until=lengths - 1)
    return cache, limits, longest - 1


def place(position, last_index):
    """Where in the cache a step writes, and `StepModel`'s `until`: a row at its end writes nothing."""
    return tf.minimum(position, last_index), tf.where(position > last_index, 0, last_index + 1)


def _share(model, inputs, cache, prefix, max_length, dtype):
    """The cache with the prefix (1, length), which all rows begin with, computed once."""
    empty = model.init_cache({name: value[:1] for name, value in inputs.items()}, max_length, dtype)
    _, filled = model.decode_step(prefix, empty, 0)
    rows = tf.shape(tf.nest.flatten(cache)[0])[0]
    # What a step does not change belongs to a row and not to its tokens.
    return tf.nest.map_structure(
        lambda own, before, after: own if after is before else tf.repeat(after, rows, axis=0),
        cache,
        empty,
        filled,
    )


def repeat(values, copies):
    """Each row of each tensor `copies` times, one after another."""
    if copies == 1:
        return values
    # Not by `tf.repeat`, which makes some thirty ops.
    rows = tf.range(tf.shape(tf.nest.flatten(values)[0])[0] * copies) // copies
    return tf.nest.map_structure(lambda leaf: tf.gather(leaf, rows), values)


def put(table, position, value, where):
    """table (b, t) with value (b,) at position (b,) of the rows that `where` (b,) names."""
    here = (tf.range(tf.shape(table)[1])[None] == position[:, None]) & where[:, None]
    return tf.where(here, value[:, None], table)


def written(history, lengths, count, new_tokens):
    """What stands after each row's prompt: int32 (b, n), 0 after its `count` tokens."""
    column = tf.range(new_tokens)[None]
    tokens = tf.gather(history, lengths[:, None] + column, batch_dims=1)
    return tf.where(column < count[:, None], tokens, 0)
