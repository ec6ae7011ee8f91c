"""BART's config.json and weight map. MarianMT's differ by a few lines (marian.py)."""

from tfmodels.models.bart import Bart, BartConfig
from tfmodels.models.readers import BartReader
from tfmodels.pretrained import heads
from tfmodels.pretrained.architecture import Architecture, Head
from tfmodels.pretrained.fields import activation_name
from tfmodels.pretrained.tensors import Tensor, linear, norm, tensor

# transformers fixes it in its code.
NORM_EPSILON = 1e-5


def read_shared(fields, target_vocabulary_size, start_id, end_id, pad_id, **different):
    """The fields that BART and MarianMT have by the same names; ids are an old config's defaults."""
    # Of early configs; no published checkpoint has another value.
    fields.only("normalize_before", False)
    fields.only("add_final_layer_norm", False)
    fields.only("add_bias_logits", False)
    return BartConfig(
        source_vocabulary_size=fields.integer("vocab_size"),
        max_sequence_length=fields.integer("max_position_embeddings", 1024),
        num_encoder_layers=fields.integer("encoder_layers", 12),
        num_layers=fields.integer("decoder_layers", 12),
        num_encoder_heads=fields.integer("encoder_attention_heads", 16),
        num_heads=fields.integer("decoder_attention_heads", 16),
        hidden_dim=fields.integer("d_model", 1024),
        encoder_intermediate_dim=fields.integer("encoder_ffn_dim", 4096),
        intermediate_dim=fields.integer("decoder_ffn_dim", 4096),
        scale_embeddings=fields.flag("scale_embedding", False),
        activation=fields.activation("activation_function", "gelu"),
        dropout=fields.rate("dropout", 0.1),
        attention_dropout=fields.rate("attention_dropout", 0.0),
        intermediate_dropout=fields.rate("activation_dropout", 0.0),
        norm_epsilon=NORM_EPSILON,
        initializer_range=fields.rate("init_std", 0.02),
        target_vocabulary_size=target_vocabulary_size,
        **_special_ids(fields, target_vocabulary_size, start_id, end_id, pad_id),
        **different,
    )


def _special_ids(fields, vocabulary_size, start_id, end_id, pad_id):
    def token_id(name, default=None, **options):
        return fields.token_id(name, vocabulary_size, default=default, **options)

    ends = token_id("eos_token_id", end_id, several=True)
    start_id = token_id("decoder_start_token_id", start_id)
    return {
        "start_id": token_id("bos_token_id") if start_id is None else start_id,
        "end_id": ends,
        "pad_id": token_id("pad_token_id", pad_id),
        "forced_start_id": token_id("forced_bos_token_id"),
        "forced_end_id": token_id("forced_eos_token_id", end_id),
        # transformers never suppresses the end.
        "suppressed_ids": tuple(
            token
            for token in fields.suppressed_ids(vocabulary_size)
            if token not in (ends if isinstance(ends, tuple) else (ends,))
        ),
    }


def read_config(fields):
    fields.only("normalize_embedding", True)
    fields.only("static_position_embeddings", False)
    # transformers unties all at once: words of the encoder, words of the decoder, output.
    tied = fields.flag("tie_word_embeddings", True)
    return read_shared(
        fields,
        target_vocabulary_size=fields.integer("vocab_size"),
        start_id=2,
        end_id=2,
        pad_id=1,
        positions="learned",
        embedding_norm=True,
        share_embeddings=tied,
        tie_embeddings=tied,
    )


def write_shared(config):
    return {
        "vocab_size": config.source_vocabulary_size,
        "max_position_embeddings": config.max_sequence_length,
        "encoder_layers": config.num_encoder_layers or config.num_layers,
        "decoder_layers": config.num_layers,
        "encoder_attention_heads": config.num_encoder_heads or config.num_heads,
        "decoder_attention_heads": config.num_heads,
        "d_model": config.hidden_dim,
        "encoder_ffn_dim": config.encoder_intermediate_dim or config.intermediate_dim,
        "decoder_ffn_dim": config.intermediate_dim,
        "scale_embedding": config.scale_embeddings,
        "activation_function": activation_name(config.activation),
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "activation_dropout": config.intermediate_dropout,
        "init_std": config.initializer_range,
        "is_encoder_decoder": True,
        "decoder_start_token_id": config.start_id,
        "eos_token_id": config.end_id,
        "pad_token_id": config.pad_id,
        "forced_bos_token_id": config.forced_start_id,
        "forced_eos_token_id": config.forced_end_id,
        "bad_words_ids": [[token] for token in config.suppressed_ids] or None,
    }


def write_config(config):
    return write_shared(config) | {"tie_word_embeddings": config.share_embeddings}


def words(config):
    """The matrices of words: one, with copies that some files hold too or instead, or several."""
    d = config.hidden_dim
    source, target = "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"
    output = ("lm_head.weight",) if config.tie_embeddings else ()
    source_shape, target_shape = (config.source_vocabulary_size, d), (config.target_vocabulary_size, d)
    if config.share_embeddings:
        copies = (f"model.{source}", f"model.{target}", *output)
        yield Tensor("shared.weight", target_shape, ("target_embedding.embeddings",), copies=copies)
    else:
        yield tensor(source, source_shape, "source_embedding.embeddings")
        yield Tensor(target, target_shape, ("target_embedding.embeddings",), copies=output)


def tensors(config):
    """The weight map without the head: BART's, and MarianMT's."""
    d = config.hidden_dim
    yield from words(config)
    rows, fixed = config.max_sequence_length + 2, False
    if config.positions == "sinusoidal":
        rows, fixed = config.max_sequence_length, True
    sizes = {
        "encoder": (
            config.num_encoder_layers or config.num_layers,
            config.encoder_intermediate_dim or config.intermediate_dim,
        ),
        "decoder": (config.num_layers, config.intermediate_dim),
    }
    for side, (num_layers, intermediate_dim) in sizes.items():
        table = (f"{side}.position_embedding.table",)
        yield Tensor(f"{side}.embed_positions.weight", (rows, d), table, optional=fixed)
        if config.embedding_norm:
            yield from norm(f"{side}.layernorm_embedding", f"{side}.embedding_norm", d)
        for i in range(num_layers):
            theirs, ours = f"{side}.layers.{i}", f"{side}.blocks.{i}"
            yield from _attention(f"{theirs}.self_attn", f"{ours}.attention", d)
            if side == "decoder":
                yield from _attention(f"{theirs}.encoder_attn", f"{ours}.cross", d)
            dense = f"{ours}.feed_forward.intermediate_dense"
            yield from linear(f"{theirs}.fc1", dense, d, intermediate_dim)
            dense = f"{ours}.feed_forward.output_dense"
            yield from linear(f"{theirs}.fc2", dense, intermediate_dim, d)
            yield from norm(f"{theirs}.final_layer_norm", f"{ours}.feed_forward_norm", d)


def _attention(theirs, ours, d):
    for short, name in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value"), ("out_proj", "output")):
        yield from linear(f"{theirs}.{short}", f"{ours}.{name}_dense", d, d)
    yield from norm(f"{theirs}_layer_norm", f"{ours}_norm", d)


def language_head(config):
    words = config.target_vocabulary_size
    yield Tensor("final_logits_bias", (1, words), ("logits_bias.bias",), optional=True)
    if not config.tie_embeddings:
        shape = (words, config.hidden_dim)
        yield Tensor("lm_head.weight", shape, ("target_embedding.reverse_embeddings",), True)


def _language_head(config):
    yield from language_head(config)
    if config.tie_embeddings and not config.share_embeddings:
        # A bare model of separate words: transformers has no such head, so its matrix is a copy.
        shape = (config.target_vocabulary_size, config.hidden_dim)
        yield tensor("lm_head.weight", shape, "target_embedding.embeddings")


_READER = dict(backbone_class=BartReader, backbone={"tie_embeddings": True})

ARCHITECTURES = {
    "bart": Architecture(
        model_type="bart",
        backbone=Bart,
        prefix="model.",
        read_config=read_config,
        write_config=write_config,
        tensors=tensors,
        heads={
            "BartForConditionalGeneration": Head("sequence_to_sequence", tensors=_language_head),
            "BartForSequenceClassification": heads.sequence_classification(
                "classification_head.out_proj",
                "classification_head.dense",
                pooling="last",  # the end token
                hidden_activation="tanh",
                dropout=("classifier_dropout", 0.0),
                input_dropout=True,
                **_READER,
            ),
            "BartForQuestionAnswering": heads.question_answering("qa_outputs", **_READER),
            # The bare model becomes one that writes too: its words out are its words in.
            "BartModel": Head(None, backbone={"tie_embeddings": True}),
        },
        # Of early files: a version number, and words that nothing reads where all are untied.
        carried=(r"(en|de)coder\.version", r"shared\.weight"),
        holds=lambda config: (
            config.positions == "learned"
            and config.embedding_norm
            and config.norm_epsilon == NORM_EPSILON
            and config.source_vocabulary_size == config.target_vocabulary_size
            and (config.tie_embeddings or not config.share_embeddings)
        ),
    )
}
