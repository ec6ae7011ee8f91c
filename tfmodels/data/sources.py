"""Reading text files, with errors that name file and line."""

import os


def read_pairs(path):
    """Pairs of texts from a TSV file: source, tab, target, UTF-8, no header.

    Args:
        path: str.

    Returns:
        List of (source, target) tuples of str.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is empty, or a line has another number of columns.
    """
    pairs = []
    for number, line in enumerate(_read_lines(path), 1):
        columns = tuple(line.split("\t"))
        if len(columns) != 2:
            raise ValueError(
                f"{os.fspath(path)}:{number}: a line must have 2 columns, source and target, with "
                f"a tab between. Received: {len(columns)} in {line[:60]!r}."
            )
        pairs.append(columns)
    return pairs


def read_texts(path):
    """Texts from a file, one a line, UTF-8; empty lines are kept.

    Args:
        path: str.

    Returns:
        List of str.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has no text.
    """
    return _read_lines(path)


def _read_lines(path):
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{os.fspath(path)}: the file must be UTF-8. Received: byte {error.object[error.start]:#x}"
            f" at offset {error.start}."
        ) from error
    if lines[-1] == "":
        lines.pop()
    if not any(line.strip() for line in lines):
        raise ValueError(f"{os.fspath(path)}: the file must have text. Received: an empty file.")
    return lines
