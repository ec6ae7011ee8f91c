"""Beam search in the graph, plain and in groups.

Shape letters: b batch, k beams, s beams of a group, c candidates, t tokens of prompt and text, n new
tokens, v vocabulary.
"""

import tensorflow as tf

from tfmodels.generation.beam_cache import beam_cache
from tfmodels.generation.loop import put, repeat, written
from tfmodels.generation.rules import adjust

_NEVER = float("-inf")  # the score of what is no hypothesis
_STUCK = -1e30  # of a beam that no token may follow, as of all tokens after it: kept, behind all others


def beam_search(model, inputs, prompt, lengths, options, rules):
    """The best of `num_beams` hypotheses, kept side by side with those that have ended.

    A hypothesis ends with a stop token; its score is its log-probability / length ** length_penalty,
    the end counted. A row stops when no open beam can beat its worst ended hypothesis any more
    (for a penalty of 0 or more, by the open beam's score at its present length).

    Diverse beam search (Vijayakumar et al. 2018, section 4) is one such search a group, of which the
    later ones pay for tokens that the earlier ones take at the same step.

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
    beams = options.num_beams
    groups = options.num_beam_groups if options.method == "diverse_beam" else 1
    cache = beam_cache(model, inputs, prompt, lengths, options)
    batch = tf.shape(prompt)[0]
    group = _Group(beams // groups, lengths, cache.limits, options, rules)

    def body(step, token, states, before):
        logits, after = cache.read(step, token, before)
        vocabulary = logits.shape[-1]
        own = tf.split(tf.nn.log_softmax(tf.cast(logits, tf.float32)), groups, axis=1)  # of each (b, s, v)
        taken = tf.zeros((batch, vocabulary))
        tokens, parents, new_states = [], [], []
        for i, state in enumerate(states):
            # Before all rules, which may force a token: what must be costs no group more.
            scores = own[i] - options.diversity_penalty * taken[:, None] if i else own[i]
            writes = tf.cast(~state["done"], tf.float32)[:, None]
            token, parent, state = group.advance(step, state, own[i], scores)
            taken += writes * tf.reduce_sum(tf.one_hot(token, vocabulary), axis=1)
            tokens.append(token)
            parents.append(parent + i * group.size)
            new_states.append(state)
        after = cache.reorder(before, after, tf.concat(parents, axis=1))
        return step + 1, tf.concat(tokens, axis=1), new_states, after

    def more(step, token, states, cached):
        return ~tf.reduce_all([state["done"] for state in states])

    last = tf.gather(prompt, lengths - 1, batch_dims=1)[:, None]
    state = (tf.constant(0), tf.tile(last, (1, beams)), [group.begin(prompt)] * groups, cache.begin)
    states = tf.while_loop(more, body, state, parallel_iterations=1)[2]
    ended = [state["ended"] for state in states]
    merged = _best(beams, **{name: tf.concat([each[name] for each in ended], 1) for name in ended[0]})
    return _returned(merged, lengths, options)


class _Group:
    """Beams that compete with one another: the search of a group, whose state is a dict.

    Args:
        size: int, beams.
        lengths: int32 tensor, (batch,), of the prompts.
        limits: int32 tensor, (batch,), tokens that may be written.
        options: `Options`.
        rules: `TokenRules`.
    """

    def __init__(self, size, lengths, limits, options, rules):
        self.size = size
        self._lengths, self._limits = lengths, limits
        self._options, self._rules = options, rules
        self._by_row = options.repeated(size)

    def begin(self, prompt):
        """The state before the first token: open beams and ended hypotheses, (batch, size, ...)."""
        batch, beams, new_tokens = tf.shape(prompt)[0], self.size, self._options.max_new_tokens
        prompts = tf.tile(tf.pad(prompt, ((0, 0), (0, new_tokens)))[:, None], (1, beams, 1))
        self._empty = {"tokens": prompts}  # (b, s, t)
        if self._options.return_scores:
            self._empty["log_probabilities"] = tf.zeros((batch, beams, new_tokens))
        return {
            # All beams begin alike: only the first may be extended.
            "open": {
                "score": tf.tile(tf.constant([[0.0] + [_NEVER] * (beams - 1)]), (batch, 1)),
                **self._empty,
            },
            "ended": {
                "score": tf.fill((batch, beams), _NEVER),
                "length": tf.zeros((batch, beams), tf.int32),
                "stopped": tf.zeros((batch, beams), tf.bool),
                **self._empty,
            },
            "done": self._limits < 1,
        }

    def advance(self, step, state, own, scores):
        """Extends the open beams by a token.

        Args:
            step: int scalar.
            state: as of `begin`.
            own: float32 tensor, (b, s, v), the model's log-probabilities.
            scores: float32 tensor, (b, s, v), by which to choose, before the rules.

        Returns:
            The tokens of the open beams and the beams that they extend, both (b, s), and the state.
        """
        open_, ended, done = state["open"], state["ended"], state["done"]
        scores = self._adjusted(step, open_["tokens"], scores)
        if self._rules.bad_words or self._options.no_repeat_ngram_size:
            stuck = tf.reduce_max(scores, axis=-1, keepdims=True) == _NEVER
            scores = tf.where(stuck, _STUCK, scores)
        # So many candidates that enough stay open even if each beam's stop tokens are among them.
        candidates = self.size * (1 + max(len(self._rules.stop), 1))
        score, parent, token = _top(open_["score"][:, :, None] + scores, candidates)
        histories = self._extended(step, open_, own, parent, token)
        stopped = self._stopped(step, token, histories["tokens"])
        # At its limit of length a hypothesis counts as ended.
        last = (step + 1 >= self._limits)[:, None]
        ends = stopped | last
        # Only candidates among the best may end: those below would not have been beams.
        can_end = ends & (tf.range(tf.shape(token)[1]) < self.size) & ~done[:, None] & (score > _NEVER)
        new = {
            "score": tf.where(can_end, self._penalised(score, step + 1), _NEVER),
            "length": tf.fill(tf.shape(token), step + 1),
            "stopped": stopped,
            **histories,
        }
        ended = _best(self.size, **{name: tf.concat([ended[name], new[name]], 1) for name in ended})
        score = tf.where(stopped, _NEVER, score)
        open_ = _best(self.size, score=score, parent=parent, token=token, **histories)
        parent, token = open_.pop("parent"), open_.pop("token")
        attainable = self._penalised(open_["score"][:, :1], step + 1)[:, 0]
        worst = tf.reduce_min(ended["score"], axis=1)
        done = done | last[:, 0] | (attainable <= worst)
        if self._options.early_stopping:
            done = done | (worst > _NEVER)
        return token, parent, {"open": open_, "ended": ended, "done": done}

    def _adjusted(self, step, tokens, scores):
        """Scores (b, s, v) after tokens (b, s, t) as the options and rules have them."""
        rows = tf.shape(tokens)[0] * self.size
        lengths, limits = repeat((self._lengths, self._limits), self.size)
        flat = tf.reshape(scores, (rows, scores.shape[-1]))
        history = tf.reshape(tokens, (rows, -1))
        flat = adjust(flat, history, lengths + step, step, limits, self._by_row, self._rules)
        return tf.reshape(flat, tf.shape(scores))

    def _penalised(self, log_probability, length):
        score = log_probability / tf.cast(length, tf.float32) ** self._options.length_penalty
        # The largest penalties leave the range of float32.
        return tf.where(log_probability > _NEVER, tf.maximum(score, tf.float32.min), _NEVER)

    def _extended(self, step, open_, own, parent, token):
        """The candidates' histories (b, c, ...): the parents' with one token more."""
        batch, width = tf.shape(token)[0], token.shape[1]
        row = {
            name: tf.reshape(tf.gather(open_[name], parent, batch_dims=1), (batch * width, -1))
            for name in self._empty
        }
        everywhere = tf.ones(batch * width, tf.bool)
        position = repeat(self._lengths + step, width)
        row["tokens"] = put(row["tokens"], position, tf.reshape(token, (-1,)), everywhere)
        if self._options.return_scores:
            chosen = tf.gather(tf.reshape(own, (batch, -1)), parent * own.shape[-1] + token, batch_dims=1)
            row["log_probabilities"] = put(
                row["log_probabilities"],
                tf.fill((batch * width,), step),
                tf.reshape(chosen, (-1,)),
                everywhere,
            )
        # A length that is known when the loop is made, as in an export, must stay known.
        return {
            name: tf.ensure_shape(tf.reshape(value, (batch, width, -1)), (None, None, open_[name].shape[2]))
            for name, value in row.items()
        }

    def _stopped(self, step, token, tokens):
        """Whether candidates end with a stop token or hold a stop string: bool (b, c)."""
        rows = tf.reshape(tokens, (-1, tf.shape(tokens)[2]))  # (b * c, t)
        starts = repeat(self._lengths, token.shape[1])
        strings = self._rules.has_stop_string(rows, starts, step + 1, self._options)
        return self._rules.ends(token) | tf.reshape(strings, tf.shape(token))


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


def _top(scores, count):
    """The `count` highest of scores (b, s, v), highest first: their values, beams and tokens, (b, c)."""
    beams, vocabulary = scores.shape[1:]
    # First of each beam, which TensorFlow looks for side by side.
    score, token = tf.math.top_k(scores, min(count, vocabulary))  # (b, s, c)
    each = token.shape[2]
    score, place = tf.math.top_k(tf.reshape(score, (-1, beams * each)), min(count, beams * each))
    return score, place // each, tf.gather(tf.reshape(token, (-1, beams * each)), place, batch_dims=1)


def _best(count, score, **values):
    """The `count` best hypotheses, best first: score (b, m), values (b, m, ...)."""
    score, index = tf.math.top_k(score, count)
    return {
        "score": score,
        **{name: tf.gather(value, index, batch_dims=1) for name, value in values.items()},
    }
