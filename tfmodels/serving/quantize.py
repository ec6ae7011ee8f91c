"""Smaller weights for an export, and what they cost in quality."""

import keras
import numpy as np
import tensorflow as tf

MODES = ("int8", "bfloat16")
# To compare by; what it is about matters less than that both models read the same.
_TEXTS = [
    "It was a dark and stormy night; the rain fell in torrents.",
    "In the beginning God created the heaven and the earth.",
    "Call me Ishmael. Some years ago, never mind how long precisely,",
    "The committee will meet on Tuesday to discuss the budget for 2027.",
]


def quantized(model, mode):
    """A copy of a model with smaller weights.

    Args:
        model: a model of this package.
        mode: "int8": the kernels of dense layers and embeddings, with a scale a column;
            "bfloat16": all weights, and the arithmetic.

    Raises:
        ValueError: another mode, or a model that has been quantised.
    """
    if mode not in MODES:
        raise ValueError(f"quantize must be one of {', '.join(MODES)}, or None. Received: {mode!r}.")
    done = {layer.quantization_mode for layer in model._flatten_layers()} - {None}
    if done:
        raise ValueError(
            f"quantize={mode!r} is for a model that has not been quantised. Received: one in {done.pop()}. "
            "Export it as it is, with quantize=None."
        )
    config = model.get_config()
    if mode == "bfloat16":
        config["dtype"] = keras.dtype_policies.serialize(keras.dtype_policies.get("bfloat16"))
    copy = type(model).from_config(config)
    for source, target in zip(model._flatten_layers(), copy._flatten_layers(), strict=True):
        values = {}
        source.save_own_variables(values)  # as for a file: LoRA's matrices are added to the kernel's
        target.load_own_variables(values)
    if mode == "int8":
        copy.quantize("int8")
    return copy


def compare(model, smaller, tokenizer, max_length=64):
    """What a smaller model's answers lose: dict of numbers.

    Args:
        model, smaller: of one class and vocabulary.
        tokenizer: theirs.
        max_length: int, tokens of the texts that are read.

    Returns:
        Dict of `weight_bytes` and `weight_bytes_before`; `argmax_agreement`, the share of outputs whose
        highest entry is the same; and `relative_difference`, the mean difference of an output by the
        outputs' standard deviation.
    """
    backbone = getattr(model, "backbone", model)
    own, pairs = backbone.config.max_sequence_length, backbone.input_pairs
    ids = tokenizer.tokenize(_TEXTS)[:, : min(max_length, own or max_length)]
    mask = tf.ones_like(ids).to_tensor()
    inputs = {name: ids.to_tensor() for name in pairs} | {name: mask for name, _ in pairs.values()}
    real = mask.numpy() != 0
    if len(model.inputs[0].shape) == 3:  # choices
        inputs = {name: tf.stack([x, x[:, ::-1]], 1) for name, x in inputs.items()}
    same, differences = [], []
    for before, after in zip(_outputs(model, inputs), _outputs(smaller, inputs), strict=True):
        if before.shape[:2] == real.shape and before.ndim == 3:  # what stands on padding is no answer
            before, after = before[real], after[real]
        same.append(np.mean(before.argmax(-1) == after.argmax(-1)))
        differences.append(np.abs(before - after).mean() / max(before.std(), 1e-12))
    return {
        "weight_bytes": _bytes(smaller),
        "weight_bytes_before": _bytes(model),
        "argmax_agreement": float(np.mean(same)),
        "relative_difference": float(np.mean(differences)),
    }


def _outputs(model, inputs):
    return [tf.cast(x, tf.float32).numpy() for x in tf.nest.flatten(model(dict(inputs), training=False))]


def _bytes(model):
    sizes = {id(v): v for v in model.variables}.values()
    return int(sum(np.prod(v.shape) * tf.dtypes.as_dtype(v.dtype).size for v in sizes))
