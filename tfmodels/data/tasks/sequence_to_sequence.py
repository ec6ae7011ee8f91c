"""Pairs of texts for an encoder-decoder."""

import numpy as np

from tfmodels.data.examples import Examples
from tfmodels.data.tokens import Frame, check_pairs, padding_id, special_id, tokenize


def sequence_to_sequence(pairs, tokenizer, target_tokenizer=None, max_length=128, start_id=None):
    """Pairs of texts to examples for an encoder-decoder.

    Args:
        pairs: list of (source, target) strings, or a tf.data.Dataset of such.
        tokenizer: has `tokenize`, `encode`, `template`, `start_id` and `end_id`. Both sides get the special
            tokens of its template, and an end where it has none.
        target_tokenizer: for the target; None: `tokenizer`.
        max_length: int; pairs with more tokens on either side, special ones included, are left out.
        start_id: int, what the decoder begins with; None: the target tokenizer's `start_id`. BART begins
            with the end.

    Returns:
        `Examples` of x, a dict of `encoder_token_ids`, int32 (source_length,), and `decoder_token_ids`,
        int32 (target_length,), and y, int32 (target_length,). `left_out` says how many were too long.

    Raises:
        ValueError: there are no pairs, an element is not a pair of texts, or a text is empty.
    """
    target_tokenizer = target_tokenizer or tokenizer
    sources, targets = check_pairs(pairs)
    start_id = special_id(target_tokenizer, "start_id") if start_id is None else start_id
    source_ids, target_ids = _with_ends(tokenizer, sources), _with_ends(target_tokenizer, targets)
    kept = np.flatnonzero(np.maximum(source_ids.lengths, target_ids.lengths) <= max_length)
    source_ids, target_ids = source_ids.select(kept), target_ids.select(kept)
    decoder_ids = target_ids.first(target_ids.lengths - 1).between(before=[start_id])
    pad, target_pad = padding_id(tokenizer), padding_id(target_tokenizer)
    return Examples.from_ragged(
        {
            "encoder_padding_mask": {"x/encoder_token_ids": source_ids},
            "decoder_padding_mask": {"x/decoder_token_ids": decoder_ids, "y": target_ids},
        },
        pad={"x/encoder_token_ids": pad, "x/decoder_token_ids": target_pad, "y": target_pad},
        left_out=len(sources) - len(kept),
    )


def _with_ends(tokenizer, texts):
    """Ids with the template's special tokens, ended in any case."""
    frame, end = Frame(tokenizer), special_id(tokenizer, "end_id")
    ids = frame.around(tokenize(tokenizer, texts))[0]["x/token_ids"]
    return ids if frame.last == end else ids.between(after=[end])
