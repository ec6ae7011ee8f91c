"""`generate`: prompts in, text out."""

import dataclasses

import numpy as np
import tensorflow as tf

from tfmodels.generation.beam import beam_search
from tfmodels.generation.config import GenerationConfig, Options, make_generation_config
from tfmodels.generation.loop import decode
from tfmodels.generation.protocol import compiled, is_encoder_decoder, prompt_names
from tfmodels.generation.rules import token_rules


@dataclasses.dataclass(frozen=True)
class GenerationResult:
    """What `generate` returns. With `num_return_sequences` above 1, rows become (batch, sequences).

    Attributes:
        text: list of str, the new text of each row, or list of lists; None without a tokenizer.
        token_ids: int32 array, (batch[, num_return_sequences], new_length), new tokens only, padded
            with 0.
        lengths: int32 array, (batch[, num_return_sequences]), new tokens of each row.
        end_reason: array of str, (batch[, num_return_sequences]): "stop" or "length".
        log_probabilities: float32 array as token_ids, of each new token by the model alone, before
            penalties, temperature and filters; None unless `return_scores`.
    """

    text: list | None
    token_ids: np.ndarray
    lengths: np.ndarray
    end_reason: np.ndarray
    log_probabilities: np.ndarray | None = None


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
    _check_token_options(model, config)
    rules = token_rules(model, tokenizer, config)
    result = _compiled(model, config, rules)(inputs, config.numbers())
    return _as_result(result, tokenizer, config)


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

    An encoder's text has the special tokens of the tokenizer's template around it, and an end in any
    case. A decoder's has those that stand before; with none of them an empty prompt becomes the end
    token, which stands before every text that such a model was trained on.

    Args:
        model: keeps the protocol of `GenerativeModel`.
        tokenizer: has `tokenize` and `end_id`; may have a `template` and `encode`.
        texts: strings, (batch,).
        max_length: int; cuts longer prompts, an encoder's at the end and a decoder's at the
            beginning; None: cuts nothing.

    Returns:
        Dict of ids and mask, int32 (batch, length).
    """
    return frame_prompts(model, tokenizer, tokenizer.tokenize(texts), max_length)


def frame_prompts(model, tokenizer, ids, max_length=None):
    """Token ids of prompts, int32 ragged (batch, length), to the model's inputs: see `encode_prompts`."""
    before, after = special_ids(tokenizer)
    if is_encoder_decoder(model):
        if not after or after[-1] != tokenizer.end_id:
            after = [*after, tokenizer.end_id]
        if max_length is not None:
            ids = ids[:, : max_length - len(before) - len(after)]
        ids = tf.concat([_column(ids, before), ids, _column(ids, after)], axis=1)
    else:
        if max_length is not None:
            ids = ids[:, -(max_length - len(before)) :]
        ids = tf.concat([_column(ids, before), ids], axis=1)
        empty = tf.cast(ids.row_lengths() == 0, ids.row_splits.dtype)
        ends = tf.fill(tf.reduce_sum(empty)[None], tokenizer.end_id)
        ids = tf.concat([tf.RaggedTensor.from_row_lengths(ends, empty), ids], axis=1)
    mask = tf.ones_like(ids)
    ids_name, mask_name = prompt_names(model)
    return {ids_name: ids.to_tensor(), mask_name: mask.to_tensor()}


def special_ids(tokenizer):
    """The ids that the tokenizer's template puts before and after one text: two lists of int."""
    template = getattr(tokenizer, "template", None)
    if template is None or not template.tokens:
        return [], []
    with tf.init_scope():  # as values, also while a function is traced
        ids = tokenizer.encode("")["token_ids"].numpy().tolist()
    place = [token for token, _ in template.single].index("$A")
    return ids[:place], ids[place:]


def _column(ids, values):
    """The values in each row of ids: int32 (batch, number of values)."""
    return tf.tile(tf.constant([values], tf.int32, shape=(1, len(values))), (ids.nrows(tf.int32), 1))


def generate_ids(model, inputs, options, rules):
    """The loop of the options' method, in graph ops.

    Args:
        model: keeps the protocol of `GenerativeModel`.
        inputs: dict of ids and mask, int32 (batch, length), padded on the right.
        options: `Options`.
        rules: `TokenRules`.

    Returns:
        What `loop.decode` returns.
    """
    ids_name, mask_name = prompt_names(model)
    ids = inputs[ids_name]
    if is_encoder_decoder(model):
        prompt = tf.fill((tf.shape(ids)[0], 1), rules.start_id)
        lengths = tf.ones(tf.shape(ids)[0], tf.int32)
    else:
        prompt = ids
        lengths = tf.reduce_sum(inputs[mask_name], axis=1)
    method = beam_search if options.method == "beam" else decode
    return method(model, inputs, prompt, lengths, options, rules)


def detokenize(tokenizer, token_ids, lengths):
    """The text of each row's first `lengths` tokens: strings, (batch,)."""
    return tokenizer.detokenize(tf.RaggedTensor.from_tensor(token_ids, lengths=lengths))


def _compiled(model, config, rules):
    """The traced function of these options."""
    ids = tf.TensorSpec((None, None), tf.int32)
    numbers = {
        name: tf.TensorSpec((), tf.float32 if isinstance(number, float) else tf.int32)
        for name, number in GenerationConfig().numbers().items()
    }
    function = compiled(
        model,
        (config.structure(), rules),
        lambda inputs, numbers: generate_ids(model, inputs, Options(config, numbers), rules),
        {name: ids for name in prompt_names(model)},
        numbers,
    )
    dtypes = {name: type(number) for name, number in GenerationConfig().numbers().items()}

    def call(inputs, numbers):
        tensors = {name: tf.constant(dtypes[name](number)) for name, number in numbers.items()}
        return function(inputs, tensors)

    return call


def _as_result(result, tokenizer, config):
    """Graph outputs as a `GenerationResult`."""
    result = {name: value.numpy() for name, value in result.items()}
    longest = max(result["lengths"].max(), 1)
    texts = None
    if tokenizer is not None:
        texts = detokenize(tokenizer, result["token_ids"], result["lengths"]).numpy()
        texts = np.array([text.decode() for text in texts], dtype=object)
    values = {
        "text": texts,
        "token_ids": result["token_ids"][:, :longest],
        "lengths": result["lengths"],
        "end_reason": np.where(result["stopped"], "stop", "length"),
    }
    if config.return_scores:
        values["log_probabilities"] = result["log_probabilities"][:, :longest]
    copies = config.num_return_sequences
    for name, value in values.items():
        if copies > 1 and value is not None:
            values[name] = value.reshape(-1, copies, *value.shape[1:])
    if texts is not None:
        values["text"] = values["text"].tolist()
    return GenerationResult(**values)


def _check_token_options(model, config):
    """Raises ValueError for ids that the model's output does not have."""
    size = getattr(model.config, list(model.input_pairs.values())[-1][1])
    for name in ("stop", "forced_tokens", "bad_words"):
        values = getattr(config, name) or ()
        ids = [each for word in values for each in word] if name == "bad_words" else values
        for each in ids:
            if each >= size:
                raise ValueError(f"{name} must hold ids below the vocabulary size {size}. Received: {each}.")


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
