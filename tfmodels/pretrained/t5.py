"""T5's and mT5's config.json and weight maps."""

import dataclasses

from tfmodels.models.readers import T5Encoder, T5Reader
from tfmodels.models.t5 import T5, T5Config
from tfmodels.pretrained import heads
from tfmodels.pretrained.architecture import Architecture, Head
from tfmodels.pretrained.fields import ACTIVATIONS, activation_name
from tfmodels.pretrained.tensors import Tensor, linear, tensor


def _read(fields, *, scale_logits, vocabulary_size, num_layers, num_heads, intermediate_dim, proj):
    """The config; whether words in and words out are tied is told by the tensors, see `_complete`."""
    fields.only("is_decoder", False)
    vocabulary_size = fields.integer("vocab_size", vocabulary_size)
    num_encoder_layers = fields.integer("num_layers", num_layers)
    gated, activation = _read_feed_forward(fields.get("feed_forward_proj", proj))
    pad_id = _read_id(fields, "pad_token_id", 0, vocabulary_size)
    return T5Config(
        vocabulary_size=vocabulary_size,
        num_encoder_layers=num_encoder_layers,
        num_layers=fields.integer("num_decoder_layers", num_encoder_layers),
        num_heads=fields.integer("num_heads", num_heads),
        head_dim=fields.integer("d_kv", 64),
        hidden_dim=fields.integer("d_model", 512),
        intermediate_dim=fields.integer("d_ff", intermediate_dim),
        activation=activation,
        gated=gated,
        num_buckets=fields.integer("relative_attention_num_buckets", 32),
        max_distance=fields.integer("relative_attention_max_distance", 128),
        dropout=fields.rate("dropout_rate", 0.1),
        norm_epsilon=fields.rate("layer_norm_epsilon", 1e-6),
        initializer_factor=fields.positive("initializer_factor", 1.0),
        scale_logits=scale_logits,
        start_id=_read_id(fields, "decoder_start_token_id", pad_id, vocabulary_size),
        end_id=_read_id(fields, "eos_token_id", 1, vocabulary_size, several=True),
        pad_id=pad_id,
    )


def read_t5(fields):
    # Early files tell by "tie_word_embeddings" whether logits are scaled, later ones by the first.
    tied = fields.flag("tie_word_embeddings", True)
    scale_logits = fields.flag("scale_decoder_outputs", tied)
    return _read(
        fields,
        scale_logits=scale_logits,
        vocabulary_size=32128,
        num_layers=6,
        num_heads=8,
        intermediate_dim=2048,
        proj="relu",
    )


def read_mt5(fields):
    return _read(
        fields,
        scale_logits=False,
        vocabulary_size=250112,
        num_layers=8,
        num_heads=6,
        intermediate_dim=1024,
        proj="gated-gelu",
    )


def _read_id(fields, name, default, vocabulary_size, several=False):
    """The id of a special token; null is none, left out is the default."""
    if name in fields.values or name in fields.generation:
        return fields.token_id(name, vocabulary_size, several)
    return default


# In the gated networks "gelu" is its tanh approximation, by history.
_GATED = {f"gated-{name}": ours for name, ours in ACTIVATIONS.items()} | {"gated-gelu": "gelu_tanh"}


def _read_feed_forward(value):
    """Whether it is gated, and the activation's name of ours."""
    if isinstance(value, str) and (value in ACTIVATIONS or value in _GATED):
        return value in _GATED, (ACTIVATIONS | _GATED)[value]
    raise ValueError(
        f"config.json: feed_forward_proj must be one of {', '.join(ACTIVATIONS)}, or one of these after "
        f'"gated-". Received: {value!r}.'
    )


def _write_feed_forward(config):
    activation = activation_name(config.activation)
    proj = activation
    if config.gated:
        proj = "gated-gelu" if config.activation == "gelu_tanh" else f"gated-{activation}"
    return {"feed_forward_proj": proj, "dense_act_fn": activation, "is_gated_act": config.gated}


def write_mt5(config):
    return _write_feed_forward(config) | {
        "vocab_size": config.vocabulary_size,
        "num_layers": config.num_encoder_layers or config.num_layers,
        "num_decoder_layers": config.num_layers,
        "num_heads": config.num_heads,
        "d_kv": config.head_dim,
        "d_model": config.hidden_dim,
        "d_ff": config.intermediate_dim,
        "relative_attention_num_buckets": config.num_buckets,
        "relative_attention_max_distance": config.max_distance,
        "dropout_rate": config.dropout,
        "layer_norm_epsilon": config.norm_epsilon,
        "initializer_factor": config.initializer_factor,
        "tie_word_embeddings": config.tie_embeddings,
        "decoder_start_token_id": config.start_id,
        "eos_token_id": config.end_id,
        "pad_token_id": config.pad_id,
    }


def write_t5(config):
    return write_mt5(config) | {"scale_decoder_outputs": config.scale_logits}


_WORDS = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
_LANGUAGE_HEAD = "lm_head.weight"


def _complete(config, checkpoint):
    """Version 1.1 has a matrix of its own for words out; in other files it is a copy, or left out."""
    if _LANGUAGE_HEAD not in checkpoint.shapes:
        return config
    words = next((name for name in _WORDS if name in checkpoint.shapes), _LANGUAGE_HEAD)
    return dataclasses.replace(config, tie_embeddings=checkpoint.same(words, _LANGUAGE_HEAD))


def encoder_tensors(config):
    """The weight map of the words and the encoder."""
    copies = _WORDS[1:] + ((_LANGUAGE_HEAD,) if config.tie_embeddings else ())
    shape = (config.vocabulary_size, config.hidden_dim)
    yield Tensor(_WORDS[0], shape, ("token_embedding.embeddings",), copies=copies)
    yield from _stack_tensors(config, "encoder", config.num_encoder_layers or config.num_layers)


def tensors(config):
    """The weight map of the encoder and the decoder."""
    yield from encoder_tensors(config)
    yield from _stack_tensors(config, "decoder", config.num_layers)


def _stack_tensors(config, stack, num_layers):
    d = config.hidden_dim
    first = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    yield tensor(first, (config.num_buckets, config.num_heads), f"{stack}.position_bias.table")
    for i in range(num_layers):
        theirs, ours = f"{stack}.block.{i}.layer", f"{stack}.blocks.{i}"
        sublayers = [("SelfAttention", "attention")]
        if stack == "decoder":
            sublayers.append(("EncDecAttention", "cross"))
        for j, (their_name, our_name) in enumerate(sublayers):
            yield from _attention(config, f"{theirs}.{j}.{their_name}", f"{ours}.{our_name}")
            yield tensor(f"{theirs}.{j}.layer_norm.weight", (d,), f"{ours}.{our_name}_norm.scale")
        last = f"{theirs}.{len(sublayers)}"
        yield from _feed_forward(config, f"{last}.DenseReluDense", f"{ours}.feed_forward")
        yield tensor(f"{last}.layer_norm.weight", (d,), f"{ours}.feed_forward_norm.scale")
    yield tensor(f"{stack}.final_layer_norm.weight", (d,), f"{stack}.final_norm.scale")


def _attention(config, theirs, ours):
    d, inner = config.hidden_dim, config.num_heads * config.head_dim
    for letter, name in (("q", "query"), ("k", "key"), ("v", "value")):
        yield from linear(f"{theirs}.{letter}", f"{ours}.{name}_dense", d, inner, use_bias=False)
    yield from linear(f"{theirs}.o", f"{ours}.output_dense", inner, d, use_bias=False)


def _feed_forward(config, theirs, ours):
    d, f = config.hidden_dim, config.intermediate_dim
    inner = {"wi": "intermediate"}
    if config.gated:
        inner = {"wi_0": "gate", "wi_1": "intermediate"}
    for letters, name in inner.items():
        yield from linear(f"{theirs}.{letters}", f"{ours}.{name}_dense", d, f, use_bias=False)
    yield from linear(f"{theirs}.wo", f"{ours}.output_dense", f, d, use_bias=False)


def _language_head(config):
    if not config.tie_embeddings:
        shape = (config.vocabulary_size, config.hidden_dim)
        yield Tensor(_LANGUAGE_HEAD, shape, ("output_dense.kernel",), transposed=True)


_READER = dict(backbone_class=T5Reader, backbone={"tie_embeddings": True})
_ENCODER = dict(backbone_class=T5Encoder, backbone_tensors=encoder_tensors, leaves_out=("decoder.",))


def _architecture(model_type, name, read_config, write_config, holds, **further_heads):
    return Architecture(
        model_type=model_type,
        backbone=T5,
        prefix="",
        read_config=read_config,
        write_config=write_config,
        tensors=tensors,
        heads={
            f"{name}ForConditionalGeneration": Head("sequence_to_sequence", tensors=_language_head),
            **further_heads,
            f"{name}ForSequenceClassification": heads.sequence_classification(
                "classification_head.out_proj",
                "classification_head.dense",
                pooling="last",  # the end token
                hidden_activation="tanh",
                dropout=("classifier_dropout", 0.0),
                input_dropout=True,
                prefix="transformer.",
                **_READER,
            ),
            f"{name}ForTokenClassification": heads.token_classification(
                "classifier",
                dropout=("classifier_dropout", 0.0),
                prefix="transformer.",
                **_ENCODER,
            ),
            f"{name}ForQuestionAnswering": heads.question_answering("qa_outputs", **_READER),
            # The bare model becomes a language model too: its words out are its words in.
            f"{name}Model": Head(None, backbone={"tie_embeddings": True}),
            f"{name}EncoderModel": Head(None, **_ENCODER),
        },
        # A table that early versions stored and no version read.
        ignored=(r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",),
        holds=holds,
        complete=_complete,
    )


ARCHITECTURES = {
    "t5": _architecture(
        "t5",
        "T5",
        read_t5,
        write_t5,
        # A gated network with the exact GELU has no name in config.json.
        lambda config: not (config.gated and config.activation == "gelu"),
        # The name of the class in early files.
        T5WithLMHeadModel=Head("sequence_to_sequence", tensors=_language_head),
    ),
    # A fresh model becomes a T5, which can say all that an mT5 can.
    "mt5": _architecture("mt5", "MT5", read_mt5, write_mt5, lambda config: False),
}
