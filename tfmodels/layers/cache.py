"""Keys and values of tokens that were seen before.

Shape letters: b batch, n heads, q new tokens, k length of the cache, h head_dim.
"""

import keras
from keras import ops

from tfmodels.layers._kernels import add_in_place
from tfmodels.layers.steps import of_step, once

_NOWHERE = 2**31 - 1  # a position of no cache
_LARGEST = 127  # of int8; -128 is not used, so that both signs have the same range


class Cache(dict):
    """`key` and `value`, (b, n, k, h), of a float dtype, or of int8 with `key_scale` and `value_scale`.

    The scales are float32, (b, n, k, 1): one for each position and head. A class of its own, since
    Keras casts the floats of plain dicts to what the layer that is called with them computes in.
    """


def empty(shape, dtype):
    """A cache of zeros for keys and values of a shape (b, n, k, h)."""
    cache = Cache((name, _zeros(shape, dtype)) for name in ("key", "value"))
    if dtype == "int8":
        for name in ("key_scale", "value_scale"):
            cache[name] = _zeros((*shape[:-1], 1), "float32")
    return cache


def _zeros(shape, dtype):
    if any(map(ops.is_tensor, shape)):  # one tensor of the sizes for all caches of a model
        shape = once(lambda: ops.stack(shape), "sizes", *shape)
    return ops.zeros(shape, dtype=dtype)


def store(keys, dtype):
    """Keys and values, each (b, n, l, h), as a cache of this dtype holds them."""
    if dtype != "int8":
        return Cache((name, ops.cast(x, dtype)) for name, x in keys.items())
    stored = Cache()
    for name, x in keys.items():
        x = ops.cast(x, "float32")
        scale = ops.max(ops.abs(x), axis=-1, keepdims=True) / _LARGEST  # (b, n, l, 1)
        # Where all is 0 any divisor gives 0.
        stored[name] = ops.cast(ops.round(x / ops.where(scale == 0, 1.0, scale)), "int8")
        stored[f"{name}_scale"] = scale
    return stored


def load(cache, dtype):
    """The keys and values of a cache, each (b, n, k, h), in a dtype to compute with.

    Where the tokens of a step are to be written later, their own are under "new", (b, n, q, h), and the
    places where they would stand under "here", bool (b, 1, q, k).
    """
    keys = _load(cache, dtype)
    own = [written for written in of_step("later") or () if written[0] is cache]
    if not own:
        return keys
    _, new, places = own[-1]
    here = once(lambda: _places(cache) == places[:, None, :, None], "here", places)
    return keys | {"new": _load(new, dtype), "here": here}


def _places(cache):
    return ops.arange(ops.shape(cache["key"])[2], dtype="int32")


def _load(cache, dtype):
    keys = {name: ops.cast(cache[name], dtype) for name in ("key", "value")}
    if "key_scale" not in cache:
        return keys
    return {name: x * ops.cast(cache[f"{name}_scale"], dtype) for name, x in keys.items()}


def write(cache, keys, positions):
    """Puts keys and values, each (b, n, q, h), into a cache at each row's positions (b, q).

    Positions after the end of the cache are dropped by none: callers bound the length. Where a step writes
    later the cache is returned as it is, and `load` knows of its new tokens.
    """
    places = positions if of_step("places") is None else of_step("places")
    update = store(keys, keras.backend.standardize_dtype(cache["key"].dtype))
    if of_step("later") is not None:
        of_step("later").append((cache, update, places))
        return cache
    return Cache((name, put(cache[name], new, places)) for name, new in update.items())


def put(stored, new, positions):
    """One tensor of a cache (b, n, k, h) with new ones (b, n, q, h) at each row's positions (b, q).

    A scatter, since rows of one batch stand at different positions.
    """
    until = of_step("until")
    if until is None:
        indices = once(lambda: _indices(new, positions), "indices", positions, new.shape[1])
        return ops.scatter_update(stored, indices, new)

    def real_indices():
        return _indices(new, ops.where(positions < until[:, None], positions, _NOWHERE))

    indices = once(real_indices, "real indices", positions, until, new.shape[1])
    return add_in_place(stored, indices, new)


def _indices(key, positions):
    """Of each new key (b, n, q, h) its place in a cache: (b, n, q, 3)."""
    shape = ops.shape(key)[:3]
    batch, heads, _ = shape
    return ops.stack(
        [
            ops.broadcast_to(ops.arange(batch)[:, None, None], shape),
            ops.broadcast_to(ops.arange(heads)[None, :, None], shape),
            ops.broadcast_to(positions[:, None, :], shape),
        ],
        axis=-1,
    )
