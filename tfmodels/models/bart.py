"""BART (Lewis et al. 2020) and MarianMT (Junczys-Dowmunt et al. 2018): post-norm encoder-decoders.

Shape letters: b batch, s source length, t target length, d hidden_dim, v target vocabulary.
"""

import dataclasses

import keras
from keras import ops

from tfmodels.layers import PositionalEmbedding, TransformerBlock
from tfmodels.layers.dropout import Dropout
from tfmodels.layers.norm import LayerNormalization
from tfmodels.layers.steps import ReversibleEmbedding
from tfmodels.models.base import (
    check_config,
    check_optional_sizes,
    check_shared_vocabulary,
    check_special_ids,
    make_config,
)
from tfmodels.models.encoder_decoder import EncoderDecoderModel


@dataclasses.dataclass(frozen=True)
class BartConfig:
    """Sizes of a BART or a MarianMT.

    Attributes:
        source_vocabulary_size: int, words the encoder reads.
        target_vocabulary_size: int, words the decoder writes.
        max_sequence_length: int, the longest source or target, in tokens.
        num_encoder_layers: int, blocks of the encoder.
        num_layers: int, blocks of the decoder, and of the encoder unless given.
        num_encoder_heads: int, attention heads in an encoder block.
        num_heads: int, attention heads in a decoder block, and in an encoder block unless given.
        hidden_dim: int, width of the residual stream.
        encoder_intermediate_dim: int, inner width of the encoder's feed-forward networks.
        intermediate_dim: int, that of the decoder's, and of the encoder's unless given.
        positions: "learned", a table for the encoder and one for the decoder with two unused rows
            first, or "sinusoidal", sines before cosines.
        embedding_norm: bool, a normalisation after the embeddings.
        scale_embeddings: bool, words times sqrt(hidden_dim).
        share_embeddings: bool, one matrix for source and target words.
        tie_embeddings: bool, one matrix for target words and output.
        activation: of the feed-forward networks.
        dropout: float, on embeddings and sublayer outputs.
        attention_dropout: float, on attention weights.
        norm_epsilon: float, added to the variance in layer normalisation.
        initializer_range: float, standard deviation of the initial weights.
        label_smoothing: float, of the built-in loss.
        rematerialise: bool, whether training computes each block again for the gradients: less memory.
        start_id: int, the token before the first one that the decoder writes.
        end_id: int or tuple of int, the token that ends a text; None: none does.
        pad_id: int, the token that fills a row up.
        forced_start_id: int, the first token that generation writes; None: the most probable.
        forced_end_id: int, the last token where generation meets its limit; None: the most probable.
        suppressed_ids: tuple of int, tokens that generation never writes.
        intermediate_dropout: float, inside the feed-forward networks; the published BART has 0.1.
    """

    source_vocabulary_size: int = 50265
    target_vocabulary_size: int = 50265
    max_sequence_length: int = 1024
    num_encoder_layers: int | None = None
    num_layers: int = 6
    num_encoder_heads: int | None = None
    num_heads: int = 12
    hidden_dim: int = 768
    encoder_intermediate_dim: int | None = None
    intermediate_dim: int = 3072
    positions: str = "learned"
    embedding_norm: bool = True
    scale_embeddings: bool = False
    share_embeddings: bool = True
    tie_embeddings: bool = True
    activation: str = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.1
    norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    label_smoothing: float = 0.0
    rematerialise: bool = False
    start_id: int | None = 2
    end_id: int | tuple | None = 2
    pad_id: int | None = 1
    forced_start_id: int | None = None
    forced_end_id: int | None = 2
    suppressed_ids: tuple = ()
    intermediate_dropout: float = 0.0

    def __post_init__(self):
        check_config(self)
        check_optional_sizes(self, "num_encoder_layers", "num_encoder_heads", "encoder_intermediate_dim")
        check_shared_vocabulary(self)
        ids = ("start_id", "end_id", "pad_id", "forced_start_id", "forced_end_id", "suppressed_ids")
        check_special_ids(self, self.target_vocabulary_size, *ids)
        if self.hidden_dim % (self.num_encoder_heads or self.num_heads):
            raise ValueError(
                "hidden_dim must be divisible by num_encoder_heads. Received: "
                f"hidden_dim={self.hidden_dim}, num_encoder_heads={self.num_encoder_heads}."
            )
        if self.positions not in _POSITIONS:
            raise ValueError(
                f"positions must be one of {', '.join(_POSITIONS)}. Received: {self.positions!r}."
            )


# Kind of table, and its unused rows: BART counts from pad_id + 1, which is 2 in its vocabulary.
_POSITIONS = {"learned": ("learned", 2), "sinusoidal": ("sinusoidal_halves", 0)}

_MARIAN = dict(
    positions="sinusoidal",
    embedding_norm=False,
    scale_embeddings=True,
    attention_dropout=0.0,
    max_sequence_length=512,
)
# Lewis et al. 2020, section 4; tiny is ours, for tests and examples.
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
    "base": dict(num_layers=6, num_heads=12, hidden_dim=768, intermediate_dim=3072),
    "large": dict(num_layers=12, num_heads=16, hidden_dim=1024, intermediate_dim=4096),
    # The base model of Vaswani et al. 2017, as the published translation models have it, with
    # swish; they begin to write with padding, the last word, and never write it.
    "marian_base": _MARIAN
    | dict(
        source_vocabulary_size=58101,
        target_vocabulary_size=58101,
        num_layers=6,
        num_heads=8,
        hidden_dim=512,
        intermediate_dim=2048,
        activation="silu",
        start_id=58100,
        end_id=0,
        pad_id=58100,
        forced_end_id=0,
        suppressed_ids=(58100,),
    ),
}


class BartStacks:
    """The words, the encoder and the decoder: what each model of this file's configs is made of."""

    config_class = BartConfig

    def make_stacks(self, config, dtype):
        """Makes the layers."""
        initializer = keras.initializers.RandomNormal(stddev=config.initializer_range)

        def words(vocabulary_size, name, tied=True):
            return ReversibleEmbedding(
                vocabulary_size,
                config.hidden_dim,
                tie_weights=tied,
                embeddings_initializer=initializer.clone(),
                dtype=dtype,
                name=name,
            )

        self.target_embedding = words(
            config.target_vocabulary_size, "target_embedding", tied=config.tie_embeddings
        )
        self.source_embedding = self.target_embedding
        if not config.share_embeddings:
            self.source_embedding = words(config.source_vocabulary_size, "source_embedding")
        self.encoder = _Stack(config, "encoder", dtype)
        self.decoder = _Stack(config, "decoder", dtype)

    def encode(self, inputs, training=None):
        """The encoder's output, (batch, source_length, hidden_dim)."""
        x = self._embed(self.source_embedding, inputs["encoder_token_ids"])
        return self.encoder(x, inputs["encoder_padding_mask"], training=training)[0]

    def decode(self, inputs, encoder_output, cache=None, index=None, training=None):
        """The decoder's one forward pass: hidden states (b, t, d) and the blocks' new caches."""
        return self.decoder(
            self._embed(self.target_embedding, inputs["decoder_token_ids"]),
            inputs.get("decoder_padding_mask"),
            cache=cache,
            index=index,
            training=training,
            encoder_output=encoder_output,
            encoder_padding_mask=inputs["encoder_padding_mask"],
        )

    def _embed(self, embedding, token_ids):
        x = embedding(token_ids)
        return x * self.config.hidden_dim**0.5 if self.config.scale_embeddings else x


@keras.saving.register_keras_serializable("tfmodels")
class Bart(BartStacks, EncoderDecoderModel):
    """BART or MarianMT with its output layer: two rows of ids in, logits out.

    Args:
        config: a `BartConfig`.
        **kwargs: `name`, `trainable`, `dtype` of the Keras model.

    Call arguments:
        inputs: dict of `encoder_token_ids`, int tensor, (batch, source_length),
            `decoder_token_ids`, int tensor, (batch, target_length), the targets moved right behind
            `start_id`, and, unless all are real, `encoder_padding_mask` and `decoder_padding_mask`
            of the same shapes, 0 = padding, k >= 1 = the k-th sequence packed in the row.

    Returns:
        Logits, (batch, target_length, target_vocabulary_size).

    Example:
        >>> model = bart("tiny")
        >>> ids = {"encoder_token_ids": [[5, 2, 9]], "decoder_token_ids": [[2, 7]]}
        >>> model(ids).shape
        TensorShape([1, 2, 4000])
    """

    def __init__(self, config, dtype=None, **kwargs):
        self.config = config
        dtype = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
        self.make_stacks(config, dtype)
        self.logits_bias = _LogitsBias(dtype=dtype, name="logits_bias")
        inputs = self.symbolic_inputs()
        super().__init__(inputs=inputs, outputs=self.logits(self.final_hidden(inputs)), **kwargs)
        self.dtype_policy = dtype  # a functional model does not take it as an argument

    def logits(self, hidden):
        return self.logits_bias(self.target_embedding(hidden, reverse=True))  # (b, t, v)

    @property
    def decoder_blocks(self):
        return self.decoder.blocks

    def output_kernel(self):
        return self.target_embedding.output_kernel()  # (v, d)

    def output_bias(self):
        return self.logits_bias.bias[0]  # (v,)


class _Stack:
    """One side of the model behind its words: positions, norm, dropout and blocks."""

    def __init__(self, config, side, dtype):
        decoder = side == "decoder"
        initializer = keras.initializers.RandomNormal(stddev=config.initializer_range)
        kind, offset = _POSITIONS[config.positions]
        self.position_embedding = PositionalEmbedding(
            config.max_sequence_length,
            kind=kind,
            initializer=initializer.clone(),
            offset=offset,
            dtype=dtype,
            name=f"{side}_position_embedding",
        )
        self.embedding_norm = None
        if config.embedding_norm:
            self.embedding_norm = LayerNormalization(
                epsilon=config.norm_epsilon, dtype=dtype, name=f"{side}_embedding_norm"
            )
        self.dropout = Dropout(config.dropout, dtype=dtype, name=f"{side}_dropout")
        num_layers, num_heads, intermediate_dim = config.num_layers, config.num_heads, config.intermediate_dim
        if not decoder:
            num_layers = config.num_encoder_layers or num_layers
            num_heads = config.num_encoder_heads or num_heads
            intermediate_dim = config.encoder_intermediate_dim or intermediate_dim
        self.blocks = [
            TransformerBlock(
                num_heads,
                intermediate_dim,
                causal=decoder,
                cross_attention=decoder,
                activation=config.activation,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
                norm_epsilon=config.norm_epsilon,
                kernel_initializer=initializer,
                rematerialise=config.rematerialise,
                intermediate_dropout=config.intermediate_dropout,
                dtype=dtype,
                name=f"{side}_block_{i}",
            )
            for i in range(num_layers)
        ]

    def __call__(self, x, padding_mask, cache=None, index=None, training=None, **encoder):
        """Words' vectors (b, l, d) to hidden states (b, l, d) and the blocks' new caches."""
        x = self.position_embedding(x, padding_mask=padding_mask, start_index=index)
        if self.embedding_norm:
            x = self.embedding_norm(x)
        x = self.dropout(x, training=training)
        new_cache = []
        for i, block in enumerate(self.blocks):
            if cache is None:
                x = block(x, padding_mask=padding_mask, training=training, **encoder)
            else:
                x, block_cache = block(x, cache=cache[i], index=index, training=training, **encoder)
                new_cache.append(block_cache)
        return x, new_cache


@keras.saving.register_keras_serializable("tfmodels")
class _LogitsBias(keras.layers.Layer):
    """Adds a number a word to the logits. Checkpoints store it, and training leaves it alone."""

    def build(self, input_shape):
        self.bias = self.add_weight(
            shape=(1, input_shape[-1]), initializer="zeros", trainable=False, name="bias"
        )

    def call(self, inputs):
        return inputs + ops.cast(self.bias, inputs.dtype)

    def get_config(self):
        return super().get_config()


def bart(size="base", dtype=None, **overrides):
    """A BART or a MarianMT with fresh weights.

    Args:
        size: "tiny", "base" (139M parameters), "large" (406M), "marian_base" (74M).
        dtype: Keras dtype policy, such as "mixed_bfloat16"; None: the global one.
        **overrides: fields of `BartConfig`. `vocabulary_size` sets source and target at once.

    Returns:
        A `Bart`.

    Raises:
        ValueError: an unknown size or field, or a value out of range.

    Example:
        >>> model = tfmodels.models.bart("tiny", num_layers=3, dropout=0.0)
    """
    if "vocabulary_size" in overrides:
        both = overrides.pop("vocabulary_size")
        overrides = {"source_vocabulary_size": both, "target_vocabulary_size": both} | overrides
    return Bart(make_config(BartConfig, SIZES, size, overrides), dtype=dtype)
