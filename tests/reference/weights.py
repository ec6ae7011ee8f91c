"""Reads the weights of tfmodels' layers into plain float64 arrays for the reference."""

import numpy as np


def array(variable):
    return np.asarray(variable, dtype="float64")


def dense(layer):
    return array(layer.kernel), array(layer.bias)


def norm(layer):
    return array(layer.gamma), array(layer.beta)


def attention(layer):
    return {
        "query": dense(layer.query_dense),
        "key": dense(layer.key_dense),
        "value": dense(layer.value_dense),
        "output": dense(layer.output_dense),
    }


def block(layer):
    weights = {
        "attention": attention(layer.attention),
        "attention_norm": norm(layer.attention_norm),
        "intermediate": dense(layer.feed_forward.intermediate_dense),
        "output": dense(layer.feed_forward.output_dense),
        "feed_forward_norm": norm(layer.feed_forward_norm),
    }
    if layer.cross_attention:
        weights["cross"] = attention(layer.cross)
        weights["cross_norm"] = norm(layer.cross_norm)
    return weights


def gpt2(model):
    return {
        "tokens": array(model.token_embedding.embeddings),
        "positions": array(model.position_embedding.table),
        "blocks": [block(layer) for layer in model.blocks],
        "norm": norm(model.final_norm),
    }


def transformer(model):
    weights = {
        "source": array(model.source_embedding.embeddings),
        "target": array(model.target_embedding.embeddings),
        "encoder": [block(layer) for layer in model.encoder_blocks],
        "decoder": [block(layer) for layer in model.decoder_blocks],
    }
    if model.encoder_norm:
        weights["encoder_norm"] = norm(model.encoder_norm)
        weights["decoder_norm"] = norm(model.decoder_norm)
    return weights


def transformer_xl(model):
    words = model.token_embedding

    def arrays(variables):
        return [array(variable) for variable in variables]

    blocks = []
    for i, layer in enumerate(model.blocks):
        biases = model.biases[i % len(model.biases)]
        names = ("query", "key", "value", "output", "position")
        weights = {name: array(getattr(layer.attention, f"{name}_dense").kernel) for name in names}
        weights |= {
            "biases": (array(biases.content), array(biases.position)),
            "attention_norm": norm(layer.attention_norm),
            "intermediate": dense(layer.feed_forward.intermediate_dense),
            "inner_output": dense(layer.feed_forward.output_dense),
            "feed_forward_norm": norm(layer.feed_forward_norm),
        }
        blocks.append(weights)
    clusters = []
    if model.config.cutoffs:
        clusters = list(zip(array(words.cluster_kernel), array(words.cluster_bias), strict=True))
    return {
        "tables": arrays(words.tables),
        "projections": arrays(words.projections),
        "output_tables": arrays(words.output_tables),
        "output_biases": arrays(words.output_biases),
        "output_projections": arrays(words.output_projections),
        "clusters": clusters,
        "blocks": blocks,
    }


def randomise(layer, seed, scale=0.3):
    """Gives every weight a random value, biases and norms too, so that a wrong one shows."""
    rng = np.random.default_rng(seed)
    for variable in layer.trainable_variables:
        shift = 1.0 if variable.name == "gamma" else 0.0
        variable.assign(rng.normal(shift, scale, variable.shape))
