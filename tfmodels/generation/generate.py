"""`generate`: prompts in, text out."""

import dataclasses

import numpy as np
import tensorflow as tf

from tfmodels.generation.beam import beam_search
from tfmodels.generation.config import GenerationConfig, Options, make_generation_config
from tfmodels.generation.contrastive import contrastive_search
from tfmodels.generation.loop import decode
from tfmodels.generation.protocol import compiled, is_encoder_decoder, prompt_names
from tfmodels.generation.rules import token_rules
from tfmodels.generation.speculative import PROMPT_LOOKUP, speculate


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


def generate(model, prompts, tokenizer=None, config=None, draft=None, **options):
    """Continues prompts, or translates them, depending on the model.

    Each row of a batch is what it would be alone.

    Args:
        model: keeps the protocol of `GenerativeModel`, such as a `GPT2` or a `Transformer`.
        prompts: str or list of str, with a tokenizer; or a dict of ids, int, (batch, length), and
            mask (1 = real), as the model's inputs are named, padded on either side. An
            encoder-decoder reads the prompt with its encoder.
        tokenizer: has `tokenize`, `detokenize`, `start_id`, `end_id`.
        config: a `GenerationConfig`; None: the default one.
        draft: a smaller model with the same ids, or "prompt": what guesses tokens, which the model
            then checks several at a time (Leviathan et al. 2023). "prompt" guesses what followed the
            last tokens earlier in prompt and text, for text that repeats itself. Greedy text stays the
            same, and the distribution of samples.
        **options: fields of `GenerationConfig` that override it.

    Returns:
        A `GenerationResult`.

    Raises:
        ValueError: an unknown option or a value out of range; an empty batch; a prompt longer than
            `max_sequence_length`; ids outside the vocabulary.

    Example:
        >>> tfmodels.generate(model, ["In the beginning"], tokenizer, max_new_tokens=20).text
    """
    config, inputs, rules = prepare(model, prompts, tokenizer, config, options)
    if draft is not None:
        _check_draft(model, draft, config)
    result = _compiled(model, config, rules, draft)(inputs, number_tensors(config))
    return _as_result(result, tokenizer, config, rules)


def prepare(model, prompts, tokenizer, config, options):
    """The checked config, the model's inputs and the rules of a call of `generate`."""
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
    _check_lengths(inputs[prompt_names(model)[1]], model.config.max_sequence_length)
    _check_token_options(model, tokenizer, config)
    rules = token_rules(model, tokenizer, config)
    return config, inputs, rules


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


def generate_ids(model, inputs, options, rules, draft=None):
    """The loop of the options' method, in graph ops.

    Args:
        model: keeps the protocol of `GenerativeModel`.
        inputs: dict of ids and mask, int32 (batch, length), padded on the right.
        options: `Options`.
        rules: `TokenRules`.
        draft: as of `generate`.

    Returns:
        What `loop.decode` returns.
    """
    prompt, lengths = prompt_of(model, inputs, rules)
    if draft is not None:
        return speculate(model, draft, inputs, prompt, lengths, options, rules)
    methods = {"beam": beam_search, "diverse_beam": beam_search, "contrastive": contrastive_search}
    return methods.get(options.method, decode)(model, inputs, prompt, lengths, options, rules)


def prompt_of(model, inputs, rules):
    """The decoder's prompt, (batch, length), and the number of its tokens, (batch,)."""
    ids_name, mask_name = prompt_names(model)
    ids = inputs[ids_name]
    if is_encoder_decoder(model):
        return tf.fill((tf.shape(ids)[0], 1), rules.start_id), tf.ones(tf.shape(ids)[0], tf.int32)
    return ids, tf.reduce_sum(inputs[mask_name], axis=1)


def detokenize(tokenizer, token_ids, lengths, rules=None):
    """The text of each row's first `lengths` tokens, up to the rules' stop strings: strings, (batch,)."""
    texts = tokenizer.detokenize(tf.RaggedTensor.from_tensor(token_ids, lengths=lengths))
    return texts if rules is None else rules.cut(texts)


def _compiled(model, config, rules, draft):
    """The traced function of these options."""
    ids = tf.TensorSpec((None, None), tf.int32)
    return compiled(
        model,
        (config.structure(), rules, draft),
        lambda inputs, numbers: generate_ids(model, inputs, Options(config, numbers), rules, draft),
        {name: ids for name in prompt_names(model)},
        number_specs(),
    )


def number_specs():
    """Specs of the tensors that `number_tensors` makes."""
    return {
        name: tf.TensorSpec((), tf.float32 if isinstance(number, float) else tf.int32)
        for name, number in GenerationConfig().numbers().items()
    }


def number_tensors(config):
    """The numbers of a config as a traced function takes them."""
    dtypes = {name: type(number) for name, number in GenerationConfig().numbers().items()}
    return {name: tf.constant(dtypes[name](number)) for name, number in config.numbers().items()}


def _as_result(result, tokenizer, config, rules):
    """Graph outputs as a `GenerationResult`."""
    result = {name: value.numpy() for name, value in result.items()}
    longest = max(result["lengths"].max(), 1)
    texts = None
    if tokenizer is not None:
        texts = detokenize(tokenizer, result["token_ids"], result["lengths"], rules).numpy()
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


def _check_token_options(model, tokenizer, config):
    """Raises ValueError for ids that the model's output does not have, and strings without a tokenizer."""
    if config.stop_strings and tokenizer is None:
        raise ValueError(f"Stop strings need a tokenizer. Received: stop={config.stop!r}, tokenizer=None.")
    size = getattr(model.config, list(model.input_pairs.values())[-1][1])
    for name in ("stop_ids", "forced_tokens", "bad_words"):
        values = getattr(config, name) or ()
        ids = [each for word in values for each in word] if name == "bad_words" else values
        for each in ids:
            if each >= size:
                name = name.removesuffix("_ids")
                raise ValueError(f"{name} must hold ids below the vocabulary size {size}. Received: {each}.")


def _check_draft(model, draft, config):
    if config.method not in ("greedy", "sample"):
        raise ValueError(f'A draft needs method="greedy" or "sample". Received: method={config.method!r}.')
    if draft == PROMPT_LOOKUP:
        return
    if isinstance(draft, str) or draft.input_pairs != model.input_pairs:
        raise ValueError(
            f'draft must be "{PROMPT_LOOKUP}" or a model of the same kind as the one it guesses for. '
            f"Received: {draft if isinstance(draft, str) else type(draft).__name__}."
        )
    for _, field in model.input_pairs.values():
        sizes = [getattr(each.config, field) for each in (draft, model)]
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"A draft model needs the same vocabulary. Received: {field}={sizes[0]}, the model's "
                f"is {sizes[1]}."
            )


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
