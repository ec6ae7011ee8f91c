"""Multi-head attention (Vaswani et al. 2017, section 3.2).

Shape letters: b batch, q query length, k key length, n heads, g heads of keys and values,
h head_dim, d hidden_dim.
"""

import keras
from keras import ops

from tfmodels.layers._kernels import blockwise_attention, is_for_xla, matmul_heads, swap_in_words
from tfmodels.layers.cache import empty, load, write
from tfmodels.layers.dropout import Dropout
from tfmodels.layers.masks import (
    as_numbers,
    attention_mask,
    cached_attention_mask,
    cached_positions,
    check_mask,
    first_given,
    masked_softmax,
)
from tfmodels.layers.record import is_recording, record
from tfmodels.layers.rotary import rotate
from tfmodels.layers.steps import Dense, is_stepping, leading, of_step, once, side_by_side

# From this length on attention goes block by block, which then is faster too; below, the blocks' own
# work is more than what they skip.
_BLOCKWISE_LENGTH = 2048


class MultiHeadAttentionBase(keras.layers.Layer):
    """The projections and the attention itself, shared by the self and cross variants."""

    def __init__(
        self,
        num_heads,
        head_dim=None,
        dropout=0.0,
        scale=None,
        use_bias=True,
        output_bias=None,
        kernel_initializer="glorot_uniform",
        query_initializer=None,
        output_initializer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        if num_heads < 1:
            raise ValueError(f"num_heads must be at least 1. Received: num_heads={num_heads}.")
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.dropout = dropout
        self.scale = scale
        self.use_bias = use_bias
        self.output_bias = use_bias if output_bias is None else output_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.query_initializer = keras.initializers.get(query_initializer or kernel_initializer)
        self.output_initializer = keras.initializers.get(output_initializer or kernel_initializer)

    def _build_projections(self, query_shape, key_shape, key_value_heads=None):
        for shape in (query_shape, key_shape):
            if len(shape) != 3:
                raise ValueError(f"Attention takes (batch, length, hidden_dim). Received: {tuple(shape)}.")
        hidden_dim = query_shape[-1]
        self._key_value_heads = key_value_heads or self.num_heads
        if self.head_dim is None and hidden_dim % self.num_heads:
            raise ValueError(
                "hidden_dim must be divisible by num_heads. "
                f"Received: hidden_dim={hidden_dim}, num_heads={self.num_heads}."
            )
        self._size = self.head_dim or hidden_dim // self.num_heads

        def dense(name, units, initializer, use_bias=self.use_bias):
            # A fresh copy each: Keras warns when one unseeded initializer object is used twice.
            return Dense(
                units,
                use_bias=use_bias,
                kernel_initializer=initializer.clone(),
                dtype=self.dtype_policy,
                name=name,
            )

        inner_dim = self.num_heads * self._size
        key_value_dim = self._key_value_heads * self._size
        self.query_dense = dense("query", inner_dim, self.query_initializer)
        self.key_dense = dense("key", key_value_dim, self.kernel_initializer)
        self.value_dense = dense("value", key_value_dim, self.kernel_initializer)
        self.output_dense = dense("output", hidden_dim, self.output_initializer, self.output_bias)
        self.query_dense.build((None, hidden_dim))
        self.key_dense.build((None, key_shape[-1]))
        self.value_dense.build((None, key_shape[-1]))
        self.output_dense.build((None, inner_dim))
        # Always there, so that one layout of seeds serves any rate.
        self.weights_dropout = Dropout(self.dropout, dtype=self.dtype_policy, name="weights_dropout")

    def _project(self, x, *layers):
        """x (batch, length, dim) by each layer -> list of (batch, heads, length, head_dim)."""
        # Flat rows: a two-dimensional matmul has a far cheaper kernel gradient than a batched one.
        rows = ops.reshape(x, (-1, x.shape[-1]))  # (b * l, d)
        return [self._split_heads(y, *leading(x)) for y in side_by_side(rows, *layers)]

    def _split_heads(self, rows, batch, length):
        """(b * l, n * h) -> (b, n, l, h)."""
        num_heads = rows.shape[-1] // self._size
        if isinstance(length, int) and length == 1:
            return ops.reshape(rows, (batch, num_heads, 1, self._size))
        return _swap(ops.reshape(rows, (batch, length, num_heads, self._size)))

    def _project_keys(self, x):
        """Keys and values of x (b, k, d), each (b, g, k, h)."""
        key, value = self._project(x, self.key_dense, self.value_dense)
        return {"key": key, "value": value}

    def _scaled(self, query):
        # Section 3.2.1: scaled by 1/sqrt(d_k); on the query, the smaller factor of the product.
        return query * (self._size**-0.5 if self.scale is None else self.scale)

    def _weigh(self, query, keys, mask, training, position_bias=None):
        """Context (b, n, q, h) and weights (b, n, q, k)."""
        scores = self._score(query, keys)  # (b, n, q, k)
        if position_bias is not None:
            scores = ops.cast(scores, "float32") + ops.cast(position_bias, "float32")
        weights = masked_softmax(scores, mask, query.dtype, training)
        return self._collect(self.weights_dropout(weights, training=training), keys), weights

    def _score(self, query, keys):
        """Queries (b, n, q, h) times the keys, (b, n, q, k)."""
        scores = matmul_heads(query, keys["key"], transpose=True)
        if "new" in keys:  # of tokens that stand in no cache yet
            products = ops.cast(query * self._of_all_heads(keys["new"]["key"]), "float32")
            own = ops.sum(products, axis=-1, keepdims=True)  # (b, n, q, 1)
            scores = ops.where(keys["here"], ops.cast(own, scores.dtype), scores)
        return scores

    def _collect(self, weights, keys):
        """Weights (b, n, q, k) times the values, (b, n, q, h)."""
        if "new" not in keys:
            return matmul_heads(weights, keys["value"])
        before, own = (ops.where(where, weights, 0) for where in (~keys["here"], keys["here"]))
        own = ops.sum(own, axis=-1, keepdims=True)  # (b, n, q, 1)
        return matmul_heads(before, keys["value"]) + own * self._of_all_heads(keys["new"]["value"])

    def _of_all_heads(self, x):
        """Keys or values (b, g, q, h) for each head that reads them, (b, n, q, h)."""
        copies = self.num_heads // self._key_value_heads
        return x if copies == 1 else ops.repeat(x, copies, axis=1)

    def _project_context(self, context, x):
        """What the queries of x (b, q, d) found, (b, n, q, h) -> (b, q, d)."""
        if context.shape[2] != 1:
            context = _swap(context)  # (b, q, n, h)
        context = ops.reshape(context, (-1, self.num_heads * self._size))  # (b * q, n * h)
        return ops.reshape(self.output_dense(context), (*leading(x), self.output_dense.units))

    def compute_output_spec(self, *args, cache=None, return_attention=False, **kwargs):
        if cache is None and not return_attention:
            return super().compute_output_spec(*args, **kwargs)
        options = {"cache": cache, "return_attention": return_attention}
        return keras.Operation.compute_output_spec(self, *args, **options, **kwargs)  # of several outputs

    def get_config(self):
        return super().get_config() | {
            "num_heads": self.num_heads,
            "head_dim": self.head_dim,
            "dropout": self.dropout,
            "scale": self.scale,
            "use_bias": self.use_bias,
            "output_bias": self.output_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "query_initializer": keras.initializers.serialize(self.query_initializer),
            "output_initializer": keras.initializers.serialize(self.output_initializer),
        }


def _swap(x):
    """x (b, l, n, h) as (b, n, l, h), and back."""
    in_loop = of_step("later") is None and is_stepping()
    return swap_in_words(x) if in_loop else ops.transpose(x, (0, 2, 1, 3))


@keras.saving.register_keras_serializable("tfmodels")
class MultiHeadSelfAttention(MultiHeadAttentionBase):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2.2).

    Args:
        num_heads: int, attention heads.
        head_dim: int, size of a head; None: `hidden_dim / num_heads`.
        causal: bool, whether a token sees only itself and what stands before it.
        num_key_value_heads: int, heads of keys and values, each shared by as many query heads
            (grouped-query attention, Ainslie et al. 2023, section 2.2); None: `num_heads`.
        window: int, with `causal`: how many tokens a token sees, itself the last (sliding window, Jiang
            et al. 2023, section 2); None: all before it.
        head_norm_epsilon: float, RMS normalisation of each head's queries and keys, with this added
            to the mean square; None: no normalisation.
        dropout: float, share of attention weights dropped while training.
        scale: float, by which scores are multiplied; None: 1/sqrt(head_dim).
        use_bias: bool, biases on the projections.
        output_bias: bool, a bias on the output; None: `use_bias`.
        kernel_initializer: initializer of the key and value kernels.
        query_initializer: initializer of the query kernel; None: `kernel_initializer`.
        output_initializer: initializer of the output kernel; None: `kernel_initializer`.

    Call arguments:
        inputs: float tensor, (batch, length, hidden_dim).
        padding_mask: int tensor, (batch, length), 0 = padding, k >= 1 = the k-th sequence packed in
            the row, which attends inside itself only; None: every token is real.
        cache: what `init_cache` or the call before returned; needs `index` and `causal=True`.
        index: int tensor, (batch,) or a scalar: where in each row `inputs` begins; or the
            position of each token, (batch, length).
        position_bias: float tensor that broadcasts to (batch, num_heads, length, key_length), added
            to the scores, as `RelativePositionBias` makes it.
        rotary: cosines and sines of the tokens' positions, as `RotaryEmbedding` makes them.
        return_attention: bool, whether to return the attention weights too.
        mask, inputs_mask: Keras's implicit mask, which it passes by itself, as of
            `Embedding(mask_zero=True)`; stands for a `padding_mask` that is None.

    Returns:
        Float tensor, (batch, length, hidden_dim); with a cache, a tuple of it and the new cache;
        with `return_attention`, followed by the weights, (batch, num_heads, length, key_length).

    Raises:
        ValueError: hidden_dim is not divisible by num_heads, or num_heads by num_key_value_heads;
            a cache or a window without causal attention; a mask is not of the inputs' size.

    Example:
        >>> layer = MultiHeadSelfAttention(num_heads=2, causal=True)
        >>> layer(keras.random.normal((3, 5, 8))).shape
        TensorShape([3, 5, 8])
    """

    def __init__(
        self,
        num_heads,
        head_dim=None,
        causal=False,
        num_key_value_heads=None,
        window=None,
        head_norm_epsilon=None,
        **kwargs,
    ):
        super().__init__(num_heads, head_dim, **kwargs)
        if num_key_value_heads is not None and (num_key_value_heads < 1 or num_heads % num_key_value_heads):
            raise ValueError(
                "num_heads must be divisible by num_key_value_heads. "
                f"Received: num_heads={num_heads}, num_key_value_heads={num_key_value_heads}."
            )
        if window is not None and (window < 1 or not causal):
            raise ValueError(
                "window must be at least 1, and needs causal attention. "
                f"Received: window={window}, causal={causal}."
            )
        self.causal = causal
        self.num_key_value_heads = num_key_value_heads
        self.window = window
        self.head_norm_epsilon = head_norm_epsilon

    def build(self, input_shape):
        self._build_projections(input_shape, input_shape, self.num_key_value_heads)
        if self.head_norm_epsilon is not None:
            self.query_norm, self.key_norm = (
                keras.layers.RMSNormalization(
                    epsilon=self.head_norm_epsilon, dtype=self.dtype_policy, name=name
                )
                for name in ("query_norm", "key_norm")
            )
            self.query_norm.build((None, self._size))
            self.key_norm.build((None, self._size))

    def init_cache(self, batch, max_length, dtype=None):
        """Empty keys and values, each (batch, num_key_value_heads, max_length, head_dim)."""
        return empty((batch, self._key_value_heads, max_length, self._size), dtype or self.compute_dtype)

    def call(
        self,
        inputs,
        padding_mask=None,
        cache=None,
        index=None,
        position_bias=None,
        rotary=None,
        return_attention=False,
        training=None,
        mask=None,
        inputs_mask=None,
    ):
        padding_mask = first_given(padding_mask, mask, inputs_mask)
        check_mask("padding_mask", padding_mask, inputs)
        query, keys = self._project_all(inputs, rotary)
        plain = cache is None and position_bias is None
        if plain and not return_attention and not is_recording():
            return self._project_context(self._context(query, keys, padding_mask, training), inputs)
        if cache is None:
            mask = self._mask(inputs, padding_mask)
        else:
            if not self.causal:
                raise ValueError("A cache needs causal attention. Received: causal=False.")
            # (b, q); all layers of a step get the same tokens
            positions = once(
                lambda: cached_positions(index, ops.shape(inputs)[1]), "positions", index, inputs.shape[1]
            )
            cache = write(cache, keys, positions)
            mask = once(
                lambda: cached_attention_mask(positions, ops.shape(cache["key"])[2], self.window),
                "mask",
                positions,
                self.window,
            )
            keys = load(cache, self.compute_dtype)
        context, weights = self._weigh(query, keys, mask, training, position_bias)
        record("self", weights)
        results = (self._project_context(context, inputs),)
        if cache is not None:
            results += (cache,)
        if return_attention:
            results += (weights,)
        return results if len(results) > 1 else results[0]

    def _project_all(self, x, rotary):
        """Scaled queries of x (b, q, d), (b, n, q, h), and its keys and values, each (b, g, q, h)."""
        query, key, value = self._project(x, self.query_dense, self.key_dense, self.value_dense)
        if self.head_norm_epsilon is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        if rotary is not None:
            query, key = rotate(query, rotary), rotate(key, rotary)
        return self._scaled(query), {"key": key, "value": value}

    def _mask(self, x, padding_mask):
        if self.causal and padding_mask is None:
            padding_mask = ops.ones(ops.shape(x)[:2], dtype="int32")
        return attention_mask(padding_mask, padding_mask, self.causal, self.window)

    def _context(self, query, keys, padding_mask, training):
        """What the queries find, (b, n, q, h), whole or block by block as the length asks."""
        length = ops.shape(query)[2]

        def whole():
            mask = self._mask(ops.swapaxes(query, 1, 2), padding_mask)
            return self._weigh(query, keys, mask, training)[0]

        def by_blocks():
            rate = self.dropout if training else 0.0
            seed = self.weights_dropout.seed_generator.next() if rate else None
            masks = (as_numbers(padding_mask),) * 2
            return blockwise_attention(
                query, keys["key"], keys["value"], *masks, self.causal, self.window, rate, seed
            )

        if isinstance(length, int):
            return by_blocks() if length >= _BLOCKWISE_LENGTH else whole()
        # Neither training nor evaluation, such as a graph that is being built; or XLA, which cannot derive
        # a gradient of a choice by a length that it learns as it compiles.
        if training is None or is_for_xla():
            return whole()
        return ops.cond(length >= _BLOCKWISE_LENGTH, by_blocks, whole)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return super().get_config() | {
            "causal": self.causal,
            "num_key_value_heads": self.num_key_value_heads,
            "window": self.window,
            "head_norm_epsilon": self.head_norm_epsilon,
        }
