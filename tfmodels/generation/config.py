"""The options of generation."""

import dataclasses
import difflib
import math
from numbers import Integral, Real

import tensorflow as tf

CACHE_DTYPES = ("float32", "bfloat16", "int8")
METHODS = ("greedy", "sample", "beam", "diverse_beam", "contrastive")
BEAM_METHODS = ("beam", "diverse_beam")
# Options that belong to one method -> their values that change nothing.
_OF_SAMPLING = {"temperature": 1.0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0}
# Numbers that a compiled loop takes as tensors, so that another value compiles nothing, and the
# values that change nothing: what has such a value is left out of the loop.
_NUMBERS = _OF_SAMPLING | {
    "top_k": 0,
    "penalty_alpha": None,
    "diversity_penalty": None,
    "length_penalty": None,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "min_new_tokens": 0,
    "max_new_tokens": None,
    "seed": None,
}

# The type of a field -> what its value must be.
_KINDS = {int: (Integral, "a whole number"), float: (Real, "a finite number"), bool: (bool, "True or False")}
# In 32 bits; what is divided by, or reached by sums, must not vanish there.
_MOST, LEAST = {int: 2**31 - 1, float: 1e38}, 1e-30


@dataclasses.dataclass(frozen=True)
class GenerationConfig:
    """How text is generated.

    Attributes:
        max_new_tokens: int, the most tokens to write; a row also ends at the model's
            `max_sequence_length`.
        min_new_tokens: int, tokens to write before a text may end.
        method: "greedy", "sample", "beam", "diverse_beam" (Vijayakumar et al. 2018) or "contrastive"
            (Su et al. 2022).
        temperature: float above 0, of sampling: below 1 sharpens, above 1 flattens.
        top_k: int, sample among the k most probable tokens only; 0: among all. In contrastive search
            the candidates, at least 2.
        top_p: float, sample among the fewest tokens that together have this probability (Holtzman et
            al. 2020, section 3.1); 1: among all.
        min_p: float, sample among tokens of at least this share of the most probable one's
            probability (Nguyen et al. 2024); 0: among all.
        typical_p: float, sample among the fewest tokens nearest to the entropy that together have
            this probability (Meister et al. 2023, section 3); 1: among all.
        num_beams: int, of beam search.
        num_beam_groups: int, of diverse beam search: each has its share of the beams.
        diversity_penalty: float, taken off a token's score for each beam of the groups before that goes on
            with it at the same step.
        penalty_alpha: float, of contrastive search: the weight of the likeness to the tokens before, from
            0 (greedy) to 1.
        length_penalty: float; a beam's score is its log-probability / length ** length_penalty: above 0
            longer texts gain, below 0 shorter ones.
        early_stopping: bool, whether a row of beam search ends as soon as it has `num_beams` ended
            hypotheses; otherwise when no open beam can beat the worst of them at its present length.
        num_return_sequences: int, texts a prompt, of sampling or beam search.
        repetition_penalty: float above 0, divides the positive and multiplies the negative scores of
            tokens that stand in the prompt or the text (Keskar et al. 2019, section 4.1).
        presence_penalty: float, taken off the scores of tokens that were written.
        frequency_penalty: float, taken off for each time a token was written.
        no_repeat_ngram_size: int, no so many tokens in a row stand twice in prompt and text; 0: any may.
        bad_words: tuple of tuples of ids, none of which is written.
        forced_tokens: tuple of ids, the first that are written.
        stop: tuple of ids and strings. An id ends a text; with none, the end token of the model's
            config does, or the tokenizer's. A string ends a text that holds it, wherever tokens begin,
            and `text` is cut before it, while `token_ids` has all that was written; a string that
            the model never writes, or that ends before the `min_new_tokens`-th token, ends nothing. One id
            or string may stand for a tuple of it. (): nothing ends a text; None: the end token.
        draft_tokens: int, guesses at a time, with a draft.
        seed: int, of sampling. A prompt gives the same text whatever else is in its batch.
        cache_dtype: "float32", "bfloat16" or "int8", of the keys and values of past tokens; None: what
            the model computes in. "int8" has a scale for each position and head.
        return_scores: bool, whether the result has `log_probabilities`.
        return_attention: bool, whether the result of `generate` has `attention`.
    """

    max_new_tokens: int = 64
    min_new_tokens: int = 0
    method: str = "greedy"
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    num_beams: int = 4
    num_beam_groups: int = 2
    diversity_penalty: float = 0.5
    penalty_alpha: float = 0.6
    length_penalty: float = 1.0
    early_stopping: bool = False
    num_return_sequences: int = 1
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    no_repeat_ngram_size: int = 0
    bad_words: tuple = ()
    forced_tokens: tuple = ()
    stop: tuple | int | str | None = None
    draft_tokens: int = 4
    seed: int = 0
    cache_dtype: str | None = None
    return_scores: bool = False
    return_attention: bool = False

    def __post_init__(self):
        def check(name, fine, rule):
            if not fine:
                raise ValueError(f"{name} must be {rule}. Received: {getattr(self, name)!r}.")

        for field in dataclasses.fields(self):
            kind, rule = _KINDS.get(field.type, (object, ""))
            value = getattr(self, field.name)
            if isinstance(value, kind) and kind in (Integral, Real):
                check(field.name, not isinstance(value, bool) and math.isfinite(value), rule)
            check(field.name, isinstance(value, kind), rule)
        check("max_new_tokens", self.max_new_tokens >= 1, "at least 1")
        check("min_new_tokens", 0 <= self.min_new_tokens <= self.max_new_tokens, "from 0 to max_new_tokens")
        check("method", self.method in METHODS, f"one of {', '.join(METHODS)}")
        rule = f'above 0 (for no randomness, method="greedy"; at least {LEAST})'
        check("temperature", self.temperature >= LEAST, rule)
        check("top_k", self.top_k >= 0, "at least 0")
        for name in ("top_p", "typical_p"):
            rule = f"above 0 and at most 1 (1: all tokens; at least {LEAST})"
            check(name, LEAST <= getattr(self, name) <= 1, rule)
        check("min_p", 0 <= self.min_p <= 1, "from 0 (all tokens) to 1")
        check("num_beams", self.num_beams >= 1, "at least 1")
        check("num_beam_groups", self.num_beam_groups >= 1, "at least 1")
        check("diversity_penalty", self.diversity_penalty >= 0, "at least 0")
        check("penalty_alpha", 0 <= self.penalty_alpha <= 1, "from 0 to 1")
        check("draft_tokens", self.draft_tokens >= 1, "at least 1")
        check("seed", 0 <= self.seed < 2**31, "from 0 to 2 ** 31 - 1")
        fine = self.repetition_penalty >= LEAST
        check("repetition_penalty", fine, f"above 0 (1: none; at least {LEAST})")
        check("no_repeat_ngram_size", self.no_repeat_ngram_size >= 0, "at least 0")
        for field in dataclasses.fields(self):
            if most := _MOST.get(field.type):
                check(
                    field.name, abs(getattr(self, field.name)) <= most, f"at most {most} and at least -{most}"
                )
        dtypes = (None, *CACHE_DTYPES)
        check("cache_dtype", self.cache_dtype in dtypes, f"one of {', '.join(map(str, dtypes))}")
        stop = (self.stop,) if isinstance(self.stop, str | Integral) else self.stop
        stop = () if stop is None else stop
        check("stop", isinstance(stop, tuple | list), "a tuple of ids and strings")
        ids = [each for each in stop if not isinstance(each, str)]
        check("stop", _are_ids(ids) and "" not in stop, "a tuple of ids and strings, none empty")
        check("forced_tokens", _are_ids(self.forced_tokens), "a tuple of ids")
        words = self.bad_words
        fine = isinstance(words, tuple | list) and all(_are_ids(word) and len(word) for word in words)
        check("bad_words", fine, "a tuple of tuples of ids")
        values = {  # hashable, and ids as Python has them
            "stop": None if self.stop is None else _plain(stop),
            "forced_tokens": _plain(self.forced_tokens),
            "bad_words": tuple(map(_plain, words)),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self._check_combinations()

    @property
    def stop_strings(self):
        """The strings of `stop`."""
        return tuple(each for each in self.stop or () if isinstance(each, str))

    @property
    def stop_ids(self):
        """The ids of `stop`; None: the end token."""
        ids = tuple(each for each in self.stop or () if not isinstance(each, str))
        return None if self.stop is None or (not ids and self.stop) else ids

    def _check_combinations(self):
        if self.method != "sample":
            for name, neutral in _OF_SAMPLING.items():
                if getattr(self, name) != neutral:
                    raise ValueError(
                        f'{name} is an option of method="sample". Received: {name}={getattr(self, name)!r}, '
                        f"method={self.method!r}. Leave one of them out."
                    )
        if self.method == "contrastive" and self.top_k < 2:
            raise ValueError(f"Contrastive search needs top_k of at least 2. Received: top_k={self.top_k}.")
        if self.method not in ("sample", "contrastive") and self.top_k:
            raise ValueError(
                'top_k is an option of method="sample" and "contrastive". '
                f"Received: top_k={self.top_k}, method={self.method!r}. Leave one of them out."
            )
        if self.method == "diverse_beam" and self.num_beams % self.num_beam_groups:
            raise ValueError(
                "num_beams must be divisible by num_beam_groups. "
                f"Received: num_beams={self.num_beams}, num_beam_groups={self.num_beam_groups}."
            )
        most = {"greedy": 1, "contrastive": 1, "sample": self.num_return_sequences}
        if not 1 <= self.num_return_sequences <= most.get(self.method, self.num_beams):
            raise ValueError(
                "num_return_sequences must be at least 1, at most num_beams in beam search, and 1 with "
                f"method='greedy' or 'contrastive'. Received: {self.num_return_sequences}, "
                f"method={self.method!r}, num_beams={self.num_beams}."
            )

    def rows_a_prompt(self):
        """How many texts a step of the loop extends for each prompt."""
        candidates = {"beam": self.num_beams, "diverse_beam": self.num_beams, "contrastive": self.top_k}
        return candidates.get(self.method, self.num_return_sequences)

    def numbers(self):
        """The values of this config that a compiled loop takes as tensors, by name."""
        return {name: getattr(self, name) for name in _NUMBERS}

    def structure(self):
        """What a loop is compiled for: all other fields, and the numbers that change something."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        active = frozenset(name for name, neutral in _NUMBERS.items() if fields.pop(name) != neutral)
        return tuple(sorted(fields.items(), key=lambda item: item[0])), active


class Options:
    """A config whose numbers are tensors: what the loops read.

    Args:
        config: a `GenerationConfig`.
        numbers: dict of name -> tensor, for `config.numbers()`: a scalar, or, but for
            `max_new_tokens`, (rows, 1), a number for each row.
        active: the names of the numbers that may change something; None: those that do in config.
        limits: int32 tensor, (rows,), each row's own `max_new_tokens`; None: all have the same.
    """

    def __init__(self, config, numbers, active=None, limits=None):
        self._config = config
        self._numbers = numbers
        self.active = config.structure()[1] if active is None else frozenset(active)
        self.limits = limits

    def repeated(self, copies):
        """The options for `copies` rows of each row."""
        numbers = {
            name: tf.repeat(number, copies, axis=0) if tf.convert_to_tensor(number).shape.rank else number
            for name, number in self._numbers.items()
        }
        return Options(self._config, numbers, self.active, self.limits)

    def __getattr__(self, name):
        return self._numbers[name] if name in self._numbers else getattr(self._config, name)


def make_generation_config(config=None, options=None):
    """A `GenerationConfig` with options overridden; ValueError for unknown ones."""
    config, options = GenerationConfig() if config is None else config, options or {}
    if not isinstance(config, GenerationConfig):
        raise ValueError(f"config must be a GenerationConfig, or None. Received: {config!r:.100}.")
    fields = [field.name for field in dataclasses.fields(GenerationConfig)]
    for name in options:
        if name not in fields:
            close = difflib.get_close_matches(name, fields, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"Unknown generation option {name!r}.{hint} The options: {', '.join(fields)}.")
    return dataclasses.replace(config, **options)


def _are_ids(value):
    return isinstance(value, tuple | list) and all(
        isinstance(each, Integral) and not isinstance(each, bool) and 0 <= each < 2**31 for each in value
    )


def _plain(ids):
    """Ids and strings as a tuple of Python's int and str."""
    return tuple(each if isinstance(each, str) else int(each) for each in ids)
