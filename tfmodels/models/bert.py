"""BERT (Devlin et al. 2019) and its kin, RoBERTa and DistilBERT: encoders of post-norm blocks.

Shape letters: b batch, l length, d hidden_dim.
"""

import dataclasses

import keras
from keras import ops

from tfmodels.layers import FirstToken, PositionalEmbedding, TransformerBlock
from tfmodels.layers.dropout import Dropout
from tfmodels.layers.norm import LayerNormalization
from tfmodels.layers.steps import Dense, ReversibleEmbedding
from tfmodels.models.base import (
    TransformerModel,
    check_config,
    check_ids,
    make_config,
    token_input,
)


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Sizes of a BERT.

    Attributes:
        vocabulary_size: int, words of the vocabulary.
        max_sequence_length: int, the longest sequence, in tokens.
        num_layers: int, blocks.
        num_heads: int, attention heads in a block.
        hidden_dim: int, width of the residual stream.
        intermediate_dim: int, inner width of the feed-forward networks.
        segment_vocabulary_size: int, kinds of segment (sentence A, sentence B); None: no segments,
            as DistilBERT.
        position_offset: "none", or "roberta": two unused rows before the first position.
        pooler: bool, whether there is a `pooled_output`.
        activation: of the feed-forward networks.
        dropout: float, on embeddings and sublayer outputs.
        attention_dropout: float, on attention weights.
        norm_epsilon: float, added to the variance in layer normalisation.
        initializer_range: float, standard deviation of the initial weights.
        rematerialise: bool, whether training computes each block again for the gradients: less memory.
    """

    vocabulary_size: int = 30522
    max_sequence_length: int = 512
    num_layers: int = 12
    num_heads: int = 12
    hidden_dim: int = 768
    intermediate_dim: int = 3072
    segment_vocabulary_size: int | None = 2
    position_offset: str = "none"
    pooler: bool = True
    activation: str = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.1
    norm_epsilon: float = 1e-12
    initializer_range: float = 0.02
    rematerialise: bool = False

    def __post_init__(self):
        check_config(self)
        if self.position_offset not in _POSITION_OFFSETS:
            raise ValueError(
                f"position_offset must be one of {', '.join(_POSITION_OFFSETS)}. "
                f"Received: {self.position_offset!r}."
            )


_POSITION_OFFSETS = {"none": 0, "roberta": 2}

_BASE = dict(num_layers=12, num_heads=12, hidden_dim=768, intermediate_dim=3072)
_LARGE = dict(num_layers=24, num_heads=16, hidden_dim=1024, intermediate_dim=4096)
_TINY = dict(
    vocabulary_size=4000,
    max_sequence_length=128,
    num_layers=2,
    num_heads=4,
    hidden_dim=128,
    intermediate_dim=512,
)
# Liu et al. 2019: BERT's sizes, a byte-level vocabulary, one segment, no next-sentence task.
_ROBERTA = dict(
    vocabulary_size=50265, segment_vocabulary_size=1, position_offset="roberta", norm_epsilon=1e-5
)
# Sanh et al. 2019, section 3: half of the blocks, without segments and pooler.
_DISTILBERT = dict(segment_vocabulary_size=None, pooler=False)

# Devlin et al. 2019, section 3; tiny is ours, for tests and examples.
SIZES = {
    "tiny": _TINY,
    "base": _BASE,
    "large": _LARGE,
    "roberta_base": _BASE | _ROBERTA,
    "roberta_large": _LARGE | _ROBERTA,
    "distil": _BASE | _DISTILBERT | dict(num_layers=6),
}


@keras.saving.register_keras_serializable("tfmodels")
class Bert(TransformerModel):
    """BERT without a head for a task: ids in, vectors out.

    Args:
        config: a `BertConfig`.
        **kwargs: `name`, `trainable`, `dtype` of the Keras model.

    Call arguments:
        inputs: dict of `token_ids`, int tensor, (batch, length), and, unless all are real,
            `padding_mask`, int tensor, (batch, length), 0 = padding, k >= 1 = the k-th sequence
            packed in the row, and, unless all are 0, `segment_ids`, int tensor, (batch, length),
            where the config has segments.

    Returns:
        Dict of `sequence_output`, (batch, length, hidden_dim), and, with a pooler,
        `pooled_output`, (batch, hidden_dim), made of the first real token.

    Example:
        >>> model = bert("tiny")
        >>> model({"token_ids": [[5, 2, 9]]})["sequence_output"].shape
        TensorShape([1, 3, 128])
    """

    config_class = BertConfig
    input_pairs = {"token_ids": ("padding_mask", "vocabulary_size")}

    def __init__(self, config, dtype=None, **kwargs):
        self.config = config
        dtype = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
        initializer = keras.initializers.TruncatedNormal(stddev=config.initializer_range)
        self.token_embedding = ReversibleEmbedding(
            config.vocabulary_size,
            config.hidden_dim,
            embeddings_initializer=initializer.clone(),
            dtype=dtype,
            name="token_embedding",
        )
        self.segment_embedding = None
        if config.segment_vocabulary_size:
            self.segment_embedding = keras.layers.Embedding(
                config.segment_vocabulary_size,
                config.hidden_dim,
                embeddings_initializer=initializer.clone(),
                dtype=dtype,
                name="segment_embedding",
            )
        self.position_embedding = PositionalEmbedding(
            config.max_sequence_length,
            kind="learned",
            initializer=initializer.clone(),
            offset=_POSITION_OFFSETS[config.position_offset],
            dtype=dtype,
            name="position_embedding",
        )
        self.embedding_norm = LayerNormalization(
            epsilon=config.norm_epsilon, dtype=dtype, name="embedding_norm"
        )
        self.embedding_dropout = Dropout(config.dropout, dtype=dtype, name="embedding_dropout")
        self.blocks = [
            TransformerBlock(
                config.num_heads,
                config.intermediate_dim,
                activation=config.activation,
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
        self.first_token = self.pooler_dense = None
        if config.pooler:
            self.first_token = FirstToken(dtype=dtype, name="first_token")
            self.pooler_dense = Dense(
                config.hidden_dim,
                activation="tanh",
                kernel_initializer=initializer.clone(),
                dtype=dtype,
                name="pooler",
            )
        names = ["token_ids", "padding_mask"] + ["segment_ids"] * bool(self.segment_embedding)
        inputs = {name: token_input(name) for name in names}
        super().__init__(inputs=inputs, outputs=self._outputs(inputs), **kwargs)
        self.dtype_policy = dtype  # a functional model does not take it as an argument

    def _outputs(self, inputs):
        hidden = self.forward(inputs)
        outputs = {"sequence_output": hidden}
        if self.config.pooler:
            outputs["pooled_output"] = self.pool(hidden, inputs["padding_mask"])
        return outputs

    def pool(self, hidden, padding_mask):
        """The pooler: of hidden states (b, l, d) one vector a row, (b, d)."""
        return self.pooler_dense(self.first_token(hidden, padding_mask=padding_mask))

    def forward(self, inputs, training=None):
        """The one forward pass: the last block's output, (b, l, d)."""
        x = self.token_embedding(inputs["token_ids"])  # (b, l, d)
        if self.segment_embedding:
            x = x + self.segment_embedding(inputs["segment_ids"])
        padding_mask = inputs["padding_mask"]
        x = self.embedding_norm(self.position_embedding(x, padding_mask=padding_mask))
        x = self.embedding_dropout(x, training=training)
        for block in self.blocks:
            x = block(x, padding_mask=padding_mask, training=training)
        return x

    def complete_inputs(self, inputs):
        inputs = super().complete_inputs(inputs)
        if self.segment_embedding and "token_ids" in inputs:
            if "segment_ids" in inputs:
                size = self.config.segment_vocabulary_size
                check_ids(inputs["segment_ids"], "segment_ids", size)
            else:
                inputs["segment_ids"] = ops.zeros_like(inputs["token_ids"], dtype="int32")
        return inputs

    def final_hidden(self, x, training=None):
        return self.forward(self.complete_inputs(x), training=training)

    def task_loss(self, x, y, sample_weight, training):
        raise ValueError(
            "A bare encoder has no task to train on. Received: compile without loss=. Put a head "
            "on, such as tfmodels.models.MaskedLanguageModel(model), or pass loss=."
        )


def bert(size="base", dtype=None, **overrides):
    """A BERT, RoBERTa or DistilBERT with fresh weights.

    Args:
        size: "tiny", "base" (109M parameters), "large" (335M), "roberta_base" (125M),
            "roberta_large" (355M), "distil" (66M).
        dtype: Keras dtype policy, such as "mixed_bfloat16"; None: the global one.
        **overrides: fields of `BertConfig`.

    Returns:
        A `Bert`.

    Raises:
        ValueError: an unknown size or field, or a value out of range.

    Example:
        >>> model = tfmodels.models.bert("tiny", num_layers=3, dropout=0.0)
    """
    return Bert(make_config(BertConfig, SIZES, size, overrides), dtype=dtype)
