"""Attention weights of layers deep inside a model, for whoever asks around the call.

As `sow` of Flax: no layer between them needs an argument or an output for it.
"""

import contextlib
import contextvars

_record = contextvars.ContextVar("attention_record", default=None)


@contextlib.contextmanager
def record_attention():
    """Within it, layers of attention give the weights of each of their calls.

    Yields:
        Dict of "self" and "cross" -> list of float tensors, (batch, num_heads, query_length, key_length),
        in the order of the calls; a kind that is not called is not there.

    Example:
        >>> with record_attention() as attention:
        ...     model(inputs)
        >>> attention["self"][0].shape
        TensorShape([3, 2, 5, 5])
    """
    token = _record.set({})
    try:
        yield _record.get()
    finally:
        _record.reset(token)


def is_recording():
    return _record.get() is not None


def record(kind, weights):
    """Adds weights, (b, n, q, k), of a call; where nobody asks, nothing is done."""
    if is_recording():
        _record.get().setdefault(kind, []).append(weights)
