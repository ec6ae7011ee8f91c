"""Transformer-XL (Dai et al. 2019): relative positions, and a memory of the segments before.

Shape letters: b batch, l length, d hidden_dim, v vocabulary_size, s layers, m memory_length.
"""

import dataclasses

import keras
from keras import ops

from tfmodels.layers import AdaptiveEmbedding, RelativeBiases, RelativeBlock, RelativePositions
from tfmodels.layers.adaptive import check_clusters
from tfmodels.layers.dropout import Dropout
from tfmodels.layers.masks import cached_positions
from tfmodels.models.base import (
    TransformerModel,
    check_config,
    check_optional_sizes,
    check_special_ids,
    make_config,
    token_input,
)
from tfmodels.training.stream import StreamTraining


@dataclasses.dataclass(frozen=True)
class TransformerXLConfig:
    """Sizes of a Transformer-XL.

    Attributes:
        vocabulary_size: int, words of the vocabulary.
        max_sequence_length: int, the longest text that generation holds, prompt included. The model
            itself has no limit, and segments may be of any length.
        memory_length: int, tokens of the segments before that a segment sees; None: no memory.
        num_layers: int, blocks.
        num_heads: int, attention heads in a block.
        head_dim: int, size of a head.
        hidden_dim: int, even, width of the residual stream.
        intermediate_dim: int, inner width of the feed-forward networks.
        dropout: float, on embeddings, sublayer outputs, inner vectors and the last hidden states.
        attention_dropout: float, on attention weights.
        norm_first: bool, pre-norm instead of post-norm.
        norm_epsilon: float, added to the variance in layer normalisation.
        same_length: bool, whether each token sees `memory_length` tokens, itself among them, instead
            of its whole segment and the memory.
        zero_memory: bool, whether a memory that is not yet filled is seen as vectors of zeros, as in
            the authors' TensorFlow code and in transformers, instead of not at all.
        clamp_length: int, from which on all distances have one code; None: none.
        tie_biases: bool, whether all blocks share u and v of section 3.3.
        cutoffs: tuple of int, first words of the adaptive softmax's clusters but the first; empty:
            the plain softmax.
        embedding_dim: int, size of the first cluster's word vectors; None: `hidden_dim`.
        divisor: int, by which each cluster's vectors are shorter than those of the one before; 1:
            one table for all words.
        tie_embeddings: bool, one table for words in and words out.
        tie_projections: bool, the same for projections, but for the first cluster's.
        initializer_range: float, standard deviation of the initial weights.
        end_id: int or tuple of int, ends a text that is generated; None: the tokenizer's.
    """

    vocabulary_size: int = 267735
    max_sequence_length: int = 65536
    memory_length: int | None = 150
    num_layers: int = 16
    num_heads: int = 10
    head_dim: int = 41
    hidden_dim: int = 410
    intermediate_dim: int = 2100
    dropout: float = 0.1
    attention_dropout: float = 0.0
    norm_first: bool = False
    norm_epsilon: float = 1e-5
    same_length: bool = False
    zero_memory: bool = False
    clamp_length: int | None = None
    tie_biases: bool = False
    cutoffs: tuple = ()
    embedding_dim: int | None = None
    divisor: int = 1
    tie_embeddings: bool = True
    tie_projections: bool = True
    initializer_range: float = 0.02
    end_id: int | tuple | None = None

    def __post_init__(self):
        object.__setattr__(self, "cutoffs", tuple(self.cutoffs))  # a list is fine too
        check_config(self)
        check_special_ids(self, self.vocabulary_size, "end_id")
        check_optional_sizes(self, "memory_length", "clamp_length", "embedding_dim")
        size = self.embedding_dim or self.hidden_dim
        check_clusters(self.vocabulary_size, size, self.cutoffs, self.divisor)
        if self.hidden_dim % 2:
            raise ValueError(
                f"hidden_dim must be even: positions are sines and cosines. Received: {self.hidden_dim}."
            )
        if self.memory_length is None and (self.same_length or self.zero_memory):
            raise ValueError(
                "same_length and zero_memory need a memory. Received: memory_length=None, "
                f"same_length={self.same_length}, zero_memory={self.zero_memory}."
            )


# The authors' scripts: enwik8 base (41M parameters), WikiText-103 base (151M) and large (285M).
SIZES = {
    "tiny": dict(
        vocabulary_size=4000,
        max_sequence_length=4096,
        memory_length=64,
        num_layers=2,
        num_heads=4,
        head_dim=32,
        hidden_dim=128,
        intermediate_dim=512,
    ),
    "enwik8": dict(
        vocabulary_size=204,
        memory_length=512,
        num_layers=12,
        num_heads=8,
        head_dim=64,
        hidden_dim=512,
        intermediate_dim=2048,
    ),
    "base": dict(cutoffs=(20000, 40000, 200000)),
    "large": dict(
        memory_length=384,
        num_layers=18,
        num_heads=16,
        head_dim=64,
        hidden_dim=1024,
        intermediate_dim=4096,
        dropout=0.2,
        attention_dropout=0.2,
        cutoffs=(20000, 40000, 200000),
        divisor=4,
    ),
}


@keras.saving.register_keras_serializable("tfmodels")
class TransformerXL(StreamTraining, TransformerModel):
    """Transformer-XL as a language model: ids in, log-probabilities out.

    Called plainly it reads its input as one segment with an empty memory. To train on long text with
    the memory of section 3.2, `compile("adamw", stateful=True)` and `fit` on a dataset in which row i
    of each batch continues row i of the batch before.

    Args:
        config: a `TransformerXLConfig`.
        **kwargs: `name`, `trainable`, `dtype` of the Keras model.

    Call arguments:
        inputs: dict of `token_ids`, int tensor, (batch, length), and, unless all are real,
            `padding_mask`, int tensor, (batch, length), 0 = padding, k >= 1 = the k-th sequence
            packed in the row.

    Returns:
        Log-probabilities, (batch, length, vocabulary_size): logits that are normalised already.

    Example:
        >>> model = tfmodels.models.transformer_xl("tiny")
        >>> model({"token_ids": [[5, 2, 9]]}).shape
        TensorShape([1, 3, 4000])
        >>> model.compile("adamw", stateful=True)
        >>> model.fit(stream)
    """

    config_class = TransformerXLConfig
    input_pairs = {"token_ids": ("padding_mask", "vocabulary_size")}

    def __init__(self, config, dtype=None, **kwargs):
        self.config = config
        dtype = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
        initializer = keras.initializers.RandomNormal(stddev=config.initializer_range)

        def dropout(name):
            return Dropout(config.dropout, dtype=dtype, name=name)

        self.token_embedding = AdaptiveEmbedding(
            config.vocabulary_size,
            config.hidden_dim,
            cutoffs=config.cutoffs,
            embedding_dim=config.embedding_dim,
            divisor=config.divisor,
            tie_embeddings=config.tie_embeddings,
            tie_projections=config.tie_projections,
            initializer=initializer.clone(),
            # The authors' code: projections start at half of the other weights' spread.
            projection_initializer=keras.initializers.RandomNormal(stddev=config.initializer_range / 2),
            dtype=dtype,
            name="token_embedding",
        )
        self.positions = RelativePositions(
            config.hidden_dim,
            memory_length=config.memory_length,
            same_length=config.same_length,
            zero_memory=config.zero_memory,
            clamp_length=config.clamp_length,
            dtype=dtype,
            name="positions",
        )
        self.biases = [
            RelativeBiases(
                config.num_heads, config.head_dim, initializer.clone(), dtype=dtype, name=f"biases_{i}"
            )
            for i in range(1 if config.tie_biases else config.num_layers)
        ]
        self.blocks = [
            RelativeBlock(
                config.num_heads,
                config.head_dim,
                config.intermediate_dim,
                norm_first=config.norm_first,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
                norm_epsilon=config.norm_epsilon,
                kernel_initializer=initializer,
                dtype=dtype,
                name=f"block_{i}",
            )
            for i in range(config.num_layers)
        ]
        self.embedding_dropout = dropout("embedding_dropout")
        self.position_dropout = dropout("position_dropout")
        self.final_dropout = dropout("final_dropout")
        inputs = {name: token_input(name) for name in ("token_ids", "padding_mask")}
        hidden, _ = self.forward(inputs, self.positions(inputs["padding_mask"]))
        super().__init__(inputs=inputs, outputs=self.token_embedding(hidden, reverse=True), **kwargs)
        self.dtype_policy = dtype  # a functional model does not take it as an argument

    def forward(self, inputs, window, memory=None, cache=None, positions=None, training=None):
        """The one forward pass, with or without memory or cache.

        Returns:
            A tuple of hidden states, (b, l, d), and a list with an entry a block: its new cache, or,
            without a cache, its input, which is what a memory holds.
        """
        x = self.token_embedding(inputs["token_ids"])  # (b, l, d)
        x = self.embedding_dropout(x, training=training)
        window = window | {"codes": self.position_dropout(window["codes"], training=training)}
        biases = [layer(x) for layer in self.biases]
        state = []
        for i, block in enumerate(self.blocks):
            options = {"window": window, "biases": biases[i % len(biases)], "training": training}
            if cache is not None:
                x, new = block(x, cache=cache[i], positions=positions, **options)
            else:
                new = x
                x = block(x, memory=None if memory is None else memory[:, i], **options)
            state.append(new)
        return self.final_dropout(x, training=training), state

    def final_hidden(self, x, training=None):
        x = self.complete_inputs(x)
        return self.forward(x, self.positions(x["padding_mask"]), training=training)[0]

    @property
    def memory_shape(self):
        """(s, m, d) of a row's memory, or None."""
        config = self.config
        if config.memory_length is None:
            return None
        return config.num_layers, config.memory_length, config.hidden_dim

    def stream_hidden(self, x, memory, memory_mask, training=None):
        """Hidden states of a segment that continues a stream, and what to remember of it.

        Args:
            x: dict of the model's inputs, padding at the right only.
            memory: float tensor, (batch, num_layers, memory_length, hidden_dim), each block's inputs.
            memory_mask: int tensor, (batch, memory_length), 1 = filled, at the right.
            training: bool.

        Returns:
            Tuple of hidden states, (batch, length, hidden_dim), and the blocks' inputs, (batch,
            num_layers, length, hidden_dim).
        """
        x = self.complete_inputs(x)
        window = self.positions(x["padding_mask"], memory_mask=memory_mask)
        hidden, block_inputs = self.forward(x, window, memory=memory, training=training)
        return hidden, ops.stack(block_inputs, axis=1)

    def output_parts(self, hidden, labels):
        """What the clusters' losses are made of: see `adaptive_loss`."""
        layer, rows = self.token_embedding, ops.reshape(hidden, (-1, hidden.shape[-1]))
        labels = ops.reshape(labels, (-1,))
        parts = []
        first, inside = layer.local_labels(0, labels)
        for i in range(len(self.config.cutoffs) + 1):
            local, here = layer.local_labels(i, labels)
            if i:
                # In the first softmax the clusters follow the words.
                first = ops.where(here, self.config.cutoffs[0] + i - 1, first)
            parts.append((*layer.output_part(i, rows), local, here))
        return [(*parts[0][:3], first, inside), *parts[1:]]

    def init_cache(self, inputs, max_length, dtype=None):
        """An empty cache for `decode_step`: keys and values of each block, and the prompts' lengths.

        Tokens of the prompt, which is all of `inputs`, are one segment; each token after it is a
        segment of its own that sees `memory_length` tokens before itself.
        """
        inputs = self.complete_inputs(inputs)
        batch = ops.shape(inputs["token_ids"])[0]
        return {
            "blocks": [block.init_cache(batch, max_length, dtype) for block in self.blocks],
            "prompt_length": ops.sum(ops.cast(inputs["padding_mask"] != 0, "int32"), axis=1),
        }

    def decode_step(self, token_ids, cache, index, return_hidden=False):
        """Log-probabilities of new tokens, given the tokens in the cache.

        Args:
            token_ids: int tensor, (batch, length).
            cache: what `init_cache` or the last step returned.
            index: int tensor, (batch,) or a scalar: where in each row the new tokens begin.
            return_hidden: bool, whether to return the hidden states too.

        Returns:
            A tuple of log-probabilities, (batch, length, vocabulary_size), and the new cache; with
            `return_hidden` followed by the hidden states that the logits are made of, (batch, length,
            hidden_dim).
        """
        batch, length = ops.shape(token_ids)
        positions = ops.broadcast_to(cached_positions(index, length), (batch, length))
        max_length = ops.shape(cache["blocks"][0]["key"])[2]
        window = self.positions.cached(positions, cache["prompt_length"], max_length)
        inputs = {"token_ids": token_ids}
        hidden, blocks = self.forward(inputs, window, cache=cache["blocks"], positions=positions)
        results = self.token_embedding(hidden, reverse=True), cache | {"blocks": blocks}
        return (*results, hidden) if return_hidden else results


def transformer_xl(size="base", dtype=None, **overrides):
    """A Transformer-XL with fresh weights.

    Args:
        size: "tiny", "enwik8" (41M parameters, characters), "base" (151M) or "large" (285M), both
            for the words of WikiText-103.
        dtype: Keras dtype policy, such as "mixed_bfloat16"; None: the global one.
        **overrides: fields of `TransformerXLConfig`.

    Returns:
        A `TransformerXL`.

    Raises:
        ValueError: an unknown size or field, or a value out of range.

    Example:
        >>> model = tfmodels.models.transformer_xl("tiny", memory_length=128, dropout=0.0)
    """
    return TransformerXL(make_config(TransformerXLConfig, SIZES, size, overrides), dtype=dtype)
