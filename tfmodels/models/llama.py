"""Llama (Touvron et al. 2023), Mistral (Jiang et al. 2023), Qwen2 and Qwen3 (Yang et al. 2024, 2025).

Decoders of pre-norm blocks with RMS normalisation, rotary positions, gated feed-forward networks and
grouped queries. Shape letters: b batch, l length, d hidden_dim, v vocabulary_size.
"""

import dataclasses

import keras

from tfmodels.layers import RMSNormBlock, RotaryEmbedding
from tfmodels.layers.norm import RMSNormalization
from tfmodels.layers.steps import ReversibleEmbedding
from tfmodels.models.base import (
    check_config,
    check_optional_sizes,
    check_special_ids,
    make_config,
    token_input,
)
from tfmodels.models.decoder import DecoderModel


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
    """Sizes of a Llama or one of its kin.

    Attributes:
        vocabulary_size: int, words of the vocabulary.
        max_sequence_length: int, the longest sequence, in tokens.
        num_layers: int, blocks.
        num_heads: int, heads of queries in a block.
        num_key_value_heads: int, heads of keys and values, each shared by as many heads of queries;
            None: `num_heads`.
        head_dim: int, even, size of a head; None: `hidden_dim / num_heads`.
        hidden_dim: int, width of the residual stream.
        intermediate_dim: int, inner width of the feed-forward networks.
        activation: of the feed-forward networks' gates.
        attention_bias: bool, biases on queries, keys and values (Qwen2).
        attention_output_bias: bool, a bias on the attention's output.
        feed_forward_bias: bool, biases in the feed-forward networks.
        head_norm: bool, RMS normalisation of each head's queries and keys (Qwen3).
        window: int, how many tokens a token sees, itself the last (Mistral); None: all before it.
        num_full_layers: int, the first blocks, which have no window.
        rotary_base: float, of the wave lengths of the positions.
        rotary_factor: float of at least 1, by which the positions' turns are slowed.
        rotary_low_factor, rotary_high_factor: float, rotary_original_length: int; which turns are
            slowed (Llama 3.1), as `RotaryEmbedding` has them; None: all.
        dropout: float, on sublayer outputs.
        attention_dropout: float, on attention weights.
        norm_epsilon: float, added to the mean square in normalisation.
        initializer_range: float, standard deviation of the initial weights.
        label_smoothing: float, of the built-in loss.
        rematerialise: bool, whether training computes each block again for the gradients: less memory.
        tie_embeddings: bool, one matrix for words in and words out.
        start_id: int, the token before a text; None: none.
        end_id: int or tuple of int, tokens that end a text; None: none does.
        pad_id: int, the token that fills a row up; None: none of its own.
    """

    vocabulary_size: int = 32000
    max_sequence_length: int = 2048
    num_layers: int = 22
    num_heads: int = 32
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    hidden_dim: int = 2048
    intermediate_dim: int = 5632
    activation: str = "silu"
    attention_bias: bool = False
    attention_output_bias: bool = False
    feed_forward_bias: bool = False
    head_norm: bool = False
    window: int | None = None
    num_full_layers: int = dataclasses.field(default=0, metadata={"minimum": 0})
    rotary_base: float = dataclasses.field(default=10000.0, metadata={"minimum": 1})
    rotary_factor: float = dataclasses.field(default=1.0, metadata={"minimum": 1})
    rotary_low_factor: float | None = None
    rotary_high_factor: float | None = None
    rotary_original_length: int | None = None
    dropout: float = 0.0
    attention_dropout: float = 0.0
    norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    label_smoothing: float = 0.0
    rematerialise: bool = False
    tie_embeddings: bool = False
    start_id: int | None = None
    end_id: int | tuple | None = None
    pad_id: int | None = None

    def __post_init__(self):
        check_config(self)
        check_optional_sizes(self, "num_key_value_heads", "head_dim", "window", "rotary_original_length")
        check_special_ids(self, self.vocabulary_size, "start_id", "end_id", "pad_id")
        if self.num_heads % (self.num_key_value_heads or self.num_heads):
            raise ValueError(
                "num_heads must be divisible by num_key_value_heads. Received: "
                f"num_heads={self.num_heads}, num_key_value_heads={self.num_key_value_heads}."
            )
        # The layer's own rules, before the long work of a build.
        RotaryEmbedding(**self.rotary_options())

    def head_size(self):
        """The size of a head, given or not."""
        return self.head_dim or self.hidden_dim // self.num_heads

    def rotary_options(self):
        """Arguments of the `RotaryEmbedding`."""
        return {
            "head_dim": self.head_size(),
            "base": self.rotary_base,
            "factor": self.rotary_factor,
            "low_factor": self.rotary_low_factor,
            "high_factor": self.rotary_high_factor,
            "original_length": self.rotary_original_length,
        }


# The config.json of each that was published; tiny is ours, for tests and examples.
SIZES = {
    "tiny": dict(
        vocabulary_size=4000,
        max_sequence_length=256,
        num_layers=2,
        num_heads=4,
        num_key_value_heads=2,
        hidden_dim=128,
        intermediate_dim=352,
    ),
    # Zhang et al. 2024, TinyLlama, table 1.
    "tinyllama": dict(num_key_value_heads=4, start_id=1, end_id=2),
    # Touvron et al. 2023 (Llama 2), section 2.2 and table 1.
    "llama_2_7b": dict(
        max_sequence_length=4096,
        num_layers=32,
        hidden_dim=4096,
        intermediate_dim=11008,
        start_id=1,
        end_id=2,
    ),
    # Dubey et al. 2024 (Llama 3), table 3.
    "llama_3_8b": dict(
        vocabulary_size=128256,
        max_sequence_length=8192,
        num_layers=32,
        num_key_value_heads=8,
        hidden_dim=4096,
        intermediate_dim=14336,
        rotary_base=500000.0,
        start_id=128000,
        end_id=128001,
    ),
    # Meta's Llama-3.2-1B.
    "llama_3_2_1b": dict(
        vocabulary_size=128256,
        max_sequence_length=131072,
        num_layers=16,
        num_key_value_heads=8,
        intermediate_dim=8192,
        rotary_base=500000.0,
        rotary_factor=32.0,
        rotary_low_factor=1.0,
        rotary_high_factor=4.0,
        rotary_original_length=8192,
        tie_embeddings=True,
        start_id=128000,
        end_id=128001,
    ),
    # Jiang et al. 2023, Mistral 7B, table 1.
    "mistral_7b": dict(
        max_sequence_length=32768,
        num_layers=32,
        num_key_value_heads=8,
        hidden_dim=4096,
        intermediate_dim=14336,
        window=4096,
        start_id=1,
        end_id=2,
    ),
    # Yang et al. 2024, Qwen2, table 1.
    "qwen2_0_5b": dict(
        vocabulary_size=151936,
        max_sequence_length=131072,
        num_layers=24,
        num_heads=14,
        num_key_value_heads=2,
        hidden_dim=896,
        intermediate_dim=4864,
        attention_bias=True,
        rotary_base=1000000.0,
        norm_epsilon=1e-6,
        tie_embeddings=True,
        end_id=151643,
    ),
}


@keras.saving.register_keras_serializable("tfmodels")
class Llama(DecoderModel):
    """A decoder of Llama's family with its language-modelling head: ids in, logits out.

    Args:
        config: a `LlamaConfig`.
        **kwargs: `name`, `trainable`, `dtype` of the Keras model.

    Call arguments:
        inputs: dict of `token_ids`, int tensor, (batch, length), and, unless all are real,
            `padding_mask`, int tensor, (batch, length), 0 = padding, k >= 1 = the k-th sequence
            packed in the row.

    Returns:
        Logits, (batch, length, vocabulary_size).

    Example:
        >>> model = Llama(LlamaConfig(num_layers=2, num_heads=4, hidden_dim=48, intermediate_dim=99))
        >>> model({"token_ids": [[5, 2, 9]]}).shape
        TensorShape([1, 3, 32000])
    """

    config_class = LlamaConfig
    input_pairs = {"token_ids": ("padding_mask", "vocabulary_size")}

    def __init__(self, config, dtype=None, **kwargs):
        self.config = config
        dtype = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
        initializer = keras.initializers.RandomNormal(stddev=config.initializer_range)
        self.token_embedding = ReversibleEmbedding(
            config.vocabulary_size,
            config.hidden_dim,
            tie_weights=config.tie_embeddings,
            embeddings_initializer=initializer.clone(),
            dtype=dtype,
            name="token_embedding",
        )
        self.rotary_embedding = RotaryEmbedding(
            **config.rotary_options(), dtype=dtype, name="rotary_embedding"
        )
        self.blocks = [
            RMSNormBlock(
                config.num_heads,
                config.intermediate_dim,
                head_dim=config.head_dim,
                num_key_value_heads=config.num_key_value_heads,
                causal=True,
                activation=config.activation,
                gated=True,
                window=config.window if i >= config.num_full_layers else None,
                head_norm=config.head_norm,
                attention_bias=config.attention_bias,
                attention_output_bias=config.attention_output_bias,
                feed_forward_bias=config.feed_forward_bias,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
                norm_epsilon=config.norm_epsilon,
                kernel_initializer=initializer,
                rematerialise=config.rematerialise,
                dtype=dtype,
                name=f"block_{i}",
            )
            for i in range(config.num_layers)
        ]
        self.final_norm = RMSNormalization(epsilon=config.norm_epsilon, dtype=dtype, name="final_norm")
        inputs = {name: token_input(name) for name in ("token_ids", "padding_mask")}
        hidden, _ = self.forward(inputs)
        logits = self.token_embedding(hidden, reverse=True)  # (b, l, v)
        super().__init__(inputs=inputs, outputs=logits, **kwargs)
        self.dtype_policy = dtype  # a functional model does not take it as an argument

    def forward(self, inputs, cache=None, index=None, training=None):
        """The one forward pass, with or without a cache: hidden states (b, l, d) and the new cache."""
        x = self.token_embedding(inputs["token_ids"])  # (b, l, d)
        padding_mask = inputs.get("padding_mask")
        rotary = self.rotary_embedding(x, padding_mask=padding_mask, start_index=index)
        new_cache = []
        for i, block in enumerate(self.blocks):
            if cache is None:
                x = block(x, padding_mask=padding_mask, rotary=rotary, training=training)
            else:
                x, block_cache = block(x, cache=cache[i], index=index, rotary=rotary, training=training)
                new_cache.append(block_cache)
        return self.final_norm(x), new_cache


def llama(size="tinyllama", dtype=None, **overrides):
    """A decoder of Llama's family with fresh weights.

    Args:
        size: "tiny", "tinyllama" (1.1B parameters), "llama_2_7b", "llama_3_8b", "llama_3_2_1b",
            "mistral_7b", "qwen2_0_5b".
        dtype: Keras dtype policy, such as "mixed_bfloat16"; None: the global one.
        **overrides: fields of `LlamaConfig`.

    Returns:
        A `Llama`.

    Raises:
        ValueError: an unknown size or field, or a value out of range.

    Example:
        >>> model = tfmodels.models.llama("tiny", num_layers=3, window=64)
    """
    return Llama(make_config(LlamaConfig, SIZES, size, overrides), dtype=dtype)
