"""SentencePiece in Hugging Face folders: which ids the pieces have, and which special tokens there are."""

import os
import re
import typing

from tfmodels.tokenizers import _files, _template

BLANK = "\u2581"  # SentencePiece's form of a blank
MODEL_FILES = ("spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
_READER = "SentencePieceTokenizer"
# Parts of tokenizer.json that only say what a SentencePiece model does by itself: all models, and those
# that remove extra blanks.
_PREPEND = {"type": "Prepend", "prepend": BLANK}
_BLANKS = {"type": "Replace", "pattern": {"String": " "}, "content": BLANK}
_SAME_AS_MODEL = ({"type": "Precompiled"}, _PREPEND, _BLANKS)
_REMOVES_BLANKS = (
    {"type": "Strip"},
    {"type": "WhitespaceSplit"},
    *({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": content} for content in (" ", BLANK)),
)


def read_model(path):
    """The bytes of a SentencePiece model file, checked."""
    with open(path, "rb") as file:
        model = file.read()
    try:
        pieces_of(model)
    except RuntimeError as error:
        raise ValueError(f"Not a SentencePiece model. Received: path={os.fspath(path)!r}.") from error
    return model


def pieces_of(model):
    """The pieces of a model by id, and dict from "pad", "unknown", "start", "end" to those it has."""
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    pieces = [processor.id_to_piece(i) for i in range(processor.vocab_size())]
    ids = {
        "pad": processor.pad_id(), "unknown": processor.unk_id(), "start": processor.bos_id(),
        "end": processor.eos_id(),
    }  # fmt: skip
    return pieces, {role: pieces[i] for role, i in ids.items() if i >= 0}


class OwnWay(typing.NamedTuple):
    """What a model does with blanks."""

    prefixes: bool  # puts one before each text
    removes_extra: bool


def own_way(model):
    """The OwnWay of a model."""
    import sentencepiece

    encode = sentencepiece.SentencePieceProcessor(model_proto=model).encode
    return OwnWay(encode("a", out_type=str)[0].startswith(BLANK), encode("a  b") == encode("a b"))


def without_prefix(model):
    """The model with NormalizerSpec.add_dummy_prefix = false."""
    return model + b"\x1a\x02\x18\x00"  # protobuf merges a message that follows another


def piece_text(piece):
    """The bytes that a piece stands for."""
    byte = re.fullmatch("<0x([0-9A-F]{2})>", piece)
    return bytes([int(byte[1], 16)]) if byte else piece.replace(BLANK, " ").encode()


def read(folder):
    """The arguments of a SentencePieceTokenizer, and the files to keep: dict from name to bytes."""
    names = [name for name in MODEL_FILES if os.path.exists(os.path.join(folder, name))]
    if not names:
        raise FileNotFoundError(f"{os.fspath(folder)}: a folder must have one of {', '.join(MODEL_FILES)}.")
    model = read_model(os.path.join(folder, names[0]))
    pieces, roles = pieces_of(model)
    options = {f"{role}_token": piece for role, piece in roles.items()} | _files.read_roles(folder)
    files, way = {names[0]: model}, own_way(model)
    path = os.path.join(folder, "tokenizer.json")
    if os.path.exists(path):
        options |= _from_json(_files.read_json(path), path, way)
        with open(path, "rb") as file:
            files["tokenizer.json"] = file.read()
    else:
        options |= _from_class(folder, names[0], pieces, way, options)
    known = options["special_tokens"]
    vocabulary = _files.with_special_tokens(options["vocabulary"], known)
    added = [t for t in _files.read_added_tokens(folder, vocabulary) if t["content"] not in known]
    more = _with_added_tokens(added, os.path.join(folder, "tokenizer_config.json"), way)
    roles = [token for role, token in options.items() if role.endswith("_token") and token]
    options["special_tokens"] = [*known, *more["special_tokens"], *roles]
    options["kept_tokens"] = [*options.get("kept_tokens", ()), *more["kept_tokens"]]
    return options | {"vocabulary": vocabulary, "model": model}, files


def _from_json(content, path, way):
    """Vocabulary, special tokens, template and blanks of a tokenizer.json."""
    normalizers = _parts(content.get("normalizer"), "normalizers")
    _check_parts("normalizer", normalizers, _allowed(way), path)
    vocabulary = content["model"]["vocab"]
    if isinstance(vocabulary, list):
        vocabulary = {piece: i for i, (piece, _) in enumerate(vocabulary)}
    added = content.get("added_tokens") or []
    if _PREPEND in normalizers:
        # Such a token would have to be found with a blank before it.
        new = [token for token in added if token["content"] not in vocabulary]
        _files.check_added_tokens(new, path, _READER, normalized=False)
    return {
        "vocabulary": vocabulary | {token["content"]: token["id"] for token in added},
        "template": _template.from_json(content.get("post_processor"), path),
        "prepend_scheme": _prepend_scheme(content, normalizers, path, way),
        **_with_added_tokens(added, path, way),
    }


def _allowed(way):
    return (*_SAME_AS_MODEL, *(_REMOVES_BLANKS if way.removes_extra else ()))


def _parts(part, name):
    """The parts of a Sequence, and of those within it."""
    if part is None:
        return []
    return [leaf for below in part[name] for leaf in _parts(below, name)] if name in part else [part]


def _check_parts(what, parts, allowed, path):
    for part in parts:
        if not any(part.items() >= one.items() for one in allowed):
            raise ValueError(
                f"{os.fspath(path)}: {_READER} reads files whose {what} is the model's own. Received: "
                f"{part!r:.200}. Without tokenizer.json the model's own is taken."
            )


def _prepend_scheme(content, normalizers, path, way):
    """Where a tokenizer.json puts a blank before the text: "always", "first", "never"; None: as the model."""
    parts = _parts(content.get("pre_tokenizer"), "pretokenizers")
    # Gemma's: no blank is left to split at.
    no_op = ({"type": "Split", "pattern": {"String": " "}},) if _BLANKS in normalizers else ()
    allowed = (*_allowed(way), *no_op, {"type": "Metaspace", "replacement": BLANK})
    _check_parts("pre_tokenizer", parts, allowed, path)
    scheme = "always" if _PREPEND in normalizers else "never"
    for part in parts:
        if part["type"] == "Metaspace":
            old = "always" if part.get("add_prefix_space", True) else "never"
            scheme = part.get("prepend_scheme") or old
    if not way.removes_extra and _PREPEND not in normalizers:
        return scheme
    # A model that removes extra blanks removes one that was put before the text, too.
    expected = "always" if way.prefixes else "never"
    advice = "The model has no other way. Without tokenizer.json its own is taken."
    _files.refuse(path, _READER, "pre_tokenizer.prepend_scheme", scheme, expected, advice)
    return None


def _with_added_tokens(added, path, way):
    """The arguments that come from added tokens, in the form of tokenizer.json."""
    # Blanks beside a token mean nothing to a model that removes them.
    strict = {} if way.removes_extra else {"lstrip": False, "rstrip": False}
    _files.check_added_tokens(added, path, _READER, **strict)
    return {
        "special_tokens": [token["content"] for token in added],
        "kept_tokens": [token["content"] for token in added if not token.get("special", True)],
    }


def _from_class(folder, name, pieces, way, roles):
    """Vocabulary, special tokens, template and blanks, by the class that tokenizer_config.json names."""
    config = _files.read_optional_json(folder, "tokenizer_config.json")
    kind = config.get("tokenizer_class", {"spiece.model": "T5", "tokenizer.model": "Llama"}.get(name, ""))
    kind = kind.removesuffix("Fast").removesuffix("Tokenizer")
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    start, end = roles.get("start_token") or "", roles.get("end_token") or ""
    special, named = [], {}
    if kind == "T5":
        # Raffel et al. 2020: sentinels from the highest id down.
        count = config.get("extra_ids", 100)
        special = [f"<extra_id_{i}>" for i in reversed(range(count))]
        template = (f"$A {end}", f"$A {end} $B {end}")
    elif kind == "Llama":
        start = start if config.get("add_bos_token", True) else ""
        end = end if config.get("add_eos_token", False) else ""
        template = (f"{start} $A {end}", f"{start} $A {end} {start} $B {end}")
        if not way.removes_extra and not config.get("legacy", False):
            # transformers' own way, but for the one that it calls legacy, which is the model's.
            prefix = config.get("add_prefix_space")
            named["prepend_scheme"] = "never" if prefix is False else "first"
    elif kind == "XLMRoberta":
        # fairseq's four tokens stand in the place of the model's three.
        first = ["<s>", "<pad>", "</s>", "<unk>"]
        vocabulary = {piece: i for i, piece in enumerate([*first, *pieces[3:], "<mask>"])}
        template = ("<s> $A </s>", "<s> $A </s> </s> $B </s>")
        special = [*first, "<mask>"]
        # The model knows neither.
        named = {"pad_token": "<pad>", "mask_token": "<mask>"} | roles
    else:
        raise ValueError(
            f"{os.fspath(folder)}: without tokenizer.json the ids of {name} are known for the classes "
            f"T5Tokenizer, LlamaTokenizer and XLMRobertaTokenizer. Received: tokenizer_class={kind!r}. "
            "Save the folder with tokenizer.json too."
        )
    return {**named, "vocabulary": vocabulary, "template": template, "special_tokens": special}


def write(tokenizer, folder):
    """Writes a SentencePieceTokenizer's files."""
    os.makedirs(folder, exist_ok=True)
    files = getattr(tokenizer, "_source_files", None) or {"tokenizer.model": tokenizer._model}
    for name, content in files.items():
        _files.write_whole(os.path.join(folder, name), content)
    own = {}
    if not hasattr(tokenizer, "_source_config"):
        # The class that takes a model's ids as they are.
        forms = tokenizer.template.single
        own = {
            "tokenizer_class": "LlamaTokenizer",
            "legacy": tokenizer._prepend_scheme in (None, "always"),
            "add_prefix_space": tokenizer._prepend_scheme != "never",
            "add_bos_token": forms[0][0] != "$A",
            "add_eos_token": forms[-1][0] != "$A",
        }
    _files.write_tokenizer_config(folder, tokenizer, tokenizer._roles, own)
