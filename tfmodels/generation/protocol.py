"""All that generation and export know of a model."""

import contextlib
import gc
from typing import Any, Protocol

import tensorflow as tf


class GenerativeModel(Protocol):
    """A model that writes text one token at a time.

    Attributes:
        config: has `max_sequence_length`, int or None for no limit; may have the ids that
            `rules.TokenRules` names, of which `end_id` is an int or a tuple of int.
        input_pairs: dict of ids input -> (mask input, vocabulary size field). A model with
            `encoder_token_ids` reads the prompt there and writes from the start token; another
            continues the prompt in `token_ids`.
        reads_places: bool, optional: whether within `stepping` a step may say of each token where it is
            written and what it sees; `index` is then the tokens' positions, (batch, length).
    """

    config: Any
    input_pairs: dict

    def init_cache(self, inputs: dict, max_length, dtype=None):
        """A nested structure of tensors, batch on axis 0; of keys and values of this dtype."""

    def decode_step(self, token_ids, cache, index, return_hidden=False):
        """(logits, cache[, hidden]) for token_ids, (batch, length), that begin at `index` in each row."""

    def stepping(self, **options):
        """Optional: a context manager, in which `decode_step` works as `layers.steps.Step` says: faster."""

    def put_in_cache(self, stored, new, positions):
        """With `stepping`: a tensor of a cache with new tokens of each row at positions (batch, length)."""

    def record_attention(self):
        """A context manager that yields a dict of "self" and "cross" -> a list with an entry a block.

        Its entries are the attention weights of what is called within it, (batch, num_heads,
        query_length, key_length).
        """


def is_encoder_decoder(model):
    return "encoder_token_ids" in model.input_pairs


def prompt_names(model):
    """The names of the inputs that take the prompt: ids and mask."""
    ids = "encoder_token_ids" if is_encoder_decoder(model) else "token_ids"
    return ids, model.input_pairs[ids][0]


def compiled(model, key, function, *specs):
    """The function, traced once for these specs. It lives with the model and is freed with it.

    Args:
        model: what the function closes over.
        key: hashable, names the function among the model's.
        function: in graph ops.
        *specs: nested structures of `tf.TensorSpec`, one an argument.
    """
    # Past Keras's attribute tracking: functions are no part of the model's state. They read its variables,
    # which LoRA or quantisation may have exchanged since.
    known, variables = vars(model).get("_generate_variables", ()), list(getattr(model, "variables", ()))
    if [id(variable) for variable in known] != [id(variable) for variable in variables]:
        vars(model).pop("_generate_functions", None)
    vars(model)["_generate_variables"] = variables
    functions = vars(model).setdefault("_generate_functions", {})
    if key not in functions:
        with _uncollected():
            functions[key] = tf.function(function, autograph=False).get_concrete_function(*specs)
    return functions[key]


@contextlib.contextmanager
def _uncollected():
    """Within it Python looks for no garbage, which among all that is imported takes a fifth of tracing."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
