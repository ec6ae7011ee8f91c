"""GPT-2 (Radford et al. 2019): a decoder of pre-norm blocks with learned positions.

Shape letters: b batch, l length, d hidden_dim, v vocabulary_size.
"""

import dataclasses

import keras

from tfmodels.layers import PositionalEmbedding, TransformerBlock
from tfmodels.layers.dropout import Dropout
from tfmodels.layers.norm import LayerNormalization
from tfmodels.layers.steps import ReversibleEmbedding
from tfmodels.models.base import (
    check_config,
    check_special_ids,
    make_config,
    token_input,
)
from tfmodels.models.decoder import DecoderModel


@dataclasses.dataclass(frozen=True)
class GPT2Config:
    """Sizes of a GPT-2.

    Attributes:
        vocabulary_size: int, words of the vocabulary.
        max_sequence_length: int, the longest sequence, in tokens.
        num_layers: int, blocks.
        num_heads: int, attention heads in a block.
        hidden_dim: int, width of the residual stream.
        intermediate_dim: int, inner width of the feed-forward networks.
        activation: of the feed-forward networks.
        dropout: float, on embeddings and sublayer outputs.
        embedding_dropout: float, on embeddings if it is another there; None: `dropout`.
        attention_dropout: float, on attention weights.
        norm_epsilon: float, added to the variance in layer normalisation.
        initializer_range: float, standard deviation of the initial weights.
        label_smoothing: float, of the built-in loss.
        rematerialise: bool, whether training computes each block again for the gradients: less memory.
        tie_embeddings: bool, one matrix for words in and words out, as the paper has it.
        end_id: int or tuple of int, which ends a text that is generated without a tokenizer; None:
            nothing does.
    """

    vocabulary_size: int = 50257
    max_sequence_length: int = 1024
    num_layers: int = 12
    num_heads: int = 12
    hidden_dim: int = 768
    intermediate_dim: int = 3072
    activation: str = "gelu_tanh"
    dropout: float = 0.1
    embedding_dropout: float | None = None
    attention_dropout: float = 0.1
    norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    label_smoothing: float = 0.0
    rematerialise: bool = False
    tie_embeddings: bool = True
    end_id: int | tuple | None = None

    def __post_init__(self):
        check_config(self)
        check_special_ids(self, self.vocabulary_size, "end_id")


# Radford et al. 2019, table 2 ("small" is its first row); tiny is ours, for tests and examples.
SIZES = {
    "tiny": dict(
        vocabulary_size=4000,
        max_sequence_length=256,
        num_layers=2,
        num_heads=4,
        hidden_dim=128,
        intermediate_dim=512,
    ),
    # Sanh et al. 2019, section 4: half of small's blocks.
    "distil": dict(num_layers=6, num_heads=12, hidden_dim=768, intermediate_dim=3072),
    "small": dict(num_layers=12, num_heads=12, hidden_dim=768, intermediate_dim=3072),
    "medium": dict(num_layers=24, num_heads=16, hidden_dim=1024, intermediate_dim=4096),
    "large": dict(num_layers=36, num_heads=20, hidden_dim=1280, intermediate_dim=5120),
    "xl": dict(num_layers=48, num_heads=25, hidden_dim=1600, intermediate_dim=6400),
}


@keras.saving.register_keras_serializable("tfmodels")
class GPT2(DecoderModel):
    """GPT-2 with its language-modelling head: ids in, logits out.

    Args:
        config: a `GPT2Config`.
        **kwargs: `name`, `trainable`, `dtype` of the Keras model.

    Call arguments:
        inputs: dict of `token_ids`, int tensor, (batch, length), and, unless all are real,
            `padding_mask`, int tensor, (batch, length), 0 = padding, k >= 1 = the k-th sequence
            packed in the row.

    Returns:
        Logits, (batch, length, vocabulary_size).

    Example:
        >>> model = GPT2(GPT2Config(num_layers=2, hidden_dim=48, intermediate_dim=192))
        >>> model({"token_ids": [[5, 2, 9]]}).shape
        TensorShape([1, 3, 50257])
    """

    config_class = GPT2Config
    input_pairs = {"token_ids": ("padding_mask", "vocabulary_size")}

    def __init__(self, config, dtype=None, **kwargs):
        self.config = config
        dtype = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
        initializer = keras.initializers.RandomNormal(stddev=config.initializer_range)
        # Section 2.3: the layers that write to the residual stream start smaller, by
        # 1/sqrt(N) with N residual layers, two in each block.
        residual_stddev = config.initializer_range * (2 * config.num_layers) ** -0.5
        self.token_embedding = ReversibleEmbedding(
            config.vocabulary_size,
            config.hidden_dim,
            tie_weights=config.tie_embeddings,
            embeddings_initializer=initializer.clone(),
            dtype=dtype,
            name="token_embedding",
        )
        self.position_embedding = PositionalEmbedding(
            config.max_sequence_length,
            kind="learned",
            initializer=initializer.clone(),
            dtype=dtype,
            name="position_embedding",
        )
        rate = config.dropout if config.embedding_dropout is None else config.embedding_dropout
        self.embedding_dropout = Dropout(rate, dtype=dtype, name="embedding_dropout")
        self.blocks = [
            TransformerBlock(
                config.num_heads,
                config.intermediate_dim,
                causal=True,
                norm_first=True,
                activation=config.activation,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
                norm_epsilon=config.norm_epsilon,
                kernel_initializer=initializer,
                output_initializer=keras.initializers.RandomNormal(stddev=residual_stddev),
                rematerialise=config.rematerialise,
                dtype=dtype,
                name=f"block_{i}",
            )
            for i in range(config.num_layers)
        ]
        self.final_norm = LayerNormalization(epsilon=config.norm_epsilon, dtype=dtype, name="final_norm")
        inputs = {name: token_input(name) for name in ("token_ids", "padding_mask")}
        hidden, _ = self.forward(inputs)
        logits = self.token_embedding(hidden, reverse=True)  # (b, l, v)
        super().__init__(inputs=inputs, outputs=logits, **kwargs)
        self.dtype_policy = dtype  # a functional model does not take it as an argument

    def forward(self, inputs, cache=None, index=None, training=None):
        """The one forward pass, with or without a cache: hidden states (b, l, d) and the new cache."""
        x = self.token_embedding(inputs["token_ids"])  # (b, l, d)
        padding_mask = inputs.get("padding_mask")
        x = self.position_embedding(x, padding_mask=padding_mask, start_index=index)
        x = self.embedding_dropout(x, training=training)
        new_cache = []
        for i, block in enumerate(self.blocks):
            if cache is None:
                x = block(x, padding_mask=padding_mask, training=training)
            else:
                x, block_cache = block(x, cache=cache[i], index=index, training=training)
                new_cache.append(block_cache)
        return self.final_norm(x), new_cache


def gpt2(size="small", dtype=None, **overrides):
    """A GPT-2 with fresh weights.

    Args:
        size: "tiny", "distil" (82M parameters), "small" (124M), "medium" (355M), "large" (774M),
            "xl" (1.6B).
        dtype: Keras dtype policy, such as "mixed_bfloat16"; None: the global one.
        **overrides: fields of `GPT2Config`.

    Returns:
        A `GPT2`.

    Raises:
        ValueError: an unknown size or field, or a value out of range.

    Example:
        >>> model = tfmodels.models.gpt2("tiny", num_layers=3, dropout=0.0)
    """
    return GPT2(make_config(GPT2Config, SIZES, size, overrides), dtype=dtype)
