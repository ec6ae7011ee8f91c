"""The fields of config.json, each checked as it is read."""

# Names of activations in config.json -> ours.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}


# What transformers keeps in generation_config.json, and kept in config.json before there was one.
GENERATION_FIELDS = (
    "bad_words_ids",
    "bos_token_id",
    "decoder_start_token_id",
    "eos_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "pad_token_id",
)
# Of these what a text may or must hold; not each kind of model knows them.
_RULES = (
    "bad_words_ids",
    "begin_suppress_tokens",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "suppress_tokens",
)


class Fields:
    """config.json with errors that name the field.

    Args:
        values: dict.
        generation: dict, generation_config.json; None: the folder has none. Where there is one it
            alone tells the ids of special tokens, as in transformers.
    """

    def __init__(self, values, generation=None):
        self.values = values
        self.generation = generation or {}
        self._special_ids = values if generation is None else generation
        self._read = set()  # of the special ids

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

    def token_id(self, name, vocabulary_size, several=False, default=None, unset=None):
        """The id of a special token, or None.

        Args:
            name: one of `GENERATION_FIELDS`.
            vocabulary_size: int, which the id is below.
            several: bool, whether a list is allowed too; it becomes a tuple.
            default: int, of an older config.json without the field. There null says that there is
                no such token.
            unset: int, what transformers writes if nobody chose one: outside the vocabulary it is none.
        """
        value = self._special(name, default)
        if value is not None and value == unset and unset >= vocabulary_size:
            return None
        if isinstance(value, list | tuple) and len(value) == 1:
            value = value[0]
        ids = value if several and isinstance(value, list | tuple) else [value]
        for each in ids:
            whole = isinstance(each, int) and not isinstance(each, bool)
            if value is not None and not (whole and 0 <= each < vocabulary_size):
                raise ValueError(
                    f"{name} must be at least 0 and below the vocabulary size {vocabulary_size}, or null. "
                    f"Received: {value!r} in generation_config.json or config.json."
                )
        return tuple(value) if isinstance(value, list | tuple) else value

    def number(self, name, minimum, default=None):
        """A number of at least `minimum`; without a default it must be there."""
        value = self.get(name, default)
        # NaN is not at least anything.
        if not isinstance(value, int | float) or isinstance(value, bool) or not value >= minimum:
            raise ValueError(
                f"config.json: {name} must be a number of at least {minimum}. Received: {value!r}."
            )
        return float(value)

    def suppressed_ids(self, vocabulary_size):
        """The tokens of `bad_words_ids`, as a tuple."""
        value = self._special("bad_words_ids") or []
        fine = isinstance(value, list) and all(
            isinstance(word, list) and len(word) == 1 and isinstance(word[0], int) for word in value
        )
        if not fine or not all(0 <= word[0] < vocabulary_size for word in value):
            raise ValueError(
                "bad_words_ids must be lists of one id each, below the vocabulary size "
                f"{vocabulary_size}; words of several tokens are not supported. "
                f"Received: {value!r} in generation_config.json or config.json."
            )
        return tuple(word[0] for word in value)

    def ignored_rules(self):
        """What the checkpoint says of the texts to generate that nothing has read: dict."""
        names = [name for name in _RULES if name not in self._read]
        return {
            name: self._special_ids[name] for name in names if self._special_ids.get(name) not in (None, [])
        }

    def _special(self, name, default=None):
        self._read.add(name)
        return self._special_ids.get(name, default if self._special_ids is self.values else None)

    def rate(self, name, default):
        """A number of at least 0 and below 1."""
        value = self.get(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
            raise ValueError(
                f"config.json: {name} must be a number, at least 0 and below 1. Received: {value!r}."
            )
        return float(value)

    def positive(self, name, default):
        """A number above 0."""
        value = self.get(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
            raise ValueError(f"config.json: {name} must be a number above 0. Received: {value!r}.")
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
    for theirs, ours in ACTIVATIONS.items():
        if ours == activation:
            return theirs
    raise ValueError(
        f"config.json has no name for activation={activation!r}. "
        f"It has those of: {', '.join(dict.fromkeys(ACTIVATIONS.values()))}."
    )
