"""The encoder-decoder Transformer (Vaswani et al. 2017).

Shape letters: b batch, s source length, t target length, d hidden_dim, v target vocabulary.
"""

import dataclasses

import keras

from tfmodels.layers import PositionalEmbedding, TransformerBlock
from tfmodels.layers.dropout import Dropout
from tfmodels.layers.norm import LayerNormalization
from tfmodels.layers.steps import ReversibleEmbedding
from tfmodels.models.base import (
    check_config,
    check_optional_sizes,
    check_shared_vocabulary,
    make_config,
)
from tfmodels.models.encoder_decoder import EncoderDecoderModel


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """Sizes of an encoder-decoder Transformer.

    Attributes:
        source_vocabulary_size: int, words the encoder reads.
        target_vocabulary_size: int, words the decoder writes.
        max_sequence_length: int, the longest source or target, in tokens.
        num_encoder_layers: int, blocks of the encoder.
        num_layers: int, blocks of the decoder, and of the encoder unless given.
        num_heads: int, attention heads in a block.
        hidden_dim: int, width of the residual stream.
        intermediate_dim: int, inner width of the feed-forward networks.
        dropout: float, on embeddings and sublayer outputs (section 5.4).
        attention_dropout: float, on attention weights; the paper has none.
        norm_first: bool, pre-norm blocks and a last norm; the paper has post-norm.
        share_embeddings: bool, one matrix for source, target and output (section 3.4); False: one
            for the source, one for target and output.
        norm_epsilon: float, added to the variance in layer normalisation.
        label_smoothing: float, of the built-in loss (section 5.4).
        rematerialise: bool, whether training computes each block again for the gradients: less memory.
    """

    source_vocabulary_size: int = 37000
    target_vocabulary_size: int = 37000
    max_sequence_length: int = 512
    num_encoder_layers: int | None = None
    num_layers: int = 6
    num_heads: int = 8
    hidden_dim: int = 512
    intermediate_dim: int = 2048
    dropout: float = 0.1
    attention_dropout: float = 0.0
    norm_first: bool = False
    share_embeddings: bool = True
    norm_epsilon: float = 1e-6
    label_smoothing: float = 0.1
    rematerialise: bool = False

    def __post_init__(self):
        check_config(self)
        check_optional_sizes(self, "num_encoder_layers")
        check_shared_vocabulary(self)


# Vaswani et al. 2017, table 3; tiny is ours, for tests and examples.
SIZES = {
    "tiny": dict(
        source_vocabulary_size=4000,
        target_vocabulary_size=4000,
        max_sequence_length=128,
        num_layers=2,
        num_heads=4,
        hidden_dim=128,
        intermediate_dim=512,
    ),
    "base": dict(num_layers=6, num_heads=8, hidden_dim=512, intermediate_dim=2048, dropout=0.1),
    "big": dict(num_layers=6, num_heads=16, hidden_dim=1024, intermediate_dim=4096, dropout=0.3),
}


@keras.saving.register_keras_serializable("tfmodels")
class Transformer(EncoderDecoderModel):
    """The encoder-decoder Transformer with its output layer: two rows of ids in, logits out.

    Args:
        config: a `TransformerConfig`.
        **kwargs: `name`, `trainable`, `dtype` of the Keras model.

    Call arguments:
        inputs: dict of `encoder_token_ids`, int tensor, (batch, source_length),
            `decoder_token_ids`, int tensor, (batch, target_length), and, unless all are real,
            `encoder_padding_mask` and `decoder_padding_mask` of the same shapes, 0 = padding,
            k >= 1 = the k-th sequence packed in the row.

    Returns:
        Logits, (batch, target_length, target_vocabulary_size).

    Example:
        >>> model = transformer("tiny")
        >>> ids = {"encoder_token_ids": [[5, 2, 9]], "decoder_token_ids": [[1, 7]]}
        >>> model(ids).shape
        TensorShape([1, 2, 4000])
    """

    config_class = TransformerConfig

    def __init__(self, config, dtype=None, **kwargs):
        self.config = config
        dtype = keras.dtype_policies.get(dtype or keras.config.dtype_policy())

        def embedding(vocabulary_size, name):
            return ReversibleEmbedding(
                vocabulary_size,
                config.hidden_dim,
                # Section 3.4 multiplies by sqrt(d): this start gives embeddings of variance 1
                # beside position codes of variance 1/2, and logits of variance 1.
                embeddings_initializer=keras.initializers.RandomNormal(stddev=config.hidden_dim**-0.5),
                dtype=dtype,
                name=name,
            )

        def blocks(count, name, **options):
            return [
                TransformerBlock(
                    config.num_heads,
                    config.intermediate_dim,
                    norm_first=config.norm_first,
                    dropout=config.dropout,
                    attention_dropout=config.attention_dropout,
                    norm_epsilon=config.norm_epsilon,
                    rematerialise=config.rematerialise,
                    dtype=dtype,
                    name=f"{name}_{i}",
                    **options,
                )
                for i in range(count)
            ]

        def norm(name):
            return LayerNormalization(epsilon=config.norm_epsilon, dtype=dtype, name=name)

        self.target_embedding = embedding(config.target_vocabulary_size, "target_embedding")
        self.source_embedding = self.target_embedding
        if not config.share_embeddings:
            self.source_embedding = embedding(config.source_vocabulary_size, "source_embedding")
        self.position_embedding = PositionalEmbedding(
            config.max_sequence_length, dtype=dtype, name="position_embedding"
        )
        self.encoder_dropout = Dropout(config.dropout, dtype=dtype, name="encoder_dropout")
        self.decoder_dropout = Dropout(config.dropout, dtype=dtype, name="decoder_dropout")
        self.encoder_blocks = blocks(config.num_encoder_layers or config.num_layers, "encoder_block")
        self.decoder_blocks = blocks(config.num_layers, "decoder_block", causal=True, cross_attention=True)
        # Post-norm blocks end in a norm already.
        self.encoder_norm = norm("encoder_norm") if config.norm_first else None
        self.decoder_norm = norm("decoder_norm") if config.norm_first else None

        inputs = self.symbolic_inputs()
        super().__init__(inputs=inputs, outputs=self.logits(self.final_hidden(inputs)), **kwargs)
        self.dtype_policy = dtype  # a functional model does not take it as an argument

    def _embed(self, embedding, token_ids, padding_mask, index=None):
        x = embedding(token_ids) * self.config.hidden_dim**0.5  # section 3.4
        return self.position_embedding(x, padding_mask=padding_mask, start_index=index)

    def encode(self, inputs, training=None):
        """The encoder's output, (batch, source_length, hidden_dim)."""
        padding_mask = inputs["encoder_padding_mask"]
        x = self._embed(self.source_embedding, inputs["encoder_token_ids"], padding_mask)
        x = self.encoder_dropout(x, training=training)
        for block in self.encoder_blocks:
            x = block(x, padding_mask=padding_mask, training=training)
        return self.encoder_norm(x) if self.encoder_norm else x

    def decode(self, inputs, encoder_output, cache=None, index=None, training=None):
        """The decoder's one forward pass: hidden states (b, t, d) and the blocks' new caches."""
        padding_mask = inputs.get("decoder_padding_mask")
        x = self._embed(self.target_embedding, inputs["decoder_token_ids"], padding_mask, index)
        x = self.decoder_dropout(x, training=training)
        new_cache = []
        for i, block in enumerate(self.decoder_blocks):
            x = block(
                x,
                padding_mask=padding_mask,
                encoder_output=encoder_output,
                encoder_padding_mask=inputs["encoder_padding_mask"],
                cache=None if cache is None else cache[i],
                index=index,
                training=training,
            )
            if cache is not None:
                x, block_cache = x
                new_cache.append(block_cache)
        return (self.decoder_norm(x) if self.decoder_norm else x), new_cache

    def logits(self, hidden):
        return self.target_embedding(hidden, reverse=True)  # (b, t, v)

    def output_kernel(self):
        return self.target_embedding.output_kernel()


def transformer(size="base", dtype=None, **overrides):
    """An encoder-decoder Transformer with fresh weights.

    Args:
        size: "tiny", "base" (65M parameters) or "big" (213M).
        dtype: Keras dtype policy, such as "mixed_bfloat16"; None: the global one.
        **overrides: fields of `TransformerConfig`. `vocabulary_size` sets source and target at once.

    Returns:
        A `Transformer`.

    Raises:
        ValueError: an unknown size or field, or a value out of range.

    Example:
        >>> model = tfmodels.models.transformer("tiny", num_layers=3, dropout=0.0)
    """
    if "vocabulary_size" in overrides:
        both = overrides.pop("vocabulary_size")
        overrides = {"source_vocabulary_size": both, "target_vocabulary_size": both} | overrides
    return Transformer(make_config(TransformerConfig, SIZES, size, overrides), dtype=dtype)
