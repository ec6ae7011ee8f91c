"""The numbers of a `GenerationConfig` as inputs of a signature, one a row."""

import tensorflow as tf

from tfmodels.generation.config import LEAST, Options
from tfmodels.serving.signatures import checked

_ANY = ("max_new_tokens", "min_new_tokens", "repetition_penalty", "presence_penalty", "frequency_penalty")
_OF_METHOD = {
    "greedy": (),
    "sample": ("temperature", "top_k", "top_p", "min_p", "typical_p", "seed"),
    "beam": ("length_penalty",),
    "diverse_beam": ("length_penalty",),
    "contrastive": ("penalty_alpha",),
}
# What GenerationConfig checks, for tensors: name -> (rule, condition).
_RULES = {
    "max_new_tokens": ("from 1 to {most}", lambda x, most: (x >= 1) & (x <= most)),
    "min_new_tokens": ("from 0 to {most}", lambda x, most: (x >= 0) & (x <= most)),
    "repetition_penalty": ("above 0 (1: none)", lambda x, most: x >= LEAST),
    "presence_penalty": ("finite (0: none)", lambda x, most: x == x),
    "frequency_penalty": ("finite (0: none)", lambda x, most: x == x),
    "temperature": (f"above 0 (at least {LEAST})", lambda x, most: x >= LEAST),
    "top_k": ("at least 0 (0: all tokens)", lambda x, most: x >= 0),
    "top_p": ("above 0 and at most 1 (1: all tokens)", lambda x, most: (x >= LEAST) & (x <= 1)),
    "min_p": ("from 0 (all tokens) to 1", lambda x, most: (x >= 0) & (x <= 1)),
    "typical_p": ("above 0 and at most 1 (1: all tokens)", lambda x, most: (x >= LEAST) & (x <= 1)),
    "seed": ("from 0 to 2 ** 31 - 1", lambda x, most: x >= 0),
    "penalty_alpha": ("from 0 to 1", lambda x, most: (x >= 0) & (x <= 1)),
    "length_penalty": ("finite (0: none)", lambda x, most: x == x),
}


class Numbers:
    """The numbers that a config's method reads.

    Args:
        config: a `GenerationConfig`.
        most_new_tokens: int, what `max_new_tokens` may be at most: without a bound one request could
            ask for all memory.
    """

    def __init__(self, config, most_new_tokens):
        self._config, self.most_new_tokens = config, most_new_tokens
        names = _ANY + _OF_METHOD[config.method]
        numbers = config.numbers()
        self.defaults = {name: numbers[name] for name in names}
        self.ranges = {name: _RULES[name][0].format(most=most_new_tokens) for name in names}
        default_types = type(config)().numbers()  # of the config at hand a float may be written as an int
        self.inputs = {
            name: tf.TensorSpec((None,), tf.float32 if isinstance(default_types[name], float) else tf.int32)
            for name in names
        }

    def options(self, tensors, rows):
        """`Options` of checked numbers.

        Args:
            tensors: dict of name -> tensor, (batch,) or (1,).
            rows: int32 scalar, the batch.
        """
        rules = []
        for name, value in tensors.items():
            size = tf.size(value)
            rules.append(((size == rows) | (size == 1), f"{name} must be one number, or one a text.", size))
        tensors = checked(tensors, *rules)
        tensors = {name: tf.broadcast_to(value, (rows,)) for name, value in tensors.items()}
        rules = []
        for name, value in tensors.items():
            fine = _RULES[name][1](value, self.most_new_tokens)
            if value.dtype == tf.float32:
                fine &= tf.math.is_finite(value)
            rules.append((fine, f"{name} must be {self.ranges[name]}.", value))
        tensors = checked(tensors, *rules)
        limits = tensors["max_new_tokens"]
        numbers = self._config.numbers() | {name: value[:, None] for name, value in tensors.items()}
        numbers["max_new_tokens"] = tf.reduce_max(tf.concat([limits, [1]], 0))
        return Options(self._config, numbers, active=self.inputs, limits=limits)
