"""What `generate` is given, checked and made into the model's inputs."""

import dataclasses

import numpy as np
import tensorflow as tf

from tfmodels.generation.config import make_generation_config
from tfmodels.generation.protocol import is_encoder_decoder, prompt_names
from tfmodels.generation.rules import token_rules
from tfmodels.generation.speculative import PROMPT_LOOKUP


def prepare(model, prompts, tokenizer, config, options, prefix=None):
    """The checked config, the model's inputs and the rules of a call of `generate`.

    With a prefix the inputs have its `prefix_length` too, and each row begins with it.
    """
    if not hasattr(model, "init_cache"):
        raise ValueError(
            "The model must be one that writes text, a decoder or an encoder-decoder with its output layer. "
            f"Received: {type(model).__name__}."
        )
    config = make_generation_config(config, options)
    if tokenizer is not None:
        check_tokenizer(model, tokenizer)
    if isinstance(prompts, dict):
        inputs = _right_padded(model, prompts)
    else:
        prompts = [prompts] if isinstance(prompts, str) else prompts
        _check_texts(model, prompts)
        if tokenizer is None:
            raise ValueError("Prompts of text need a tokenizer. Received: tokenizer=None.")
        inputs = encode_prompts(model, tokenizer, prompts, prefixed=prefix is not None)
        _check_none_empty(prompts, inputs[prompt_names(model)[1]], prefix)
    if prefix is not None:
        inputs = _with_prefix(model, inputs, tokenizer, prefix, are_texts=not isinstance(prompts, dict))
    max_length = model.config.max_sequence_length
    if max_length is not None and config.max_new_tokens > max_length:
        # No row can write more, and room is made for all that it may.
        least = min(config.min_new_tokens, max_length)
        config = dataclasses.replace(config, max_new_tokens=max_length, min_new_tokens=least)
    names = prompt_names(model)
    _check_lengths(inputs[names[1]], max_length)
    width = rounded_length(inputs[names[0]].shape[1], max_length)
    for name in names:
        inputs[name] = tf.pad(inputs[name], ((0, 0), (0, width - inputs[name].shape[1])))
    _check_token_options(model, tokenizer, config)
    rules = token_rules(model, tokenizer, config)
    return config, inputs, rules


def _check_texts(model, prompts):
    if not isinstance(prompts, list | tuple) or not all(isinstance(each, str) for each in prompts):
        raise ValueError(
            "Prompts must be a str, a list of str, or a dict of ids such as "
            f"{{{prompt_names(model)[0]!r}: [[1, 2]]}}. Received: {prompts!r:.100}."
        )
    if not prompts:
        raise ValueError("There must be at least one prompt. Received: none.")
    check_encodable(prompts, "prompt")


def _check_none_empty(prompts, mask, prefix):
    """As the end token stands for an empty prompt, only a tokenizer without one leaves it so."""
    empty = np.flatnonzero(~np.asarray(mask).any(axis=1))
    if empty.size and prefix is None:
        raise ValueError(
            "An empty prompt needs a tokenizer with an end token, which stands for it. "
            f"Received: prompt {empty[0]}, {prompts[empty[0]]!r}."
        )


def check_encodable(texts, name):
    """Raises ValueError for a text that is no Unicode, such as of bytes that are no UTF-8."""
    for i, text in enumerate(texts):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"A {name} must be valid Unicode. Received: {name} {i} with {text[error.start]!r} as its "
                f"character {error.start}."
            ) from None


def check_tokenizer(model, tokenizer):
    """Raises ValueError where a tokenizer is none, or has ids that the model lacks."""
    if not hasattr(tokenizer, "vocabulary_size"):
        raise ValueError(
            "tokenizer must be one of tfmodels.tokenizers, such as from_pretrained(folder) returns. "
            f"Received: {tokenizer!r:.100}."
        )
    for _, field in model.input_pairs.values():
        size = getattr(model.config, field)
        if tokenizer.vocabulary_size > size:
            raise ValueError(
                f"The tokenizer's vocabulary must not be larger than the model's. Received: "
                f"tokenizer.vocabulary_size={tokenizer.vocabulary_size}, {field}={size}. "
                "Use the tokenizer that the model was trained with."
            )


def encode_prompts(model, tokenizer, texts, max_length=None, prefixed=False):
    """Texts to the model's inputs, in graph ops.

    An encoder's text has the special tokens of the tokenizer's template around it, and an end in any
    case, if the tokenizer has one. A decoder's has those that stand before; with none of them an empty
    prompt becomes the end token, which stands before every text that such a model was trained on.

    Args:
        model: keeps the protocol of `GenerativeModel`.
        tokenizer: has `tokenize` and `end_id`; may have a `template` and `encode`.
        texts: strings, (batch,).
        max_length: int; cuts longer prompts, an encoder's at the end and a decoder's at the
            beginning; None: cuts nothing.
        prefixed: bool, whether something is put before a decoder's text, which then may be empty.

    Returns:
        Dict of ids and mask, int32 (batch, length).
    """
    return frame_prompts(model, tokenizer, tokenizer.tokenize(texts), max_length, prefixed)


def frame_prompts(model, tokenizer, ids, max_length=None, prefixed=False):
    """Token ids of prompts, int32 ragged (batch, length), to the model's inputs: see `encode_prompts`."""
    before, after = special_ids(tokenizer)
    if is_encoder_decoder(model):
        before, after = source_ids(tokenizer)
        if max_length is not None:
            ids = ids[:, : max_length - len(before) - len(after)]
        ids = tf.concat([_column(ids, before), ids, _column(ids, after)], axis=1)
    else:
        if max_length is not None:
            ids = ids[:, -(max_length - len(before)) :]
        ids = tf.concat([_column(ids, before), ids], axis=1)
        if not prefixed and tokenizer.end_id >= 0:
            empty = tf.cast(ids.row_lengths() == 0, ids.row_splits.dtype)
            ends = tf.fill(tf.reduce_sum(empty)[None], tokenizer.end_id)
            ids = tf.concat([tf.RaggedTensor.from_row_lengths(ends, empty), ids], axis=1)
    if not prefixed and tokenizer.end_id < 0:
        ids = _none_empty(ids)
    mask = tf.ones_like(ids)
    ids_name, mask_name = prompt_names(model)
    return {ids_name: ids.to_tensor(), mask_name: mask.to_tensor()}


def _none_empty(ids):
    """The ids, which in an export's graph fail it where a row has none; `prepare` says more elsewhere."""
    if tf.executing_eagerly():
        return ids
    check = tf.debugging.Assert(tf.reduce_all(ids.row_lengths() > 0), ["A prompt must not be empty."])
    with tf.control_dependencies([check]):
        return ids.with_flat_values(tf.identity(ids.flat_values))


def special_ids(tokenizer):
    """The ids that the tokenizer's template puts before and after one text: two lists of int."""
    template = getattr(tokenizer, "template", None)
    if template is None or not template.tokens:
        return [], []
    with tf.init_scope():  # as values, also while a function is traced
        ids = tokenizer.encode("")["token_ids"].numpy().tolist()
    place = [token for token, _ in template.single].index("$A")
    return ids[:place], ids[place:]


def source_ids(tokenizer):
    """The ids before and after an encoder's text, which ends if there is a token for it: two lists of int."""
    before, after = special_ids(tokenizer)
    ends = tokenizer.end_id < 0 or (after and after[-1] == tokenizer.end_id)
    return before, after if ends else [*after, tokenizer.end_id]


def ids_before_scored(tokenizer):
    """The ids before a decoder's text whose first token is scored too: a list of int.

    The end token stands before every text that a model without a start was trained on.
    """
    before, _ = special_ids(tokenizer)
    return before or ([tokenizer.end_id] if tokenizer.end_id >= 0 else [])


def _column(ids, values):
    """The values in each row of ids: int32 (batch, number of values)."""
    return tf.tile(tf.constant([values], tf.int32, shape=(1, len(values))), (ids.nrows(tf.int32), 1))


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


def check_draft(model, draft, config, inputs):
    """Raises ValueError for a draft that cannot guess for the model, or not for these inputs."""
    if config.method not in ("greedy", "sample"):
        raise ValueError(f'A draft needs method="greedy" or "sample". Received: method={config.method!r}.')
    most = model.config.max_sequence_length
    if most is not None and config.draft_tokens >= most:
        raise ValueError(
            f"draft_tokens must be below the model's max_sequence_length={most}. "
            f"Received: {config.draft_tokens}."
        )
    if isinstance(draft, str) and draft == PROMPT_LOOKUP:
        return
    if getattr(draft, "input_pairs", None) != model.input_pairs:
        raise ValueError(
            f'draft must be "{PROMPT_LOOKUP}" or a model of the same kind as the one it guesses for. '
            f"Received: {draft!r:.100}."
        )
    _check_lengths(inputs[prompt_names(draft)[1]], draft.config.max_sequence_length, "the draft's ")
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
    known = [name for ids, (mask, _) in model.input_pairs.items() for name in (ids, mask)]
    # Masks of all names: the model says more of one that it does not know. What a training batch holds for a
    # decoder is passed over.
    other = [name for name in prompts if name not in known and not name.endswith("mask")]
    if other:
        raise ValueError(f"A prompt may have {', '.join(known)}. Received: {other[0]!r}. Leave it out.")
    names = [name for name in prompts if name == ids_name or name.endswith("mask")]
    given = {name: _array(name, prompts[name]) for name in names}
    if mask_name in given and not np.isin(given[mask_name], (0, 1)).all():
        raise ValueError(
            f"{mask_name} of prompts must be 1 for real tokens and 0 for padding. "
            f"Received: {given[mask_name].max()}."
        )
    completed = model.complete_inputs(given)
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


def _array(name, value):
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        array = np.array("rows of different lengths")
    if array.dtype.kind not in "iub" and array.size:
        raise ValueError(
            f"{name} must be whole numbers, (batch, length), rows of one length, padded under a mask. "
            f"Received: {value!r:.100}."
        )
    return array


def _check_lengths(mask, max_length, whose=""):
    lengths = tf.reduce_sum(mask, axis=1).numpy()
    row = int(lengths.argmax())
    if max_length is not None and lengths[row] > max_length:
        raise ValueError(
            f"A prompt must not be longer than {whose}max_sequence_length={max_length} tokens. "
            f"Received: prompt {row} of {lengths[row]} tokens. Shorten it."
        )


def rounded_length(length, max_length):
    """A prompt's length with padding: few sizes, since kernels are made ready for each size anew."""
    step = max(16, 2 ** ((length - 1).bit_length() - 3))
    length = -(-length // step) * step
    return length if max_length is None else min(length, max_length)


def _with_prefix(model, inputs, tokenizer, prefix, are_texts):
    """Inputs, of texts or of ids, whose rows begin with the prefix, a str or ids."""
    if is_encoder_decoder(model):
        raise ValueError("prefix is for decoders, which continue it. Received: an encoder-decoder.")
    before = [] if tokenizer is None else special_ids(tokenizer)[0]
    if isinstance(prefix, str):
        if tokenizer is None:
            raise ValueError("A prefix of text needs a tokenizer. Received: tokenizer=None.")
        prefix = before + tokenizer.tokenize(prefix).numpy().tolist()
    ids_name, mask_name = prompt_names(model)
    size = getattr(model.config, model.input_pairs[ids_name][1])
    given, prefix = prefix, np.asarray(prefix)
    is_ids = prefix.dtype.kind in "iu" and prefix.ndim == 1 and prefix.size
    if not is_ids or prefix.min() < 0 or prefix.max() >= size:
        raise ValueError(
            f"prefix must be a text or a list of ids below the vocabulary size {size}, not empty. "
            f"Received: {given!r:.100}."
        )
    # The special tokens before a text stand before the prefix, once; ids have those that they are given with.
    start = len(before) if are_texts else 0
    ids, mask = (tf.convert_to_tensor(inputs[name])[:, start:] for name in (ids_name, mask_name))
    rows = tf.tile(tf.constant(prefix[None], tf.int32), (ids.shape[0], 1))
    inputs = {
        ids_name: tf.concat([rows, ids], axis=1),
        mask_name: tf.concat([tf.ones_like(rows), mask], axis=1),
    }
    # The last token of each row is the first that the loop reads: a prompt may be empty.
    shared = min(prefix.size, int(tf.reduce_min(tf.reduce_sum(inputs[mask_name], axis=1))) - 1)
    return inputs | ({"prefix_length": tf.constant(shared)} if shared else {})
