"""A figure and how sure it is, by the bootstrap."""

import dataclasses

import numpy as np

_BLOCK_VALUES = 1 << 22  # numbers drawn at once


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A score, and the interval that holds it in 95 of 100 samples of as many texts.

    Attributes:
        value: float, of the texts at hand.
        low: float, lower end of the interval.
        high: float, upper end.
    """

    value: float
    low: float
    high: float


def bootstrap(statistics, score, resamples, seed):
    """Percentile bootstrap (Efron & Tibshirani 1993, section 13.3) of a score of sums over texts.

    Args:
        statistics: float array, (texts, n), what is summed.
        score: function from sums, (..., n), to scores, (...).
        resamples: int, samples that are drawn.
        seed: int.

    Returns:
        An `Estimate`.
    """
    statistics = np.asarray(statistics, np.float64)
    count = len(statistics)
    generator = np.random.default_rng(seed)
    found = []
    for begin in range(0, resamples, step := max(1, _BLOCK_VALUES // count)):
        drawn = generator.integers(0, count, (min(step, resamples - begin), count))
        found.append(score(statistics[drawn].sum(axis=1)))
    low, high = np.percentile(np.concatenate(found), [2.5, 97.5])
    return Estimate(float(score(statistics.sum(axis=0))), float(low), float(high))


def check_sampling(resamples):
    """Raises ValueError for a number of samples that gives no interval."""
    if not isinstance(resamples, int) or resamples < 1:
        raise ValueError(f"resamples must be a whole number of at least 1. Received: {resamples!r}.")
