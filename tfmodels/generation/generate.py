"""`generate`: prompts in, text out."""

import dataclasses
import difflib

import numpy as np
import tensorflow as tf

from tfmodels.generation.beam import beam_search
from tfmodels.generation.config import GenerationConfig
from tfmodels.generation.loop import decode
from tfmodels.generation.protocol import is_encoder_decoder, prompt_names
from tfmodels.generation.rules import token_rules


@dataclasses.dataclass(frozen=True)
class GenerationResult:
    """What `generate` returns.

    Attributes:
        text: list of str, the new text of each row; None without a tokenizer.
        token_ids: int32 array, (batch, new_length), new tokens only, padded with 0.
        lengths: int32 array, (batch,), new tokens of each row.
    """

    text: list | None
    token_ids: np.ndarray
    lengths: np.ndarray


def generate(model, prompts, tokenizer=None, config=None, **options):
    """Continues prompts, or translates them, depending on the model.

    Each row of a batch is what it would be alone.

    Args:
        model: keeps the protocol of `GenerativeModel`, such as a `GPT2` or a `Transformer`.
        prompts: str or list of str, with a tokenizer; or a dict of ids, int, (batch, length), and
            mask (1 = real), as the model's inputs are named, padded on either side. An
            encoder-decoder reads the prompt with its encoder.
        tokenizer: has `tokenize`, `detokenize`, `start_id`, `end_id`.
        config: a `GenerationConfig`; None: the default one.
        **options: fields of `GenerationConfig` that override it.

    Returns:
        A `GenerationResult`.

    Raises:
        ValueError: an unknown option or a value out of range; an empty batch; a prompt longer than
            `max_sequence_length`; ids outside the vocabulary.

    Example:
        >>> tfmodels.generate(model, ["In the beginning"], tokenizer, max_new_tokens=20).text
    """
    config = make_generation_config(config, options)
    if tokenizer is not None:
        check_tokenizer(model, tokenizer)
    if isinstance(prompts, dict):
        inputs = _right_padded(model, prompts)
    else:
        if tokenizer is None:
            raise ValueError("Prompts of text need a tokenizer. Received: tokenizer=None.")
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not prompts:
            raise ValueError("There must be at least one prompt. Received: none.")
        inputs = encode_prompts(model, tokenizer, prompts)
    ids_name, mask_name = prompt_names(model)
    _check_lengths(inputs[mask_name], model.config.max_sequence_length)
    rules = token_rules(model, tokenizer, config.stop)
    token_ids, lengths = _compiled(model, config, rules)(inputs)
    lengths = lengths.numpy()
    token_ids = token_ids.numpy()[:, : max(lengths.max(), 1)]
    text = None
    if tokenizer is not None:
        text = [t.decode() for t in detokenize(tokenizer, token_ids, lengths).numpy()]
    return GenerationResult(text, token_ids, lengths)


def make_generation_config(config=None, options=None):
    """A `GenerationConfig` with options overridden; ValueError for unknown ones."""
    config, options = config or GenerationConfig(), options or {}
    fields = [field.name for field in dataclasses.fields(GenerationConfig)]
    for name in options:
        if name not in fields:
            close = difflib.get_close_matches(name, fields, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"Unknown generation option {name!r}.{hint} The options: {', '.join(fields)}.")
    return dataclasses.replace(config, **options)


def check_tokenizer(model, tokenizer):
    """Raises ValueError where a tokenizer has ids that the model lacks."""
    for _, field in model.input_pairs.values():
        size = getattr(model.config, field)
        if tokenizer.vocabulary_size > size:
            raise ValueError(
                f"The tokenizer's vocabulary must not be larger than the model's. Received: "
                f"tokenizer.vocabulary_size={tokenizer.vocabulary_size}, {field}={size}. "
                "Use the tokenizer that the model was trained with."
            )


def encode_prompts(model, tokenizer, texts, max_length=None):
    """Texts to the model's inputs, in graph ops.

    An encoder's text ends with the end token. A decoder's empty prompt becomes the end token,
    which stands before every text that it was trained on.

    Args:
        model: keeps the protocol of `GenerativeModel`.
        tokenizer: has `tokenize` and `end_id`.
        texts: strings, (batch,).
        max_length: int; cuts longer prompts, an encoder's at the end and a decoder's at the
            beginning; None: cuts nothing.

    Returns:
        Dict of ids and mask, int32 (batch, length).
    """
    ids = tokenizer.tokenize(texts)
    if is_encoder_decoder(model):
        if max_length is not None:
            ids = ids[:, : max_length - 1]
        ids = tf.concat([ids, tf.fill((ids.nrows(), 1), tokenizer.end_id)], axis=1)
    else:
        if max_length is not None:
            ids = ids[:, -max_length:]
        empty = tf.cast(ids.row_lengths() == 0, ids.row_splits.dtype)
        ends = tf.fill(tf.reduce_sum(empty)[None], tokenizer.end_id)
        ids = tf.concat([tf.RaggedTensor.from_row_lengths(ends, empty), ids], axis=1)
    mask = tf.ones_like(ids)
    ids_name, mask_name = prompt_names(model)
    return {ids_name: ids.to_tensor(), mask_name: mask.to_tensor()}


def generate_ids(model, inputs, config, rules):
    """The loop of the config's method, in graph ops.

    Args:
        model: keeps the protocol of `GenerativeModel`.
        inputs: dict of ids and mask, int32 (batch, length), padded on the right.
        config: a `GenerationConfig`.
        rules: `TokenRules`.

    Returns:
        int32 tensors: new tokens, (batch, max_new_tokens), and their numbers, (batch,).
    """
    ids_name, mask_name = prompt_names(model)
    ids = inputs[ids_name]
    if is_encoder_decoder(model):
        prompt = tf.fill((tf.shape(ids)[0], 1), rules.start_id)
        lengths = tf.ones(tf.shape(ids)[0], tf.int32)
    else:
        prompt = ids
        lengths = tf.reduce_sum(inputs[mask_name], axis=1)
    method = beam_search if config.method == "beam" else decode
    return method(model, inputs, prompt, lengths, config, rules)


def detokenize(tokenizer, token_ids, lengths):
    """The text of each row's first `lengths` tokens: strings, (batch,)."""
    return tokenizer.detokenize(tf.RaggedTensor.from_tensor(token_ids, lengths=lengths))


def _compiled(model, config, rules):
    """The traced function of these options. It lives with the model and is freed with it."""
    # Past Keras's attribute tracking: functions are no part of the model's state.
    functions = vars(model).setdefault("_generate_functions", {})
    key = (config, rules)
    if key not in functions:
        function = tf.function(lambda inputs: generate_ids(model, inputs, config, rules), autograph=False)
        ids = tf.TensorSpec((None, None), tf.int32)
        functions[key] = function.get_concrete_function({n: ids for n in prompt_names(model)})
    return functions[key]


def _right_padded(model, prompts):
    """Checked copies of ids and mask with the padding on the right."""
    ids_name, mask_name = prompt_names(model)
    if ids_name not in prompts:
        raise ValueError(
            f"The prompt's ids must be under {ids_name!r}. Received: {', '.join(prompts) or 'none'}."
        )
    completed = model.complete_inputs({k: prompts[k] for k in (ids_name, mask_name) if k in prompts})
    ids, mask = (np.asarray(completed[name]) for name in (ids_name, mask_name))
    if ids.ndim != 2 or ids.shape != mask.shape:
        raise ValueError(
            f"{ids_name} and {mask_name} must be (batch, length). "
            f"Received: shapes {ids.shape} and {mask.shape}."
        )
    real = mask != 0
    if not ids.size or not real.any(axis=1).all():
        raise ValueError(
            f"Each prompt needs at least one token. Received: {ids_name} of shape {ids.shape} with "
            f"{int((~real.any(axis=1)).sum())} empty rows."
        )
    order = np.argsort(~real, axis=1, kind="stable")
    ids = np.where(np.sort(~real, axis=1), 0, np.take_along_axis(ids, order, axis=1))
    longest = real.sum(axis=1).max()
    return {
        ids_name: tf.constant(ids[:, :longest], tf.int32),
        mask_name: tf.constant(np.take_along_axis(real, order, axis=1)[:, :longest], tf.int32),
    }


def _check_lengths(mask, max_length):
    lengths = tf.reduce_sum(mask, axis=1).numpy()
    row = int(lengths.argmax())
    if max_length is not None and lengths[row] > max_length:
        raise ValueError(
            f"A prompt must not be longer than max_sequence_length={max_length} tokens. "
            f"Received: prompt {row} of {lengths[row]} tokens. Shorten it."
        )
