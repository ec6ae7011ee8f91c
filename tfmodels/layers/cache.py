"""Keys and values of tokens that were seen before.

Shape letters: b batch, n heads, q new tokens, k length of the cache, h head_dim.
"""

from keras import ops


def write(cache, update, positions):
    """Puts updates, each (b, n, q, h), into caches, each (b, n, k, h), at each row's positions (b, q).

    A scatter, since rows of one batch stand at different positions; it is a core op that writes in
    place inside a compiled loop, and positions after the end of the cache are dropped by none:
    callers bound the length.
    """
    batch, heads, length, _ = ops.shape(update["key"])
    shape = (batch, heads, length)
    indices = ops.stack(
        [
            ops.broadcast_to(ops.arange(batch)[:, None, None], shape),
            ops.broadcast_to(ops.arange(heads)[None, :, None], shape),
            ops.broadcast_to(positions[:, None, :], shape),
        ],
        axis=-1,
    )  # (b, n, q, 3)
    return {
        name: ops.scatter_update(cache[name], indices, ops.cast(new, cache[name].dtype))
        for name, new in update.items()
    }
