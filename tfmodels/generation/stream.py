"""Text as it comes."""

import tensorflow as tf

from tfmodels.generation.config import BEAM_METHODS, Options
from tfmodels.generation.generate import detokenize, number_specs, number_tensors, prompt_of
from tfmodels.generation.loop import advance, begin
from tfmodels.generation.prompts import prepare
from tfmodels.generation.protocol import compiled, prompt_names

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
        ValueError: at the call; as `generate`, and for beams, contrastive search, several sequences
            or prompts.

    Example:
        >>> for piece in tfmodels.stream(model, "In the beginning", tokenizer):
        ...     print(piece, end="", flush=True)
    """
    if tokenizer is None:
        raise ValueError("stream needs a tokenizer. Received: tokenizer=None.")
    if not isinstance(prompt, str | dict):
        raise ValueError(f"stream takes one prompt, a str or a dict of ids. Received: {prompt!r}.")
    config, inputs, rules = prepare(model, prompt, tokenizer, config, options)
    rows = inputs[prompt_names(model)[0]].shape[0]
    if config.method in (*BEAM_METHODS, "contrastive") or config.num_return_sequences > 1 or rows > 1:
        raise ValueError(
            'stream writes one text with method="greedy" or "sample". Received: '
            f"method={config.method!r}, num_return_sequences={config.num_return_sequences}, {rows} prompts."
        )
    return _pieces(model, inputs, tokenizer, config, rules)


def _pieces(model, inputs, tokenizer, config, rules):
    start, step = _compiled(model, config, rules)
    numbers = number_tensors(config)
    state = start(inputs, numbers)
    given = ""
    while not state["done"][0]:
        state = step(state, numbers)
        tokens = state["history"][:, state["lengths"][0] :]
        text = detokenize(tokenizer, tokens, state["count"], rules)[0].numpy().decode()
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
    """The traced beginning of a text, and the traced step."""
    ids = tf.TensorSpec((None, None), tf.int32)

    def first(inputs, numbers):
        options = Options(config, numbers)
        prompt, lengths = prompt_of(model, inputs, rules)
        return begin(model, inputs, prompt, lengths, options)

    specs = {name: ids for name in prompt_names(model)}, number_specs()
    start = compiled(model, ("stream", config.structure(), rules), first, *specs)
    state = tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), start.structured_outputs)
    step = compiled(
        model,
        ("stream step", config.structure(), rules),
        lambda state, numbers: advance(model, state, Options(config, numbers), rules),
        state,
        number_specs(),
    )
    return start, step
