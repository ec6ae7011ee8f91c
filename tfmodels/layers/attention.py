"""Multi-head attention (Vaswani et al. 2017, section 3.2).

Shape letters: b batch, q query length, k key length, n heads, h head_dim, d hidden_dim.
"""

import keras
from keras import ops

from tfmodels.layers.masks import attention_mask, cached_attention_mask, cached_positions

# Added to the scores of masked keys. Finite, so that a query that may see nothing (padding) gets
# a softmax without NaN; exp(-1e9) is exactly 0 in float32 and bfloat16 beside any real score.
_MASKED_SCORE = -1e9


class _MultiHeadAttention(keras.layers.Layer):
    """The projections and the attention itself, shared by the self and cross variants."""

    def __init__(
        self,
        num_heads,
        head_dim=None,
        dropout=0.0,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        output_initializer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if num_heads < 1:
            raise ValueError(f"num_heads must be at least 1. Received: num_heads={num_heads}.")
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.dropout = dropout
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.output_initializer = keras.initializers.get(output_initializer or kernel_initializer)

    def _build_projections(self, query_shape, key_shape):
        hidden_dim = query_shape[-1]
        if self.head_dim is None and hidden_dim % self.num_heads:
            raise ValueError(
                "hidden_dim must be divisible by num_heads. "
                f"Received: hidden_dim={hidden_dim}, num_heads={self.num_heads}."
            )
        self._size = self.head_dim or hidden_dim // self.num_heads

        def dense(name, units, initializer):
            # A fresh copy each: Keras warns when one unseeded initializer object is used twice.
            return keras.layers.Dense(
                units,
                use_bias=self.use_bias,
                kernel_initializer=initializer.clone(),
                dtype=self.dtype_policy,
                name=name,
            )

        inner_dim = self.num_heads * self._size
        self.query_dense = dense("query", inner_dim, self.kernel_initializer)
        self.key_dense = dense("key", inner_dim, self.kernel_initializer)
        self.value_dense = dense("value", inner_dim, self.kernel_initializer)
        self.output_dense = dense("output", hidden_dim, self.output_initializer)
        self.query_dense.build((None, hidden_dim))
        self.key_dense.build((None, key_shape[-1]))
        self.value_dense.build((None, key_shape[-1]))
        self.output_dense.build((None, inner_dim))
        # Always there, so that one layout of seeds serves any rate.
        self.weights_dropout = keras.layers.Dropout(
            self.dropout, dtype=self.dtype_policy, name="weights_dropout"
        )

    def _split_heads(self, dense, x):
        """(batch, length, dim) -> (batch, heads, length, head_dim)."""
        batch, length, dim = ops.shape(x)
        # Flat rows: a two-dimensional matmul has a far cheaper kernel gradient than a batched one.
        x = dense(ops.reshape(x, (-1, dim)))  # (b * l, n * h)
        x = ops.reshape(x, (batch, length, self.num_heads, self._size))
        return ops.transpose(x, (0, 2, 1, 3))  # (b, n, l, h)

    def _project_keys(self, x):
        return {
            "key": self._split_heads(self.key_dense, x),
            "value": self._split_heads(self.value_dense, x),
        }

    def _attend(self, x, keys, mask, training):
        """x (b, q, d), keys of (b, n, k, h), mask (b, q, k) -> output (b, q, d), weights (b, n, q, k)."""
        query = self._split_heads(self.query_dense, x)  # (b, n, q, h)
        # Section 3.2.1: scaled by 1/sqrt(d_k); on the query, the smaller factor of the product.
        query = query * (self._size**-0.5)
        scores = ops.matmul(query, ops.swapaxes(keys["key"], -1, -2))  # (b, n, q, k)
        # Softmax in float32: bfloat16 sums drift above 1k keys.
        scores = ops.cast(scores, "float32")
        if mask is not None:
            scores = scores + ops.where(mask, 0.0, _MASKED_SCORE)[:, None]
        weights = ops.cast(ops.softmax(scores, axis=-1), query.dtype)
        context = ops.matmul(self.weights_dropout(weights, training=training), keys["value"])
        batch, _, length, _ = ops.shape(context)
        context = ops.transpose(context, (0, 2, 1, 3))  # (b, q, n, h)
        context = ops.reshape(context, (-1, self.num_heads * self._size))  # (b * q, n * h)
        return ops.reshape(self.output_dense(context), (batch, length, x.shape[-1])), weights

    def get_config(self):
        return super().get_config() | {
            "num_heads": self.num_heads,
            "head_dim": self.head_dim,
            "dropout": self.dropout,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "output_initializer": keras.initializers.serialize(self.output_initializer),
        }


@keras.saving.register_keras_serializable("tfmodels")
class MultiHeadSelfAttention(_MultiHeadAttention):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2.2).

    Args:
        num_heads: int, attention heads.
        head_dim: int, size of a head; None: `hidden_dim / num_heads`.
        causal: bool, whether a token sees only itself and what stands before it.
        dropout: float, share of attention weights dropped while training.
        use_bias: bool, biases on the four projections.
        kernel_initializer: initializer of the query, key and value kernels.
        output_initializer: initializer of the output kernel; None: `kernel_initializer`.

    Call arguments:
        inputs: float tensor, (batch, length, hidden_dim).
        padding_mask: int tensor, (batch, length), 0 = padding, k >= 1 = the k-th sequence packed in
            the row, which attends inside itself only; None: every token is real.
        cache: what `init_cache` or the call before returned; needs `index` and `causal=True`.
        index: int tensor, (batch,) or a scalar: where in each row `inputs` begins.
        return_attention: bool, whether to return the attention weights too.

    Returns:
        Float tensor, (batch, length, hidden_dim); with a cache, a tuple of it and the new cache;
        with `return_attention`, followed by the weights, (batch, num_heads, length, key_length).

    Raises:
        ValueError: hidden_dim is not divisible by num_heads; a cache without causal attention.

    Example:
        >>> layer = MultiHeadSelfAttention(num_heads=2, causal=True)
        >>> layer(keras.random.normal((3, 5, 8))).shape
        TensorShape([3, 5, 8])
    """

    def __init__(self, num_heads, head_dim=None, causal=False, **kwargs):
        super().__init__(num_heads, head_dim, **kwargs)
        self.causal = causal

    def build(self, input_shape):
        self._build_projections(input_shape, input_shape)

    def init_cache(self, batch, max_length):
        """Empty keys and values, each (batch, num_heads, max_length, head_dim)."""
        shape = (batch, self.num_heads, max_length, self._size)
        return {
            "key": ops.zeros(shape, dtype=self.compute_dtype),
            "value": ops.zeros(shape, dtype=self.compute_dtype),
        }

    def call(
        self,
        inputs,
        padding_mask=None,
        cache=None,
        index=None,
        return_attention=False,
        training=None,
    ):
        keys = self._project_keys(inputs)
        if cache is None:
            if self.causal and padding_mask is None:
                padding_mask = ops.ones(ops.shape(inputs)[:2], dtype="int32")
            mask = attention_mask(padding_mask, padding_mask, self.causal)
        else:
            if not self.causal:
                raise ValueError("A cache needs causal attention. Received: causal=False.")
            positions = cached_positions(index, ops.shape(inputs)[1])  # (b, q)
            cache = {name: _write(cache[name], keys[name], positions) for name in ("key", "value")}
            mask = cached_attention_mask(positions, ops.shape(cache["key"])[2])
            keys = cache
        outputs, weights = self._attend(inputs, keys, mask, training)
        results = (outputs,)
        if cache is not None:
            results += (cache,)
        if return_attention:
            results += (weights,)
        return results if len(results) > 1 else outputs

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return super().get_config() | {"causal": self.causal}


@keras.saving.register_keras_serializable("tfmodels")
class MultiHeadCrossAttention(_MultiHeadAttention):
    """Attention from the decoder to the encoder's output (Vaswani et al. 2017, section 3.2.3).

    Args:
        num_heads: int, attention heads.
        head_dim: int, size of a head; None: `hidden_dim / num_heads`.
        dropout: float, share of attention weights dropped while training.
        use_bias: bool, biases on the four projections.
        kernel_initializer: initializer of the query, key and value kernels.
        output_initializer: initializer of the output kernel; None: `kernel_initializer`.

    Call arguments:
        inputs: float tensor, (batch, length, hidden_dim).
        encoder_output: float tensor, (batch, encoder_length, encoder_dim); left out with a cache.
        encoder_padding_mask: int tensor, (batch, encoder_length), 0 = padding; None: all are real.
        padding_mask: int tensor, (batch, length). Given, both sides count as packed: sequence k
            attends to the encoder's sequence k.
        cache: what `init_cache` returned, instead of `encoder_output`.
        return_attention: bool, whether to return the attention weights too.

    Returns:
        Float tensor, (batch, length, hidden_dim), and with `return_attention` the weights,
        (batch, num_heads, length, encoder_length).

    Example:
        >>> layer = MultiHeadCrossAttention(num_heads=2)
        >>> layer(keras.random.normal((3, 5, 8)), keras.random.normal((3, 7, 8))).shape
        TensorShape([3, 5, 8])
    """

    def build(self, inputs_shape, encoder_output_shape=None):
        self._build_projections(inputs_shape, encoder_output_shape or inputs_shape)

    def init_cache(self, encoder_output):
        """The encoder output's keys and values, each (batch, num_heads, encoder_length, head_dim)."""
        return self._project_keys(encoder_output)

    def call(
        self,
        inputs,
        encoder_output=None,
        encoder_padding_mask=None,
        padding_mask=None,
        cache=None,
        return_attention=False,
        training=None,
    ):
        keys = self._project_keys(encoder_output) if cache is None else cache
        mask = attention_mask(padding_mask, encoder_padding_mask)
        outputs, weights = self._attend(inputs, keys, mask, training)
        return (outputs, weights) if return_attention else outputs

    def compute_output_shape(self, inputs_shape, encoder_output_shape=None):
        return tuple(inputs_shape)


def _write(cache, update, positions):
    """Puts update (b, n, q, h) into cache (b, n, k, h) at each row's positions (b, q).

    A scatter, since rows of one batch stand at different positions; it is a core op that writes in
    place inside a compiled loop, and positions after the end of the cache are dropped by none:
    callers bound the length.
    """
    batch, heads, length, _ = ops.shape(update)
    shape = (batch, heads, length)
    indices = ops.stack(
        [
            ops.broadcast_to(ops.arange(batch)[:, None, None], shape),
            ops.broadcast_to(ops.arange(heads)[None, :, None], shape),
            ops.broadcast_to(positions[:, None, :], shape),
        ],
        axis=-1,
    )  # (b, n, q, 3)
    return ops.scatter_update(cache, indices, ops.cast(update, cache.dtype))
