"""`prefill` and `decode` with explicit caches, for servers that batch by themselves and stream.

Shape letters: b batch, l length, v vocabulary.
"""

import tensorflow as tf

from tfmodels.generation.protocol import is_encoder_decoder, prompt_names
from tfmodels.serving.signatures import IDS, ROW_IDS, SCALAR, Signature, checked, checked_ids


def cache_signatures(model, start_id, cache_dtype=None):
    """The two signatures.

    A cache is a number of tensors, `cache_000`, `cache_001`, ..., batch first, which `prefill` returns
    and `decode` takes and returns. Rows may be put together from different requests.

    Args:
        model: keeps the protocol of `GenerativeModel`.
        start_id: int, with which an encoder-decoder begins to write.
        cache_dtype: str, as of `GenerationConfig`.

    Returns:
        Dict of name -> `Signature`.
    """
    if is_encoder_decoder(model):
        prefill = _encoder_prefill(model, start_id, cache_dtype)
    else:
        prefill = _decoder_prefill(model, cache_dtype)
    names = {name: IDS for name in prompt_names(model)}

    def call(cache_length, **inputs):
        logits, cache = prefill(checked_ids(inputs, model), cache_length)
        return {"logits": tf.cast(logits, tf.float32)} | _named(cache)

    found = {}

    def shapes(cache_length, **inputs):
        _, found["cache"] = prefill(inputs, cache_length)

    # Traced once to see what the cache is made of.
    tf.function(shapes, autograph=False).get_concrete_function(cache_length=SCALAR, **names)
    structure = tf.nest.map_structure(lambda leaf: tf.TensorSpec(leaf.shape, leaf.dtype), found["cache"])
    return {
        "prefill": Signature(
            call,
            names | {"cache_length": SCALAR},
            "Prompts, padded on the right, to the first logits and a cache.",
            _OUTPUTS,
            ranges={"cache_length": _RULE},
        ),
        "decode": _decode(model, structure, ROW_IDS),
    }


def fixed_cache_signatures(model, start_id, prompt, cache_length):
    """The same with a cache of one length, which `prefill` is not told.

    Args:
        model, start_id: as of `cache_signatures`.
        prompt: dict of the prompt's ids and mask -> `tf.TensorSpec`, whose batch is that of both.
        cache_length: int.
    """
    prefill = _encoder_prefill(model, start_id) if is_encoder_decoder(model) else _decoder_prefill(model)
    found = {}

    def call(**inputs):
        logits, found["cache"] = prefill(checked_ids(inputs, model), cache_length)
        return {"logits": tf.cast(logits, tf.float32)} | _named(found["cache"])

    about = "A prompt to the first logits and a cache."
    signature = Signature(call, prompt, about, _OUTPUTS)
    signature.traced()
    structure = tf.nest.map_structure(lambda leaf: tf.TensorSpec(leaf.shape, leaf.dtype), found["cache"])
    rows = tf.TensorSpec(next(iter(prompt.values())).shape[:1], tf.int32)
    return {"prefill": signature, "decode": _decode(model, structure, rows)}


def _decode(model, structure, rows):
    """The signature of a step, for a cache of this structure of specs and ids of this spec."""
    leaves = _named(structure)

    def decode(token_ids, index, **tensors):
        size = getattr(model.config, list(model.input_pairs.values())[-1][1])
        # One check of all: there are dozens of caches, and this is a step of a loop.
        rows = tf.stack([tf.shape(x)[0] for x in (token_ids, index, *tensors.values())])
        same = tf.reduce_all(rows == rows[0])
        fine = (token_ids >= 0) & (token_ids < size)
        token_ids, index = checked(
            (token_ids, index),
            (same, "token_ids, index and each cache must have as many rows.", rows),
            (fine, f"token_ids must be at least 0 and below {size}.", token_ids),
            (index >= 0, "index must be at least 0.", index),
        )
        cache = tf.nest.pack_sequence_as(structure, [tensors[name] for name in leaves])
        logits, cache = model.decode_step(token_ids[:, None], cache, index)
        return {"logits": tf.cast(logits[:, 0], tf.float32)} | _named(cache)

    return Signature(
        decode,
        {"token_ids": rows, "index": rows} | leaves,
        "One token a row, at its index, to the next logits and cache. The index of an "
        "encoder-decoder's first token is 1: 0 was the start token.",
        _OUTPUTS,
    )


_OUTPUTS = {"logits": "(batch, vocabulary_size), of the token after each row's last"}


_RULE = "at least the prompt's length and at most the model's max_sequence_length"


def _checked_length(model, cache_length, least):
    if isinstance(cache_length, int):  # the export's own
        return cache_length
    most = model.config.max_sequence_length
    fine = (cache_length >= least) & (most is None or cache_length <= most)
    return checked(cache_length, (fine, f"cache_length must be {_RULE}, {most}.", cache_length))


def _decoder_prefill(model, cache_dtype=None):
    ids_name, mask_name = prompt_names(model)

    def prefill(inputs, cache_length):
        ids, mask = inputs[ids_name], inputs[mask_name]
        cache_length = _checked_length(model, cache_length, tf.shape(ids)[1])
        lengths = tf.reduce_sum(mask, axis=1)
        # A mask with a hole would be read as a shorter prompt.
        right = tf.reduce_all(tf.cast(tf.sequence_mask(lengths, tf.shape(ids)[1]), tf.int32) == mask)
        rule = "each row must have at least one token, and padding only on its right."
        lengths = checked(lengths, (right & (lengths >= 1), f"{mask_name}: {rule}", mask))
        cache = model.init_cache(inputs, cache_length, cache_dtype)
        logits, cache = model.decode_step(ids, cache, 0)  # (b, l, v)
        return tf.gather(logits, lengths - 1, batch_dims=1), cache

    return prefill


def _encoder_prefill(model, start_id, cache_dtype=None):
    ids_name, _ = prompt_names(model)

    def prefill(inputs, cache_length):
        cache_length = _checked_length(model, cache_length, 1)
        cache = model.init_cache(inputs, cache_length, cache_dtype)
        start = tf.fill((tf.shape(inputs[ids_name])[0], 1), start_id)
        logits, cache = model.decode_step(start, cache, 0)
        return logits[:, 0], cache

    return prefill


def _named(cache):
    return {f"cache_{i:03d}": leaf for i, leaf in enumerate(tf.nest.flatten(cache))}
