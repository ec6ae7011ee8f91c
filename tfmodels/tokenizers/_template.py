"""Where special tokens stand around one text, and around two."""

import dataclasses
import os
import re

_TEXTS = ("$A", "$B")


@dataclasses.dataclass(frozen=True)
class Template:
    """Both forms, as tuples of (token or "$A" or "$B", segment)."""

    single: tuple
    pair: tuple

    @property
    def tokens(self):
        """The special tokens, each once."""
        return list(dict.fromkeys(t for t, _ in (*self.single, *self.pair) if t not in _TEXTS))

    @property
    def has_segments(self):
        return any(segment for _, segment in (*self.single, *self.pair))


PLAIN = Template((("$A", 0),), (("$A", 0), ("$B", 0)))


def parse(single, pair=None):
    """Reads "[CLS] $A [SEP]" and "[CLS] $A [SEP] $B:1 [SEP]:1"; a number is the segment, else 0.

    Without a form for two texts they stand after each other in that for one.

    Raises:
        ValueError: a form lacks a text, or has it twice.
    """
    pair = single.replace("$A", "$A $B") if pair is None else pair
    template = Template(_parts(single), _parts(pair))
    for form, names in ((template.single, _TEXTS[:1]), (template.pair, _TEXTS)):
        if [token for token, _ in form if token in _TEXTS] != list(names):
            raise ValueError(
                f"A template must have {' and then '.join(names)} once. Received: single={single!r}, "
                f"pair={pair!r}."
            )
    return template


def _parts(form):
    matches = (re.fullmatch(r"(.*?)(?::(\d+))?", part) for part in form.split())
    return tuple((match[1], int(match[2] or 0)) for match in matches)


def to_json(template, vocabulary):
    """A Template as the post_processor of tokenizer.json."""

    def item(token, segment):
        if token in _TEXTS:
            return {"Sequence": {"id": token[1:], "type_id": segment}}
        return {"SpecialToken": {"id": token, "type_id": segment}}

    if template == PLAIN:
        return None
    return {
        "type": "TemplateProcessing",
        "single": [item(*part) for part in template.single],
        "pair": [item(*part) for part in template.pair],
        "special_tokens": {
            token: {"id": token, "ids": [vocabulary[token]], "tokens": [token]} for token in template.tokens
        },
    }


def from_json(processor, path):
    """The Template of a tokenizer.json's post_processor.

    Raises:
        ValueError: a processor that is not known.
    """
    if processor is None or processor.get("type") == "ByteLevel":  # that one is about offsets alone
        return PLAIN
    kind = processor.get("type")
    if kind == "Sequence":
        templates = [from_json(part, path) for part in processor["processors"]]
        templates = [template for template in templates if template != PLAIN]
        if len(templates) <= 1:
            return templates[0] if templates else PLAIN
    if kind in ("BertProcessing", "RobertaProcessing"):
        start, end = processor["cls"][0], processor["sep"][0]
        if kind == "BertProcessing":
            return parse(f"{start} $A {end}", f"{start} $A {end} $B:1 {end}:1")
        return parse(f"{start} $A {end}", f"{start} $A {end} {end} $B {end}")
    if kind != "TemplateProcessing":
        raise ValueError(
            f"{os.fspath(path)}: post_processor.type must be TemplateProcessing, BertProcessing, "
            f"RobertaProcessing, ByteLevel or one of them in a Sequence. Received: {processor!r:.200}."
        )
    return Template(*(tuple(_part(item) for item in processor[form]) for form in ("single", "pair")))


def _part(item):
    ((kind, value),) = item.items()
    return ("$" + value["id"] if kind == "Sequence" else value["id"], value["type_id"])
