"""Texts that stand on a line each."""


def read_lines(path):
    """The lines of a text file in UTF-8, of which there must be one at least."""
    try:
        with open(path, "rb") as file:
            lines = split_lines(file.read())
    except UnicodeDecodeError as error:
        raise ValueError(f"{path!r} must be a text file in UTF-8: {error.reason}.") from error
    except IsADirectoryError as error:
        raise ValueError(f"{path!r} must be a file. Received: a folder.") from error
    if not lines:
        raise ValueError(f"{path!r} must have at least one line. Received: an empty file.")
    return lines


def split_lines(data):
    """Lines of bytes in UTF-8, as `tfmodels.data` has them.

    `str.splitlines`, and files that are opened as text, also end them at marks that stand within a text.
    """
    data = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")  # as editors on Windows write
    return data.decode().removesuffix("\n").split("\n") if data else []
