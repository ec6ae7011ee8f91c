"""DistilBERT's config.json and weight map."""

from tfmodels.models.bert import Bert, BertConfig
from tfmodels.pretrained import heads
from tfmodels.pretrained.architecture import Architecture, Head
from tfmodels.pretrained.fields import activation_name
from tfmodels.pretrained.tensors import linear, norm, tensor

# transformers fixes it in its code.
_NORM_EPSILON = 1e-12


def read_config(fields):
    return BertConfig(
        vocabulary_size=fields.integer("vocab_size"),
        max_sequence_length=fields.integer("max_position_embeddings", 512),
        num_layers=fields.integer("n_layers", 6),
        num_heads=fields.integer("n_heads", 12),
        hidden_dim=fields.integer("dim", 768),
        intermediate_dim=fields.integer("hidden_dim", 3072),
        segment_vocabulary_size=None,
        pooler=False,
        activation=fields.activation("activation", "gelu"),
        dropout=fields.rate("dropout", 0.1),
        attention_dropout=fields.rate("attention_dropout", 0.1),
        norm_epsilon=_NORM_EPSILON,
        initializer_range=fields.rate("initializer_range", 0.02),
    )


def write_config(config):
    return {
        "vocab_size": config.vocabulary_size,
        "max_position_embeddings": config.max_sequence_length,
        "n_layers": config.num_layers,
        "n_heads": config.num_heads,
        "dim": config.hidden_dim,
        "hidden_dim": config.intermediate_dim,
        "activation": activation_name(config.activation),
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "initializer_range": config.initializer_range,
        "pad_token_id": 0,
        # Learned positions, which the sinusoidal ones are stored as too.
        "sinusoidal_pos_embds": False,
    }


def tensors(config):
    """The weight map of the encoder."""
    d, f, rows = config.hidden_dim, config.intermediate_dim, config.max_sequence_length
    words = config.vocabulary_size
    yield tensor("embeddings.word_embeddings.weight", (words, d), "token_embedding.embeddings")
    yield tensor("embeddings.position_embeddings.weight", (rows, d), "position_embedding.table")
    yield from norm("embeddings.LayerNorm", "embedding_norm", d)
    for i in range(config.num_layers):
        theirs, ours = f"transformer.layer.{i}", f"blocks.{i}"
        for short, name in (("q", "query"), ("k", "key"), ("v", "value"), ("out", "output")):
            dense = f"{ours}.attention.{name}_dense"
            yield from linear(f"{theirs}.attention.{short}_lin", dense, d, d)
        yield from norm(f"{theirs}.sa_layer_norm", f"{ours}.attention_norm", d)
        yield from linear(f"{theirs}.ffn.lin1", f"{ours}.feed_forward.intermediate_dense", d, f)
        yield from linear(f"{theirs}.ffn.lin2", f"{ours}.feed_forward.output_dense", f, d)
        yield from norm(f"{theirs}.output_layer_norm", f"{ours}.feed_forward_norm", d)


_POOLED = dict(
    hidden="pre_classifier",
    pooling="first",
    hidden_activation="relu",
    dropout=("seq_classif_dropout", 0.2),
)
_HEADS = {
    "DistilBertModel": Head(None),
    "DistilBertForMaskedLM": heads.masked_language_modelling(
        {
            "dense": "vocab_transform",
            "norm": "vocab_layer_norm",
            "decoder": "vocab_projector",
            "bias": "vocab_projector.bias",
        }
    ),
    "DistilBertForSequenceClassification": heads.sequence_classification("classifier", **_POOLED),
    "DistilBertForMultipleChoice": heads.multiple_choice("classifier", **_POOLED),
    "DistilBertForTokenClassification": heads.token_classification("classifier", dropout=("dropout", 0.1)),
    "DistilBertForQuestionAnswering": heads.question_answering("qa_outputs", dropout=("qa_dropout", 0.1)),
}

ARCHITECTURES = {
    "distilbert": Architecture(
        model_type="distilbert",
        backbone=Bert,
        prefix="distilbert.",
        read_config=read_config,
        write_config=write_config,
        tensors=tensors,
        heads=_HEADS,
        tied={"vocab_projector.weight": "embeddings.word_embeddings.weight"},
        # With tied embeddings the projector's matrix is a copy.
        ignored=(r"embeddings\.position_ids", r"vocab_projector\.weight"),
        holds=lambda config: (
            config.segment_vocabulary_size is None
            and not config.pooler
            and config.position_offset == "none"
            and config.norm_epsilon == _NORM_EPSILON
        ),
    )
}
