"""config.json and weight maps of Llama, Mistral, Qwen2 and Qwen3; they share their tensors' names."""

from tfmodels.models.llama import Llama, LlamaConfig
from tfmodels.pretrained import heads
from tfmodels.pretrained.architecture import Architecture, Head
from tfmodels.pretrained.fields import Fields, activation_name
from tfmodels.pretrained.tensors import Tensor, linear, tensor

_FULL, _SLIDING = "full_attention", "sliding_attention"


def read_llama(fields):
    attention_bias = fields.flag("attention_bias", False)
    return _read(
        fields,
        max_sequence_length=2048,
        attention_bias=attention_bias,
        attention_output_bias=attention_bias,
        feed_forward_bias=fields.flag("mlp_bias", False),
    )


def read_mistral(fields):
    # Left out, it is 4096; null is no window.
    window = fields.integer("sliding_window", 4096) if fields.values.get("sliding_window", 4096) else None
    return _read(fields, max_sequence_length=131072, key_value_heads=8, window=window)


def read_qwen2(fields):
    # Its code fixes which biases there are.
    return _read(fields, max_sequence_length=32768, attention_bias=True, **_read_window(fields))


def read_qwen3(fields):
    attention_bias = fields.flag("attention_bias", False)
    return _read(
        fields,
        max_sequence_length=32768,
        head_dim=128,
        head_norm=True,
        attention_bias=attention_bias,
        attention_output_bias=attention_bias,
        **_read_window(fields),
    )


def _read(fields, *, max_sequence_length, key_value_heads=None, head_dim=None, **different):
    """The fields that all four have; the first three arguments are defaults in which they differ."""
    vocabulary_size = fields.integer("vocab_size")
    hidden_dim = fields.integer("hidden_size", 4096)
    num_heads = fields.integer("num_attention_heads", 32)
    if head_dim is None and hidden_dim % num_heads == 0:
        head_dim = hidden_dim // num_heads
    given = fields.get("head_dim", head_dim) is not None
    return LlamaConfig(
        vocabulary_size=vocabulary_size,
        max_sequence_length=fields.integer("max_position_embeddings", max_sequence_length),
        num_layers=fields.integer("num_hidden_layers", 32),
        num_heads=num_heads,
        num_key_value_heads=fields.integer("num_key_value_heads", key_value_heads or num_heads),
        head_dim=fields.integer("head_dim", head_dim) if given else None,
        hidden_dim=hidden_dim,
        intermediate_dim=fields.integer("intermediate_size"),
        activation=fields.activation("hidden_act", "silu"),
        attention_dropout=fields.rate("attention_dropout", 0.0),
        norm_epsilon=fields.rate("rms_norm_eps", 1e-6),
        initializer_range=fields.rate("initializer_range", 0.02),
        tie_embeddings=fields.flag("tie_word_embeddings", False),
        start_id=fields.token_id("bos_token_id", vocabulary_size),
        end_id=fields.token_id("eos_token_id", vocabulary_size, several=True),
        pad_id=_pad_id(fields, vocabulary_size),
        **_read_rotary(fields),
        **different,
    )


def _pad_id(fields, vocabulary_size):
    # Meta's Llama 2 says -1 for none.
    return None if fields.get("pad_token_id") == -1 else fields.token_id("pad_token_id", vocabulary_size)


def _read_rotary(fields):
    """rope_parameters, or what older versions wrote: rope_theta and, where there is one, rope_scaling."""
    values = fields.get("rope_scaling") or fields.get("rope_parameters") or {}
    if not isinstance(values, dict):
        raise ValueError(f"config.json: rope_parameters must be an object. Received: {values!r}.")
    rope = Fields({"rope_theta": fields.get("rope_theta")} | values)
    rope.only("partial_rotary_factor", 1.0)
    fields.only("partial_rotary_factor", 1.0)
    options = {"rotary_base": rope.number("rope_theta", 1, 10000.0)}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "linear", "llama3"):
        raise ValueError(
            "config.json: rope_type must be default, linear or llama3; this library has no other "
            f"scaling of rotary positions. Received: {kind!r}."
        )
    if kind != "default":
        options["rotary_factor"] = rope.number("factor", 1)
    if kind == "llama3":
        options["rotary_low_factor"] = rope.number("low_freq_factor", 0)
        options["rotary_high_factor"] = rope.number("high_freq_factor", 0)
        options["rotary_original_length"] = rope.integer(
            "original_max_position_embeddings", fields.get("max_position_embeddings")
        )
    return options


def _read_window(fields):
    """Qwen's: the last layers have a window, if any has."""
    if not fields.flag("use_sliding_window", False) or not fields.values.get("sliding_window", 4096):
        return {}
    layers = fields.integer("num_hidden_layers", 32)
    kinds = fields.get("layer_types")
    full = fields.values.get("max_window_layers", 28)
    if isinstance(kinds, list):
        full = kinds.count(_FULL)
    if not isinstance(full, int) or full < 0:
        raise ValueError(
            f"config.json: max_window_layers must be a whole number of at least 0. Received: {full!r}."
        )
    if kinds not in (None, _kinds(full, layers)):
        raise ValueError(
            f"config.json: layer_types must be {_FULL} in the first layers and {_SLIDING} in the others. "
            f"Received: {kinds!r}."
        )
    if full >= layers:
        return {}
    return {"window": fields.integer("sliding_window", 4096), "num_full_layers": full}


def _kinds(full, layers):
    return [_FULL] * full + [_SLIDING] * (layers - full)


def write_llama(config):
    return _write(config) | {
        "attention_bias": config.attention_bias,
        "mlp_bias": config.feed_forward_bias,
    }


def write_mistral(config):
    return _write(config) | {"sliding_window": config.window}


def write_qwen2(config):
    full = config.num_layers if config.window is None else config.num_full_layers
    return _write(config) | {
        "use_sliding_window": config.window is not None,
        "sliding_window": config.window,
        "max_window_layers": full,
        "layer_types": _kinds(full, config.num_layers),
    }


def write_qwen3(config):
    return write_qwen2(config) | {"attention_bias": config.attention_bias}


def _write(config):
    return {
        "vocab_size": config.vocabulary_size,
        "max_position_embeddings": config.max_sequence_length,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_key_value_heads or config.num_heads,
        "head_dim": config.head_size(),
        "hidden_size": config.hidden_dim,
        "intermediate_size": config.intermediate_dim,
        "hidden_act": activation_name(config.activation),
        "attention_dropout": config.attention_dropout,
        "rms_norm_eps": config.norm_epsilon,
        "initializer_range": config.initializer_range,
        "tie_word_embeddings": config.tie_embeddings,
        "bos_token_id": config.start_id,
        "eos_token_id": config.end_id,
        "pad_token_id": config.pad_id,
        **_write_rotary(config),
    }


def _write_rotary(config):
    scaling = {"rope_type": "default"}
    if config.rotary_low_factor is not None:
        scaling = {
            "rope_type": "llama3",
            "factor": config.rotary_factor,
            "low_freq_factor": config.rotary_low_factor,
            "high_freq_factor": config.rotary_high_factor,
            "original_max_position_embeddings": config.rotary_original_length,
        }
    elif config.rotary_factor != 1:
        scaling = {"rope_type": "linear", "factor": config.rotary_factor}
    return {
        "rope_parameters": {"rope_theta": config.rotary_base} | scaling,
        # Where transformers before 5 looks.
        "rope_theta": config.rotary_base,
        "rope_scaling": None if scaling == {"rope_type": "default"} else scaling,
    }


def tensors(config):
    """The weight map of the decoder without its head."""
    d, f, size = config.hidden_dim, config.intermediate_dim, config.head_size()
    inner = config.num_heads * size
    key_value = (config.num_key_value_heads or config.num_heads) * size
    bias, output_bias = config.attention_bias, config.attention_output_bias
    yield tensor("embed_tokens.weight", (config.vocabulary_size, d), "token_embedding.embeddings")
    for i in range(config.num_layers):
        theirs, ours = f"layers.{i}", f"blocks.{i}"
        yield _scale(f"{theirs}.input_layernorm", f"{ours}.attention_norm", d)
        attention, layer = f"{theirs}.self_attn", f"{ours}.attention"
        yield from linear(f"{attention}.q_proj", f"{layer}.query_dense", d, inner, bias)
        yield from linear(f"{attention}.k_proj", f"{layer}.key_dense", d, key_value, bias)
        yield from linear(f"{attention}.v_proj", f"{layer}.value_dense", d, key_value, bias)
        yield from linear(f"{attention}.o_proj", f"{layer}.output_dense", inner, d, output_bias)
        if config.head_norm:
            yield _scale(f"{attention}.q_norm", f"{layer}.query_norm", size)
            yield _scale(f"{attention}.k_norm", f"{layer}.key_norm", size)
        yield _scale(f"{theirs}.post_attention_layernorm", f"{ours}.feed_forward_norm", d)
        feed_forward, layer = f"{theirs}.mlp", f"{ours}.feed_forward"
        bias_inside = config.feed_forward_bias
        yield from linear(f"{feed_forward}.gate_proj", f"{layer}.gate_dense", d, f, bias_inside)
        yield from linear(f"{feed_forward}.up_proj", f"{layer}.intermediate_dense", d, f, bias_inside)
        yield from linear(f"{feed_forward}.down_proj", f"{layer}.output_dense", f, d, bias_inside)
    yield _scale("norm", "final_norm", d)


def _scale(name, layer, dim):
    """RMS normalisation has a scale only."""
    return tensor(f"{name}.weight", (dim,), f"{layer}.scale")


def _language_head(config):
    if not config.tie_embeddings:
        shape = (config.vocabulary_size, config.hidden_dim)
        yield Tensor("lm_head.weight", shape, ("token_embedding.reverse_embeddings",), True)


# Without its language head the decoder has only the words in.
_BARE = {"tie_embeddings": True}


def _heads(class_name, answers_prefix):
    return {
        f"{class_name}ForCausalLM": Head("causal_language_modelling", tensors=_language_head),
        # The bare decoder becomes a language model too: its words out are its words in.
        f"{class_name}Model": Head(None, backbone=_BARE),
        f"{class_name}ForSequenceClassification": heads.sequence_classification(
            "score", pooling="last", use_bias=False, backbone=_BARE
        ),
        f"{class_name}ForTokenClassification": heads.token_classification(
            "score", dropout=("classifier_dropout", "hidden_dropout", 0.1), backbone=_BARE
        ),
        f"{class_name}ForQuestionAnswering": heads.question_answering(
            "qa_outputs", prefix=answers_prefix, backbone=_BARE
        ),
    }


def _architecture(model_type, class_name, read_config, write_config, holds, answers_prefix="transformer."):
    return Architecture(
        model_type=model_type,
        backbone=Llama,
        prefix="model.",
        read_config=read_config,
        write_config=write_config,
        tensors=tensors,
        heads=_heads(class_name, answers_prefix),
        tied={"lm_head.weight": "embed_tokens.weight"},
        # Frequencies that early versions stored, and the tied matrix that some store twice.
        ignored=(r"(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq", r"lm_head\.weight"),
        holds=holds,
    )


def _llama_holds(config):
    plain = config.window is None and not config.head_norm
    return plain and config.attention_bias == config.attention_output_bias


def _mistral_holds(config):
    biases = config.attention_bias or config.attention_output_bias or config.feed_forward_bias
    return not biases and not config.head_norm and config.num_full_layers == 0


def _qwen2_holds(config):
    biases = config.attention_bias and not config.attention_output_bias and not config.feed_forward_bias
    return biases and not config.head_norm


def _qwen3_holds(config):
    same = config.attention_bias == config.attention_output_bias
    return same and not config.feed_forward_bias and config.head_norm


ARCHITECTURES = {
    "llama": _architecture("llama", "Llama", read_llama, write_llama, _llama_holds),
    "mistral": _architecture("mistral", "Mistral", read_mistral, write_mistral, _mistral_holds, "model."),
    "qwen2": _architecture("qwen2", "Qwen2", read_qwen2, write_qwen2, _qwen2_holds),
    "qwen3": _architecture("qwen3", "Qwen3", read_qwen3, write_qwen3, _qwen3_holds),
}
