"""The Transformer block. Shape letters: b batch, l length, d hidden_dim."""

import keras

from tfmodels.layers.attention import MultiHeadCrossAttention, MultiHeadSelfAttention
from tfmodels.layers.feed_forward import FeedForward


class _Block(keras.layers.Layer):
    """Self-attention, optional cross-attention and a feed-forward network, each with a residual.

    A subclass has `norm_first` and makes the sublayers in `build`.
    """

    def __init__(
        self,
        num_heads,
        intermediate_dim,
        causal,
        cross_attention,
        activation,
        dropout,
        attention_dropout,
        norm_epsilon,
        kernel_initializer,
        output_initializer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.intermediate_dim = intermediate_dim
        self.causal = causal
        self.cross_attention = cross_attention
        self.activation = activation
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.norm_epsilon = norm_epsilon
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.output_initializer = keras.initializers.get(output_initializer or kernel_initializer)

    def _build_sublayers(self, shapes, make_norm, attention, self_attention, feed_forward):
        """Makes and builds the sublayers, each with its residual dropout and its norm.

        Args:
            shapes: pair of the shapes of the input and of the encoder's output.
            make_norm: class of the norms.
            attention: dict of options of both attentions.
            self_attention: dict of further options of the self-attention.
            feed_forward: dict of options of the feed-forward network.
        """
        shared = {
            "kernel_initializer": self.kernel_initializer,
            "output_initializer": self.output_initializer,
            "dtype": self.dtype_policy,
        }
        attention = shared | {"dropout": self.attention_dropout} | attention

        def sublayer(layer, *shapes):
            layer.build(*shapes)
            dropout = keras.layers.Dropout(
                self.dropout, dtype=self.dtype_policy, name=f"{layer.name}_dropout"
            )
            norm = make_norm(epsilon=self.norm_epsilon, dtype=self.dtype_policy, name=f"{layer.name}_norm")
            norm.build(shapes[0])
            return layer, dropout, norm

        self.attention, self.attention_out_dropout, self.attention_norm = sublayer(
            MultiHeadSelfAttention(
                self.num_heads, causal=self.causal, name="self_attention", **attention, **self_attention
            ),
            shapes[0],
        )
        if self.cross_attention:
            self.cross, self.cross_dropout, self.cross_norm = sublayer(
                MultiHeadCrossAttention(self.num_heads, name="cross_attention", **attention), *shapes
            )
        self.feed_forward, self.feed_forward_dropout, self.feed_forward_norm = sublayer(
            FeedForward(
                self.intermediate_dim,
                activation=self.activation,
                name="feed_forward",
                **shared,
                **feed_forward,
            ),
            shapes[0],
        )

    def init_cache(self, batch, max_length, encoder_output=None):
        """The block's cache: empty keys and values, and those of the encoder's output."""
        cache = {"self": self.attention.init_cache(batch, max_length)}
        if self.cross_attention:
            cache["cross"] = self.cross.init_cache(encoder_output)
        return cache

    def call(
        self,
        inputs,
        padding_mask=None,
        encoder_output=None,
        encoder_padding_mask=None,
        cache=None,
        index=None,
        position_bias=None,
        rotary=None,
        training=None,
    ):
        new_cache = None if cache is None else dict(cache)

        def attend(x):
            options = {"position_bias": position_bias, "rotary": rotary, "training": training}
            if cache is None:
                return self.attention(x, padding_mask=padding_mask, **options)
            x, new_cache["self"] = self.attention(x, cache=cache["self"], index=index, **options)
            return x

        def attend_to_encoder(x):
            return self.cross(
                x,
                encoder_output,
                encoder_padding_mask=encoder_padding_mask,
                padding_mask=padding_mask,
                cache=None if cache is None else cache["cross"],
                training=training,
            )

        def feed_forward(x):
            return self.feed_forward(x, training=training)

        def residual(x, sublayer, dropout, norm):
            if self.norm_first:
                return x + dropout(sublayer(norm(x)), training=training)
            return norm(x + dropout(sublayer(x), training=training))

        x = residual(inputs, attend, self.attention_out_dropout, self.attention_norm)
        if self.cross_attention:
            x = residual(x, attend_to_encoder, self.cross_dropout, self.cross_norm)
        x = residual(x, feed_forward, self.feed_forward_dropout, self.feed_forward_norm)
        return x if cache is None else (x, new_cache)

    def compute_output_shape(self, inputs_shape, encoder_output_shape=None):
        return tuple(inputs_shape)

    def get_config(self):
        return super().get_config() | {
            "num_heads": self.num_heads,
            "intermediate_dim": self.intermediate_dim,
            "causal": self.causal,
            "cross_attention": self.cross_attention,
            "activation": self.activation
            if isinstance(self.activation, str)
            else keras.activations.serialize(self.activation),
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "norm_epsilon": self.norm_epsilon,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "output_initializer": keras.initializers.serialize(self.output_initializer),
        }


@keras.saving.register_keras_serializable("tfmodels")
class TransformerBlock(_Block):
    """Self-attention, optional cross-attention and a feed-forward network, each with a residual.

    Post-norm, `LayerNorm(x + Dropout(Sublayer(x)))`, is Vaswani et al. 2017, sections 3.1 and 5.4;
    pre-norm (`norm_first`), `x + Dropout(Sublayer(LayerNorm(x)))`, is GPT-2, section 2.3.

    Args:
        num_heads: int, attention heads.
        intermediate_dim: int, inner width of the feed-forward network.
        causal: bool, whether a token sees only itself and what stands before it.
        cross_attention: bool, whether the block attends to an encoder's output.
        norm_first: bool, pre-norm instead of post-norm.
        activation: of the feed-forward network.
        dropout: float, on the output of each sublayer.
        attention_dropout: float, on the attention weights (GPT-2, BERT; the 2017 paper has none).
        norm_epsilon: float, added to the variance in layer normalisation.
        kernel_initializer: initializer of all kernels.
        output_initializer: initializer of the kernels that write to the residual stream; None:
            `kernel_initializer`.

    Call arguments:
        inputs: float tensor, (batch, length, hidden_dim).
        padding_mask: int tensor, (batch, length), 0 = padding, k >= 1 = the k-th packed sequence.
        encoder_output: float tensor, (batch, encoder_length, encoder_dim), with cross-attention.
        encoder_padding_mask: int tensor, (batch, encoder_length).
        cache: what `init_cache` or the call before returned; needs `index`.
        index: int tensor, (batch,) or a scalar: where in each row `inputs` begins.
        position_bias: float tensor, added to the scores of the self-attention.
        rotary: what `RotaryEmbedding` returns, for the self-attention.

    Returns:
        Float tensor, (batch, length, hidden_dim); with a cache, a tuple of it and the new cache.

    Example:
        >>> block = TransformerBlock(num_heads=2, intermediate_dim=16, causal=True)
        >>> block(keras.random.normal((3, 5, 8))).shape
        TensorShape([3, 5, 8])
    """

    def __init__(
        self,
        num_heads,
        intermediate_dim,
        causal=False,
        cross_attention=False,
        norm_first=False,
        activation="relu",
        dropout=0.0,
        attention_dropout=0.0,
        norm_epsilon=1e-5,
        kernel_initializer="glorot_uniform",
        output_initializer=None,
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
            output_initializer,
            **kwargs,
        )
        self.norm_first = norm_first

    def build(self, inputs_shape, encoder_output_shape=None):
        shapes = (inputs_shape, encoder_output_shape)
        self._build_sublayers(shapes, keras.layers.LayerNormalization, {}, {}, {})

    def get_config(self):
        return super().get_config() | {"norm_first": self.norm_first}


@keras.saving.register_keras_serializable("tfmodels")
class RMSNormBlock(_Block):
    """The block of T5 and Llama: pre-norm with RMS normalisation (Zhang & Sennrich 2019), no biases.

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
        dropout: float, on the output of each sublayer.
        intermediate_dropout: float, inside the feed-forward network.
        attention_dropout: float, on the attention weights.
        norm_epsilon: float, added to the mean square in normalisation.
        kernel_initializer: initializer of all kernels.
        query_initializer: initializer of the attentions' query kernels; None: `kernel_initializer`.

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
        dropout=0.0,
        intermediate_dropout=0.0,
        attention_dropout=0.0,
        norm_epsilon=1e-6,
        kernel_initializer="glorot_uniform",
        query_initializer=None,
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
            **kwargs,
        )
        self.head_dim = head_dim
        self.num_key_value_heads = num_key_value_heads
        self.attention_scale = attention_scale
        self.gated = gated
        self.intermediate_dropout = intermediate_dropout
        self.query_initializer = keras.initializers.get(query_initializer or kernel_initializer)

    def build(self, inputs_shape, encoder_output_shape=None):
        self._build_sublayers(
            (inputs_shape, encoder_output_shape),
            keras.layers.RMSNormalization,
            attention={
                "head_dim": self.head_dim,
                "scale": self.attention_scale,
                "use_bias": False,
                "query_initializer": self.query_initializer,
            },
            self_attention={"num_key_value_heads": self.num_key_value_heads},
            feed_forward={"gated": self.gated, "dropout": self.intermediate_dropout, "use_bias": False},
        )

    def get_config(self):
        config = super().get_config() | {
            "head_dim": self.head_dim,
            "num_key_value_heads": self.num_key_value_heads,
            "attention_scale": self.attention_scale,
            "gated": self.gated,
            "intermediate_dropout": self.intermediate_dropout,
            "query_initializer": keras.initializers.serialize(self.query_initializer),
        }
        del config["output_initializer"]  # the same as kernel_initializer
        return config
