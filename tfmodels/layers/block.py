"""The Transformer block. Shape letters: b batch, l length, d hidden_dim."""

import keras

from tfmodels.layers._kernels import rematerialise
from tfmodels.layers.attention import MultiHeadSelfAttention
from tfmodels.layers.cross_attention import MultiHeadCrossAttention
from tfmodels.layers.dropout import Dropout
from tfmodels.layers.feed_forward import FeedForward, read_activation, write_activation
from tfmodels.layers.masks import first_given
from tfmodels.layers.norm import LayerNormalization
from tfmodels.layers.steps import shared


class BlockBase(keras.layers.Layer):
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
        rematerialise=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.num_heads = num_heads
        self.intermediate_dim = intermediate_dim
        self.causal = causal
        self.cross_attention = cross_attention
        self.activation = read_activation(activation)
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.norm_epsilon = norm_epsilon
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.output_initializer = keras.initializers.get(output_initializer or kernel_initializer)
        self.rematerialise = rematerialise

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
            dropout = Dropout(self.dropout, dtype=self.dtype_policy, name=f"{layer.name}_dropout")
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

    def init_cache(self, batch, max_length, encoder_output=None, dtype=None):
        """The block's cache: empty keys and values, and those of the encoder's output."""
        cache = {"self": self.attention.init_cache(batch, max_length, dtype)}
        if self.cross_attention:
            cache["cross"] = self.cross.init_cache(encoder_output, dtype)
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
        mask=None,
        inputs_mask=None,
        encoder_output_mask=None,
    ):
        masks = {
            "padding_mask": first_given(padding_mask, mask, inputs_mask),
            "encoder_padding_mask": first_given(encoder_padding_mask, encoder_output_mask),
        }
        if encoder_output is not None and not self.cross_attention:
            raise ValueError("encoder_output needs a block with cross_attention=True. Received: False.")
        if cache is not None:

            def step(inputs, cache, tensors):
                options = {"index": index, "training": training}
                return self._forward(inputs, **tensors, **masks, cache=cache, **options)

            tensors = {
                "encoder_output": encoder_output,
                "position_bias": position_bias,
                "rotary": rotary,
            }
            tensors = {name: x for name, x in tensors.items() if x is not None}
            return shared(self, step, inputs, cache, tensors, same=(index, *masks.values()))
        if not (self.rematerialise and training):
            return self._forward(inputs, encoder_output, position_bias, rotary, **masks, training=training)

        def forward(*tensors):
            return self._forward(*tensors, **masks, training=True)

        return rematerialise(self, forward, inputs, encoder_output, position_bias, rotary)

    def _forward(
        self,
        inputs,
        encoder_output=None,
        position_bias=None,
        rotary=None,
        padding_mask=None,
        encoder_padding_mask=None,
        cache=None,
        index=None,
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
                return x + dropout(sublayer(norm(x, training=training)), training=training)
            return norm(x + dropout(sublayer(x), training=training), training=training)

        x = residual(inputs, attend, self.attention_out_dropout, self.attention_norm)
        if self.cross_attention:
            x = residual(x, attend_to_encoder, self.cross_dropout, self.cross_norm)
        x = residual(x, feed_forward, self.feed_forward_dropout, self.feed_forward_norm)
        return x if cache is None else (x, new_cache)

    def compute_output_spec(self, *args, cache=None, **kwargs):
        if cache is None:
            return super().compute_output_spec(*args, **kwargs)
        return keras.Operation.compute_output_spec(self, *args, cache=cache, **kwargs)  # of several outputs

    def compute_output_shape(self, inputs_shape, encoder_output_shape=None):
        return tuple(inputs_shape)

    def get_config(self):
        return super().get_config() | {
            "num_heads": self.num_heads,
            "intermediate_dim": self.intermediate_dim,
            "causal": self.causal,
            "cross_attention": self.cross_attention,
            "activation": write_activation(self.activation),
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "norm_epsilon": self.norm_epsilon,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "output_initializer": keras.initializers.serialize(self.output_initializer),
            "rematerialise": self.rematerialise,
        }


@keras.saving.register_keras_serializable("tfmodels")
class TransformerBlock(BlockBase):
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
        rematerialise: bool, whether training keeps the block's input only and computes the rest
            again for the gradients.
        intermediate_dropout: float, inside the feed-forward network (BART has it).

    Call arguments:
        inputs: float tensor, (batch, length, hidden_dim).
        padding_mask: int tensor, (batch, length), 0 = padding, k >= 1 = the k-th packed sequence.
        encoder_output: float tensor, (batch, encoder_length, encoder_dim), with cross-attention.
        encoder_padding_mask: int tensor, (batch, encoder_length).
        cache: what `init_cache` or the call before returned; needs `index`.
        index: int tensor, (batch,) or a scalar: where in each row `inputs` begins; or the
            position of each token, (batch, length).
        position_bias: float tensor, added to the scores of the self-attention.
        rotary: what `RotaryEmbedding` returns, for the self-attention.
        mask, inputs_mask, encoder_output_mask: Keras's implicit masks, which it passes by itself, as of
            `Embedding(mask_zero=True)`; stand for a `padding_mask`, `encoder_padding_mask` that is None.

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
        rematerialise=False,
        intermediate_dropout=0.0,
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
            rematerialise,
            **kwargs,
        )
        self.norm_first = norm_first
        self.intermediate_dropout = intermediate_dropout

    def build(self, inputs_shape, encoder_output_shape=None):
        shapes = (inputs_shape, encoder_output_shape)
        self._build_sublayers(shapes, LayerNormalization, {}, {}, {"dropout": self.intermediate_dropout})

    def get_config(self):
        return super().get_config() | {
            "norm_first": self.norm_first,
            "intermediate_dropout": self.intermediate_dropout,
        }
