"""The block of Transformer-XL. Shape letters: b batch, l length, m memory length, d hidden_dim."""

import keras
from keras import ops

from tfmodels.layers.dropout import Dropout
from tfmodels.layers.feed_forward import FeedForward
from tfmodels.layers.norm import LayerNormalization
from tfmodels.layers.relative_attention import RelativeSelfAttention


@keras.saving.register_keras_serializable("tfmodels")
class RelativeBlock(keras.layers.Layer):
    """Attention to memory and segment, and a feed-forward network (Dai et al. 2019, section 3.3).

    Args:
        num_heads: int, attention heads.
        head_dim: int, size of a head.
        intermediate_dim: int, inner width of the feed-forward network.
        norm_first: bool, pre-norm instead of post-norm; the memory is normalised too.
        dropout: float, on the output of each sublayer and inside the feed-forward network.
        attention_dropout: float, on the attention weights.
        norm_epsilon: float, added to the variance in layer normalisation.
        kernel_initializer: initializer of all kernels.

    Call arguments:
        inputs: float tensor, (batch, length, hidden_dim).
        window: what `RelativePositions` returned.
        biases: pair u, v, each (num_heads, head_dim), as of `RelativeBiases`.
        memory: float tensor, (batch, memory_length, hidden_dim), this block's inputs in the segments
            before; None: none.
        cache: what `init_cache` or the call before returned; needs `positions`.
        positions: int tensor, (batch, length), of the inputs in the cache.

    Returns:
        Float tensor, (batch, length, hidden_dim); with a cache, a tuple of it and the new cache.
    """

    def __init__(
        self,
        num_heads,
        head_dim,
        intermediate_dim,
        norm_first=False,
        dropout=0.0,
        attention_dropout=0.0,
        norm_epsilon=1e-5,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.intermediate_dim = intermediate_dim
        self.norm_first = norm_first
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.norm_epsilon = norm_epsilon
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape):
        shape, dtype = tuple(input_shape), self.dtype_policy

        def sublayer(layer):
            layer.build(shape)
            dropout = Dropout(self.dropout, dtype=dtype, name=f"{layer.name}_dropout")
            norm = LayerNormalization(epsilon=self.norm_epsilon, dtype=dtype, name=f"{layer.name}_norm")
            norm.build(shape)
            return layer, dropout, norm

        self.attention, self.attention_out_dropout, self.attention_norm = sublayer(
            RelativeSelfAttention(
                self.num_heads,
                self.head_dim,
                dropout=self.attention_dropout,
                kernel_initializer=self.kernel_initializer,
                dtype=dtype,
                name="self_attention",
            )
        )
        self.feed_forward, self.feed_forward_dropout, self.feed_forward_norm = sublayer(
            FeedForward(
                self.intermediate_dim,
                dropout=self.dropout,
                kernel_initializer=self.kernel_initializer,
                dtype=dtype,
                name="feed_forward",
            )
        )

    def init_cache(self, batch, max_length, dtype=None):
        """Empty keys and values, each (batch, num_heads, max_length, head_dim)."""
        return self.attention.init_cache(batch, max_length, dtype)

    def call(self, inputs, window, biases, memory=None, cache=None, positions=None, training=None):
        norm = self.attention_norm if self.norm_first else lambda x: x
        x = norm(inputs)
        context = None if memory is None else ops.concatenate([norm(memory), x], axis=1)
        zero = norm(ops.zeros((1, 1, inputs.shape[-1]), x.dtype)) if "zero_mask" in window else None
        x = self.attention(
            x,
            window=window,
            biases=biases,
            context=context,
            zero=zero,
            cache=cache,
            positions=positions,
            training=training,
        )
        if cache is not None:
            x, cache = x
        x = inputs + self.attention_out_dropout(x, training=training)
        x = x if self.norm_first else self.attention_norm(x)
        y = self.feed_forward(self.feed_forward_norm(x) if self.norm_first else x, training=training)
        x = x + self.feed_forward_dropout(y, training=training)
        x = x if self.norm_first else self.feed_forward_norm(x)
        return x if cache is None else (x, cache)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return super().get_config() | {
            "num_heads": self.num_heads,
            "head_dim": self.head_dim,
            "intermediate_dim": self.intermediate_dim,
            "norm_first": self.norm_first,
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "norm_epsilon": self.norm_epsilon,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
