"""Reading text files, with errors that name file and line."""

import gzip
import json
import lzma
import os
import zlib

_OPENERS = {".gz": gzip.open, ".xz": lzma.open}


class Records(list):
    """A list of what was read, that knows where each element came from.

    Args:
        elements: iterable.
        source: str, the file.
        lines: list of int, the line of each element.
    """

    def __init__(self, elements, source, lines):
        super().__init__(elements)
        self._source, self._lines = source, lines

    def where(self, i):
        """The place of an element, such as "train.tsv:12"."""
        return f"{self._source}:{self._lines[i]}"

    def columns(self):
        """A tuple of `Records`, one a column, of records that are tuples.

        Example:
            >>> labels, texts = read_tsv("train.tsv", 2).columns()
        """
        return tuple(Records(column, self._source, self._lines) for column in zip(*self, strict=True))


def read_pairs(path, errors="strict"):
    """Pairs of texts from a TSV file: source, tab, target, UTF-8, no header.

    Args:
        path: str; names that end in .gz or .xz are decompressed.
        errors: as `read_texts` has it.

    Returns:
        `Records`, a list of (source, target) tuples of str.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is empty, or a line has another number of columns.
    """
    return read_tsv(path, 2, errors, rule="2 columns, source and target, with a tab between")


def read_tsv(path, columns, errors="strict", rule=None):
    """Rows of a TSV file, UTF-8; a tab always ends a field, there are no quotes.

    Args:
        path: str; names that end in .gz or .xz are decompressed.
        columns: int, how many a row must have, in a file without a header; or a list of str, the names of
            those wanted, from a file whose first line names its columns; a str: the values of one.
        errors: as `read_texts` has it.
        rule: str, what a row must have, for the error; None: says it by itself.

    Returns:
        `Records`, a list of tuples of str, or of str, whose `columns()` gives the columns.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is empty, a column is missing, or a line has another number of columns.
    """
    path, lines = os.fspath(path), _read_lines(path, errors)
    rows = [tuple(line.split("\t")) for line in lines]
    first, chosen, count = 0, None, columns
    if not isinstance(columns, int):
        header, first = rows[0], 1
        names = [columns] if isinstance(columns, str) else columns
        missing = [name for name in names if name not in header]
        if missing:
            raise ValueError(f"{path}:1: no column {missing[0]!r}. Received: {', '.join(header)}.")
        chosen, count = [header.index(name) for name in names], len(header)
    rule = rule or f"{count} columns, with tabs between"
    for number, row in enumerate(rows, 1):
        if len(row) != count:
            text = lines[number - 1][:60]
            raise ValueError(f"{path}:{number}: a line must have {rule}. Received: {len(row)} in {text!r}.")
    rows = rows[first:]
    if not rows:
        raise ValueError(f"{path}: the file must have rows under its header. Received: none.")
    if chosen is not None:
        rows = [tuple(row[i] for i in chosen) for row in rows]
    if isinstance(columns, str):
        rows = [row[0] for row in rows]
    return Records(rows, path, range(1 + first, 1 + first + len(rows)))


def read_jsonl(path, fields=None, errors="strict"):
    """Objects of a JSON-lines file, one a line, UTF-8; empty lines are passed over.

    Args:
        path: str; names that end in .gz or .xz are decompressed.
        fields: list of str, those wanted, as tuples; a str: its values alone; None: whole objects.
        errors: as `read_texts` has it.

    Returns:
        `Records`, a list of tuples, values or dicts.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is no JSON object, or lacks a field.
    """
    path = os.fspath(path)
    records, numbers = [], []
    for number, line in enumerate(_read_lines(path, errors), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:  # the second of what is nested too deeply
            raise ValueError(f"{path}:{number}: not JSON: {error}. Received: {line[:60]!r}.") from error
        if not isinstance(record, dict):
            raise ValueError(f"{path}:{number}: a line must be an object. Received: {line[:60]!r}.")
        wanted = [] if fields is None else [fields] if isinstance(fields, str) else fields
        for name in wanted:
            if name not in record:
                raise ValueError(f"{path}:{number}: no field {name!r}. Received: {', '.join(record)}.")
        values = tuple(record[name] for name in wanted)
        records.append(record if fields is None else values[0] if isinstance(fields, str) else values)
        numbers.append(number)
    return Records(records, path, numbers)


def read_texts(path, errors="strict"):
    """Texts from a file, one a line, UTF-8; empty lines are kept.

    Args:
        path: str; names that end in .gz or .xz are decompressed.
        errors: "strict" refuses bytes that are no UTF-8, and NUL, which text has not; "replace" puts
            U+FFFD there.

    Returns:
        `Records`, a list of str.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has no text, or is damaged.
    """
    lines = _read_lines(path, errors)
    return Records(lines, os.fspath(path), range(1, 1 + len(lines)))


def _read_lines(path, errors):
    if errors not in ("strict", "replace"):
        raise ValueError(f'errors must be "strict" or "replace". Received: errors={errors!r}.')
    path = os.fspath(path)
    try:
        with _OPENERS.get(os.path.splitext(path)[1], open)(path, "rb") as file:
            data = file.read()
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        raise ValueError(f"{path}: the compressed file is damaged: {error}.") from error
    data = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")  # as editors on Windows write
    text = data.decode(errors="replace")
    if errors == "replace":
        text = text.replace("\0", "\ufffd")
    elif b"\0" in data or "\ufffd" in text:
        _refuse_bad_bytes(path, data)
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    if not any(line.strip() for line in lines):
        raise ValueError(f"{path}: the file must have text. Received: an empty file.")
    return lines


def _refuse_bad_bytes(path, data):
    """Raises ValueError at the first line that is no UTF-8 or has a NUL, if there is one."""
    for number, line in enumerate(data.split(b"\n"), 1):
        try:
            line.decode()
            offset = line.find(b"\0")
        except UnicodeDecodeError as error:
            offset = error.start
        if offset >= 0:
            raise ValueError(
                f"{path}:{number}: the file must be UTF-8 text. Received: byte {line[offset]:#x} at offset "
                f'{offset} of the line. Mend the file, or pass errors="replace".'
            )
