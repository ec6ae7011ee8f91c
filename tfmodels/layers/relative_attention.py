"""Attention by relative positions and memory (Dai et al. 2019, Transformer-XL, sections 3.2 and 3.3).

Shape letters: b batch, q query length, m memory length, k key length, c distances, n heads,
h head_dim, d hidden_dim.
"""

import keras
import numpy as np
from keras import ops

from tfmodels.layers._kernels import mask_scores
from tfmodels.layers.attention import MultiHeadAttentionBase
from tfmodels.layers.cache import empty, load, write
from tfmodels.layers.masks import as_numbers, attention_mask, positions_in_sequence
from tfmodels.layers.record import record
from tfmodels.layers.steps import PlainDense


@keras.saving.register_keras_serializable("tfmodels")
class RelativePositions(keras.layers.Layer):
    """Which keys a segment's tokens see, and the sinusoidal code of each distance (section 3.3).

    Once a forward pass, for all of a stack's layers: pass the result on as `window=`.

    Args:
        hidden_dim: int, even, the size of a code.
        memory_length: int, tokens before the segment that its tokens may see; None: none.
        same_length: bool, whether each token sees `memory_length` tokens, itself among them;
            otherwise it sees its whole segment and the memory.
        zero_memory: bool, whether tokens see vectors of zeros where a stream has not yet filled its
            memory, as the authors' TensorFlow code and transformers have it; otherwise nothing.
        clamp_length: int, from which on all distances have one code; None: none.

    Call arguments:
        inputs: padding mask, int tensor, (batch, length), as in the design.
        memory_mask: int tensor, (batch, memory_length), 1 = filled; None: there is no memory. With
            it, rows hold one sequence each, real tokens at the left and filled memory at the right.

    Returns:
        Dict of `codes`, float32 (distances, hidden_dim), from the largest distance to 0; `mask`,
        boolean (batch, length, key_length), True = may see; with `zero_memory` also `zero_mask`,
        boolean (batch, length, distances), where a token sees zeros.

    Example:
        >>> RelativePositions(hidden_dim=4)(keras.ops.ones((1, 3), "int32"))["codes"].shape
        TensorShape([3, 4])
    """

    def __init__(
        self,
        hidden_dim,
        memory_length=None,
        same_length=False,
        zero_memory=False,
        clamp_length=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if hidden_dim % 2:
            raise ValueError(f"hidden_dim must be even. Received: hidden_dim={hidden_dim}.")
        if memory_length is None and (same_length or zero_memory):
            raise ValueError("same_length and zero_memory need a memory. Received: memory_length=None.")
        self.hidden_dim = hidden_dim
        self.memory_length = memory_length
        self.same_length = same_length
        self.zero_memory = zero_memory
        self.clamp_length = clamp_length

    def build(self, input_shape):
        # A weight, since checkpoints store it, and float32 whatever the policy: at a distance of
        # 1000 bfloat16 would miss whole turns.
        self.frequencies = self.add_weight(
            shape=(self.hidden_dim // 2,),
            initializer=_frequencies,
            dtype="float32",
            trainable=False,
            autocast=False,
            name="frequencies",
        )

    def call(self, inputs, memory_mask=None):
        inputs, memory_mask = as_numbers(inputs), as_numbers(memory_mask)
        steps = positions_in_sequence(inputs)  # (b, q)
        filled, keys = 0, inputs
        if memory_mask is not None:
            filled = ops.sum(memory_mask, axis=1, keepdims=True)  # (b, 1)
            keys = ops.concatenate([memory_mask, inputs], axis=1)
        length, key_length = ops.shape(inputs)[1], ops.shape(keys)[1]
        index = ops.arange(key_length, dtype="int32")
        distance = index[key_length - length :, None] - index[None, :]  # (q, k)
        seen = distance >= 0
        if self.same_length:
            seen = ops.logical_and(seen, distance < self.memory_length)
        window = {"mask": ops.logical_and(attention_mask(inputs, keys), seen[None])}
        distances = key_length
        if self.zero_memory:
            distances = key_length if memory_mask is not None else key_length + self.memory_length
            window["zero_mask"] = self._zero_mask(filled + steps, self._reach(steps), distances)
        return window | {"codes": self._codes(distances)}

    def cached(self, positions, prompt_length, max_length):
        """The window of tokens that attend to a cache.

        A prompt counts as one segment, and each token after it as a segment of its own.

        Args:
            positions: int tensor, (batch, length), of the tokens.
            prompt_length: int tensor, (batch,).
            max_length: int, of the cache.

        Returns:
            As the layer's call, and `columns`, int (batch, length, max_length), where in `codes` the
            distance of each key stands.
        """
        distance = positions[:, :, None] - ops.arange(max_length, dtype="int32")  # (b, q, k)
        seen = distance >= 0
        distances = max_length
        window = {}
        if self.memory_length is not None:
            reach = self._reach(ops.where(positions < prompt_length[:, None], positions, 0))
            seen = ops.logical_and(seen, distance <= reach[:, :, None])
            if self.zero_memory:
                distances = max_length + self.memory_length
                window["zero_mask"] = self._zero_mask(positions, reach, distances)
        columns = distances - 1 - ops.maximum(distance, 0)
        return window | {"mask": seen, "columns": columns, "codes": self._codes(distances)}

    def _reach(self, steps):
        """The largest distance that a token may see, `steps` tokens into its segment: (b, q)."""
        if self.same_length:
            return ops.full_like(steps, self.memory_length - 1)
        return steps + self.memory_length

    def _zero_mask(self, before, reach, distances):
        """Zeros stand where the memory reaches further than the tokens before: (b, q, c)."""
        distance = ops.arange(distances - 1, -1, -1, dtype="int32")
        return ops.logical_and(distance > before[:, :, None], distance <= reach[:, :, None])

    def _codes(self, distances):
        distance = ops.arange(distances - 1, -1, -1, dtype="int32")
        if self.clamp_length is not None:
            distance = ops.minimum(distance, self.clamp_length)
        angle = ops.cast(distance, "float32")[:, None] * self.frequencies  # (c, d / 2)
        return ops.concatenate([ops.sin(angle), ops.cos(angle)], axis=-1)  # (c, d)

    def get_config(self):
        return super().get_config() | {
            "hidden_dim": self.hidden_dim,
            "memory_length": self.memory_length,
            "same_length": self.same_length,
            "zero_memory": self.zero_memory,
            "clamp_length": self.clamp_length,
        }


def _frequencies(shape, dtype):
    """1 / 10000^(2i/d), Vaswani et al. 2017, section 3.5, in float32 as the authors have it."""
    return np.float32(1) / np.float32(10000) ** (np.arange(shape[0], dtype="float32") / shape[0])


@keras.saving.register_keras_serializable("tfmodels")
class RelativeBiases(keras.layers.Layer):
    """The vectors u and v of section 3.3, which stand for the query's own position.

    Args:
        num_heads: int, attention heads.
        head_dim: int, size of a head.
        initializer: initializer of both.

    Call arguments:
        inputs: any tensor; it places the layer in a functional model.

    Returns:
        Pair of float tensors, each (num_heads, head_dim): u, added to the query for the keys'
        content, and v, for their position.
    """

    def __init__(self, num_heads, head_dim, initializer="zeros", **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.initializer = keras.initializers.get(initializer)

    def build(self, input_shape):
        shape = (self.num_heads, self.head_dim)
        self.content = self.add_weight(shape=shape, initializer=self.initializer.clone(), name="content")
        self.position = self.add_weight(shape=shape, initializer=self.initializer.clone(), name="position")

    def call(self, inputs):
        return ops.convert_to_tensor(self.content), ops.convert_to_tensor(self.position)

    def get_config(self):
        return super().get_config() | {
            "num_heads": self.num_heads,
            "head_dim": self.head_dim,
            "initializer": keras.initializers.serialize(self.initializer),
        }


@keras.saving.register_keras_serializable("tfmodels")
class RelativeSelfAttention(MultiHeadAttentionBase):
    """Causal self-attention by relative positions (Dai et al. 2019, section 3.3 and appendix B).

    Args:
        num_heads: int, attention heads.
        head_dim: int, size of a head; None: `hidden_dim / num_heads`.
        dropout: float, share of attention weights dropped while training.
        kernel_initializer: initializer of all kernels. There are no biases but u and v.

    Call arguments:
        inputs: float tensor, (batch, length, hidden_dim).
        window: what `RelativePositions` returned.
        biases: pair u, v, each (num_heads, head_dim), as of `RelativeBiases`.
        context: float tensor, (batch, key_length, hidden_dim), memory and inputs; None: `inputs`.
        zero: float tensor, (1, 1, hidden_dim), what stands for a zero of the memory, where the
            window has a `zero_mask`.
        cache: what `init_cache` or the call before returned; needs `positions`.
        positions: int tensor, (batch, length), of the inputs in the cache.

    Returns:
        Float tensor, (batch, length, hidden_dim); with a cache, a tuple of it and the new cache.

    Example:
        >>> x = keras.random.normal((2, 3, 8))
        >>> biases = RelativeBiases(num_heads=2, head_dim=4)(x)
        >>> window = RelativePositions(hidden_dim=8)(keras.ops.ones((2, 3), "int32"))
        >>> RelativeSelfAttention(num_heads=2)(x, window=window, biases=biases).shape
        TensorShape([2, 3, 8])
    """

    def __init__(self, num_heads, head_dim=None, dropout=0.0, kernel_initializer="glorot_uniform", **kwargs):
        super().__init__(
            num_heads,
            head_dim,
            dropout=dropout,
            use_bias=False,
            kernel_initializer=kernel_initializer,
            **kwargs,
        )

    def build(self, input_shape):
        self._build_projections(input_shape, input_shape)
        self.position_dense = PlainDense(
            self.num_heads * self._size,
            use_bias=False,
            kernel_initializer=self.kernel_initializer.clone(),
            dtype=self.dtype_policy,
            name="position",
        )
        self.position_dense.build((None, input_shape[-1]))

    def init_cache(self, batch, max_length, dtype=None):
        """Empty keys and values, each (batch, num_heads, max_length, head_dim)."""
        return empty((batch, self.num_heads, max_length, self._size), dtype or self.compute_dtype)

    def call(
        self,
        inputs,
        window,
        biases,
        context=None,
        zero=None,
        cache=None,
        positions=None,
        training=None,
    ):
        keys = self._project_keys(inputs if context is None else context)
        if cache is not None:
            cache = write(cache, keys, positions)
            keys = load(cache, self.compute_dtype)
        # The scale is that of all four terms; on the query, the smaller factor of the product.
        scale = self._size**-0.5
        (query,) = self._project(inputs, self.query_dense)  # (b, n, q, h)
        content_query, position_query = (
            (query + ops.cast(bias, query.dtype)[:, None]) * scale for bias in biases
        )
        codes = ops.cast(window["codes"], query.dtype)[None]  # (1, c, d)
        (codes,) = self._project(codes, self.position_dense)  # (1, n, c, h)
        content = self._score(content_query, keys)  # (b, n, q, k): a, c
        by_distance = ops.matmul(position_query, ops.swapaxes(codes, -1, -2))  # (b, n, q, c): b, d
        key_length = ops.shape(content)[-1]
        scores = _masked(content + _by_key(by_distance, window, key_length), window["mask"])
        if zero is not None:
            # All zeros of a memory have one key and one value, and differ in distance only, so
            # that they need no keys of their own.
            zero = self._project_keys(zero)  # (1, n, 1, h)
            zero_scores = ops.matmul(content_query, ops.swapaxes(zero["key"], -1, -2)) + by_distance
            scores = ops.concatenate([scores, _masked(zero_scores, window["zero_mask"])], axis=-1)
        weights = ops.cast(ops.softmax(scores, axis=-1), query.dtype)
        record("self", weights[..., :key_length])
        weights = self.weights_dropout(weights, training=training)
        x = self._collect(weights[..., :key_length], keys)  # (b, n, q, h)
        if zero is not None:
            x = x + ops.sum(weights[..., key_length:], axis=-1, keepdims=True) * zero["value"]
        x = self._project_context(x, inputs)
        return x if cache is None else (x, cache)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        config = super().get_config()
        return {name: value for name, value in config.items() if name not in _FIXED}


# Arguments of the attention that Transformer-XL has fixed.
_FIXED = ("scale", "use_bias", "output_bias", "query_initializer", "output_initializer")


def _masked(scores, mask):
    """Scores in float32, in which the softmax is exact enough, with what may not be seen far below."""
    return mask_scores(ops.cast(scores, "float32"), mask)


def _by_key(by_distance, window, key_length):
    """Scores by distance, (b, n, q, c) from the largest to 0, to scores by key, (b, n, q, k)."""
    if "columns" in window:  # rows of one batch stand at different positions
        return ops.take_along_axis(by_distance, window["columns"][:, None], axis=-1)
    # Appendix B: the last query's distances are in order; each row before it moves one to the left.
    # A column of padding and a change of shape move them all at once.
    x = by_distance[..., -key_length:]  # (b, n, q, k)
    batch, heads, length, _ = ops.shape(x)
    x = ops.pad(x, ((0, 0), (0, 0), (0, 0), (1, 0)))  # (b, n, q, k + 1)
    x = ops.reshape(x, (batch, heads, key_length + 1, length))[:, :, 1:]
    return ops.reshape(x, (batch, heads, length, key_length))
