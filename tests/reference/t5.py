"""T5 in NumPy, float64, written from the paper and sharing no code with tfmodels.

Raffel et al. 2020, section 2.1 and its footnotes; Shazeer 2020 for version 1.1.
"""

import numpy as np

from tests.reference import rms
from tests.reference.transformer import gelu_tanh, relu


def read(model):
    """The weights of a tfmodels T5 as plain arrays."""

    def array(variable):
        return np.asarray(variable, "float64")

    def kernels(layer):
        names = ("query", "key", "value", "gate", "intermediate", "output")
        denses = {name: getattr(layer, f"{name}_dense", None) for name in names}
        return {name: array(dense.kernel) for name, dense in denses.items() if dense is not None}

    def block(layer):
        names = (
            ["attention", "cross", "feed_forward"] if layer.cross_attention else ["attention", "feed_forward"]
        )
        return {
            name: {
                "kernels": kernels(getattr(layer, name)),
                "norm": array(getattr(layer, f"{name}_norm").scale),
            }
            for name in names
        }

    def stack(part):
        return {
            "bias": array(part.position_bias.table),
            "blocks": [block(layer) for layer in part.blocks],
            "norm": array(part.final_norm.scale),
        }

    return {
        "words": array(model.token_embedding.embeddings),
        "encoder": stack(model.encoder),
        "decoder": stack(model.decoder),
        "output": None if model.output_dense is None else array(model.output_dense.kernel),
    }


def stack(x, weights, mask, config, *, memory=None, memory_mask=None):
    """An encoder, or, with a memory, a decoder."""
    causal, length = memory is not None, x.shape[1]
    heads, epsilon = config["num_heads"], config["norm_epsilon"]
    bias = np.zeros((heads, length, length))
    for i in range(length):
        for j in range(length):
            row = rms.bucket(j - i, config["num_buckets"], config["max_distance"], not causal)
            bias[:, i, j] = weights["bias"][row]

    def allowed(b, i, j):
        return mask[b, i] == mask[b, j] and (j <= i or not causal)

    def allowed_memory(b, i, j):
        return mask[b, i] == memory_mask[b, j]

    def attend(y, kernels):
        return rms.attention(y, kernels, heads, heads, allowed, bias=bias, scale=1.0)

    def attend_to_memory(y, kernels):
        return rms.attention(y, kernels, heads, heads, allowed_memory, scale=1.0, memory=memory)

    def feed_forward(y, kernels):
        if "gate" in kernels:
            return rms.gated(y, kernels, gelu_tanh)
        return relu(y @ kernels["intermediate"]) @ kernels["output"]

    sublayers = {"attention": attend, "cross": attend_to_memory, "feed_forward": feed_forward}
    for block in weights["blocks"]:
        for name, sublayer in sublayers.items():
            if name in block:
                x = x + sublayer(rms.rms_norm(x, block[name]["norm"], epsilon), block[name]["kernels"])
    return rms.rms_norm(x, weights["norm"], epsilon)


def t5(weights, source_ids, source_mask, target_ids, target_mask, config):
    memory = stack(weights["words"][source_ids], weights["encoder"], source_mask, config)
    x = stack(
        weights["words"][target_ids],
        weights["decoder"],
        target_mask,
        config,
        memory=memory,
        memory_mask=source_mask,
    )
    if weights["output"] is not None:  # version 1.1
        return x @ weights["output"]
    return x / np.sqrt(x.shape[-1]) @ weights["words"].T
