"""Writing files whole or not at all, and reading Hugging Face's."""

import json
import os
import tempfile

# transformers' names of the tokens with a role; of two the first that a folder has.
_ROLES = {
    "pad_token": ("pad_token",),
    "unknown_token": ("unk_token",),
    "start_token": ("bos_token", "cls_token"),
    "end_token": ("eos_token", "sep_token"),
    "mask_token": ("mask_token",),
}
# transformers' order, in which special tokens without an id get one.
_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LISTS = ("additional_special_tokens", "extra_special_tokens")


def write_whole(path, content):
    """Writes bytes aside first, so that no half-written file stays."""
    folder = os.path.dirname(os.path.abspath(path))
    handle, aside = tempfile.mkstemp(dir=folder, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(aside, 0o644)
        os.replace(aside, path)
    except BaseException:
        os.unlink(aside)
        raise


def write_json(path, value):
    write_whole(path, (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode())


def write_vocabulary(path, vocabulary):
    """Writes vocab.txt, a token a line in the order of the ids, if there is no gap in them."""
    tokens = sorted(vocabulary, key=vocabulary.get)
    if [vocabulary[token] for token in tokens] == list(range(len(tokens))):
        write_whole(path, "".join(token + "\n" for token in tokens).encode())


def read_json(path):
    """Reads a JSON object; a ValueError names the file that holds none."""
    with open(path, "rb") as file:
        content = file.read()
    try:
        value = json.loads(content.decode("utf-8"))
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: the file must be JSON. Received: {error}.") from error
    if not isinstance(value, dict):
        raise ValueError(f"{os.fspath(path)}: the file must hold a JSON object. Received: {value!r:.60}.")
    return value


def read_optional_json(folder, name):
    """The object of a folder's JSON file, {} where there is none."""
    path = os.path.join(folder, name)
    return read_json(path) if os.path.exists(path) else {}


def _read_lines(path):
    """Pairs of line number and line of a UTF-8 file, which ends with its last line's end."""
    with open(path, "rb") as file:
        lines = file.read().split(b"\n")
    if not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, 1):
        try:
            yield number, line.removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{os.fspath(path)}:{number}: a line must be UTF-8. Received: {line[:60]!r}."
            ) from error


def read_vocabulary(path):
    """Reads vocab.txt: a token a line, whose number from 0 is its id. Of equal tokens the last one counts.

    Returns:
        Dict from token to id.
    """
    return {line: number - 1 for number, line in _read_lines(path)}


def read_merges(path, vocabulary=None):
    """Reads merges.txt: two tokens a line with a blank between, best first.

    Args:
        path: of the file.
        vocabulary: dict from token to id, which must have both tokens and what they make; None: unchecked.

    Returns:
        List of (left, right) tuples of str.
    """
    merges = []
    for number, line in _read_lines(path):
        if not line or (number == 1 and line.startswith("#version")):
            continue
        pair = tuple(line.split(" "))
        if len(pair) != 2:
            raise ValueError(
                f"{os.fspath(path)}:{number}: a line must have two tokens with a blank between. "
                f"Received: {line[:60]!r}."
            )
        for token in () if vocabulary is None else (*pair, "".join(pair)):
            if token not in vocabulary:
                raise ValueError(
                    f"{os.fspath(path)}:{number}: merges must fit vocab.json. Received: {line[:60]!r}, of "
                    f"which vocab.json lacks {token!r}. Take both files from one folder."
                )
        merges.append(pair)
    return merges


def read_roles(folder):
    """The tokens that a folder's tokenizer_config.json and special_tokens_map.json name.

    Returns:
        Dict from "pad_token", "unknown_token", "start_token", "end_token", "mask_token" to str, or to
        None where a file says that there is none.
    """
    roles = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        config = read_optional_json(folder, file)
        for ours, names in _ROLES.items():
            tokens = [config[name] for name in names if name in config]
            if tokens:
                token = next((token for token in tokens if token is not None), None)
                roles[ours] = token["content"] if isinstance(token, dict) else token
    return roles


def read_added_tokens(folder, vocabulary):
    """The tokens that a folder's files name beside its vocabulary, which gets those that it lacks.

    Args:
        folder: path.
        vocabulary: dict from token to id, which is changed.

    Returns:
        List of dict as tokenizer.json's added_tokens, with those of the settings that the files give.
    """
    config = read_optional_json(folder, "tokenizer_config.json")
    plain = read_optional_json(folder, "added_tokens.json")
    added = {token: {"content": token, "id": i, "special": False} for token, i in plain.items()}
    decoder = config.get("added_tokens_decoder") or {}
    added |= {token["content"]: token | {"id": int(i)} for i, token in decoder.items()}
    config = read_optional_json(folder, "special_tokens_map.json") | config
    named = [config[name] for name in _NAMES if config.get(name)]
    for tokens in filter(None, map(config.get, _LISTS)):
        named += tokens.values() if isinstance(tokens, dict) else tokens
    for token in named:
        token = {"content": token} if isinstance(token, str) else token
        added[token["content"]] = token | added.get(token["content"], {}) | {"special": True}
    following = max(vocabulary.values(), default=-1) + 1
    for content, token in added.items():
        vocabulary[content] = token.setdefault("id", vocabulary.get(content, following))
        following = max(following, token["id"] + 1)
    return list(added.values())


def read_class_settings(folder):
    """tokenizer_config.json, whose settings come before tokenizer.json's; {} where its class knows none."""
    config = read_optional_json(folder, "tokenizer_config.json")
    as_it_is = ("PreTrainedTokenizerFast", "TokenizersBackend")
    return {} if config.get("tokenizer_class") in as_it_is else config


def read_segments(folder):
    """Whether a folder's model has segments: bool, or None where its files do not say."""
    names = read_optional_json(folder, "tokenizer_config.json").get("model_input_names")
    if names is not None:
        return "token_type_ids" in names
    config = read_optional_json(folder, "config.json")
    # DistilBERT's config has no such field, and its model no such input.
    return config.get("type_vocab_size", 0) > 1 if config else None


def remember_source(tokenizer, folder):
    """Keeps what a folder's tokenizer_config.json says, for save_pretrained."""
    tokenizer._source_config = read_optional_json(folder, "tokenizer_config.json")
    return tokenizer


def write_tokenizer_config(folder, tokenizer, roles, own, kinds=(0,)):
    """Writes tokenizer_config.json: what the source said, our own fields, the roles.

    Args:
        folder: path.
        tokenizer: has `has_segments`, and `_source_config` if it was read.
        roles: dict from "pad", "unknown", "start", "end", "mask" to a token or None.
        own: dict, further fields.
        kinds: which of transformers' names of start and end: 0, bos and eos; 1, cls and sep.
    """
    inputs = ["input_ids", *(["token_type_ids"] if tokenizer.has_segments else []), "attention_mask"]
    # The class that takes tokenizer.json as it is.
    fields = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": inputs}
    fields |= getattr(tokenizer, "_source_config", {})
    for role, token in roles.items():
        names = _ROLES[f"{role}_token"]
        names = [names[kind] for kind in kinds] if len(names) > 1 else names
        fields |= dict.fromkeys(names, token)
    write_json(os.path.join(folder, "tokenizer_config.json"), fields | own)


def with_special_tokens(vocabulary, special):
    """The vocabulary with those special tokens that it lacks at the next ids."""
    vocabulary = dict(vocabulary)
    following = max(vocabulary.values(), default=-1) + 1
    for token in special:
        if token not in vocabulary:
            vocabulary[token] = following
            following += 1
    return vocabulary


def added_tokens(config, strip_before=(), kept=()):
    """tokenizer.json's added_tokens, which has no place for roles: each token has its own."""
    vocabulary = config.vocabulary
    return [
        {
            "id": vocabulary[token],
            "content": token,
            "single_word": False,
            "lstrip": token in strip_before,
            "rstrip": False,
            "normalized": False,
            "special": token not in kept,
            "tfmodels_roles": [f"{role}_token" for role, name in config.roles.items() if name == token],
        }
        for token in sorted(config.special_tokens, key=vocabulary.get)
    ]


def without_roles(content):
    """The content as transformers writes it: in a folder tokenizer_config.json has the roles."""
    for token in content["added_tokens"]:
        del token["tfmodels_roles"]
    return content


def check_added_tokens(added, path, reader, **expected):
    """Refuses added tokens with settings that the reader does not follow."""
    for token in added:
        for key, value in {"single_word": False, **expected}.items():
            what = f"{key} of the added token {token['content']!r}"
            advice = f"Set {key} there to {value!r}, or take the token out."
            refuse(path, reader, what, token.get(key, value), value, advice)


def roles_of_added_tokens(added):
    """The roles that a file of ours gives its tokens: dict from "pad_token" and so on; {} if none."""
    return {role: token["content"] for token in added for role in token.get("tfmodels_roles", ())}


def refuse(path, reader, what, received, expected, advice=""):
    """Raises ValueError where a file asks for what its reader does not do."""
    if received != expected:
        raise ValueError(
            f"{os.fspath(path)}: {reader} reads files with {what} = {expected!r}. Received: {received!r}. "
            f"{advice}".rstrip()
        )
