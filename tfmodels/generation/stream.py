"""Text as it comes."""

import tensorflow as tf

from tfmodels.generation import contrastive, loop
from tfmodels.generation.config import BEAM_METHODS, Options, make_generation_config
from tfmodels.generation.generate import detokenize, number_specs, number_tensors, prompt_of
from tfmodels.generation.products import choose_layout
from tfmodels.generation.prompts import prepare
from tfmodels.generation.protocol import compiled, prompt_names
from tfmodels.generation.step_model import StepModel

_REPLACEMENT = "\ufffd"


def stream(model, prompt, tokenizer, config=None, **options):
    """Yields the text of `generate` in pieces, each as soon as it is certain.

    A piece never ends inside a character, and what may be the beginning of a stop string waits for
    the tokens after it. Nothing is computed beyond the piece that was asked for last.

    Args:
        model: as of `generate`.
        prompt: str; or a dict of ids and mask of one row.
        tokenizer: as of `generate`.
        config: a `GenerationConfig`; None: the default one.
        **options: fields of `GenerationConfig` that override it.

    Yields:
        str; joined they are `generate(...).text[0]`.

    Raises:
        ValueError: at the call; as `generate`, and for beams, several sequences or prompts, and
            `return_attention`.

    Example:
        >>> for piece in tfmodels.stream(model, "In the beginning", tokenizer):
        ...     print(piece, end="", flush=True)
    """
    if tokenizer is None:
        raise ValueError("stream needs a tokenizer. Received: tokenizer=None.")
    if not isinstance(prompt, str | dict):
        raise ValueError(f"stream takes one prompt, a str or a dict of ids. Received: {prompt!r}.")
    config = make_generation_config(config, options)
    if config.method in BEAM_METHODS:
        raise ValueError(
            "stream needs a method by which a token is final once it is chosen; of beams none is before the "
            f"end. Received: method={config.method!r}. Use another method, or generate."
        )
    if config.num_return_sequences > 1 or config.return_attention:
        raise ValueError(
            "stream writes one text, and nothing but text. Received: num_return_sequences="
            f"{config.num_return_sequences}, return_attention={config.return_attention}. Use generate."
        )
    config, inputs, rules = prepare(model, prompt, tokenizer, config, {})
    rows = inputs[prompt_names(model)[0]].shape[0]
    if rows > 1:
        raise ValueError(f"stream takes one prompt. Received: {rows} prompts. Use generate for several.")
    return _pieces(model, inputs, tokenizer, config, rules)


def _pieces(model, inputs, tokenizer, config, rules):
    start, step = _compiled(model, config, rules)
    numbers = number_tensors(config)
    state, weights = start(inputs, numbers)
    given = ""
    while not state["done"][0]:
        state = step(state, weights, numbers)
        tokens = state["history"][:, state["lengths"][0] :]
        text = detokenize(tokenizer, tokens, state["count"], rules, config.min_new_tokens)
        text = text[0].numpy().decode()
        if not state["done"][0]:
            text = _certain(text, rules.stop_strings)
        if len(text) > len(given) and text.startswith(given):
            yield text[len(given) :]
            given = text


def _certain(text, stop_strings):
    """What the next tokens cannot change: not a character cut off, nor the beginning of a stop string."""
    text = text.rstrip(_REPLACEMENT)
    held = [n for stop in stop_strings for n in range(1, len(stop)) if text.endswith(stop[:n])]
    return text[: len(text) - max(held, default=0)]


def _compiled(model, config, rules):
    """The traced beginning of a text, which also makes the weights ready, and the traced step."""
    ids = tf.TensorSpec((None, None), tf.int32)
    method = contrastive if config.method == "contrastive" else loop
    layout = choose_layout(model, config.rows_a_prompt(), config.max_new_tokens)

    def begin(inputs, numbers):
        options, stepped = Options(config, numbers), StepModel(model, layout)
        state = method.begin(stepped, inputs, *prompt_of(model, inputs, rules), options)
        # Traced to see which weights a step reads: the graph leaves it out, since nothing uses it.
        method.advance(stepped, state, options, rules)
        return state, stepped.ready()

    def advance(state, weights, numbers):
        stepped = StepModel(model, layout, weights)
        return method.advance(stepped, state, Options(config, numbers), rules)

    def function(name, *arguments):
        return compiled(model, (name, config.structure(), rules, layout), *arguments)

    start = function("stream", begin, {name: ids for name in prompt_names(model)}, number_specs())
    state, weights = tf.nest.map_structure(
        lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype), start.structured_outputs
    )
    return start, function("stream step", advance, state, weights, number_specs())
