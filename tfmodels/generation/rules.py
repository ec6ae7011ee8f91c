"""Which tokens a model must, may not and ends to write. Shape letters: b rows, v vocabulary."""

import dataclasses

import tensorflow as tf

_NEVER = float("-inf")


@dataclasses.dataclass(frozen=True)
class TokenRules:
    """What is fixed about the tokens that are written, whatever the model's scores.

    Attributes:
        start_id: int, with which an encoder-decoder begins to write.
        stop: tuple of int; each ends the text.
        forced_start_id: int, the first token that an encoder-decoder writes; None: any.
        forced_end_id: int, the last token at the limit of length; None: any.
        suppressed_ids: tuple of int, never written.
    """

    start_id: int = 0
    stop: tuple = ()
    forced_start_id: int | None = None
    forced_end_id: int | None = None
    suppressed_ids: tuple = ()

    def apply(self, scores, step, limits):
        """Scores or log-probabilities with -inf where a token may not stand.

        Args:
            scores: float32 tensor, (rows, vocabulary).
            step: int32 scalar, tokens written so far.
            limits: int32 tensor, (rows,), tokens that may be written.
        """
        vocabulary_size = scores.shape[-1]
        if self.suppressed_ids:
            suppressed = tf.reduce_any(tf.one_hot(self.suppressed_ids, vocabulary_size) > 0, axis=0)
            scores = tf.where(suppressed, _NEVER, scores)
        if self.forced_start_id is not None:
            scores = tf.where(step == 0, _only(self.forced_start_id, vocabulary_size), scores)
        if self.forced_end_id is not None:
            last = (step + 1 == limits)[:, None]
            scores = tf.where(last, _only(self.forced_end_id, vocabulary_size), scores)
        return scores

    def ends(self, token):
        """Whether tokens end their text: bool tensor of their shape."""
        if not self.stop:
            return tf.zeros_like(token, tf.bool)
        return tf.reduce_any(token[..., None] == tf.constant(self.stop), axis=-1)


def token_rules(model, tokenizer, stop):
    """The rules of a model's config, completed by its tokenizer.

    Args:
        model: keeps the protocol of `GenerativeModel`.
        tokenizer: has `start_id` and `end_id`, or None.
        stop: tuple of int that replaces the ids that end a text, or None.
    """
    config = model.config
    start_id = getattr(config, "start_id", None)
    if start_id is None:
        start_id = 0 if tokenizer is None else tokenizer.start_id
    if stop is None:
        stop = getattr(config, "end_id", None)
        if stop is None and tokenizer is not None and tokenizer.end_id >= 0:
            stop = tokenizer.end_id
        stop = () if stop is None else stop
        stop = stop if isinstance(stop, tuple) else (stop,)
    return TokenRules(
        start_id,
        stop,
        getattr(config, "forced_start_id", None),
        getattr(config, "forced_end_id", None),
        getattr(config, "suppressed_ids", ()),
    )


def _only(token_id, vocabulary_size):
    return tf.where(tf.range(vocabulary_size) == token_id, 0.0, _NEVER)
