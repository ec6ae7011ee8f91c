"""What batches are like: tokens, padding and lengths."""

import dataclasses

import numpy as np
import tensorflow as tf

_BINS = 16
_BAR = 40


@dataclasses.dataclass(frozen=True)
class Report:
    """What `report` found.

    Attributes:
        batches: int.
        tokens: int, real tokens of all batches, of all parts of x.
        positions: int, the same with padding.
        sequences: int, examples; a packed row has several.
        padding: float, the share of positions that are padding.
        tokens_per_batch: (int, float, int), fewest, mean, most real tokens in a batch.
        lengths: int array, (longest + 1,): how many sequences have each length, by part of x together.
    """

    batches: int
    tokens: int
    positions: int
    sequences: int
    padding: float
    tokens_per_batch: tuple
    lengths: np.ndarray

    def __str__(self):
        low, mean, high = self.tokens_per_batch
        lines = [
            f"{self.batches:,} batches, {self.sequences:,} sequences, {self.tokens:,} tokens",
            f"{mean:,.0f} tokens a batch, from {low:,} to {high:,}",
            f"{100 * self.padding:.2f}% padding",
            "sequences by length in tokens:",
        ]
        edges, counts = self.histogram()
        for begin, end, count in zip(edges[:-1], edges[1:], counts, strict=True):
            bar = "#" * round(_BAR * count / max(1, counts.max()))
            lines.append(f"{begin:6d} to {end - 1:6d} {count:9,d} {bar}".rstrip())
        return "\n".join(lines)

    def histogram(self, bins=_BINS):
        """Sequences by length: edges (bins + 1,), counts (bins,)."""
        width = max(1, -(-len(self.lengths) // bins))
        edges = np.arange(0, len(self.lengths) + width, width)
        return edges, np.add.reduceat(self.lengths, edges[:-1])


def report(dataset, max_batches=None, picture=None):
    """Prints tokens a batch, the share of padding and a histogram of lengths.

    Args:
        dataset: a `Reader`, or a tf.data.Dataset of its batches.
        max_batches: int, how many to look at; None: a whole pass, which a dataset that repeats has not.
        picture: str, a file for the histogram as a picture, which needs matplotlib (the extra "docs").

    Returns:
        `Report`, whose str is what was printed.

    Raises:
        ValueError: the dataset is none, is empty or has no padding masks, or repeats for ever.
        ImportError: a picture is asked for, and matplotlib is missing.
    """
    figure_class = None if picture is None else _figure_class()
    dataset = dataset.dataset() if hasattr(dataset, "dataset") else dataset
    if not isinstance(dataset, tf.data.Dataset):
        raise ValueError(
            f"report takes a Reader or a tf.data.Dataset of batches. Received: {type(dataset).__name__}. "
            "Give batches(...) of the examples."
        )
    if max_batches is None and dataset.cardinality() == -1:  # infinite
        raise ValueError("A dataset that repeats has no end. Received: max_batches=None. Give a number.")
    tokens, positions, lengths = [], 0, np.zeros(1, np.int64)
    sequences = 0
    for x, *_ in dataset.take(-1 if max_batches is None else max_batches).as_numpy_iterator():
        masks = [mask for name, mask in x.items() if name.endswith("padding_mask")]
        if not masks:
            raise ValueError(f"x must have a padding mask. Received: {sorted(x)}.")
        tokens.append(sum(np.count_nonzero(mask) for mask in masks))
        positions += sum(mask.size for mask in masks)
        found = [_lengths(mask) for mask in masks]
        sequences += len(found[0])
        for part in found:
            lengths = _add(lengths, np.bincount(part))
    if not tokens:
        raise ValueError("There must be at least one batch. Received: none.")
    total = sum(tokens)
    result = Report(
        batches=len(tokens),
        tokens=total,
        positions=positions,
        sequences=sequences,
        padding=1 - total / positions,
        tokens_per_batch=(min(tokens), total / len(tokens), max(tokens)),
        lengths=lengths,
    )
    print(result)
    if figure_class:
        _draw(figure_class, result, picture)
    return result


def _lengths(mask):
    """The length of each sequence of each row, (sequences,)."""
    most = int(mask.max(initial=0)) + 1
    number = mask + most * np.arange(len(mask))[:, None]
    counts = np.bincount(number.reshape(-1), minlength=most * len(mask)).reshape(len(mask), most)[:, 1:]
    return counts[counts > 0]


def _add(a, b):
    if len(a) < len(b):
        a, b = b, a
    a = a.copy()
    a[: len(b)] += b
    return a


def _figure_class():
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "A picture needs matplotlib. Run pip install matplotlib, or leave out picture."
        ) from error
    return Figure


def _draw(figure_class, result, path):
    edges, counts = result.histogram(bins=64)
    figure = figure_class(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    axes.bar(edges[:-1], counts, width=np.diff(edges), align="edge", color="#4477aa")
    axes.set_xlabel("tokens of a sequence")
    axes.set_ylabel("sequences")
    mean = result.tokens_per_batch[1]
    axes.set_title(f"{mean:,.0f} tokens a batch, {100 * result.padding:.2f}% padding")
    figure.savefig(path, dpi=120)
