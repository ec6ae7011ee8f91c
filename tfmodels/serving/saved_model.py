"""One SavedModel that takes strings and returns strings: tokenizer, model and answer. Or a LiteRT model."""

import dataclasses
import json
import os

import keras
import tensorflow as tf

from tfmodels._version import __version__
from tfmodels.generation.config import make_generation_config
from tfmodels.generation.prompts import check_tokenizer
from tfmodels.serving.encoders import head_signatures
from tfmodels.serving.litert import check_litert, write_litert
from tfmodels.serving.operations import libraries, operations
from tfmodels.serving.quantize import compare, quantized
from tfmodels.serving.text_generation import TextGeneration
from tfmodels.serving.warmup import write_requests
from tfmodels.serving.writing import write_version

FORMATS = ("tf_saved_model", "litert")  # as Keras's own export names them
CARD = os.path.join("assets.extra", "tfmodels.json")


def export(
    model,
    tokenizer,
    path,
    config=None,
    *,
    format="tf_saved_model",
    max_length=None,
    jit_compile=False,
    quantize=None,
    license=None,
    signatures=None,
    **options,
):
    """Writes a SavedModel for TF Serving: `path/1`, or the next free number.

    Its signature `serving_default` takes `{"text": string (batch,)}`. A model that writes returns
    `{"text": string (batch,)}`, the same as `generate` with the same options; one with a head labels,
    spans, entities or vectors. docs/serving.md lists all signatures; `assets.extra/tfmodels.json`, in
    the export, those of this model, its config, labels, op libraries, versions and license. Each row
    is answered as it would be alone. A text longer than `max_length` is cut: an encoder reads its
    beginning, a decoder continues its end.

    Args:
        model: keeps the protocol of `GenerativeModel`, such as a `GPT2` or a `Transformer`, or has a
            head, such as a `SequenceClassifier`.
        tokenizer: in graph ops, such as a `SentencePieceTokenizer`.
        path: str, the folder of all versions; made if missing.
        config: a `GenerationConfig`; None: the default one.
        format: "tf_saved_model", or "litert" for devices: `model.tflite`, with `prefill` and `decode` and
            room for `max_length` and `max_new_tokens` tokens, and the tokenizer's files, since strings
            and loop are the calling program's.
        max_length: int, tokens of a text that are read; None: the model's `max_sequence_length`, or
            512 where it has none.
        jit_compile: bool, whether XLA compiles the generation loop of `serving_default`. A server
            without XLA cannot run it, and each new power of two of lengths compiles anew.
        quantize: "int8" or "bfloat16", smaller weights; None: as they are. The size and the loss in
            quality stand in the card, under "quantization".
        license: str, of the weights, which travels with them.
        signatures: list of str, or one, of those in docs/serving.md, for an export that loads faster; None:
            all.
        **options: fields of `GenerationConfig` that override it.

    Returns:
        str, the path of the version written. It appears whole or not at all.

    Raises:
        ValueError: an unknown option; a tokenizer that does not fit the model; a model that neither
            writes text nor has a head.
        OSError: the path cannot be written.

    Example:
        >>> tfmodels.export(model, tokenizer, "exported", method="beam", num_beams=4)
        'exported/1'
    """
    check_tokenizer(getattr(model, "backbone", model), tokenizer)
    signatures = [signatures] if isinstance(signatures, str) else signatures
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}. Received: {format!r}.")
    if format == "litert":
        config = make_generation_config(config, options)
        check_litert(
            model, config, {"jit_compile": jit_compile, "quantize": quantize, "signatures": signatures}
        )
    quantization = None
    if quantize is not None:
        smaller = quantized(model, quantize)
        quantization = {"mode": quantize, **compare(model, smaller, tokenizer)}
        model = smaller
    if hasattr(model, "init_cache"):
        config = make_generation_config(config, options)
        generation = TextGeneration(model, tokenizer, config, max_length, jit_compile)
        own = {"generation": dataclasses.asdict(config)}
        max_length = generation.max_length
        if format == "tf_saved_model":
            found = generation.signatures(signatures)
    else:
        if config is not None or options or jit_compile:
            given = [*options, *(["config"] if config else []), *(["jit_compile"] if jit_compile else [])]
            raise ValueError(
                f"{type(model).__name__} writes no text. Received: options of generation, {given}. "
                "Leave them out."
            )
        found, max_length = head_signatures(model, tokenizer, max_length)
        own = {"head": dataclasses.asdict(model.config)}
        model_config = model.backbone.config
    card = {
        "model": type(model).__name__,
        "config": dataclasses.asdict(model.config if "generation" in own else model_config),
        **own,
        "tokenizer": type(tokenizer).__name__,
        "max_length": max_length,
        "quantization": quantization,
        "license": license,
        "versions": {
            "tfmodels": __version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
    }
    if format == "litert":
        return write_version(
            path, lambda folder: _write_card(folder, card | write_litert(folder, generation))
        )
    found = _chosen(found, signatures)
    return write_version(path, lambda folder: _write(folder, model, tokenizer, found, card))


def _chosen(found, names):
    """The signatures of these names; None: all."""
    unknown = sorted(set(names or ()) - set(found))
    if unknown or (names is not None and "serving_default" not in names):
        raise ValueError(
            f"signatures must be serving_default and others of {', '.join(found)}. Received: {list(names)}."
        )
    return found if names is None else {name: found[name] for name in names}


def _write(folder, model, tokenizer, signatures, card):
    module = tf.Module()
    module.model_variables = [variable.value for variable in model.variables]
    module.tokenizer = tokenizer
    traced = {name: signature.traced() for name, signature in signatures.items()}
    tf.saved_model.save(module, folder, signatures=traced)
    used = operations(folder)
    card["operations"], card["libraries"] = used, libraries(used)
    card["signatures"] = {name: s.describe(traced[name]) for name, s in signatures.items()}
    _write_card(folder, card)
    write_requests(folder, card)


def _write_card(folder, card):
    os.makedirs(os.path.join(folder, "assets.extra"), exist_ok=True)
    with open(os.path.join(folder, CARD), "w", encoding="utf-8") as file:
        json.dump(card, file, indent=1, ensure_ascii=False, default=str)
