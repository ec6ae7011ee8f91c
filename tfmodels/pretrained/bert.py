"""BERT's and RoBERTa's config.json and weight maps; they share their tensors' names."""

from tfmodels.models.bert import Bert, BertConfig
from tfmodels.pretrained import heads
from tfmodels.pretrained.architecture import Architecture, Head
from tfmodels.pretrained.fields import activation_name
from tfmodels.pretrained.tensors import linear, norm, tensor


def _read_shared(fields, *, max_sequence_length, **different):
    fields.only("position_embedding_type", "absolute")
    fields.only("is_decoder", False)
    fields.only("add_cross_attention", False)
    return BertConfig(
        vocabulary_size=fields.integer("vocab_size"),
        max_sequence_length=max_sequence_length,
        num_layers=fields.integer("num_hidden_layers", 12),
        num_heads=fields.integer("num_attention_heads", 12),
        hidden_dim=fields.integer("hidden_size", 768),
        intermediate_dim=fields.integer("intermediate_size", 3072),
        segment_vocabulary_size=fields.integer("type_vocab_size", 2),
        activation=fields.activation("hidden_act", "gelu"),
        dropout=fields.rate("hidden_dropout_prob", 0.1),
        attention_dropout=fields.rate("attention_probs_dropout_prob", 0.1),
        norm_epsilon=fields.rate("layer_norm_eps", 1e-12),
        initializer_range=fields.rate("initializer_range", 0.02),
        **different,
    )


def read_bert(fields):
    return _read_shared(fields, max_sequence_length=fields.integer("max_position_embeddings", 512))


def read_roberta(fields):
    # Positions are counted from pad_token_id + 1, and every published RoBERTa pads with 1.
    fields.only("pad_token_id", 1)
    rows = fields.integer("max_position_embeddings", 514)
    if rows < 3:
        raise ValueError(f"config.json: max_position_embeddings must be at least 3. Received: {rows}.")
    return _read_shared(fields, max_sequence_length=rows - 2, position_offset="roberta")


def _write_shared(config):
    return {
        "vocab_size": config.vocabulary_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "hidden_size": config.hidden_dim,
        "intermediate_size": config.intermediate_dim,
        "type_vocab_size": config.segment_vocabulary_size,
        "hidden_act": activation_name(config.activation),
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "layer_norm_eps": config.norm_epsilon,
        "initializer_range": config.initializer_range,
    }


def write_bert(config):
    return _write_shared(config) | {
        "max_position_embeddings": config.max_sequence_length,
        "pad_token_id": 0,
    }


def write_roberta(config):
    return _write_shared(config) | {
        "max_position_embeddings": config.max_sequence_length + 2,
        "pad_token_id": 1,
    }


def tensors(config):
    """The weight map of the encoder and its pooler."""
    d, f = config.hidden_dim, config.intermediate_dim
    rows = config.max_sequence_length + (2 if config.position_offset == "roberta" else 0)
    words, segments = config.vocabulary_size, config.segment_vocabulary_size
    yield tensor("embeddings.word_embeddings.weight", (words, d), "token_embedding.embeddings")
    yield tensor("embeddings.position_embeddings.weight", (rows, d), "position_embedding.table")
    yield tensor("embeddings.token_type_embeddings.weight", (segments, d), "segment_embedding.embeddings")
    yield from norm("embeddings.LayerNorm", "embedding_norm", d)
    for i in range(config.num_layers):
        theirs, ours = f"encoder.layer.{i}", f"blocks.{i}"
        for name in ("query", "key", "value"):
            dense = f"{ours}.attention.{name}_dense"
            yield from linear(f"{theirs}.attention.self.{name}", dense, d, d)
        dense = f"{ours}.attention.output_dense"
        yield from linear(f"{theirs}.attention.output.dense", dense, d, d)
        yield from norm(f"{theirs}.attention.output.LayerNorm", f"{ours}.attention_norm", d)
        dense = f"{ours}.feed_forward.intermediate_dense"
        yield from linear(f"{theirs}.intermediate.dense", dense, d, f)
        yield from linear(f"{theirs}.output.dense", f"{ours}.feed_forward.output_dense", f, d)
        yield from norm(f"{theirs}.output.LayerNorm", f"{ours}.feed_forward_norm", d)
    if config.pooler:
        yield from linear("pooler.dense", "pooler_dense", d, d)


# Positions that early versions stored, though they are only 0, 1, 2, ...
_BUFFERS = (r"embeddings\.position_ids", r"embeddings\.token_type_ids")
_DROPOUT = ("classifier_dropout", "hidden_dropout_prob", 0.1)
_WITHOUT_POOLER = dict(without=("pooler",))

_BERT_WORDS = {
    "dense": "cls.predictions.transform.dense",
    "norm": "cls.predictions.transform.LayerNorm",
    "decoder": "cls.predictions.decoder",
    "bias": "cls.predictions.bias",
}
_BERT_HEADS = {
    "BertModel": Head(None),
    "BertForPreTraining": heads.pre_training(
        _BERT_WORDS, "cls.seq_relationship", unused=(_BERT_WORDS["bias"],)
    ),
    "BertForMaskedLM": heads.masked_language_modelling(
        _BERT_WORDS, unused=(_BERT_WORDS["bias"],), **_WITHOUT_POOLER
    ),
    "BertForNextSentencePrediction": heads.next_sentence_prediction("cls.seq_relationship"),
    "BertForSequenceClassification": heads.sequence_classification(
        "classifier", pooling="pooler", dropout=_DROPOUT
    ),
    "BertForMultipleChoice": heads.multiple_choice("classifier", pooling="pooler", dropout=_DROPOUT),
    "BertForTokenClassification": heads.token_classification(
        "classifier", dropout=_DROPOUT, **_WITHOUT_POOLER
    ),
    "BertForQuestionAnswering": heads.question_answering("qa_outputs", **_WITHOUT_POOLER),
}

_ROBERTA_WORDS = {
    "dense": "lm_head.dense",
    "norm": "lm_head.layer_norm",
    "decoder": "lm_head.decoder",
    "bias": "lm_head.bias",
}
_ROBERTA_HEADS = {
    "RobertaModel": Head(None),
    "RobertaForMaskedLM": heads.masked_language_modelling(
        _ROBERTA_WORDS, activation="gelu", unused=(_ROBERTA_WORDS["bias"],), **_WITHOUT_POOLER
    ),
    "RobertaForSequenceClassification": heads.sequence_classification(
        "classifier.out_proj",
        "classifier.dense",
        pooling="first",
        hidden_activation="tanh",
        dropout=_DROPOUT,
        input_dropout=True,
        **_WITHOUT_POOLER,
    ),
    "RobertaForMultipleChoice": heads.multiple_choice(
        "classifier", pooling="pooler", dropout=("hidden_dropout_prob", 0.1)
    ),
    "RobertaForTokenClassification": heads.token_classification(
        "classifier", dropout=_DROPOUT, **_WITHOUT_POOLER
    ),
    "RobertaForQuestionAnswering": heads.question_answering("qa_outputs", **_WITHOUT_POOLER),
}


def _tied(names):
    return {
        f"{names['decoder']}.weight": "embeddings.word_embeddings.weight",
        f"{names['decoder']}.bias": names["bias"],
    }


ARCHITECTURES = {
    "bert": Architecture(
        model_type="bert",
        backbone=Bert,
        prefix="bert.",
        read_config=read_bert,
        write_config=write_bert,
        tensors=tensors,
        heads=_BERT_HEADS,
        tied=_tied(_BERT_WORDS),
        # With tied embeddings the decoder is a copy.
        ignored=(*_BUFFERS, r"cls\.predictions\.decoder\.(weight|bias)"),
        holds=lambda config: config.segment_vocabulary_size is not None and config.position_offset == "none",
        optional={"pooler": "pooler."},
    ),
    "roberta": Architecture(
        model_type="roberta",
        backbone=Bert,
        prefix="roberta.",
        read_config=read_roberta,
        write_config=write_roberta,
        tensors=tensors,
        heads=_ROBERTA_HEADS,
        tied=_tied(_ROBERTA_WORDS),
        ignored=(*_BUFFERS, r"lm_head\.decoder\.(weight|bias)"),
        holds=lambda config: (
            config.segment_vocabulary_size is not None and config.position_offset == "roberta"
        ),
        optional={"pooler": "pooler."},
    ),
}
