"""Attention from a decoder to an encoder's output."""

import keras

from tfmodels.layers.attention import MultiHeadAttentionBase
from tfmodels.layers.cache import load, store
from tfmodels.layers.masks import attention_mask, check_mask, first_given
from tfmodels.layers.record import record


@keras.saving.register_keras_serializable("tfmodels")
class MultiHeadCrossAttention(MultiHeadAttentionBase):
    """Attention from the decoder to the encoder's output (Vaswani et al. 2017, section 3.2.3).

    Args:
        num_heads: int, attention heads.
        head_dim: int, size of a head; None: `hidden_dim / num_heads`.
        dropout: float, share of attention weights dropped while training.
        scale: float, by which scores are multiplied; None: 1/sqrt(head_dim).
        use_bias: bool, biases on the projections.
        output_bias: bool, a bias on the output; None: `use_bias`.
        kernel_initializer: initializer of the key and value kernels.
        query_initializer: initializer of the query kernel; None: `kernel_initializer`.
        output_initializer: initializer of the output kernel; None: `kernel_initializer`.

    Call arguments:
        inputs: float tensor, (batch, length, hidden_dim).
        encoder_output: float tensor, (batch, encoder_length, encoder_dim); left out with a cache.
        encoder_padding_mask: int tensor, (batch, encoder_length), 0 = padding; None: all are real.
        padding_mask: int tensor, (batch, length). Given, both sides count as packed: sequence k
            attends to the encoder's sequence k.
        cache: what `init_cache` returned, instead of `encoder_output`.
        return_attention: bool, whether to return the attention weights too.
        inputs_mask, encoder_output_mask: Keras's implicit masks, which it passes by itself, as of
            `Embedding(mask_zero=True)`; stand for a `padding_mask`, `encoder_padding_mask` that is None.

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

    def init_cache(self, encoder_output, dtype=None):
        """The encoder output's keys and values, each (batch, num_heads, encoder_length, head_dim)."""
        return store(self._project_keys(encoder_output), dtype or self.compute_dtype)

    def call(
        self,
        inputs,
        encoder_output=None,
        encoder_padding_mask=None,
        padding_mask=None,
        cache=None,
        return_attention=False,
        training=None,
        inputs_mask=None,
        encoder_output_mask=None,
    ):
        padding_mask = first_given(padding_mask, inputs_mask)
        encoder_padding_mask = first_given(encoder_padding_mask, encoder_output_mask)
        if cache is None:
            if encoder_output is None:
                raise ValueError("Cross-attention needs encoder_output, or a cache. Received: None.")
            check_mask("encoder_padding_mask", encoder_padding_mask, encoder_output)
        check_mask("padding_mask", padding_mask, inputs)
        keys = self._project_keys(encoder_output) if cache is None else load(cache, self.compute_dtype)
        mask = attention_mask(padding_mask, encoder_padding_mask)
        (query,) = self._project(inputs, self.query_dense)
        context, weights = self._weigh(self._scaled(query), keys, mask, training)
        record("cross", weights)
        outputs = self._project_context(context, inputs)
        return (outputs, weights) if return_attention else outputs

    def compute_output_shape(self, inputs_shape, encoder_output_shape=None):
        return tuple(inputs_shape)
