"""What a WordPiece vocabulary holds, checked, trained, and as Hugging Face's files."""

import dataclasses
import itertools
import os

from tfmodels.tokenizers import _files, _template

PREFIX = "##"
_ROLE_TOKENS = {
    "pad": "[PAD]", "unknown": "[UNK]", "start": "[CLS]", "end": "[SEP]", "mask": "[MASK]",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config:
    """The arguments of a WordPieceTokenizer."""

    vocabulary: dict
    lowercase: bool
    strip_accents: bool | None
    split_chinese: bool
    special_tokens: list
    roles: dict
    max_word_characters: int


def make_config(vocabulary, special_tokens, roles, **options):
    """A Config with the tokens of all roles among the special ones, and those in the vocabulary.

    Raises:
        ValueError: there is no unknown token, or an id stands twice.
    """
    if roles["unknown"] not in vocabulary:
        raise ValueError(
            "A WordPiece vocabulary must have the unknown token. Received: "
            f"unknown_token={roles['unknown']!r}, which the {len(vocabulary)} tokens lack."
        )
    if len(set(vocabulary.values())) != len(vocabulary):
        raise ValueError("The tokens of a vocabulary must have different ids. Received: one id twice.")
    special = list(dict.fromkeys([*special_tokens, *filter(None, roles.values())]))
    return Config(
        vocabulary=_files.with_special_tokens(vocabulary, special),
        special_tokens=special,
        roles=roles,
        **options,
    )


def decoded(vocabulary):
    """Texts of all ids where a text begins with them, and further on; at the end "" for no id."""
    size = max(vocabulary.values()) + 2
    first, further = [""] * size, [""] * size
    for token, i in vocabulary.items():
        first[i] = _clean_up(token)
        inside = token.startswith(PREFIX)
        further[i] = _clean_up(token.removeprefix(PREFIX) if inside else " " + token)
    return first, further


def _clean_up(text):
    """Detokenisation's blanks around signs, as in the tokenizers library, a token at a time."""
    for sign in (" .", " ?", " !", " ,"):
        text = text.replace(sign, sign[1])
    text = text.replace(" ' ", "'").replace(" n't", "n't").replace(" 'm", "'m")
    text = text.replace(" do not", " don't")
    for sign in (" 's", " 've", " 're"):
        text = text.replace(sign, sign[1:])
    return text


def train(texts, vocabulary_size, lowercase, special_tokens, options):
    """Learns a vocabulary with the tokenizers library: dict from token to id."""
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError(
            "Training a WordPiece vocabulary needs the tokenizers library. Run pip install tokenizers."
        ) from error
    roles = {role: options.get(f"{role}_token", token) for role, token in _ROLE_TOKENS.items()}
    special = list(dict.fromkeys([*filter(None, roles.values()), *special_tokens]))
    if vocabulary_size <= len(special):
        raise ValueError(
            f"vocabulary_size must be above {len(special)}, the special tokens. "
            f"Received: vocabulary_size={vocabulary_size}."
        )
    texts = iter(texts)
    first = next((text for text in texts if text.strip()), None)
    if first is None:
        raise ValueError("A vocabulary needs text to learn from. Received: no text at all.")
    learner = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token=roles["unknown"]))
    learner.normalizer = tokenizers.normalizers.BertNormalizer(
        handle_chinese_chars=options.get("split_chinese", True),
        strip_accents=options.get("strip_accents"),
        lowercase=lowercase,
    )
    learner.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=vocabulary_size, special_tokens=special, show_progress=False
    )
    learner.train_from_iterator(itertools.chain([first], texts), trainer)
    return learner.get_vocab()


def to_json(tokenizer):
    """A WordPieceTokenizer as the content of tokenizer.json."""
    config = tokenizer._config
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _files.added_tokens(config),
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": config.split_chinese,
            "strip_accents": config.strip_accents,
            "lowercase": config.lowercase,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": _template.to_json(tokenizer.template, config.vocabulary),
        "decoder": {"type": "WordPiece", "prefix": PREFIX, "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": config.roles["unknown"],
            "continuing_subword_prefix": PREFIX,
            "max_input_chars_per_word": config.max_word_characters,
            "vocab": config.vocabulary,
        },
    }


def tokenizer_config(config):
    """What tokenizer_config.json says beside the roles."""
    return {
        "do_lower_case": config.lowercase,
        "strip_accents": config.strip_accents,
        "tokenize_chinese_chars": config.split_chinese,
    }


def from_json(content, path):
    """The arguments of a WordPieceTokenizer from the content of a tokenizer.json.

    Raises:
        ValueError: the file asks for what a WordPieceTokenizer does not do.
    """
    model = content.get("model") or {}
    normalizer = content.get("normalizer") or {}
    before = content.get("pre_tokenizer") or {}

    def expect(what, received, expected):
        _files.refuse(path, "WordPieceTokenizer", what, received, expected)

    expect("model.type", model.get("type"), "WordPiece")
    expect("model.continuing_subword_prefix", model.get("continuing_subword_prefix"), PREFIX)
    expect("normalizer.type", normalizer.get("type"), "BertNormalizer")
    expect("normalizer.clean_text", normalizer.get("clean_text"), True)
    expect("pre_tokenizer.type", before.get("type"), "BertPreTokenizer")
    added = content.get("added_tokens") or []
    vocabulary = model["vocab"] | {token["content"]: token["id"] for token in added}
    options = {
        "vocabulary": vocabulary,
        "lowercase": normalizer["lowercase"],
        "strip_accents": normalizer.get("strip_accents"),
        "split_chinese": normalizer["handle_chinese_chars"],
        "special_tokens": _special_tokens(added, path),
        "max_word_characters": model["max_input_chars_per_word"],
        "template": _template.from_json(content.get("post_processor"), path),
    }
    roles = {f"{role}_token": token if token in vocabulary else None for role, token in _ROLE_TOKENS.items()}
    roles |= _files.roles_of_added_tokens(added)
    return options | roles | {"unknown_token": model["unk_token"]}


def _special_tokens(added, path):
    """The added tokens of tokenizer.json, or in its form."""
    expected = {"normalized": False, "rstrip": False, "special": True}
    _files.check_added_tokens(added, path, "WordPieceTokenizer", **expected)
    return [token["content"] for token in added]


def add_named_tokens(options, folder):
    """The options with the special tokens that a folder's other files name and they lack."""
    vocabulary, known = dict(options["vocabulary"]), options.get("special_tokens", [])
    added = [t for t in _files.read_added_tokens(folder, vocabulary) if t["content"] not in known]
    more = _special_tokens(added, os.path.join(folder, "tokenizer_config.json"))
    return options | {"vocabulary": vocabulary, "special_tokens": known + more}


def settings(config):
    """The arguments that a tokenizer_config.json names."""
    names = {
        "do_lower_case": "lowercase",
        "strip_accents": "strip_accents",
        "tokenize_chinese_chars": "split_chinese",
    }
    return {ours: config[theirs] for theirs, ours in names.items() if theirs in config}


def from_vocabulary(folder):
    """The arguments of a WordPieceTokenizer from vocab.txt and tokenizer_config.json."""
    vocabulary = _files.read_vocabulary(os.path.join(folder, "vocab.txt"))
    config = _files.read_optional_json(folder, "tokenizer_config.json")
    options = {"vocabulary": vocabulary} | settings(config)
    roles = _files.read_roles(folder)
    unknown = roles.get("unknown_token", _ROLE_TOKENS["unknown"])
    if unknown not in vocabulary:
        raise ValueError(
            f"{os.fspath(folder)}/vocab.txt: a WordPiece vocabulary must have a line {unknown!r}. Received: "
            f"{len(vocabulary)} tokens without it. Is it another kind of file?"
        )
    start = roles.get("start_token", _ROLE_TOKENS["start"])
    end = roles.get("end_token", _ROLE_TOKENS["end"])
    options["template"] = (f"{start} $A {end}", f"{start} $A {end} $B:1 {end}:1")
    return options
