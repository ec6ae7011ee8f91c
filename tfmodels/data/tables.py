"""Columns of a table in memory: a pandas frame, a Hugging Face data set, a dict of lists."""


class _Rows(list):
    """A list whose elements are rows of a table."""

    def where(self, i):
        return f"row {i}"

    def columns(self):
        return tuple(_Rows(column) for column in zip(*self, strict=True))


def read_columns(table, columns):
    """Columns of a table, by their names; neither pandas nor datasets is imported.

    Args:
        table: pandas.DataFrame, datasets.Dataset or IterableDataset, dict of lists, or an iterable of dicts.
        columns: str, for the values of one column; list of str, for tuples of several.

    Returns:
        List of values or of tuples; errors of what reads it say "row 3". Its `columns()` gives the columns
        of tuples.

    Raises:
        ValueError: a column is missing, columns have different lengths, or a value is missing (None, NaN).

    Example:
        >>> texts, labels = read_columns(frame, ["text", "label"]).columns()
    """
    names = [columns] if isinstance(columns, str) else list(columns)
    if isinstance(table, dict) or hasattr(table, "columns"):  # pandas
        values = _by_column(table, names, list(table if isinstance(table, dict) else table.columns))
    elif getattr(table, "column_names", None) and hasattr(table, "__len__"):  # datasets.Dataset
        values = _by_column(table, names, table.column_names)
    else:
        values = _by_row(table, names)
    lengths = {name: len(column) for name, column in zip(names, values, strict=True)}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"Columns must be equally long. Received: {lengths}.")
    for name, column in zip(names, values, strict=True):
        for i, value in enumerate(column):
            if _is_missing(value):
                raise ValueError(f"row {i}: a value must not be missing. Received: {value!r} in {name!r}.")
    if not values[0]:
        raise ValueError("The table must have rows. Received: none.")
    return _Rows(values[0] if isinstance(columns, str) else zip(*values, strict=True))


def _is_missing(value):
    # pandas has two of its own, and is not imported here.
    pandas_missing = type(value).__name__ in ("NAType", "NaTType")
    return value is None or pandas_missing or (isinstance(value, float) and value != value)


def _by_column(table, names, known):
    for name in names:
        if name not in known:
            raise ValueError(f"The table has no column {name!r}. Received: {', '.join(map(str, known))}.")
    # Python's own values: NumPy's are no str or int to json and to isinstance.
    return [c.tolist() if hasattr(c, "tolist") else list(c) for c in (table[name] for name in names)]


def _by_row(rows, names):
    values = [[] for _ in names]
    for i, row in enumerate(rows):
        for name, column in zip(names, values, strict=True):
            if name not in row:
                raise ValueError(f"row {i}: no column {name!r}. Received: {', '.join(map(str, row))}.")
            column.append(row[name])
    return values
