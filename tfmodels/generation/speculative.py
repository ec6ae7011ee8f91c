"""Speculative decoding in the graph: tokens are guessed, and the model checks several at once.

Shape letters: b rows, g guesses, j places to decide (g + 1), t tokens of prompt and text, v vocabulary.
"""

import tensorflow as tf

from tfmodels.generation import sampling
from tfmodels.generation.loop import begin, finish, prefill, put, repeat, uniforms
from tfmodels.generation.protocol import prompt_names
from tfmodels.generation.rules import adjust

PROMPT_LOOKUP = "prompt"  # instead of a draft model


def speculate(model, draft, inputs, prompt, lengths, options, rules):
    """What `loop.decode` writes, in fewer calls of the model.

    Greedy text is the same token for token. Sampled text has exactly the model's distribution, by the
    rejection rule of Leviathan et al. 2023, section 2.3: a guess is kept with probability p / q, and the
    token in place of a refused one is drawn from max(p - q, 0).

    Args:
        model, inputs, prompt, lengths, options, rules: as of `loop.decode`.
        draft: a model with the same ids, whose guesses are its own continuation; or `PROMPT_LOOKUP`:
            what followed when the last two tokens, or the last, stood in the text before.

    Returns:
        As `loop.decode`.
    """
    guesses, copies, new_tokens = options.draft_tokens, options.num_return_sequences, options.max_new_tokens
    state = begin(model, inputs, prompt, lengths, options, spare=guesses)
    state["history"] = tf.pad(state["history"], ((0, 0), (0, guesses + 1)))
    if options.method == "sample":
        # For each place a number to guess by, one to keep or refuse the guess by, one to draw by.
        uniform = uniforms(model, inputs, options, 3 * (new_tokens + guesses + 1))
        state["uniform"] = tf.reshape(uniform, (tf.shape(uniform)[0], -1, 3))  # (b, n + j, 3)
    if draft != PROMPT_LOOKUP:
        most = draft.config.max_sequence_length  # the prompts' padding may be longer
        inputs = inputs | {name: inputs[name][:, :most] for name in prompt_names(draft)}
        cache, _, state["draft_last"] = prefill(draft, inputs, prompt[:, :most], lengths, options, guesses)
        state["draft_cache"] = repeat(cache, copies)

    def body(state):
        state, guessed, chances = _guess(draft, state, guesses, options)
        targets, logits, cache = _check(model, state, guesses, options, rules)
        choose = _choose if options.method == "sample" else _choose_greedily
        kept, token = choose(state, guessed, chances, targets)
        return (_write(state | {"cache": cache}, kept, token, logits, guesses, options, rules),)

    (state,) = tf.while_loop(
        lambda state: ~tf.reduce_all(state["done"]), body, (state,), parallel_iterations=1
    )
    return finish(state, options)


def _target(scores, options):
    """What a token is chosen by: sampled, its probabilities, (b, v); greedily, the token itself, (b,)."""
    if options.method == "sample":
        return tf.nn.softmax(sampling.filtered(scores / options.temperature, options))
    return sampling.greedy(scores)


def _draw(state, place, which, probabilities):
    """A token of each row, by the row's number of that place of the text."""
    return sampling.draw(probabilities, _uniform(state, place, which))


def _uniform(state, place, which):
    return tf.gather(state["uniform"][:, :, which], state["count"] + place, batch_dims=1)


def _guess(draft, state, guesses, options):
    """The state with guesses in its history; their tokens (b, g) and their chances.

    Chances are [(b, v)] of a draft model that samples; else whether each is a guess at all, bool (b, g).
    """
    end = state["lengths"] + state["count"]  # (b,)
    everywhere = tf.ones_like(state["done"])
    if draft == PROMPT_LOOKUP:
        tokens, chances = _looked_up(state["history"], end, guesses)
    else:
        state, tokens, chances = _drafted(draft, state, end, guesses, options)
    history = state["history"]
    for i, token in enumerate(tf.unstack(tokens, axis=1)):
        history = put(history, end + i, token, everywhere)
    return state | {"history": history}, tokens, chances


def _looked_up(history, end, guesses):
    """What followed the last place with the same two last tokens, else the same last token.

    Where that reaches the end it begins again, as text does that repeats itself.

    Returns:
        Tokens, (b, g), and whether each is one, bool (b, g).
    """
    place = tf.range(tf.shape(history)[1])[None]  # (1, t)
    last = tf.gather(history, end - 1, batch_dims=1)[:, None]
    before_last = tf.gather(history, tf.maximum(end - 2, 0), batch_dims=1)[:, None]
    one = (history == last) & (place < end[:, None] - 1)  # (b, t)
    two = one & (tf.roll(history, 1, axis=1) == before_last) & (place > 0)
    latest = [tf.reduce_max(tf.where(same, place, -1), axis=1) for same in (one, two)]
    found = tf.where(latest[1] >= 0, latest[1], latest[0])[:, None]  # (b, 1)
    period = tf.maximum(end[:, None] - 1 - found, 1)
    following = found + 1 + tf.range(guesses)[None] % period  # (b, g)
    real = tf.tile(found >= 0, (1, guesses))
    return tf.gather(history, tf.where(real, following, 0), batch_dims=1), real


def _drafted(draft, state, end, guesses, options):
    """The draft model's continuation: the state with its cache, tokens and chances as of `_guess`."""
    # Two tokens first: when all guesses were kept the last of them is not in its cache yet.
    index = tf.minimum(tf.maximum(end - 2, 0), state["draft_last"] - 1)
    pair = tf.gather(state["history"], index[:, None] + tf.range(2)[None], batch_dims=1)
    logits, cache = draft.decode_step(pair, state["draft_cache"], index)
    logits = tf.gather(logits, tf.minimum(end - 1 - index, 1), batch_dims=1)  # (b, v)
    tokens, targets, sampled = [], [], options.method == "sample"
    for i in range(guesses):
        if i:
            index = tf.minimum(end - 1 + i, state["draft_last"])
            logits, cache = draft.decode_step(tokens[-1][:, None], cache, index)
            logits = logits[:, 0]
        targets.append(_target(tf.cast(logits, tf.float32), options))
        tokens.append(_draw(state, i, 0, targets[-1]) if sampled else targets[-1])
    tokens = tf.stack(tokens, axis=1)
    chances = targets if sampled else tf.fill(tf.shape(tokens), True)
    return state | {"draft_cache": cache}, tokens, chances


def _check(model, state, guesses, options, rules):
    """What the model itself would choose by at the places to decide, [`_target`], its logits, its cache."""
    end = state["lengths"] + state["count"]
    # At the end of the cache some known tokens are fed again, so that all places fit.
    index = tf.maximum(tf.minimum(end - 1, state["last_index"] - guesses), 0)
    fed = tf.gather(state["history"], index[:, None] + tf.range(guesses + 1)[None], batch_dims=1)
    logits, cache = model.decode_step(fed, state["cache"], index)  # (b, j, v)
    logits = tf.cast(logits, tf.float32)
    offset = end - 1 - index
    logits = [tf.gather(logits, tf.minimum(offset + i, guesses), batch_dims=1) for i in range(guesses + 1)]
    count, limits = state["count"], state["limits"]
    scores = [
        adjust(each, state["history"], end + i, count + i, limits, options, rules)
        for i, each in enumerate(logits)
    ]
    return [_target(each, options) for each in scores], logits, cache


def _choose_greedily(state, guessed, real, targets):
    """As `_choose`: guesses stand while the model would have chosen the same."""
    targets = tf.stack(targets, axis=1)  # (b, j)
    same = real & (guessed == targets[:, :-1]) & ~state["done"][:, None]
    kept = tf.reduce_sum(tf.math.cumprod(tf.cast(same, tf.int32), axis=1), axis=1)
    return kept, tf.gather(targets, kept, batch_dims=1)


def _choose(state, guessed, chances, targets):
    """How many guesses each row keeps, (b,), and the token after them, (b,)."""
    guesses = guessed.shape[1]
    size = targets[0].shape[-1]
    kept, keeping, remainders = tf.zeros_like(state["count"]), ~state["done"], []
    for i in range(guesses):
        if isinstance(chances, list):
            chance = chances[i]
        else:  # looked up: certain where there is a guess
            chance = tf.one_hot(tf.where(chances[:, i], guessed[:, i], -1), size)
        p, q = (tf.gather(each, guessed[:, i], batch_dims=1) for each in (targets[i], chance))
        keeping &= (_uniform(state, i, 1) * q < p) & (q > 0)
        kept += tf.cast(keeping, tf.int32)
        rest = tf.maximum(targets[i] - chance, 0.0)
        # Where p equals q nothing is refused but by rounding.
        nothing = tf.reduce_sum(rest, axis=-1, keepdims=True) <= 0
        remainders.append(tf.where(nothing, targets[i], rest))
    remainders.append(targets[-1])  # all were kept: one token more for nothing
    remainder = tf.gather(tf.stack(remainders, axis=1), kept, batch_dims=1)  # (b, v)
    remainder /= tf.reduce_sum(remainder, axis=-1, keepdims=True)
    return kept, _draw(state, kept, 2, remainder)


def _write(state, kept, token, logits, guesses, options, rules):
    """The state with the kept guesses and the token after them, up to the first that ends the text."""
    lengths, count = state["lengths"], state["count"]
    history = put(state["history"], lengths + count + kept, token, ~state["done"])
    new = {"history": history, "count": count, "stopped": state["stopped"], "done": state["done"]}
    if options.return_scores:
        new["log_probabilities"] = state["log_probabilities"]
    # A place past the cache's end was not computed.
    last_place = tf.minimum(kept, state["last_index"] - (lengths + count - 1))
    for i in range(guesses + 1):
        written = tf.gather(history, lengths + count + i, batch_dims=1)
        here = ~new["done"] & (i <= last_place)
        ends = rules.ends(written) | rules.has_stop_string(history, lengths, count + i + 1, options)
        if options.return_scores:
            log_probability = tf.gather(tf.nn.log_softmax(logits[i]), written, batch_dims=1)
            new["log_probabilities"] = put(new["log_probabilities"], count + i, log_probability, here)
        new["count"] += tf.cast(here, tf.int32)
        new["stopped"] |= here & ends
        new["done"] |= here & (ends | (new["count"] >= state["limits"]))
    return state | new
