"""T5 (Raffel et al. 2020) and its version 1.1: an encoder-decoder with relative positions.

Shape letters: b batch, s source length, t target length, d hidden_dim, v vocabulary_size.
"""

import dataclasses

import keras
from keras import ops

from tfmodels.layers import RelativePositionBias, RMSNormBlock
from tfmodels.layers.dropout import Dropout
from tfmodels.layers.norm import RMSNormalization
from tfmodels.layers.steps import Dense, ReversibleEmbedding
from tfmodels.models.base import (
    check_config,
    check_optional_sizes,
    check_special_ids,
    make_config,
)
from tfmodels.models.encoder_decoder import EncoderDecoderModel


@dataclasses.dataclass(frozen=True)
class T5Config:
    """Sizes of a T5.

    Attributes:
        vocabulary_size: int, words of the vocabulary.
        max_sequence_length: int, the longest source or target, in tokens; None: no limit, since
            positions are relative.
        num_encoder_layers: int, blocks of the encoder.
        num_layers: int, blocks of the decoder, and of the encoder unless given.
        num_heads: int, attention heads in a block.
        head_dim: int, size of a head.
        hidden_dim: int, width of the residual stream.
        intermediate_dim: int, inner width of the feed-forward networks.
        activation: of the feed-forward networks.
        gated: bool, whether the feed-forward networks are gated, as version 1.1 has them.
        num_buckets: int, kinds of distance between tokens.
        max_distance: int, from which on all distances are one kind.
        dropout: float, on embeddings, attention weights, inside the feed-forward networks, on
            sublayer outputs and on the last norm.
        norm_epsilon: float, added to the mean square in normalisation.
        initializer_factor: float above 0, by which all initial standard deviations are multiplied.
        label_smoothing: float, of the built-in loss.
        rematerialise: bool, whether training computes each block again for the gradients: less memory.
        tie_embeddings: bool, one matrix for words in and words out; version 1.1 has two.
        scale_logits: bool, logits times hidden_dim**-0.5; version 1.1 does not scale them.
        start_id: int, the token before the first one that the decoder writes.
        end_id: int, or tuple of int: what ends a text; None: nothing does.
        pad_id: int, the token that fills a row up.
    """

    vocabulary_size: int = 32128
    max_sequence_length: int | None = None
    num_encoder_layers: int | None = None
    num_layers: int = 6
    num_heads: int = 8
    head_dim: int = 64
    hidden_dim: int = 512
    intermediate_dim: int = 2048
    activation: str = "relu"
    gated: bool = False
    num_buckets: int = 32
    max_distance: int = 128
    dropout: float = 0.1
    norm_epsilon: float = 1e-6
    initializer_factor: int | float = 1.0
    label_smoothing: float = 0.0
    rematerialise: bool = False
    tie_embeddings: bool = True
    scale_logits: bool = True
    start_id: int | None = 0
    end_id: int | tuple | None = 1
    pad_id: int | None = 0

    def __post_init__(self):
        check_config(self)
        check_optional_sizes(self, "max_sequence_length", "num_encoder_layers")
        check_special_ids(self, self.vocabulary_size, "start_id", "end_id", "pad_id")
        if not self.initializer_factor > 0:
            raise ValueError(f"initializer_factor must be above 0. Received: {self.initializer_factor!r}.")
        if self.num_buckets < 4 or self.max_distance <= self.num_buckets // 2:
            raise ValueError(
                "num_buckets must be at least 4, and max_distance greater than half of it. "
                f"Received: num_buckets={self.num_buckets}, max_distance={self.max_distance}."
            )


def _size(num_layers, hidden_dim, num_heads, intermediate_dim, head_dim=64, **different):
    return dict(
        num_layers=num_layers,
        hidden_dim=hidden_dim,
        num_heads=num_heads,
        intermediate_dim=intermediate_dim,
        head_dim=head_dim,
        **different,
    )


# Shazeer 2020: the feed-forward network of version 1.1.
_V1_1 = dict(activation="gelu_tanh", gated=True, tie_embeddings=False, scale_logits=False)

# Raffel et al. 2020, section 3.7, and the published checkpoints of version 1.1 (which are FLAN-T5's
# sizes too); tiny is ours, for tests and examples.
SIZES = {
    "tiny": _size(2, 128, 4, 512, head_dim=32, vocabulary_size=4000),
    "small": _size(6, 512, 8, 2048),
    "base": _size(12, 768, 12, 3072),
    "large": _size(24, 1024, 16, 4096),
    "3b": _size(24, 1024, 32, 16384, head_dim=128),
    "11b": _size(24, 1024, 128, 65536, head_dim=128),
    "v1_1_small": _size(8, 512, 6, 1024, **_V1_1),
    "v1_1_base": _size(12, 768, 12, 2048, **_V1_1),
    "v1_1_large": _size(24, 1024, 16, 2816, **_V1_1),
    "v1_1_xl": _size(24, 2048, 32, 5120, **_V1_1),
    "v1_1_xxl": _size(24, 4096, 64, 10240, **_V1_1),
}


class _Stack:
    """The layers of an encoder or a decoder, and their one forward pass."""

    def __init__(self, config, dtype, name, num_layers, **options):
        # The published code (Mesh TensorFlow) starts kernels at 1/sqrt(inputs), and those of queries
        # smaller by 1/sqrt(head_dim), which takes the place of a scale on the scores.
        variance = config.initializer_factor**2

        def fan_in(scale):
            return keras.initializers.VarianceScaling(scale, "fan_in", "untruncated_normal")

        def dropout(place):
            return Dropout(config.dropout, dtype=dtype, name=f"{name}_{place}_dropout")

        self.embedding_dropout = dropout("embedding")
        self.position_bias = RelativePositionBias(
            config.num_heads,
            config.num_buckets,
            config.max_distance,
            initializer=keras.initializers.RandomNormal(
                stddev=config.initializer_factor * config.hidden_dim**-0.5
            ),
            bidirectional=not options.get("causal", False),
            dtype=dtype,
            name=f"{name}_position_bias",
        )
        self.blocks = [
            RMSNormBlock(
                config.num_heads,
                config.intermediate_dim,
                head_dim=config.head_dim,
                attention_scale=1.0,
                activation=config.activation,
                gated=config.gated,
                dropout=config.dropout,
                intermediate_dropout=config.dropout,
                attention_dropout=config.dropout,
                norm_epsilon=config.norm_epsilon,
                kernel_initializer=fan_in(variance),
                query_initializer=fan_in(variance / config.head_dim),
                rematerialise=config.rematerialise,
                dtype=dtype,
                name=f"{name}_block_{i}",
                **options,
            )
            for i in range(num_layers)
        ]
        self.final_norm = RMSNormalization(epsilon=config.norm_epsilon, dtype=dtype, name=f"{name}_norm")
        self.final_dropout = dropout("final")

    def __call__(self, x, cache=None, index=None, training=None, **options):
        """Embeddings (b, l, d) to the stack's output (b, l, d) and the blocks' new caches."""
        x = self.embedding_dropout(x, training=training)
        key_length = None if cache is None else ops.shape(cache[0]["self"]["key"])[2]
        # Section 2.1: one bias for all of a stack's layers.
        bias = self.position_bias(x, key_length=key_length, start_index=index)  # (b or 1, n, l, k)
        new_cache = []
        for i, block in enumerate(self.blocks):
            block_cache = None if cache is None else cache[i]
            x = block(x, cache=block_cache, index=index, position_bias=bias, training=training, **options)
            if cache is not None:
                x, block_cache = x
                new_cache.append(block_cache)
        return self.final_dropout(self.final_norm(x), training=training), new_cache


def _token_embedding(config, dtype):
    return ReversibleEmbedding(
        config.vocabulary_size,
        config.hidden_dim,
        embeddings_initializer=keras.initializers.RandomNormal(stddev=config.initializer_factor),
        dtype=dtype,
        name="token_embedding",
    )


class T5Stacks:
    """The words, the encoder and the decoder: what the models of both sides are made of."""

    config_class = T5Config

    def make_stacks(self, config, dtype):
        """Makes the layers."""
        self.make_encoder(config, dtype)
        self.decoder = _Stack(config, dtype, "decoder", config.num_layers, causal=True, cross_attention=True)
        self.decoder_blocks = self.decoder.blocks

    def make_encoder(self, config, dtype):
        """Makes the words' and the encoder's layers."""
        self.token_embedding = _token_embedding(config, dtype)
        self.encoder = _Stack(config, dtype, "encoder", config.num_encoder_layers or config.num_layers)
        self.encoder_blocks = self.encoder.blocks

    def encode(self, inputs, training=None):
        """The encoder's output, (batch, source_length, hidden_dim)."""
        x = self.token_embedding(inputs["encoder_token_ids"])  # (b, s, d)
        return self.encoder(x, padding_mask=inputs["encoder_padding_mask"], training=training)[0]

    def decode(self, inputs, encoder_output, cache=None, index=None, training=None):
        """The decoder's one forward pass: hidden states (b, t, d) and the blocks' new caches."""
        return self.decoder(
            self.token_embedding(inputs["decoder_token_ids"]),  # (b, t, d)
            padding_mask=inputs.get("decoder_padding_mask"),
            encoder_output=encoder_output,
            encoder_padding_mask=inputs["encoder_padding_mask"],
            cache=cache,
            index=index,
            training=training,
        )


@keras.saving.register_keras_serializable("tfmodels")
class T5(T5Stacks, EncoderDecoderModel):
    """T5 with its language-modelling head: two rows of ids in, logits out.

    Args:
        config: a `T5Config`.
        **kwargs: `name`, `trainable`, `dtype` of the Keras model.

    Call arguments:
        inputs: dict of `encoder_token_ids`, int tensor, (batch, source_length),
            `decoder_token_ids`, int tensor, (batch, target_length), the target after `start_id`,
            and, unless all are real, `encoder_padding_mask` and `decoder_padding_mask` of the same
            shapes, 0 = padding, k >= 1 = the k-th sequence packed in the row.

    Returns:
        Logits, (batch, target_length, vocabulary_size).

    Example:
        >>> model = t5("tiny")
        >>> ids = {"encoder_token_ids": [[5, 2, 9]], "decoder_token_ids": [[0, 7]]}
        >>> model(ids).shape
        TensorShape([1, 2, 4000])
    """

    input_pairs = {
        "encoder_token_ids": ("encoder_padding_mask", "vocabulary_size"),
        "decoder_token_ids": ("decoder_padding_mask", "vocabulary_size"),
    }

    def __init__(self, config, dtype=None, **kwargs):
        self.config = config
        dtype = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
        self.make_stacks(config, dtype)
        self.output_dense = None
        if not config.tie_embeddings:
            stddev = config.initializer_factor * config.hidden_dim**-0.5
            self.output_dense = Dense(
                config.vocabulary_size,
                use_bias=False,
                kernel_initializer=keras.initializers.RandomNormal(stddev=stddev),
                dtype=dtype,
                name="output",
            )
        inputs = self.symbolic_inputs()
        super().__init__(inputs=inputs, outputs=self.logits(self.final_hidden(inputs)), **kwargs)
        self.dtype_policy = dtype  # a functional model does not take it as an argument

    def logits(self, hidden):
        """The decoder's output (b, t, d) to logits (b, t, v)."""
        hidden = hidden * self._output_scale
        return self.output_dense(hidden) if self.output_dense else self.token_embedding(hidden, reverse=True)

    def output_kernel(self):
        kernel = (self.output_dense or self.token_embedding).output_kernel()  # (v, d)
        return ops.convert_to_tensor(kernel) * self._output_scale if self.config.scale_logits else kernel

    @property
    def _output_scale(self):
        # The paper ties words in, of variance 1, and words out; this keeps logits of variance 1.
        return self.config.hidden_dim**-0.5 if self.config.scale_logits else 1.0


def t5(size="small", dtype=None, **overrides):
    """A T5 with fresh weights.

    Args:
        size: "tiny", "small" (61M parameters), "base" (223M), "large" (738M), "3b", "11b", or, of
            version 1.1, "v1_1_small" (77M), "v1_1_base" (248M), "v1_1_large" (783M), "v1_1_xl"
            (2.8B), "v1_1_xxl" (11B).
        dtype: Keras dtype policy, such as "mixed_bfloat16"; None: the global one.
        **overrides: fields of `T5Config`.

    Returns:
        A `T5`.

    Raises:
        ValueError: an unknown size or field, or a value out of range.

    Example:
        >>> model = tfmodels.models.t5("tiny", num_layers=3, dropout=0.0)
    """
    return T5(make_config(T5Config, SIZES, size, overrides), dtype=dtype)
