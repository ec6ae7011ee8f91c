"""Masks and positions from `padding_mask`: 0 = padding, k >= 1 = the k-th sequence packed in the row.

Shape letters: b batch, q query length, k key length, l length.
"""

import keras
from keras import ops

from tfmodels.layers._kernels import mask_scores, not_before
from tfmodels.layers.steps import of_step


def as_numbers(padding_mask):
    """A padding mask as the numbers of sequences; of a boolean one, as Keras has them, True is 1."""
    if padding_mask is None:
        return None
    padding_mask = ops.convert_to_tensor(padding_mask)
    if len(padding_mask.shape) != 2:
        raise ValueError(
            f"A padding mask must be (batch, length). Received: shape {tuple(padding_mask.shape)}."
        )
    is_bool = keras.backend.standardize_dtype(padding_mask.dtype) == "bool"
    return ops.cast(padding_mask, "int32") if is_bool else padding_mask


def first_given(*masks):
    """The first mask that is not None: a layer's own argument before Keras's implicit ones; None: none is."""
    return next((mask for mask in masks if mask is not None), None)


def check_mask(name, padding_mask, x):
    """Raises ValueError for a padding mask, or None, that is not one of x (b, l, d)."""
    if padding_mask is None:
        return
    shape, (batch, length) = tuple(as_numbers(padding_mask).shape), tuple(x.shape)[:2]
    of_batch = batch is None or shape[0] in (None, 1, batch)
    of_length = length is None or shape[1] in (None, length)
    if not (of_batch and of_length):
        raise ValueError(
            f"{name} must be (batch, length) of its sequence. Received: shape {shape} with a sequence of "
            f"shape {tuple(x.shape)}."
        )


def attention_mask(query_mask, key_mask, causal=False, window=None):
    """Which key each query may attend to.

    Args:
        query_mask: int tensor, (batch, query_length), or None: every query is real.
        key_mask: int tensor, (batch, key_length), or None: every key is real.
        causal: whether a query may not see keys after itself; query and key are then the same row.
        window: int, with `causal`: a query sees this many keys, its own the last; None: all before it.

    Returns:
        A boolean tensor that broadcasts to (batch, query_length, key_length), True = may attend,
        or None when nothing is masked.
    """
    query_mask, key_mask = as_numbers(query_mask), as_numbers(key_mask)
    mask = None
    if key_mask is not None:
        mask = key_mask[:, None, :] != 0  # (b, 1, k)
        if query_mask is not None:
            # Packed rows: only keys with the query's own sequence number. A padding query sees
            # padding keys too, which keeps its softmax finite; no real token reads the result.
            mask = query_mask[:, :, None] == key_mask[:, None, :]  # (b, q, k)
    if causal:
        if key_mask is None:
            raise ValueError("attention_mask(causal=True) needs key_mask. Received: key_mask=None.")
        index = ops.arange(ops.shape(key_mask)[1])
        past = _may_see(index[None, :, None], index[None, None, :], window)  # (1, q, k)
        mask = past if mask is None else ops.logical_and(mask, past)
    return mask


def cached_attention_mask(positions, max_length, window=None):
    """Which cached key each query may attend to: those at or before its own position.

    What a row has not written yet stands after its position, so the cache needs no mask of its own. Where a
    step says which places are seen, only those among them.

    Args:
        positions: int tensor, (batch, query_length), the position of each query in its row.
        max_length: int, the length of the cache.
        window: int, how many keys a query sees, its own the last; None: all before it.

    Returns:
        Boolean tensor, (batch, query_length, max_length), True = may attend.
    """
    mask = _may_see(positions[:, :, None], cached_key_positions(max_length)[:, None], window)
    return mask if of_step("seen") is None else ops.logical_and(mask, of_step("seen"))


def cached_key_positions(max_length):
    """The positions of what stands in each place of a cache: int32 tensor, (batch or 1, max_length)."""
    positions = of_step("positions")
    return ops.arange(max_length, dtype="int32")[None] if positions is None else positions


def _may_see(query, key, window):
    """Whether positions of queries may see those of keys: not the future, nor what left the window."""
    past = query >= key
    return past if window is None else ops.logical_and(past, query - key < window)


def masked_softmax(scores, mask, dtype, training=None):
    """Softmax over the keys that may be seen, in float32 at least: bfloat16 sums drift above 1k keys.

    While training, its gradient is made of the weights alone: nothing in float32 is kept for it.

    Args:
        scores: float tensor, (batch, heads, query_length, key_length).
        mask: as `mask_scores` takes it, or None: all may be seen.
        dtype: of the result.
        training: bool.

    Returns:
        Attention weights, of the scores' shape.
    """
    wide = keras.backend.result_type(scores.dtype, "float32")

    def weigh(scores):
        scores = ops.cast(scores, wide)
        scores = scores if mask is None else mask_scores(scores, mask)
        return ops.cast(ops.softmax(scores, axis=-1), dtype)

    @ops.custom_gradient
    def weigh_with_gradient(scores):
        weights = weigh(scores)

        def gradient(upstream):
            parts = ops.cast(not_before(upstream, weights), wide)
            errors = ops.cast(upstream, wide)
            errors = parts * (errors - ops.sum(parts * errors, axis=-1, keepdims=True))
            if mask is not None:  # zero there already, but for queries that may see nothing
                errors = ops.where(mask[:, None], errors, 0.0)
            return ops.cast(errors, scores.dtype)

        return weights, gradient

    return weigh_with_gradient(scores) if training else weigh(scores)


def positions_in_sequence(padding_mask):
    """The position of each token inside its own sequence: packed sequences start again at 0.

    Args:
        padding_mask: int tensor, (batch, length).

    Returns:
        int32 tensor, (batch, length).
    """
    padding_mask = as_numbers(padding_mask)
    batch, length = ops.shape(padding_mask)
    index = ops.broadcast_to(ops.arange(length, dtype="int32")[None], (batch, length))
    # Not ops.roll, which LiteRT lacks.
    previous = ops.concatenate([padding_mask[:, :1], padding_mask[:, :-1]], axis=1)
    starts = ops.cast((padding_mask != previous) & (index > 0), "int32")  # 1 where a run begins
    # Number the runs through the whole batch and find the index at which each one began: linear
    # in length, where comparing all pairs of positions would be quadratic.
    row = ops.arange(batch, dtype="int32")[:, None] * length
    run = ops.reshape(ops.cumsum(starts, axis=1) + row, (-1,))  # (b * l)
    begin = ops.segment_max(ops.reshape(starts * index, (-1,)), run, batch * length)
    return index - ops.reshape(ops.take(begin, run, axis=0), (batch, length))


def are_positions(index):
    """Whether an index says of each token where it stands, (batch, length), and not only of the first."""
    return len(getattr(index, "shape", ())) == 2


def cached_positions(index, length):
    """Positions of `length` new tokens that begin at `index` in each row.

    Args:
        index: int tensor, (batch,) or a scalar; or the positions themselves, (batch, length).
        length: int.

    Returns:
        int32 tensor, (batch, length), or (1, length) for a scalar index.
    """
    if are_positions(index):
        return ops.cast(index, "int32")
    start = ops.reshape(ops.cast(index, "int32"), (-1, 1))
    return start + ops.arange(length, dtype="int32")[None]
