"""The options of generation."""

import dataclasses

METHODS = ("greedy", "sample", "beam")


@dataclasses.dataclass(frozen=True)
class GenerationConfig:
    """How text is generated.

    Attributes:
        max_new_tokens: int, the most tokens to write; a row also ends at the model's
            `max_sequence_length`.
        method: "greedy", "sample" or "beam".
        num_beams: int, of beam search.
        length_penalty: float; a beam's score is its log-probability / length ** length_penalty.
        early_stopping: bool, whether a row of beam search ends as soon as it has `num_beams` ended
            hypotheses; otherwise when no open beam can beat the worst of them at its present length.
        temperature: float above 0, of sampling: below 1 sharpens, above 1 flattens.
        top_k: int, sample among the k most probable tokens only; 0: among all.
        seed: int, of sampling.
        stop: tuple of ids, each of which ends a text; (): none does; None: the end token of the
            model's config, or the tokenizer's.
    """

    max_new_tokens: int = 64
    method: str = "greedy"
    num_beams: int = 4
    length_penalty: float = 1.0
    early_stopping: bool = False
    temperature: float = 1.0
    top_k: int = 0
    seed: int = 0
    stop: tuple | None = None

    def __post_init__(self):
        def check(name, fine, rule):
            if not fine:
                raise ValueError(f"{name} must be {rule}. Received: {getattr(self, name)!r}.")

        check("max_new_tokens", self.max_new_tokens >= 1, "at least 1")
        check("method", self.method in METHODS, f"one of {', '.join(METHODS)}")
        check("num_beams", self.num_beams >= 1, "at least 1")
        check("length_penalty", self.length_penalty >= 0, "at least 0")
        check("temperature", self.temperature > 0, 'above 0 (for no randomness, method="greedy")')
        check("top_k", self.top_k >= 0, "at least 0")
        check("early_stopping", isinstance(self.early_stopping, bool), "True or False")
        ids = self.stop is None or (
            isinstance(self.stop, tuple | list) and all(isinstance(each, int) for each in self.stop)
        )
        check("stop", ids, "a tuple of ids, or None")
        if self.stop is not None:
            object.__setattr__(self, "stop", tuple(self.stop))  # hashable
