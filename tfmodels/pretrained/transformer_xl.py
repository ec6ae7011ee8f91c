"""Transformer-XL's config.json and weight map. Projections are stored as the model has them."""

from tfmodels.models.transformer_xl import TransformerXL, TransformerXLConfig
from tfmodels.pretrained.architecture import Architecture, Head
from tfmodels.pretrained.tensors import Tensor, linear, norm, tensor


def read_config(fields):
    fields.only("attn_type", 0)
    fields.only("adaptive", True)
    cutoffs, vocabulary_size = _cutoffs(fields), fields.integer("vocab_size", 267735)
    memory_length = fields.get("mem_len", 1600) or None  # 0 is none
    clamp_length = fields.get("clamp_len", 1000)
    if not isinstance(clamp_length, int):
        raise ValueError(f"config.json: clamp_len must be a whole number. Received: {clamp_length!r}.")
    return TransformerXLConfig(
        vocabulary_size=vocabulary_size,
        memory_length=memory_length,
        num_layers=fields.integer("n_layer", 18),
        num_heads=fields.integer("n_head", 16),
        head_dim=fields.integer("d_head", 64),
        hidden_dim=fields.integer("d_model", 1024),
        intermediate_dim=fields.integer("d_inner", 4096),
        dropout=fields.rate("dropout", 0.1),
        attention_dropout=fields.rate("dropatt", 0.0),
        norm_first=fields.flag("pre_lnorm", False),
        norm_epsilon=fields.rate("layer_norm_epsilon", 1e-5),
        same_length=fields.flag("same_length", True),
        # Its memories begin as zeros, which are seen.
        zero_memory=memory_length is not None,
        clamp_length=clamp_length if clamp_length > 0 else None,
        tie_biases=not fields.flag("untie_r", True),
        cutoffs=cutoffs,
        embedding_dim=fields.integer("d_embed", 1024),
        divisor=fields.integer("div_val", 4),
        tie_embeddings=fields.flag("tie_word_embeddings", True),
        tie_projections=_tie_projections(fields, cutoffs),
        initializer_range=fields.rate("init_std", 0.02),
        end_id=fields.token_id("eos_token_id", vocabulary_size, several=True),
    )


def _cutoffs(fields):
    cutoffs = fields.get("cutoffs", [20000, 40000, 200000])
    if not isinstance(cutoffs, list) or not all(type(cutoff) is int for cutoff in cutoffs):
        raise ValueError(f"config.json: cutoffs must be a list of whole numbers. Received: {cutoffs!r}.")
    return tuple(cutoffs)


def _tie_projections(fields, cutoffs):
    """Whether the output has the input's projections: of each cluster but the first, or of none."""
    shared = fields.flag("proj_share_all_but_first", True)
    ties = fields.get("tie_projs", [False] + [shared] * len(cutoffs))
    if ties not in ([False] + [flag] * len(cutoffs) for flag in (True, False)):
        raise ValueError(
            "config.json: tie_projs must be false for the first cluster and the same for all others. "
            f"Received: {ties!r} for {len(cutoffs)} cutoffs."
        )
    return ties[-1] if cutoffs else shared


def write_config(config):
    return {
        "vocab_size": config.vocabulary_size,
        "mem_len": config.memory_length or 0,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "d_head": config.head_dim,
        "d_model": config.hidden_dim,
        "d_inner": config.intermediate_dim,
        "dropout": config.dropout,
        "dropatt": config.attention_dropout,
        "pre_lnorm": config.norm_first,
        "layer_norm_epsilon": config.norm_epsilon,
        "same_length": config.same_length,
        "clamp_len": config.clamp_length or -1,
        "untie_r": not config.tie_biases,
        "cutoffs": list(config.cutoffs),
        "d_embed": config.embedding_dim or config.hidden_dim,
        "div_val": config.divisor,
        "tie_word_embeddings": config.tie_embeddings,
        "tie_projs": [False] + [config.tie_projections] * len(config.cutoffs),
        "proj_share_all_but_first": config.tie_projections,
        "init_std": config.initializer_range,
        "attn_type": 0,
        "adaptive": True,
        "eos_token_id": config.end_id,
    }


def _tables(config):
    """(words, size) of each table of word vectors."""
    size = config.embedding_dim or config.hidden_dim
    bounds = (0, *config.cutoffs, config.vocabulary_size)
    if config.divisor == 1:
        return [(config.vocabulary_size, size)]
    return [
        (b - a, size // config.divisor**i) for i, (a, b) in enumerate(zip(bounds, bounds[1:], strict=False))
    ]


def _is_projected(config):
    return config.divisor > 1 or config.embedding_dim not in (None, config.hidden_dim)


def tensors(config):
    """The weight map of the decoder without its head."""
    d, f, n, h = config.hidden_dim, config.intermediate_dim, config.num_heads, config.head_dim
    for i, shape in enumerate(_tables(config)):
        yield tensor(f"word_emb.emb_layers.{i}.weight", shape, f"token_embedding.tables.{i}")
        if _is_projected(config):
            yield tensor(f"word_emb.emb_projs.{i}", (d, shape[1]), f"token_embedding.projections.{i}")
    yield tensor("pos_emb.inv_freq", (d // 2,), "positions.frequencies")
    if config.tie_biases:
        yield from _biases("", 0, n, h)
    for i in range(config.num_layers):
        theirs, ours = f"layers.{i}", f"blocks.{i}"
        if not config.tie_biases:
            yield from _biases(f"{theirs}.dec_attn.", i, n, h)
        denses = [f"{ours}.attention.{name}_dense.kernel" for name in ("query", "key", "value")]
        yield Tensor(f"{theirs}.dec_attn.qkv_net.weight", (3 * n * h, d), tuple(denses), transposed=True)
        for name, dense, sizes in (("r_net", "position", (d, n * h)), ("o_net", "output", (n * h, d))):
            yield from linear(
                f"{theirs}.dec_attn.{name}", f"{ours}.attention.{dense}_dense", *sizes, use_bias=False
            )
        yield from norm(f"{theirs}.dec_attn.layer_norm", f"{ours}.attention_norm", d)
        yield from linear(f"{theirs}.pos_ff.CoreNet.0", f"{ours}.feed_forward.intermediate_dense", d, f)
        yield from linear(f"{theirs}.pos_ff.CoreNet.3", f"{ours}.feed_forward.output_dense", f, d)
        yield from norm(f"{theirs}.pos_ff.layer_norm", f"{ours}.feed_forward_norm", d)


def _biases(prefix, i, num_heads, head_dim):
    """u is r_w_bias and v is r_r_bias."""
    for name, ours in (("r_w_bias", "content"), ("r_r_bias", "position")):
        yield tensor(f"{prefix}{name}", (num_heads, head_dim), f"biases.{i}.{ours}")


def _softmax(config):
    words, tables = "token_embedding", _tables(config)
    if config.cutoffs:
        clusters = len(config.cutoffs)
        yield tensor("crit.cluster_weight", (clusters, tables[0][1]), f"{words}.cluster_kernel")
        yield tensor("crit.cluster_bias", (clusters,), f"{words}.cluster_bias")
    for i, shape in enumerate(tables):
        if not config.tie_embeddings:
            yield tensor(f"crit.out_layers.{i}.weight", shape, f"{words}.output_tables.{i}")
        yield tensor(f"crit.out_layers.{i}.bias", shape[:1], f"{words}.output_biases.{i}")
    if _is_projected(config):
        for i in range(1 if config.tie_projections else len(config.cutoffs) + 1):
            shape = (config.hidden_dim, tables[0 if config.divisor == 1 else i][1])
            yield tensor(f"crit.out_projs.{i}", shape, f"{words}.output_projections.{i}")


ARCHITECTURES = {
    "transfo-xl": Architecture(
        model_type="transfo-xl",
        backbone=TransformerXL,
        prefix="transformer.",
        read_config=read_config,
        write_config=write_config,
        tensors=tensors,
        heads={
            "TransfoXLLMHeadModel": Head("causal_language_modelling", tensors=_softmax),
            # The bare decoder becomes a language model too, with an output to be trained.
            "TransfoXLModel": Head(None),
        },
        # Copies of tied tensors: words and projections out, and u and v in each block.
        ignored=(
            r"crit\.out_layers\.\d+\.weight",
            r"crit\.out_projs\.\d+",
            r"layers\.\d+\.dec_attn\.r_[rw]_bias",
        ),
        # In transformers a memory that is not yet filled is always one of zeros.
        holds=lambda config: config.zero_memory == (config.memory_length is not None),
    )
}
