"""The fields of config.json, each checked as it is read."""

# Names of activations in config.json -> ours.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}


class Fields:
    """config.json with errors that name the field.

    Args:
        values: dict.
    """

    def __init__(self, values):
        self.values = values

    def get(self, name, default=None):
        """Any value; null counts as left out."""
        value = self.values.get(name)
        return default if value is None else value

    def integer(self, name, default=None):
        """A whole number of at least 1; without a default it must be there."""
        value = self.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(
                f"config.json: {name} must be a whole number of at least 1. Received: {value!r}."
            )
        return value

    def rate(self, name, default):
        """A number of at least 0 and below 1."""
        value = self.get(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
            raise ValueError(
                f"config.json: {name} must be a number, at least 0 and below 1. Received: {value!r}."
            )
        return float(value)

    def flag(self, name, default):
        """true or false."""
        value = self.get(name, default)
        if not isinstance(value, bool):
            raise ValueError(f"config.json: {name} must be true or false. Received: {value!r}.")
        return value

    def only(self, name, value):
        """Refuses a variant that the model does not have: `name` may be `value` or left out."""
        if self.get(name, value) != value:
            raise ValueError(
                f"config.json: {name} must be {value!r}; this library has no other variant. "
                f"Received: {self.get(name)!r}."
            )

    def activation(self, name, default):
        """An activation, by our name."""
        value = self.get(name, default)
        if not isinstance(value, str) or value not in ACTIVATIONS:
            raise ValueError(
                f"config.json: {name} must be one of {', '.join(ACTIVATIONS)}. Received: {value!r}."
            )
        return ACTIVATIONS[value]


def activation_name(activation):
    """The name in config.json of one of our activations."""
    return next(theirs for theirs, ours in ACTIVATIONS.items() if ours == activation)
