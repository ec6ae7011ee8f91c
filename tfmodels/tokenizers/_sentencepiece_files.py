"""SentencePiece in Hugging Face folders: which ids the pieces have, and which special tokens there are."""

import os
import re

from tfmodels.tokenizers import _files, _template

BLANK = "\u2581"  # SentencePiece's form of a blank
MODEL_FILES = ("spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
# Normalisers of tokenizer.json that only say what the SentencePiece model does by itself.
_SAME_AS_MODEL = ("Precompiled", "Replace", "Prepend", "Strip", "Sequence")


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
    kept = {names[0]: model}
    path = os.path.join(folder, "tokenizer.json")
    if os.path.exists(path):
        options |= _from_json(_files.read_json(path), path)
        with open(path, "rb") as file:
            kept["tokenizer.json"] = file.read()
    else:
        options |= _from_class(folder, names[0], pieces, options)
    tokens = (token for role, token in options.items() if role.endswith("_token"))
    options["special_tokens"] = [*options.get("special_tokens", ()), *(t for t in tokens if t)]
    return options | {"model": model}, kept


def _from_json(content, path):
    """Vocabulary, special tokens and template of a tokenizer.json."""
    model = content["model"]
    for kind in _types(content.get("normalizer")):
        if kind not in _SAME_AS_MODEL:
            raise ValueError(
                f"{os.fspath(path)}: SentencePieceTokenizer reads files whose normalizer is the model's own. "
                f"Received: {kind}."
            )
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):
        vocabulary = {piece: i for i, (piece, _) in enumerate(vocabulary)}
    vocabulary = dict(vocabulary)
    added = content.get("added_tokens") or []
    vocabulary |= {token["content"]: token["id"] for token in added}
    return {
        "vocabulary": vocabulary,
        "special_tokens": [token["content"] for token in added],
        "template": _template.from_json(content.get("post_processor"), path),
    }


def _types(normalizer):
    if normalizer is None:
        return []
    below = [kind for part in normalizer.get("normalizers", ()) for kind in _types(part)]
    return [normalizer["type"], *below]


def _from_class(folder, name, pieces, roles):
    """Vocabulary, special tokens and template, by the class that tokenizer_config.json names."""
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
    added = {t["content"]: int(i) for i, t in config.get("added_tokens_decoder", {}).items()}
    added |= _files.read_optional_json(folder, "added_tokens.json")
    vocabulary |= added
    return {
        **named,
        "vocabulary": vocabulary,
        "template": template,
        "special_tokens": list(dict.fromkeys([*special, *added])),
    }


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
            "add_bos_token": forms[0][0] != "$A",
            "add_eos_token": forms[-1][0] != "$A",
        }
    _files.write_tokenizer_config(folder, tokenizer, tokenizer._roles, own)
