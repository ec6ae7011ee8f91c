"""Running text to rows for a decoder: each token predicts the next."""

import numpy as np

from tfmodels.data.examples import Examples, Field
from tfmodels.data.tokens import check_text, listed, padding_id, special_id, tokenize, where

_AXIS = "padding_mask"


def causal_language_modelling(texts, tokenizer, length, stride=None, join=True):
    """Running text to rows of at most `length` tokens, in which each token predicts the next.

    Args:
        texts: list of str, in their order; empty ones, which stand between chapters, are passed over.
        tokenizer: has `tokenize`, `end_id` and `pad_id`.
        length: int, tokens a row.
        stride: int, where the next row begins; None: `length`. With a smaller stride rows overlap,
            and tokens that the row before has scored get weight 0 and serve as context: each token
            of the text is scored exactly once.
        join: bool, whether the texts are joined, each ended by the end token, and cut into rows, of
            which only the last is shorter. Otherwise each text is an example, longer ones cut: what
            `batches(..., pack=length)` puts together again, without attention from text to text.

    Returns:
        `Examples` of x, a dict of `token_ids`; y, int32 (length,), the next tokens; and, with a stride,
        sample_weight.

    Raises:
        ValueError: there is no text; stride is not between 1 and length.
    """
    stride = length if stride is None else stride
    if not 1 <= stride <= length:
        raise ValueError(f"stride must be from 1 to length={length}. Received: stride={stride}.")
    texts = listed(texts)
    kept = [check_text(text, where(texts, i)) for i, text in enumerate(texts) if text]
    if not kept:
        raise ValueError("There must be at least one text. Received: none.")
    end = special_id(tokenizer, "end_id")
    ids = tokenize(tokenizer, kept)
    # Each text with its end, and an end first: a beginning is predicted like any other token.
    after = ids.begins + ids.lengths
    stream = np.insert(ids.values, np.concatenate([[0], after]), end).astype(np.int32)
    if join:
        begins, targets = np.zeros(1, np.int64), np.array([len(stream) - 1])
    else:
        begins = ids.begins + np.arange(len(ids))
        targets = ids.lengths + 1
    begins, lengths, context = _rows(begins, targets, length, stride)
    field = Field(_AXIS, pad=padding_id(tokenizer))
    return Examples(
        {"x/token_ids": field, "y": field},
        # The two share their memory.
        {"x/token_ids": stream[:-1], "y": stream[1:]},
        {_AXIS: begins},
        {_AXIS: lengths},
        context=context if stride < length else None,
    )


def _rows(begins, targets, length, stride):
    """Cuts texts of many targets into overlapping rows: begins, lengths, tokens that are context."""
    # The first row of a text scores all its tokens, each later one its last `stride`.
    counts = 1 + np.maximum(0, -(-(targets - length) // stride))
    text = np.repeat(np.arange(len(begins)), counts)
    number = np.arange(len(text)) - np.repeat(np.cumsum(counts) - counts, counts)
    lengths = np.minimum(length, targets[text] - number * stride)
    return begins[text] + number * stride, lengths, np.where(number > 0, length - stride, 0)
