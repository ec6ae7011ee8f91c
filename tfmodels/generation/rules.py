"""What changes a model's scores before a token is chosen: penalties, and tokens that must or may not stand.

Shape letters: b rows, v vocabulary, t tokens of prompt and text.
"""

import dataclasses
import re
from typing import Any

import tensorflow as tf

from tfmodels.generation.protocol import is_encoder_decoder

_NEVER = float("-inf")


@dataclasses.dataclass(frozen=True)
class TokenRules:
    """The special tokens of one generation.

    Attributes:
        start_id: int, with which an encoder-decoder begins to write.
        stop: tuple of int; each ends the text.
        forced_end_id: int, the last token at the limit of length; None: any.
        forced_tokens: tuple of int, the first tokens that are written.
        bad_words: tuple of tuples of int, never written.
        stop_strings: tuple of str; a text ends when it holds one of them.
        tokenizer: has `detokenize`, with stop strings; or None.
    """

    start_id: int = 0
    stop: tuple = ()
    forced_end_id: int | None = None
    forced_tokens: tuple = ()
    bad_words: tuple = ()
    stop_strings: tuple = ()
    tokenizer: Any = None

    def ends(self, token):
        """Whether tokens end their text: bool tensor of their shape."""
        if not self.stop:
            return tf.zeros_like(token, tf.bool)
        return tf.reduce_any(token[..., None] == tf.constant(self.stop), axis=-1)

    def has_stop_string(self, history, starts, written, options):
        """Whether the texts after the prompts hold a stop string: bool (b,).

        The whole text is looked at, since a string may begin anywhere inside a token.

        Args:
            history: int32 tensor, (b, t), prompts and texts.
            starts: int32 tensor, (b,), where the texts begin.
            written: int scalar, or tensor (b,): tokens of each text.
            options: `Options`.
        """
        if not self.stop_strings:
            return tf.zeros_like(starts, tf.bool)
        column = tf.range(tf.shape(history)[1])[None] - starts[:, None]
        tokens = tf.ragged.boolean_mask(history, (column >= 0) & (column < tf.reshape(written, (-1, 1))))
        texts = self.tokenizer.detokenize(tokens)
        least = options.min_new_tokens if "min_new_tokens" in options.active else 0
        return self._first_stop(texts, tokens, least) < tf.strings.length(texts)

    def cut(self, texts, tokens, min_new_tokens):
        """Texts up to the first stop string that counts: strings, (b,).

        Args:
            texts: strings, (b,).
            tokens: int32 ragged, (b, length), of which the texts are.
            min_new_tokens: int scalar, or tensor (n, 1), of n rows with as many texts each.
        """
        if not self.stop_strings:
            return texts
        first = self._first_stop(texts, tokens, min_new_tokens)
        return tf.strings.substr(texts, tf.zeros_like(first), first)

    def _first_stop(self, texts, tokens, min_new_tokens):
        """Where the first stop string begins, in bytes, int32 (b,); with none a text's length.

        None counts that ends before the text's `min_new_tokens`-th token.
        """
        first = length = tf.strings.length(texts)
        has_least = tf.is_tensor(min_new_tokens) or min_new_tokens > 1
        before = self._early_length(texts, tokens, min_new_tokens) if has_least else tf.zeros_like(length)
        for stop in self.stop_strings:
            start = tf.clip_by_value(before - len(stop.encode()) + 1, 0, length)
            rest = tf.strings.substr(texts, start, length)
            kept = tf.strings.regex_replace(rest, f"(?s){re.escape(stop)}.*", "", False)
            first = tf.minimum(first, start + tf.strings.length(kept))
        return first

    def _early_length(self, texts, tokens, min_new_tokens):
        """The bytes of each text's tokens before the `min_new_tokens`-th: int32 (b,)."""
        least = tf.reshape(tf.cast(min_new_tokens, tf.int32), (-1,))
        least = tf.repeat(least, tf.size(texts) // tf.maximum(tf.size(least), 1))
        early = tf.clip_by_value(least - 1, 0, tf.cast(tokens.row_lengths(), tf.int32))
        early = tf.RaggedTensor.from_tensor(tokens.to_tensor(), lengths=early)
        # Without what stands for a character that was cut off.
        early = tf.strings.regex_replace(self.tokenizer.detokenize(early), r"\x{FFFD}+$", "")
        return tf.strings.length(early)


def token_rules(model, tokenizer, config):
    """The rules of a model's config and its tokenizer, with those of a generation config before them.

    Args:
        model: keeps the protocol of `GenerativeModel`.
        tokenizer: has `start_id` and `end_id`, or None.
        config: a `GenerationConfig`.
    """
    own = model.config
    start_id = getattr(own, "start_id", None)
    if start_id is None:
        start_id = 0 if tokenizer is None else tokenizer.start_id
    if start_id < 0 and is_encoder_decoder(model):
        raise ValueError(
            "An encoder-decoder begins to write with a start token, which neither its config nor the "
            "tokenizer has. Make the tokenizer with start_token=."
        )
    stop = config.stop_ids
    if stop is None:
        stop = getattr(own, "end_id", None)
        if stop is None and tokenizer is not None and tokenizer.end_id >= 0:
            stop = tokenizer.end_id
        stop = () if stop is None else stop
        stop = stop if isinstance(stop, tuple) else (stop,)
    forced = getattr(own, "forced_start_id", None)
    suppressed = tuple((each,) for each in getattr(own, "suppressed_ids", ()))
    return TokenRules(
        start_id,
        stop,
        getattr(own, "forced_end_id", None),
        config.forced_tokens or (() if forced is None else (forced,)),
        suppressed + config.bad_words,
        config.stop_strings,
        tokenizer if config.stop_strings else None,
    )


def adjust(scores, history, count, step, limits, options, rules):
    """Scores as the options and rules have them, -inf where a token may not stand.

    Args:
        scores: float32 tensor, (rows, vocabulary): logits or log-probabilities.
        history: int32 tensor, (rows, t): prompt and text so far, and anything after it.
        count: int32 tensor, (rows,): tokens of the history that are real; the last `step` of them
            are the text.
        step: int32 scalar, or tensor (rows,): tokens written so far.
        limits: int32 tensor, (rows,), tokens that may be written.
        options: `Options`.
        rules: `TokenRules`.

    Returns:
        float32 tensor, (rows, vocabulary).
    """
    vocabulary_size = scores.shape[-1]
    step = tf.reshape(step, (-1, 1))
    column = tf.range(tf.shape(history)[1])[None]  # (1, t)
    real = column < count[:, None]  # (b, t)
    if "repetition_penalty" in options.active:
        seen = _occurrences(history, real, vocabulary_size) > 0
        penalty = options.repetition_penalty
        scores = tf.where(seen, tf.where(scores < 0, scores * penalty, scores / penalty), scores)
    if options.active & {"presence_penalty", "frequency_penalty"}:
        written = _occurrences(history, real & (column >= count[:, None] - step), vocabulary_size)
        present = tf.cast(written > 0, tf.float32)
        scores -= options.presence_penalty * present + options.frequency_penalty * written
    if options.no_repeat_ngram_size:
        size = options.no_repeat_ngram_size
        scores = tf.where(_repeats(history, count, size, vocabulary_size), _NEVER, scores)
    for word in rules.bad_words:
        would = _ends_with(history, count, word[:-1])[:, None]
        scores = tf.where(would & _is(word[-1], vocabulary_size), _NEVER, scores)
    if "min_new_tokens" in options.active:
        for each in rules.stop:
            early = _is(each, vocabulary_size) & (step < options.min_new_tokens)
            scores = tf.where(early, _NEVER, scores)
    if rules.forced_tokens:
        forced = tf.gather(rules.forced_tokens, tf.minimum(step, len(rules.forced_tokens) - 1))
        scores = tf.where(step < len(rules.forced_tokens), _only(forced, vocabulary_size), scores)
    if rules.forced_end_id is not None:
        last = step + 1 == limits[:, None]
        scores = tf.where(last, _only(rules.forced_end_id, vocabulary_size), scores)
    return scores


def _is(token_id, vocabulary_size):
    """Where an id stands: bool (1, v), or (b, v) for ids (b, 1)."""
    return tf.range(vocabulary_size)[None] == token_id


def _only(token_id, vocabulary_size):
    return tf.where(_is(token_id, vocabulary_size), 0.0, _NEVER)


def _occurrences(history, where, vocabulary_size):
    """How often each token stands where `where` (b, t) is true: float32 (b, v)."""
    batch, length = tf.unstack(tf.shape(history))
    rows = tf.broadcast_to(tf.range(batch)[:, None], (batch, length))
    indices = tf.stack([rows, history], axis=-1)  # (b, t, 2)
    return tf.scatter_nd(indices, tf.cast(where, tf.float32), (batch, vocabulary_size))


def _last(history, count, number):
    """The last tokens of each row, (b, number); -1 before its beginning."""
    positions = count[:, None] - number + tf.range(number)[None]
    tokens = tf.gather(history, tf.maximum(positions, 0), batch_dims=1)
    return tf.where(positions < 0, -1, tokens)


def _ends_with(history, count, tokens):
    return tf.reduce_all(_last(history, count, len(tokens)) == tf.constant(tokens, tf.int32), axis=1)


def _repeats(history, count, size, vocabulary_size):
    """Tokens that would end an n-gram of `size` which the row has already: bool (b, v)."""
    last = _last(history, count, size - 1)  # (b, size - 1)
    history = tf.pad(history, ((0, 0), (0, size)))
    windows = tf.shape(history)[1] - size + 1
    match = tf.range(windows)[None] + size <= count[:, None]  # (b, windows), the whole n-gram is real
    for i in range(size - 1):
        match &= history[:, i : i + windows] == last[:, i : i + 1]
    following = history[:, size - 1 : size - 1 + windows]
    return _occurrences(following, match, vocabulary_size) > 0
