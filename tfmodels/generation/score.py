"""How probable a model finds a text.

Shape letters: b batch, l length, v vocabulary.
"""

import dataclasses
from numbers import Integral

import numpy as np
import tensorflow as tf

from tfmodels.generation.config import GenerationConfig
from tfmodels.generation.prompts import check_encodable, check_tokenizer, ids_before_scored, source_ids
from tfmodels.generation.protocol import compiled, is_encoder_decoder
from tfmodels.generation.rules import token_rules


@dataclasses.dataclass(frozen=True)
class ScoreResult:
    """What `score` returns, an entry a text.

    Attributes:
        log_likelihood: float64 array, (texts,), the sum of a text's log-probabilities.
        perplexity: float64 array, (texts,), exp of minus their mean; NaN where no token was scored.
        token_ids: list of int32 arrays, the tokens that were scored.
        log_probabilities: list of float32 arrays, of each of these given those before it.
    """

    log_likelihood: np.ndarray
    perplexity: np.ndarray
    token_ids: list
    log_probabilities: list


def token_log_probabilities(model, inputs):
    """The log-probability of each token given those before it, in graph ops.

    Args:
        model: takes ids and masks, gives logits, (batch, length, vocabulary), the token after each.
        inputs: dict of the model's ids and masks, int (batch, length). Of an encoder-decoder the
            decoder's ids are scored, given the encoder's.

    Returns:
        float32 tensor, (batch, length): 0 for padding and for the first token of each sequence.
    """
    ids_name, (mask_name, _) = list(model.input_pairs.items())[-1]
    inputs = model.complete_inputs(inputs)
    ids, mask = inputs[ids_name], inputs[mask_name]
    logits = tf.cast(model(inputs, training=False), tf.float32)[:, :-1]  # (b, l - 1, v)
    chosen = tf.gather(logits, ids[:, 1:], batch_dims=2)  # (b, l - 1)
    scores = chosen - tf.reduce_logsumexp(logits, axis=-1)
    follows = (mask[:, 1:] == mask[:, :-1]) & (mask[:, 1:] != 0)  # the same packed sequence
    return tf.pad(tf.where(follows, scores, 0.0), ((0, 0), (1, 0)))


def score(model, texts, tokenizer=None, max_length=None, stride=None, tokens_per_batch=2048):
    """Log-likelihoods and perplexities of texts.

    A decoder's text follows the special tokens of the tokenizer's template, and with none of them
    the end token, which stands before every text that such a model was trained on: so all its
    tokens have a score. Where it is longer than the model reads, a window slides over it, and each
    token is scored once, in the first window that has it. An encoder-decoder scores a target, its
    end token included, given its source.

    Args:
        model: an autoregressive model, such as a `GPT2` or a `Transformer`.
        texts: str or list of str with a tokenizer; for an encoder-decoder a pair of source and target
            or a list of pairs. Without a tokenizer lists of ids instead of str, scored from the
            second id on.
        tokenizer: the model's.
        max_length: int, tokens of a window, at most the model's; None: the model's.
        stride: int, tokens by which the window moves, at least 1 and below `max_length`; small is
            slow, and lower perplexity, as tokens have more before them; None: half of it.
        tokens_per_batch: int, tokens computed at once, padding counted; a longer row goes alone.

    Returns:
        A `ScoreResult`.

    Raises:
        ValueError: no texts; a value out of range; a source or target that is too long.

    Example:
        >>> tfmodels.score(model, ["It was a dark and stormy night."], tokenizer).perplexity
    """
    max_length, stride = _window(model, max_length, stride)
    if not _is_whole(tokens_per_batch) or tokens_per_batch < 1:
        raise ValueError(f"tokens_per_batch must be a number from 1 on. Received: {tokens_per_batch!r}.")
    if not hasattr(texts, "__iter__"):
        raise ValueError(f"texts must be a str or a list. Received: {texts!r:.100}.")
    if is_encoder_decoder(model):
        rows = _source_target_rows(model, texts, tokenizer, max_length)
        firsts = [1] * len(rows)
    else:
        rows, firsts = _decoder_rows(model, texts, tokenizer)
    names = [*model.input_pairs]
    # (row, first token of the window, first scored token, ids of each input)
    windows = [
        (i, begin, scored, [*row[:-1], row[-1][begin:end]])
        for i, row in enumerate(rows)
        for begin, scored, end in _spans(len(row[-1]), max_length, stride)
    ]
    found = [np.zeros(len(row[-1]), np.float32) for row in rows]
    for batch in _batches(windows, tokens_per_batch):
        inputs = {}
        for j, name in enumerate(names):
            ids = tf.ragged.constant([window[3][j] for window in batch], tf.int32, ragged_rank=1)
            inputs[name] = ids.to_tensor()
            inputs[model.input_pairs[name][0]] = tf.ones_like(ids).to_tensor()
        values = _compiled(model)(inputs).numpy()
        for (i, begin, scored, ids), row in zip(batch, values, strict=True):
            found[i][scored : begin + len(ids[-1])] = row[scored - begin : len(ids[-1])]
    return _result(
        [np.asarray(row[-1][first:], np.int32) for row, first in zip(rows, firsts, strict=True)],
        [row[first:] for row, first in zip(found, firsts, strict=True)],
    )


def _result(token_ids, log_probabilities):
    sums = np.array([each.sum(dtype=np.float64) for each in log_probabilities])
    counts = np.array([len(each) for each in log_probabilities])
    means = np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)
    return ScoreResult(sums, np.exp(-means), token_ids, log_probabilities)


def _window(model, max_length, stride):
    """Checked length of the window, None for no limit, and its stride."""
    own = model.config.max_sequence_length
    for name, value in {"max_length": max_length, "stride": stride}.items():
        if value is not None and not _is_whole(value):
            raise ValueError(f"{name} must be a whole number, or None. Received: {value!r}.")
    if max_length is None:
        max_length = own
    elif max_length < 2 or (own is not None and max_length > own):
        raise ValueError(
            f"max_length must be at least 2 and at most the model's {own}. Received: {max_length}."
        )
    if stride is None:
        stride = None if max_length is None else max(max_length // 2, 1)
    elif stride < 1 or (max_length is not None and stride >= max_length):
        raise ValueError(f"stride must be at least 1 and below max_length={max_length}. Received: {stride}.")
    return max_length, stride


def _is_whole(value):
    return isinstance(value, Integral) and not isinstance(value, bool)


def _spans(length, max_length, stride):
    """Windows over a row: (begin, first scored token, end); no token is scored twice."""
    if max_length is None or length <= max_length:
        return [(0, min(1, length), length)]
    spans, scored = [], 1
    for begin in range(0, length, stride):
        end = min(begin + max_length, length)
        spans.append((begin, scored, end))
        scored = end
        if end == length:
            return spans


def _batches(windows, tokens_per_batch):
    """Windows of like lengths together, as many as fit."""
    batch, longest = [], 0
    for window in sorted(windows, key=lambda window: [len(ids) for ids in reversed(window[3])]):
        width = max(longest, sum(map(len, window[3])))
        if batch and width * (len(batch) + 1) > tokens_per_batch:
            yield batch
            batch, width = [], sum(map(len, window[3]))
        batch.append(window)
        longest = width
    if batch:
        yield batch


def _decoder_rows(model, texts, tokenizer):
    """A list of [ids] a text, and the first position of each that is scored."""
    if tokenizer is None:
        rows = [[_checked_ids(model, ids)] for ids in _at_least_one(texts)]
        return rows, [1] * len(rows)
    check_tokenizer(model, tokenizer)
    before = ids_before_scored(tokenizer)
    texts = _at_least_one([texts] if isinstance(texts, str) else texts)
    _check_texts(texts)
    rows = [[before + ids] for ids in tokenizer.tokenize(texts).to_list()]
    return rows, [max(len(before), 1)] * len(rows)


def _source_target_rows(model, pairs, tokenizer, max_length):
    """A list of [source ids, target ids] a pair, the target after the start token."""
    pairs = list(pairs)
    pairs = [pairs] if len(pairs) == 2 and all(isinstance(side, str) for side in pairs) else pairs
    for i, pair in enumerate(_at_least_one(pairs)):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise ValueError(
                f"An encoder-decoder scores pairs of source and target. Received: texts[{i}]={pair!r}."
            )
    if tokenizer is None:
        rows = [[_checked_ids(model, side, j) for j, side in enumerate(pair)] for pair in pairs]
    else:
        check_tokenizer(model, tokenizer)
        before, after = source_ids(tokenizer)
        sides = list(zip(*pairs, strict=True))
        _check_texts([text for side in sides for text in side])
        sides = [tokenizer.tokenize(list(side)).to_list() for side in sides]
        rows = [[before + ids + after for ids in row] for row in zip(*sides, strict=True)]
        start = token_rules(model, tokenizer, GenerationConfig()).start_id
        rows = [[source, [start, *target]] for source, target in rows]
    longest = max(max(map(len, row)) for row in rows)
    if max_length is not None and longest > max_length:
        raise ValueError(
            f"Sources and targets must not be longer than {max_length} tokens. Received: {longest}."
        )
    return rows


def _at_least_one(texts):
    texts = list(texts)
    if not texts:
        raise ValueError("There must be at least one text. Received: none.")
    return texts


def _check_texts(texts):
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(
                "With a tokenizer each text is a str; lists of ids are scored without one. "
                f"Received: {text!r:.100}."
            )
    check_encodable(texts, "text")


def _checked_ids(model, ids, side=0):
    ids = np.asarray(ids)
    size = getattr(model.config, list(model.input_pairs.values())[side][1])
    if ids.ndim != 1 or not ids.size or ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= size:
        raise ValueError(
            "Without a tokenizer each text is a list of at least one id, each at least 0 and below the "
            f"vocabulary size {size}. Received: {ids.tolist()!r:.100}."
        )
    return ids.tolist()


def _compiled(model):
    """The traced `token_log_probabilities` of a model."""
    names = [name for ids, (mask, _) in model.input_pairs.items() for name in (ids, mask)]
    return compiled(
        model,
        "token_log_probabilities",
        lambda inputs: token_log_probabilities(model, inputs),
        {name: tf.TensorSpec((None, None), tf.int32) for name in names},
    )
