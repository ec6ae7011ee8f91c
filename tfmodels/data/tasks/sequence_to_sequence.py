"""Pairs of texts for an encoder-decoder."""

import numpy as np

from tfmodels.data.examples import Examples
from tfmodels.data.tokens import check_pairs, padding_id, special_id, tokenize


def sequence_to_sequence(pairs, tokenizer, target_tokenizer=None, max_length=128):
    """Pairs of texts to examples for an encoder-decoder.

    Args:
        pairs: list of (source, target) strings, or a tf.data.Dataset of such.
        tokenizer: has `tokenize`, `start_id` and `end_id`.
        target_tokenizer: for the target; None: `tokenizer`.
        max_length: int; pairs with more tokens on either side, end included, are left out.

    Returns:
        `Examples` of x, a dict of `encoder_token_ids`, int32 (source_length,), and `decoder_token_ids`,
        int32 (target_length,), and y, int32 (target_length,). `left_out` says how many were too long.

    Raises:
        ValueError: there are no pairs, an element is not a pair of texts, or a text is empty.
    """
    target_tokenizer = target_tokenizer or tokenizer
    sources, targets = check_pairs(pairs)
    end, target_end = special_id(tokenizer, "end_id"), special_id(target_tokenizer, "end_id")
    start = special_id(target_tokenizer, "start_id")
    source_ids, target_ids = tokenize(tokenizer, sources), tokenize(target_tokenizer, targets)
    kept = np.flatnonzero(np.maximum(source_ids.lengths, target_ids.lengths) < max_length)
    source_ids, target_ids = source_ids.select(kept), target_ids.select(kept)
    pad, target_pad = padding_id(tokenizer), padding_id(target_tokenizer)
    return Examples.from_ragged(
        {
            "encoder_padding_mask": {"x/encoder_token_ids": source_ids.between(after=[end])},
            "decoder_padding_mask": {
                "x/decoder_token_ids": target_ids.between(before=[start]),
                "y": target_ids.between(after=[target_end]),
            },
        },
        pad={"x/encoder_token_ids": pad, "x/decoder_token_ids": target_pad, "y": target_pad},
        left_out=len(sources) - len(kept),
    )
