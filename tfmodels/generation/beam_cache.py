"""How the beams of a row keep what they have read.

Shape letters: b batch, k beams, c places of the cache, v vocabulary.
"""

import tensorflow as tf

from tfmodels.generation.loop import place, prefill, repeat


def beam_cache(model, inputs, prompt, lengths, options):
    """A `SharedCache` for a `StepModel` that can read one, else `OwnCaches`.

    Args:
        model, inputs, prompt, lengths, options: as of `loop.decode`.
    """
    kind = SharedCache if model.reads_places else OwnCaches
    return kind(model, inputs, prompt, lengths, options)


class SharedCache:
    """One cache for all beams of a row, each of which sees the prompt and its own text only.

    Nothing is copied when beams change their order, and the prompt stands there once, as does what an
    encoder made of the source.

    Attributes:
        limits: as of `loop.prefill`.
        begin: the state before the first step.
    """

    def __init__(self, model, inputs, prompt, lengths, options):
        self._model, self._lengths, self._beams = model, lengths, options.num_beams
        # The prompts' last tokens, which the first step reads, are the beams' own.
        self._first = tf.shape(prompt)[1] - 1
        steps, most = options.max_new_tokens, model.config.max_sequence_length
        steps = steps if most is None else tf.minimum(steps, most)
        room = model.room(self._first, more=self._beams * steps)
        cache, self.limits, self._last_index = prefill(model, inputs, prompt, lengths, options, room=room)
        self._place = tf.range(room)[None]  # (1, c)
        written = lengths[:, None] - 1 + (self._place - self._first) // self._beams
        self._positions = tf.where(self._place < self._first, self._place, written)  # (b, c)
        seen = tf.tile((self._place < lengths[:, None] - 1)[:, None], (1, self._beams, 1))  # (b, k, c)
        self.begin = cache, seen

    def read(self, step, token, state):
        """What follows each beam's token (b, k): logits (b, k, v), and the new state."""
        cache, seen = state
        position = tf.minimum(self._lengths - 1 + step, self._last_index)
        places = self._first + step * self._beams + tf.range(self._beams)[None]  # (1, k)
        places = tf.broadcast_to(places, tf.shape(token))
        seen |= self._place[:, None] == places[:, :, None]
        logits, cache = self._model.decode_step(
            token,
            cache,
            tf.tile(position[:, None], (1, self._beams)),
            until=tf.fill(tf.shape(position), tf.shape(seen)[2]),
            tree={"places": places, "seen": seen, "positions": self._positions},
        )
        return logits, (cache, seen)

    def reorder(self, before, after, parents):
        """The state after a step when the new beams extend those of `parents`, int (b, k)."""
        cache, seen = after
        return cache, tf.gather(seen, parents, batch_dims=1)


class OwnCaches:
    """A cache for each beam, as `SharedCache` otherwise: copied in the beams' new order after each step."""

    def __init__(self, model, inputs, prompt, lengths, options):
        self._model, self._beams = model, options.num_beams
        cache, self.limits, self._last_index = prefill(model, inputs, prompt, lengths, options)
        self.begin, self._starts = repeat((cache, lengths), self._beams)

    def read(self, step, token, cache):
        index, until = place(self._starts - 1 + step, self._last_index)
        logits, cache = self._model.decode_step(tf.reshape(token, (-1, 1)), cache, index, until)
        return tf.reshape(logits, (-1, self._beams, logits.shape[-1])), cache

    def reorder(self, before, after, parents):
        order = tf.range(tf.shape(parents)[0])[:, None] * self._beams + parents
        order = tf.reshape(order, (-1,))
        # What a step leaves as it is, such as of the source, is the same for all beams of a row.
        return tf.nest.map_structure(
            lambda old, new: new if new is old else tf.gather(new, order), before, after
        )
