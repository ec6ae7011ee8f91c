"""`generate`: prompts in, text out."""

import dataclasses

import numpy as np
import tensorflow as tf

from tfmodels.generation.attention import attention_paid
from tfmodels.generation.beam import beam_search
from tfmodels.generation.config import GenerationConfig, Options
from tfmodels.generation.contrastive import contrastive_search
from tfmodels.generation.loop import decode
from tfmodels.generation.products import OWN, choose_layout
from tfmodels.generation.prompts import check_draft, prepare
from tfmodels.generation.protocol import compiled, is_encoder_decoder, prompt_names
from tfmodels.generation.speculative import PROMPT_LOOKUP, speculate
from tfmodels.generation.step_model import StepModel


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
        attention: dict of "self", and "cross" for an encoder-decoder, -> a list with an entry a block
            of the decoder: float32 array, (batch[, num_return_sequences], num_heads, new_length,
            key_length), the weights of the step that chose each new token; None unless
            `return_attention`. Keys of "self" are the row's own tokens of prompt and text, one right
            after the other without padding (in an encoder-decoder the start token and the text), and
            those of "cross" its source's. All is 0 after a row's end.
    """

    text: list | None
    token_ids: np.ndarray
    lengths: np.ndarray
    end_reason: np.ndarray
    log_probabilities: np.ndarray | None = None
    attention: dict | None = None


def generate(model, prompts, tokenizer=None, config=None, draft=None, prefix=None, **options):
    """Continues prompts, or translates them, depending on the model.

    Each row of a batch is what it would be alone, up to rounding: of bfloat16, which has 8 bits, that may
    choose another token where two are nearly as probable.

    Args:
        model: keeps the protocol of `GenerativeModel`, such as a `GPT2` or a `Transformer`.
        prompts: str or list of str, with a tokenizer; or a dict of ids, int, (batch, length), and
            mask (1 = real), as the model's inputs are named, padded on either side. An
            encoder-decoder reads the prompt with its encoder, and passes over what is there for its decoder:
            give it `forced_tokens`.
        tokenizer: has `tokenize`, `detokenize`, `start_id`, `end_id`.
        config: a `GenerationConfig`; None: the default one.
        draft: a smaller model with the same ids, or "prompt": what guesses tokens, which the model
            then checks several at a time (Leviathan et al. 2023). "prompt" guesses what followed the
            last tokens earlier in prompt and text, for text that repeats itself. Greedy text stays the
            same, and the distribution of samples.
        prefix: str or list of ids before every prompt of a decoder, computed once for all of them.
        **options: fields of `GenerationConfig` that override it.

    Returns:
        A `GenerationResult`.

    Raises:
        ValueError: an unknown option or a value out of range; an empty batch; a prompt longer than
            `max_sequence_length`; ids outside the vocabulary.

    Example:
        >>> tfmodels.generate(model, ["In the beginning"], tokenizer, max_new_tokens=20).text
    """
    config, inputs, rules = prepare(model, prompts, tokenizer, config, options, prefix)
    if draft is not None:
        check_draft(model, draft, config, inputs)
    # Of a product: a step checks all guesses of a row.
    rows = len(inputs[prompt_names(model)[0]]) * config.rows_a_prompt()
    rows *= 1 if draft is None else config.draft_tokens + 1
    layout = choose_layout(model, rows, config.max_new_tokens, compiled=draft is None)
    has_prefix = "prefix_length" in inputs
    loop = _compiled(model, config, rules, draft, has_prefix, layout)
    result = loop(inputs, number_tensors(config))
    if config.return_attention:
        pay = _compiled_attention(model, config, rules, has_prefix)
        result["attention"] = pay(inputs, number_tensors(config), result["token_ids"], result["lengths"])
    return _as_result(result, tokenizer, config, rules)


def generate_ids(model, inputs, options, rules, draft=None, layout=OWN, in_place=True):
    """The loop of the options' method, in graph ops.

    Args:
        model: keeps the protocol of `GenerativeModel`.
        inputs: dict of ids and mask, int32 (batch, length), padded on the right; with `prefix_length`,
            int32 scalar, how many first tokens all rows share.
        options: `Options`.
        rules: `TokenRules`.
        draft: as of `generate`.
        layout: as of `StepModel`.
        in_place: bool, as of `StepModel`.

    Returns:
        What `loop.decode` returns.
    """
    prompt, lengths = prompt_of(model, inputs, rules)
    model = StepModel(model, layout, in_place=in_place)
    if draft is not None:
        draft = draft if draft == PROMPT_LOOKUP else StepModel(draft, layout)
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


def detokenize(tokenizer, token_ids, lengths, rules, min_new_tokens):
    """The text of each row's first `lengths` tokens, up to a stop string of the rules: strings, (batch,)."""
    tokens = tf.RaggedTensor.from_tensor(token_ids, lengths=lengths)
    return rules.cut(tokenizer.detokenize(tokens), tokens, min_new_tokens)


def _compiled(model, config, rules, draft, has_prefix, layout):
    """The traced function of these options."""
    return compiled(
        model,
        (config.structure(), rules, draft, has_prefix, layout),
        lambda inputs, numbers: generate_ids(model, inputs, Options(config, numbers), rules, draft, layout),
        _input_specs(model, has_prefix),
        number_specs(),
    )


def _compiled_attention(model, config, rules, has_prefix):
    """The traced function of a finished text's attention: what asks for none pays nothing for it."""

    def pay(inputs, numbers, token_ids, written):
        prompt, lengths = prompt_of(model, inputs, rules)
        return attention_paid(model, inputs, prompt, lengths, token_ids, written, Options(config, numbers))

    return compiled(
        model,
        ("attention", config.structure(), rules, has_prefix),
        pay,
        _input_specs(model, has_prefix),
        number_specs(),
        tf.TensorSpec((None, None), tf.int32),
        tf.TensorSpec((None,), tf.int32),
    )


def _input_specs(model, has_prefix):
    specs = {name: tf.TensorSpec((None, None), tf.int32) for name in prompt_names(model)}
    return specs | ({"prefix_length": tf.TensorSpec((), tf.int32)} if has_prefix else {})


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
    result = tf.nest.map_structure(lambda tensor: tensor.numpy(), result)
    longest = max(result["lengths"].max(), 1)
    texts = None
    if tokenizer is not None:
        ids, lengths = result["token_ids"], result["lengths"]
        texts = detokenize(tokenizer, ids, lengths, rules, config.min_new_tokens).numpy()
        texts = np.array([text.decode() for text in texts], dtype=object)
    values = {
        "text": texts,
        "token_ids": result["token_ids"][:, :longest],
        "lengths": result["lengths"],
        "end_reason": np.where(result["stopped"], "stop", "length"),
    }
    if config.return_scores:
        values["log_probabilities"] = result["log_probabilities"][:, :longest]
    if config.return_attention:
        values["attention"] = result["attention"]
    copies = config.num_return_sequences
    if copies > 1:
        values = tf.nest.map_structure(
            lambda x: None if x is None else x.reshape(-1, copies, *x.shape[1:]), values
        )
    if texts is not None:
        values["text"] = values["text"].tolist()
    return GenerationResult(**values)
