"""Which examples meet in which batch: decided by lengths and seed alone, before anything is read.

Every plan is an iterator of (numbers, row_of): the examples of a batch, those of a row together, and the
row of each. Plans work through windows of examples, so that they begin at once however many there are.

Letters: n examples, a axes (source, target).
"""

import numpy as np

# Examples that are sorted or packed together. More leave less padding and are less random.
_WINDOW = 8192
# Batches by tokens that a window should hold at the least, for long examples or large budgets.
_WINDOW_BATCHES = 64


def order(count, shuffle, seed, epoch):
    """The numbers of all examples in the order of an epoch: (n,)."""
    if not shuffle:
        return np.arange(count)
    return np.random.default_rng([seed, epoch]).permutation(count)


def by_size(numbers, batch_size):
    """Batches of a number of examples, in their order."""
    for begin in range(0, len(numbers), batch_size):
        batch = numbers[begin : begin + batch_size]
        yield batch, np.arange(len(batch))


def by_tokens(numbers, lengths, budget, generator):
    """Batches of examples of like length: rows times the longest part stay within a budget.

    Args:
        numbers: int array, (n,), in the order of the epoch.
        lengths: int array, (all examples, a).
        budget: int, positions.
        generator: np.random.Generator that mixes the batches of a window; None keeps short before long.
    """
    longest = lengths.max(axis=1)
    window = max(_WINDOW, int(_WINDOW_BATCHES * budget / max(1, longest.mean())))
    left = numbers[:0]
    for begin in range(0, len(numbers), window):
        part = np.concatenate([left, numbers[begin : begin + window]])
        # Stable: what is equally long stays in the epoch's order.
        keys = [*lengths[part].T, longest[part]]
        part = part[np.lexsort(keys)]
        batches = _cut(part, longest[part], budget)
        left = numbers[:0]
        if begin + window < len(numbers):
            left = batches.pop()  # perhaps not full yet
        if generator is not None:
            generator.shuffle(batches)
        for batch in batches:
            yield batch, np.arange(len(batch))


def _cut(numbers, longest, budget):
    """Cuts examples, shortest first, into a list of batches within the budget."""
    batches, begin = [], 0
    while begin < len(numbers):
        # The last example of a batch is its longest: how many fit grows until it does not.
        sizes = np.arange(1, min(len(numbers) - begin, budget) + 1)
        fits = sizes * longest[begin : begin + len(sizes)] <= budget
        count = len(sizes) if fits.all() else max(1, int(fits.argmin()))
        batches.append(numbers[begin : begin + count])
        begin += count
    return batches


def packed(numbers, lengths, capacity, batch_size, generator):
    """Batches of rows, each filled with several short examples.

    Args:
        numbers: int array, (n,), in the order of the epoch.
        lengths: int array, (all examples, a).
        capacity: int array, (a,), tokens of a row.
        batch_size: int, rows.
        generator: np.random.Generator that mixes the rows of a window; None: in order of what was
            put into them first, the longest examples of the window.
    """
    waiting = []
    for begin in range(0, len(numbers), _WINDOW):
        part = numbers[begin : begin + _WINDOW]
        row_of = first_fit_decreasing(lengths[part], capacity)
        by_row = np.argsort(row_of, kind="stable")
        cuts = np.flatnonzero(np.diff(row_of[by_row])) + 1
        rows = np.split(part[by_row], cuts)
        if generator is not None:
            generator.shuffle(rows)
        waiting += rows
        full = len(waiting) - len(waiting) % batch_size
        if begin + _WINDOW >= len(numbers):
            full = len(waiting)
        for first in range(0, full, batch_size):
            rows = waiting[first : min(first + batch_size, full)]
            yield np.concatenate(rows), np.repeat(np.arange(len(rows)), list(map(len, rows)))
        waiting = waiting[full:]


def first_fit_decreasing(lengths, capacity):
    """A row for each example, longest first, the first row that has room (Johnson 1973).

    Args:
        lengths: int array, (n, a), none above capacity.
        capacity: int array, (a,).

    Returns:
        int array, (n,).
    """
    row_of = np.empty(len(lengths), np.int64)
    room = np.empty_like(lengths)  # of the rows begun so far
    begun = first = 0
    for i in np.argsort(-(lengths / capacity).max(axis=1), kind="stable"):
        fits = (room[first:begun] >= lengths[i]).all(axis=1)
        row = first + int(fits.argmax()) if fits.any() else begun
        if row == begun:
            room[row] = capacity
            begun += 1
        room[row] -= lengths[i]
        row_of[i] = row
        while first < begun and not room[first].any():
            first += 1  # full: nothing fits there any more
    return row_of
