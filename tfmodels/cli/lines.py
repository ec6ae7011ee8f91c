"""Texts that stand on a line each."""


def read_lines(path):
    """The lines of a text file in UTF-8, of which there must be one at least."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = split_lines(file.read())
    except UnicodeDecodeError as error:
        raise ValueError(f"{path!r} must be a text file in UTF-8: {error.reason}.") from error
    except IsADirectoryError as error:
        raise ValueError(f"{path!r} must be a file. Received: a folder.") from error
    if not lines:
        raise ValueError(f"{path!r} must have at least one line. Received: an empty file.")
    return lines


def split_lines(text):
    """Lines as files have them: `str.splitlines` also ends them at marks that stand within a text."""
    return text.removesuffix("\n").split("\n") if text else []
