"""Rows of unequal length in NumPy."""

import numpy as np


class Ragged:
    """Rows of unequal length, end to end in one flat array.

    Args:
        values: array, (total,).
        lengths: int array, (rows,).
    """

    def __init__(self, values, lengths):
        self.values = values
        self.lengths = np.asarray(lengths, np.int64)
        self.begins = np.cumsum(self.lengths) - self.lengths

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, i):
        return self.values[self.begins[i] : self.begins[i] + self.lengths[i]]

    @classmethod
    def from_rows(cls, rows, dtype=np.int32):
        """From an iterable of arrays or lists."""
        rows = [np.asarray(row, dtype) for row in rows]
        values = np.concatenate([np.zeros(0, dtype), *rows])
        return cls(values, np.fromiter(map(len, rows), np.int64, len(rows)))

    def select(self, numbers):
        """The rows of these numbers."""
        return Ragged(
            self.values[positions(self.begins[numbers], self.lengths[numbers])], self.lengths[numbers]
        )

    def first(self, limits):
        """The first tokens of each row, at most `limits` of them: int or (rows,)."""
        lengths = np.minimum(self.lengths, limits)
        return Ragged(self.values[positions(self.begins, lengths)], lengths)

    def between(self, before=(), after=()):
        """Each row with the same values put before and after it."""
        longer = Ragged(None, self.lengths + len(before) + len(after))
        values = np.empty(longer.lengths.sum(), self.values.dtype)
        values[positions(longer.begins + len(before), self.lengths)] = self.values
        for i, value in enumerate(before):
            values[longer.begins + i] = value
        for i, value in enumerate(reversed(after), 1):
            values[longer.begins + longer.lengths - i] = value
        return Ragged(values, longer.lengths)

    def followed_by(self, other):
        """Each row with the other's row of the same number behind it."""
        longer = Ragged(None, self.lengths + other.lengths)
        values = np.empty(longer.lengths.sum(), self.values.dtype)
        values[positions(longer.begins, self.lengths)] = self.values
        values[positions(longer.begins + self.lengths, other.lengths)] = other.values
        return Ragged(values, longer.lengths)

    def filled(self, value, dtype=np.int32):
        """Rows of these lengths of one value."""
        return Ragged(np.full(len(self.values), value, dtype), self.lengths)


def positions(begins, lengths):
    """begins[0], begins[0] + 1, ... (lengths[0] of them), begins[1], ...: (total,)."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(begins - (ends - lengths), lengths) + np.arange(total)
