"""Writing files whole or not at all, and reading Hugging Face's."""

import json
import os
import tempfile


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


def read_merges(path):
    """Reads merges.txt: two tokens a line with a blank between, best first.

    Returns:
        List of (left, right) tuples of str.
    """
    with open(path, encoding="utf-8", newline="\n") as file:
        lines = file.read().split("\n")
    merges = []
    for number, line in enumerate(lines, 1):
        if not line or (number == 1 and line.startswith("#version")):
            continue
        pair = tuple(line.removesuffix("\r").split(" "))
        if len(pair) != 2:
            raise ValueError(
                f"{os.fspath(path)}:{number}: a line must have two tokens with a blank between. "
                f"Received: {line[:60]!r}."
            )
        merges.append(pair)
    return merges


def read_roles(folder):
    """The tokens that a folder's tokenizer_config.json and special_tokens_map.json name.

    Returns:
        Dict from "pad_token", "unknown_token", "start_token", "end_token" to str.
    """
    names = {
        "pad_token": "pad_token",
        "unk_token": "unknown_token",
        "bos_token": "start_token",
        "eos_token": "end_token",
    }
    roles = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        path = os.path.join(folder, file)
        if not os.path.exists(path):
            continue
        config = read_json(path)
        for theirs, ours in names.items():
            token = config.get(theirs)
            token = token["content"] if isinstance(token, dict) else token
            if token is not None:
                roles[ours] = token
    return roles
