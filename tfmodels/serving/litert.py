"""LiteRT: one model.tflite with `prefill` and `decode` for devices, whose program runs loop and tokenizer."""

import os
import tempfile

import keras
import tensorflow as tf

from tfmodels.generation.config import GenerationConfig
from tfmodels.generation.prompts import special_ids
from tfmodels.generation.protocol import is_encoder_decoder, prompt_names
from tfmodels.serving.caches import fixed_cache_signatures
from tfmodels.serving.check import LITERT_MODEL

# A device answers one person. The prompt's length is free.
_PROMPT = tf.TensorSpec((1, None), tf.int32)
_ROOM = "max_new_tokens"


def check_litert(model, config, refused):
    """Raises ValueError for what a LiteRT export does not have.

    Args:
        model: to be exported.
        config: a `GenerationConfig`.
        refused: dict of options of `export` -> what was given, None or False where nothing was.
    """
    if not hasattr(model, "init_cache"):
        raise ValueError(
            f'format="litert" needs a model that writes text. Received: {type(model).__name__}. '
            'Export it with format="tf_saved_model".'
        )
    default = GenerationConfig()
    given = [name for name, value in refused.items() if value]
    given += [name for name, value in vars(config).items() if name != _ROOM and value != vars(default)[name]]
    if given:
        raise ValueError(
            f'format="litert" has no loop of its own, and takes max_length, {_ROOM} and license alone. '
            f"Received: {', '.join(given)}. Leave them to the program that calls prefill and decode."
        )


def write_litert(folder, generation):
    """Writes `model.tflite` and `tokenizer/` into a folder.

    Args:
        folder: str, exists.
        generation: a `TextGeneration`.

    Returns:
        Dict for the card: the signatures, the cache's length, and the ids that a program needs.

    Raises:
        ValueError: the model has an operation that LiteRT lacks.
    """
    model, rules = _in_float32(generation.model), generation.rules
    # Prompt and text; of an encoder-decoder the text with its start token.
    length = generation.config.max_new_tokens + (1 if is_encoder_decoder(model) else generation.max_length)
    length = min(length, model.config.max_sequence_length or length)
    prompt = dict.fromkeys(prompt_names(model), _PROMPT)
    signatures = fixed_cache_signatures(model, rules.start_id, prompt, length)
    traced = {name: signature.traced() for name, signature in signatures.items()}
    module = tf.Module()
    module.model_variables = [variable.value for variable in model.variables]
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        tf.saved_model.save(module, aside, signatures=traced)
        converter = tf.lite.TFLiteConverter.from_saved_model(aside, signature_keys=list(traced))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        try:
            content = converter.convert()
        except Exception as error:  # the converter's own class is not public
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ValueError(
                f"LiteRT must have every operation of the model. Received: {type(model).__name__}, {first}. "
                'Export it with format="tf_saved_model".'
            ) from error
    with open(os.path.join(folder, LITERT_MODEL), "wb") as file:
        file.write(content)
    generation.tokenizer.save_pretrained(os.path.join(folder, "tokenizer"))
    before, after = special_ids(generation.tokenizer)
    return {
        "signatures": {name: s.describe(traced[name]) for name, s in signatures.items()},
        "cache_length": length,
        "start_id": rules.start_id,
        "stop_ids": list(rules.stop),
        "prompt_ids": {"before": before, "after": after},
    }


def _in_float32(model):
    """A float32 copy of a model of another type, for LiteRT has no embeddings in bfloat16."""
    quantized = any(layer.quantization_mode is not None for layer in model._flatten_layers())
    if quantized or (model.compute_dtype, model.variable_dtype) == ("float32", "float32"):
        return model
    policy = keras.dtype_policies.serialize(keras.dtype_policies.get("float32"))
    copy = type(model).from_config(model.get_config() | {"dtype": policy})
    copy.set_weights(model.get_weights())
    return copy
