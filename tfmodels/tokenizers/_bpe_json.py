"""What a byte-pair vocabulary holds, checked, trained, and as Hugging Face's tokenizer.json."""

import dataclasses
import functools
import json
import os

from tfmodels.tokenizers import _files, _template
from tfmodels.tokenizers._words import RULES

# Llama 3's regular expression and Qwen2's, as their tokenizer.json have them.
_PATTERNS = {
    name: r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    + digits
    + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    for name, digits in (("llama3", "{1,3}"), ("qwen2", ""))
}


@dataclasses.dataclass(frozen=True)
class Config:
    """The arguments of a BytePairTokenizer."""

    vocabulary: dict
    merges: list
    special_tokens: list
    strip_before: list
    kept_tokens: list
    roles: dict
    add_prefix_space: bool
    pre_tokenizer: str
    normalizer: str | None
    ignore_merges: bool


@functools.cache
def byte_of_character():
    """GPT-2's printable character of each byte (encoder.py: bytes_to_unicode), the other way round."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): b for i, b in enumerate(others)}


def bytes_of_tokens(vocabulary, special):
    """Dict from id to the bytes of each token that is not special.

    Raises:
        ValueError: a token is not in GPT-2's form, or two tokens have one id.
    """
    table = byte_of_character()
    pieces, special = {}, set(special)
    if len(set(vocabulary.values())) != len(vocabulary):
        raise ValueError("The tokens of a vocabulary must have different ids. Received: one id twice.")
    for token, i in vocabulary.items():
        if token in special:
            continue
        try:
            pieces[i] = bytes(table[character] for character in token)
        except KeyError as error:
            raise ValueError(
                "A token must be in GPT-2's printable form of bytes, or else be a special token. "
                f"Received: {token!r}, id {i}."
            ) from error
    return pieces


def merge_ids(vocabulary, merges):
    """Pairs of ids, and the id that each pair becomes.

    Raises:
        ValueError: a merge has, or makes, a token that is not in the vocabulary.
    """
    pairs, merged = [], []
    for number, (left, right) in enumerate(merges, 1):
        for token in (left, right, left + right):
            if token not in vocabulary:
                raise ValueError(
                    f"Merges must fit the vocabulary. Received: merge {number}, {left!r} {right!r}, of "
                    f"which the vocabulary lacks {token!r}. Take both files from one folder."
                )
        pairs.append((vocabulary[left], vocabulary[right]))
        merged.append(vocabulary[left + right])
    return pairs, merged


def check_rules(pre_tokenizer, normalizer, add_prefix_space):
    """Refuses rules that there are none of."""
    known = {"pre_tokenizer": (pre_tokenizer, tuple(RULES)), "normalizer": (normalizer, (None, "NFC"))}
    for name, (value, choices) in known.items():
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}. Received: {value!r}.")
    if add_prefix_space and pre_tokenizer != "gpt2":
        raise ValueError(f"add_prefix_space is for pre_tokenizer='gpt2'. Received: {pre_tokenizer!r}.")


def train(texts, vocabulary_size, special_tokens, add_prefix_space, pre_tokenizer, normalizer):
    """Learns (vocabulary, merges) with the tokenizers library."""
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError(
            "Training a byte-pair vocabulary needs the tokenizers library. Run pip install tokenizers."
        ) from error
    check_rules(pre_tokenizer, normalizer, add_prefix_space)
    smallest = 256 + len(special_tokens)
    if vocabulary_size < smallest:
        raise ValueError(
            f"vocabulary_size must be at least {smallest}: the bytes and the special tokens. "
            f"Received: vocabulary_size={vocabulary_size}."
        )
    texts = iter(texts)
    first = next((text for text in texts if text.strip()), None)
    if first is None:
        raise ValueError("A vocabulary needs text to learn from. Received: no text at all.")

    def all_texts():
        yield first
        yield from texts

    content = {
        "added_tokens": [],
        "normalizer": normalizer and {"type": normalizer},
        "pre_tokenizer": pre_tokenizer_json(pre_tokenizer, add_prefix_space),
        "model": {"type": "BPE", "vocab": {}, "merges": []},
    }
    learner = tokenizers.Tokenizer.from_str(json.dumps(content))
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=list(special_tokens),
        initial_alphabet=sorted(byte_of_character()),
        show_progress=False,
    )
    learner.train_from_iterator(all_texts(), trainer)
    # Its vocabulary and merges are read from its own file format only.
    model = json.loads(learner.to_str())["model"]
    return model["vocab"], [_pair(merge) for merge in model["merges"]]


def guess_roles(vocabulary):
    """The special tokens of GPT-2 or RoBERTa in a vocabulary whose files name none."""
    if "<|endoftext|>" in vocabulary:
        return dict.fromkeys(("unknown_token", "start_token", "end_token"), "<|endoftext|>")
    if "<s>" not in vocabulary or "</s>" not in vocabulary:
        return {}
    names = {"start_token": "<s>", "end_token": "</s>", "pad_token": "<pad>"}
    names |= {"unknown_token": "<unk>", "mask_token": "<mask>"}
    return {role: token for role, token in names.items() if token in vocabulary}


def pre_tokenizer_json(name, add_prefix_space):
    """A pre-tokenisation as the pre_tokenizer of tokenizer.json."""
    level = {"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": True}
    if name == "gpt2":
        return level | {"use_regex": True}
    if name == "gpt2_digits":
        parts = [{"type": "Digits", "individual_digits": True}, level | {"use_regex": True}]
    else:
        split = {"pattern": {"Regex": _PATTERNS[name]}, "behavior": "Isolated", "invert": False}
        parts = [{"type": "Split"} | split, level | {"use_regex": False}]
    return {"type": "Sequence", "pretokenizers": parts}


def _pre_tokenizer(before, expect):
    """The arguments that a pre_tokenizer of tokenizer.json stands for."""
    parts = before.get("pretokenizers") if before.get("type") == "Sequence" else [before]
    kinds = [part.get("type") for part in parts]
    names = {("ByteLevel",): "gpt2", ("Digits", "ByteLevel"): "gpt2_digits"}
    if kinds == ["Split", "ByteLevel"]:
        pattern = (parts[0].get("pattern") or {}).get("Regex")
        name = next((name for name, known in _PATTERNS.items() if known == pattern), None)
        if name is None:
            expect("pre_tokenizer.pattern", pattern, " or ".join(_PATTERNS.values()))
        expect("pre_tokenizer.behavior", parts[0].get("behavior"), "Isolated")
        expect("pre_tokenizer.invert", parts[0].get("invert", False), False)
    elif tuple(kinds) in names:
        name = names[tuple(kinds)]
    else:
        expect("pre_tokenizer.type", before.get("type"), "ByteLevel")
        expect("pre_tokenizer.pretokenizers", kinds, ["Split", "ByteLevel"])
    if name == "gpt2_digits":
        expect("pre_tokenizer.individual_digits", parts[0].get("individual_digits", False), True)
    expect("pre_tokenizer.use_regex", parts[-1].get("use_regex", True), name not in _PATTERNS)
    prefix = parts[-1].get("add_prefix_space", True)
    if len(parts) > 1:
        expect("pre_tokenizer.add_prefix_space", prefix, False)  # it would be one before each part
    return {"pre_tokenizer": name, "add_prefix_space": prefix}


def to_json(config, template):
    """A Config and a template as the content of tokenizer.json."""
    level = {"add_prefix_space": config.add_prefix_space, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _files.added_tokens(config, config.strip_before, config.kept_tokens),
        "normalizer": config.normalizer and {"type": config.normalizer},
        "pre_tokenizer": pre_tokenizer_json(config.pre_tokenizer, config.add_prefix_space),
        "post_processor": _template.to_json(template, config.vocabulary),
        "decoder": {"type": "ByteLevel", **level},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": config.ignore_merges,
            "vocab": config.vocabulary,
            "merges": [list(pair) for pair in config.merges],
        },
    }


def from_json(content, path):
    """The arguments of a BytePairTokenizer from the content of a tokenizer.json.

    Raises:
        ValueError: the file asks for what a BytePairTokenizer does not do.
    """
    model = content.get("model") or {}
    normalizer = content.get("normalizer")

    def expect(what, received, expected):
        _files.refuse(path, "BytePairTokenizer", what, received, expected)

    expect("model.type", model.get("type", "BPE"), "BPE")
    expect("model.byte_fallback", model.get("byte_fallback", False), False)
    if normalizer != {"type": "NFC"}:
        expect("normalizer", normalizer, None)
    split = _pre_tokenizer(content.get("pre_tokenizer") or {}, expect)
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        expect(f"model.{key}", model.get(key) or None, None)
    if "vocab" not in model or "merges" not in model:
        raise ValueError(f"{os.fspath(path)}: model must have vocab and merges. Received: {sorted(model)}.")
    added = content.get("added_tokens") or []
    options = {
        "vocabulary": model["vocab"] | {token["content"]: token["id"] for token in added},
        "merges": [_pair(merge) for merge in model["merges"]],
        **_with_added_tokens(added, path),
        **split,
        "normalizer": normalizer and normalizer["type"],
        "ignore_merges": model.get("ignore_merges", False),
        "template": _template.from_json(content.get("post_processor"), path),
    }
    # Another's file: the roles by the names of the special tokens.
    roles = _files.roles_of_added_tokens(added) or guess_roles(options["special_tokens"])
    return options | roles


def add_named_tokens(options, folder):
    """The options with the special tokens that a folder's other files name and its tokenizer.json lacks."""
    known, vocabulary = set(options["special_tokens"]), dict(options["vocabulary"])
    added = [t for t in _files.read_added_tokens(folder, vocabulary) if t["content"] not in known]
    more = _with_added_tokens(added, os.path.join(folder, "tokenizer_config.json"))
    return options | {"vocabulary": vocabulary} | {key: options[key] + more[key] for key in more}


def from_folder(folder):
    """The arguments of a BytePairTokenizer from vocab.json, merges.txt and tokenizer_config.json."""
    vocabulary = _files.read_json(os.path.join(folder, "vocab.json"))
    merges = _files.read_merges(os.path.join(folder, "merges.txt"), vocabulary)
    options = {"vocabulary": vocabulary, "merges": merges, **guess_roles(vocabulary)}
    config = _files.read_optional_json(folder, "tokenizer_config.json")
    options["add_prefix_space"] = config.get("add_prefix_space", False)
    if (config.get("tokenizer_class") or "").startswith("Qwen2"):
        options |= {"pre_tokenizer": "qwen2", "normalizer": "NFC"}
    roles = options | _files.read_roles(folder)
    start, end = roles.get("start_token"), roles.get("end_token")
    if (config.get("tokenizer_class") or "").startswith("GPT2") or start in (None, end):
        # GPT-2 has one token for both, and none around its texts, unless a file says otherwise.
        start = (start or "") if config.get("add_bos_token") else ""
        end = (end or "") if config.get("add_eos_token") else ""
        options["template"] = (f"{start} $A {end}", f"{start} $A {end} {start} $B {end}")
    else:  # RoBERTa's form, and BART's
        options["template"] = (f"{start} $A {end}", f"{start} $A {end} {end} $B {end}")
    added = _files.read_added_tokens(folder, vocabulary)
    mask = roles.get("mask_token")
    if mask is not None and mask not in [token["content"] for token in added]:
        added.append({"content": mask})
    for token in added:
        # RoBERTa's mask takes the blank before it, unless a file says otherwise.
        token.setdefault("lstrip", token["content"] == mask)
    return options | _with_added_tokens(added, os.path.join(folder, "tokenizer_config.json"))


def _with_added_tokens(added, path):
    """The arguments that come from added tokens, in the form of tokenizer.json."""
    _files.check_added_tokens(added, path, "BytePairTokenizer", rstrip=False)
    return {
        "special_tokens": [token["content"] for token in added],
        "strip_before": [token["content"] for token in added if token.get("lstrip")],
        "kept_tokens": [token["content"] for token in added if not token.get("special", True)],
    }


def _pair(merge):
    return tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge)
