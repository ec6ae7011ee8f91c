"""A run folder: config.yaml, run.json, tokenizer.model, model.keras, checkpoints/, logs/."""

import os
import shutil
import tempfile
import zipfile
import zlib


def check_writable(path, needed_bytes=0):
    """Checks that the folder can be made and hold `needed_bytes`, before any long work.

    It is not made: a command that fails leaves none behind.

    Raises:
        OSError: the folder cannot be made or written, or the disk has too little room.
    """
    there = os.path.abspath(path)
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise type(error)(error.errno, f"cannot write to {path!r}: {error.strerror}") from error
    free = shutil.disk_usage(there).free
    if free < needed_bytes:
        raise OSError(
            f"{path!r} needs {needed_bytes / 1e6:.0f} MB of free disk. Received: {free / 1e6:.0f} MB. "
            "Free some, or choose another --output."
        )


def needed_bytes(model, checkpoints=0):
    """What a run writes at most: the model with two optimizer slots, twice while it is replaced, an
    export, logs, and checkpoints, one more while one is replaced."""
    copies = 2 * 3 + 1 + 3 * (checkpoints + 1 if checkpoints else 0)
    return 4 * model.count_params() * copies + 20_000_000


def save_model(model, path):
    """Writes model.keras aside, then renames: a failed write leaves what was there."""
    folder, name = os.path.split(path)
    aside = os.path.join(folder, f".writing-{name}")  # Keras looks at the ending
    try:
        model.save(aside)
        os.replace(aside, path)
    finally:
        if os.path.exists(aside):
            os.unlink(aside)


def load_run(folder):
    """The model and tokenizer of a run folder.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the model's file is damaged.
    """
    for name in ("model.keras", "tokenizer.model"):
        path = os.path.join(folder, name)
        if not os.path.isfile(path):
            raise FileNotFoundError(
                f"no {name} in {folder!r}. Give the folder that tfmodels demo or train wrote."
            )
    import keras

    import tfmodels

    tokenizer = tfmodels.tokenizers.SentencePieceTokenizer.load(os.path.join(folder, "tokenizer.model"))
    from tfmodels import models  # noqa: F401  registers the classes

    path = os.path.join(folder, "model.keras")
    try:
        zipfile.ZipFile(path).close()  # of what is no archive Keras says that it is not there
        return keras.saving.load_model(path), tokenizer
    except (zipfile.BadZipFile, zlib.error, KeyError) as error:
        raise ValueError(
            f"{path!r} must be a model as Keras saves it. Received: a damaged file, {error}. "
            "Copy it again, or train anew."
        ) from error
