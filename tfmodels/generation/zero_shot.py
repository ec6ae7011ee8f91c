"""Zero-shot classification: which label makes the prompt most probable."""

import dataclasses
import re

import numpy as np

from tfmodels.generation.protocol import is_encoder_decoder
from tfmodels.generation.score import score

# Zhao et al. 2021, section 5: texts that say nothing, whose labels should be equally probable.
_CONTENT_FREE = ("N/A", "", "[MASK]")


@dataclasses.dataclass(frozen=True)
class ClassifyResult:
    """What `classify` returns.

    Attributes:
        label: list of str, the most probable label of each text.
        probabilities: float64 array, (texts, labels), each row's sum is 1.
    """

    label: list
    probabilities: np.ndarray


def classify(model, texts, labels, template, tokenizer, calibrate=True, **options):
    """The most probable label of each text by a prompt, without training.

    Args:
        model: an autoregressive model. An encoder-decoder reads what stands before the label in the
            template, and what follows the label goes unread.
        texts: str or list of str.
        labels: list of str, at least two.
        template: str with `{text}` and `{label}`, such as "{text} It was {label}." A label's
            probability is that of the whole prompt with it, among those with the others.
        tokenizer: the model's.
        calibrate: bool, whether each label's probability is divided by the one that it has for texts
            that say nothing (contextual calibration, Zhao et al. 2021, section 5); the quotients
            are scaled to a sum of 1, where the paper has a softmax, which keeps their order.
        **options: of `score`.

    Returns:
        A `ClassifyResult`.

    Raises:
        ValueError: fewer than two labels, or one of them twice; a template without `{text}` and
            `{label}`; no texts.

    Example:
        >>> tfmodels.classify(model, "A fine film.", ["good", "bad"], "{text} It is {label}.", tokenizer)
    """
    texts = _strings("texts", [texts] if isinstance(texts, str) else texts)
    labels = _strings("labels", labels)
    if tokenizer is None or not isinstance(template, str):
        raise ValueError(
            "classify needs a tokenizer, and a template that is a str. "
            f"Received: {tokenizer!r:.100}, template={template!r:.100}."
        )
    parts = re.split(r"(\{text\}|\{label\})", template)
    if sorted(part for part in parts if part in ("{text}", "{label}")) != ["{label}", "{text}"]:
        raise ValueError(f"template must have {{text}} once and {{label}} once. Received: {template!r}.")
    if len(labels) < 2 or len(set(labels)) < len(labels) or "" in labels:
        raise ValueError(f"labels must be two or more different texts, none empty. Received: {labels!r}.")
    if not texts:
        raise ValueError("There must be at least one text. Received: none.")
    asked = [*texts, *_CONTENT_FREE] if calibrate else texts

    def prompt(parts, text, label):
        return "".join({"{text}": text, "{label}": label}.get(part, part) for part in parts)

    if is_encoder_decoder(model):
        before = parts[: parts.index("{label}")]
        prompts = [(prompt(before, text, "").rstrip(), label) for text in asked for label in labels]
    else:
        prompts = [prompt(parts, text, label) for text in asked for label in labels]
    found = score(model, prompts, tokenizer, **options).log_likelihood.reshape(len(asked), len(labels))
    probabilities = _softmax(found)
    if calibrate:
        content_free = probabilities[len(texts) :].mean(axis=0)
        probabilities = _softmax(found[: len(texts)] - np.log(content_free))
    return ClassifyResult([labels[i] for i in probabilities.argmax(axis=1)], probabilities)


def _strings(name, values):
    """Values as a list, if they are several texts."""
    several = hasattr(values, "__iter__") and not isinstance(values, str)
    if not several or not all(isinstance(each, str) for each in values):
        raise ValueError(f"{name} must be a list of str. Received: {values!r:.100}.")
    return list(values)


def _softmax(x):
    x = np.exp(x - x.max(axis=1, keepdims=True))
    return x / x.sum(axis=1, keepdims=True)
