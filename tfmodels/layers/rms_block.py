"""The block of T5 and Llama."""

import keras

from tfmodels.layers.block import BlockBase
from tfmodels.layers.norm import RMSNormalization


@keras.saving.register_keras_serializable("tfmodels")
class RMSNormBlock(BlockBase):
    """The block of T5 and Llama: pre-norm with RMS normalisation (Zhang & Sennrich 2019).

    Args:
        num_heads: int, attention heads.
        intermediate_dim: int, inner width of the feed-forward network.
        head_dim: int, size of a head; None: `hidden_dim / num_heads`.
        num_key_value_heads: int, heads of keys and values of the self-attention; None: `num_heads`.
        causal: bool, whether a token sees only itself and what stands before it.
        cross_attention: bool, whether the block attends to an encoder's output.
        attention_scale: float, by which scores are multiplied; None: 1/sqrt(head_dim).
        activation: of the feed-forward network.
        gated: bool, whether the feed-forward network is gated.
        window: int, how many tokens a token sees in causal self-attention; None: all before it.
        head_norm: bool, RMS normalisation of each head's queries and keys in the self-attention.
        attention_bias: bool, biases on queries, keys and values.
        attention_output_bias: bool, a bias on the attention's output.
        feed_forward_bias: bool, biases in the feed-forward network.
        dropout: float, on the output of each sublayer.
        intermediate_dropout: float, inside the feed-forward network.
        attention_dropout: float, on the attention weights.
        norm_epsilon: float, added to the mean square in normalisation.
        kernel_initializer: initializer of all kernels.
        query_initializer: initializer of the attentions' query kernels; None: `kernel_initializer`.
        rematerialise: bool, as `TransformerBlock`.

    Call arguments:
        As `TransformerBlock`.

    Returns:
        Float tensor, (batch, length, hidden_dim); with a cache, a tuple of it and the new cache.

    Example:
        >>> block = RMSNormBlock(num_heads=4, intermediate_dim=16, num_key_value_heads=2, gated=True)
        >>> block(keras.random.normal((3, 5, 8))).shape
        TensorShape([3, 5, 8])
    """

    norm_first = True

    def __init__(
        self,
        num_heads,
        intermediate_dim,
        head_dim=None,
        num_key_value_heads=None,
        causal=False,
        cross_attention=False,
        attention_scale=None,
        activation="silu",
        gated=False,
        window=None,
        head_norm=False,
        attention_bias=False,
        attention_output_bias=False,
        feed_forward_bias=False,
        dropout=0.0,
        intermediate_dropout=0.0,
        attention_dropout=0.0,
        norm_epsilon=1e-6,
        kernel_initializer="glorot_uniform",
        query_initializer=None,
        rematerialise=False,
        **kwargs,
    ):
        super().__init__(
            num_heads,
            intermediate_dim,
            causal,
            cross_attention,
            activation,
            dropout,
            attention_dropout,
            norm_epsilon,
            kernel_initializer,
            rematerialise=rematerialise,
            **kwargs,
        )
        self.head_dim = head_dim
        self.num_key_value_heads = num_key_value_heads
        self.attention_scale = attention_scale
        self.gated = gated
        self.window = window
        self.head_norm = head_norm
        self.attention_bias = attention_bias
        self.attention_output_bias = attention_output_bias
        self.feed_forward_bias = feed_forward_bias
        self.intermediate_dropout = intermediate_dropout
        self.query_initializer = keras.initializers.get(query_initializer or kernel_initializer)

    def build(self, inputs_shape, encoder_output_shape=None):
        self._build_sublayers(
            (inputs_shape, encoder_output_shape),
            RMSNormalization,
            attention={
                "head_dim": self.head_dim,
                "scale": self.attention_scale,
                "use_bias": self.attention_bias,
                "output_bias": self.attention_output_bias,
                "query_initializer": self.query_initializer,
            },
            self_attention={
                "num_key_value_heads": self.num_key_value_heads,
                "window": self.window,
                "head_norm_epsilon": self.norm_epsilon if self.head_norm else None,
            },
            feed_forward={
                "gated": self.gated,
                "dropout": self.intermediate_dropout,
                "use_bias": self.feed_forward_bias,
            },
        )

    def get_config(self):
        config = super().get_config() | {
            "head_dim": self.head_dim,
            "num_key_value_heads": self.num_key_value_heads,
            "attention_scale": self.attention_scale,
            "gated": self.gated,
            "window": self.window,
            "head_norm": self.head_norm,
            "attention_bias": self.attention_bias,
            "attention_output_bias": self.attention_output_bias,
            "feed_forward_bias": self.feed_forward_bias,
            "intermediate_dropout": self.intermediate_dropout,
            "query_initializer": keras.initializers.serialize(self.query_initializer),
        }
        del config["output_initializer"]  # the same as kernel_initializer
        return config
