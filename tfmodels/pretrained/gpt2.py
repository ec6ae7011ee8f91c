"""GPT-2's config.json and weight map. Its kernels are stored (in, out), as Keras has them."""

from tfmodels.models.gpt2 import GPT2, GPT2Config
from tfmodels.pretrained import heads
from tfmodels.pretrained.architecture import Architecture, Head
from tfmodels.pretrained.fields import activation_name
from tfmodels.pretrained.tensors import Tensor, norm, tensor


def read_config(fields):
    hidden_dim = fields.integer("n_embd", 768)
    vocabulary_size = fields.integer("vocab_size", 50257)
    fields.only("scale_attn_weights", True)
    fields.only("scale_attn_by_inverse_layer_idx", False)
    fields.only("add_cross_attention", False)
    dropout, embedding_dropout = fields.rate("resid_pdrop", 0.1), fields.rate("embd_pdrop", 0.1)
    return GPT2Config(
        vocabulary_size=vocabulary_size,
        max_sequence_length=fields.integer("n_positions", 1024),
        num_layers=fields.integer("n_layer", 12),
        num_heads=fields.integer("n_head", 12),
        hidden_dim=hidden_dim,
        intermediate_dim=fields.integer("n_inner", 4 * hidden_dim),
        activation=fields.activation("activation_function", "gelu_new"),
        dropout=dropout,
        # None where it is the same, so that it follows another dropout that is asked for.
        embedding_dropout=None if embedding_dropout == dropout else embedding_dropout,
        attention_dropout=fields.rate("attn_pdrop", 0.1),
        norm_epsilon=fields.rate("layer_norm_epsilon", 1e-5),
        initializer_range=fields.rate("initializer_range", 0.02),
        tie_embeddings=fields.flag("tie_word_embeddings", True),
        end_id=fields.token_id("eos_token_id", vocabulary_size, several=True, unset=50256),
    )


def write_config(config):
    return {
        "vocab_size": config.vocabulary_size,
        "n_positions": config.max_sequence_length,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "n_embd": config.hidden_dim,
        "n_inner": config.intermediate_dim,
        "activation_function": activation_name(config.activation),
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout if config.embedding_dropout is None else config.embedding_dropout,
        "attn_pdrop": config.attention_dropout,
        "layer_norm_epsilon": config.norm_epsilon,
        "initializer_range": config.initializer_range,
        "tie_word_embeddings": config.tie_embeddings,
        "bos_token_id": config.end_id[0] if isinstance(config.end_id, tuple) else config.end_id,
        "eos_token_id": config.end_id,
    }


def tensors(config):
    """The weight map of the decoder without its head."""
    d, f = config.hidden_dim, config.intermediate_dim
    yield tensor("wte.weight", (config.vocabulary_size, d), "token_embedding.embeddings")
    yield tensor("wpe.weight", (config.max_sequence_length, d), "position_embedding.table")
    for i in range(config.num_layers):
        theirs, ours = f"h.{i}", f"blocks.{i}"
        yield from norm(f"{theirs}.ln_1", f"{ours}.attention_norm", d)
        denses = [f"{ours}.attention.{name}_dense" for name in ("query", "key", "value")]
        yield from _conv1d(f"{theirs}.attn.c_attn", denses, d, 3 * d)
        yield from _conv1d(f"{theirs}.attn.c_proj", [f"{ours}.attention.output_dense"], d, d)
        yield from norm(f"{theirs}.ln_2", f"{ours}.feed_forward_norm", d)
        feed_forward = f"{ours}.feed_forward"
        yield from _conv1d(f"{theirs}.mlp.c_fc", [f"{feed_forward}.intermediate_dense"], d, f)
        yield from _conv1d(f"{theirs}.mlp.c_proj", [f"{feed_forward}.output_dense"], f, d)
    yield from norm("ln_f", "final_norm", d)


def _conv1d(name, denses, in_dim, out_dim):
    yield tensor(f"{name}.weight", (in_dim, out_dim), *(f"{dense}.kernel" for dense in denses))
    yield tensor(f"{name}.bias", (out_dim,), *(f"{dense}.bias" for dense in denses))


def _language_head(config):
    if not config.tie_embeddings:
        shape = (config.vocabulary_size, config.hidden_dim)
        yield Tensor("lm_head.weight", shape, ("token_embedding.reverse_embeddings",), True)


# Without its language head the decoder has only the words in.
_BARE = {"tie_embeddings": True}
_HEADS = {
    "GPT2LMHeadModel": Head("causal_language_modelling", tensors=_language_head),
    # The bare decoder becomes a language model too: its words out are its words in.
    "GPT2Model": Head(None, backbone=_BARE),
    "GPT2ForSequenceClassification": heads.sequence_classification(
        "score", pooling="last", use_bias=False, backbone=_BARE
    ),
    "GPT2ForTokenClassification": heads.token_classification(
        "classifier", dropout=("classifier_dropout", "hidden_dropout", 0.1), backbone=_BARE
    ),
    "GPT2ForQuestionAnswering": heads.question_answering("qa_outputs", backbone=_BARE),
}

ARCHITECTURES = {
    "gpt2": Architecture(
        model_type="gpt2",
        backbone=GPT2,
        prefix="transformer.",
        read_config=read_config,
        write_config=write_config,
        tensors=tensors,
        heads=_HEADS,
        tied={"lm_head.weight": "wte.weight"},
        # Masks that early versions stored, and the tied matrix that some store twice.
        ignored=(r"h\.\d+\.attn\.(bias|masked_bias)", r"lm_head\.weight"),
    )
}
