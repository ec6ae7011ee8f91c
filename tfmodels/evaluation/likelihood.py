"""Perplexity and bits per byte."""

import numpy as np

from tfmodels.evaluation.estimate import bootstrap, check_sampling


def evaluate_log_likelihoods(log_likelihoods, token_counts, byte_counts, resamples=1000, seed=0):
    """How well a model predicts texts.

    Perplexity depends on the tokenizer; bits per byte compares models of different ones.

    Args:
        log_likelihoods: floats, (texts,), sums of log-probabilities in nats, as `tfmodels.score` gives.
        token_counts: ints, (texts,), tokens that were scored.
        byte_counts: ints, (texts,), length of the texts in UTF-8.
        resamples: int, samples of the bootstrap.
        seed: int, of the bootstrap.

    Returns:
        Dict of `perplexity` and `bits_per_byte` to `Estimate`s.

    Raises:
        ValueError: lengths differ, or there is nothing to score.
    """
    check_sampling(resamples)
    parts = [np.asarray(part, np.float64) for part in (log_likelihoods, token_counts, byte_counts)]
    if len({part.shape for part in parts}) > 1 or not parts[1].sum() or not parts[2].sum():
        raise ValueError(
            "log_likelihoods, token_counts and byte_counts must be of the same texts, with a token among "
            f"them. Received: shapes {[part.shape for part in parts]}, {parts[1].sum():.0f} tokens."
        )
    statistics = np.stack([-parts[0], parts[1], parts[2]], axis=1)

    def perplexity(sums):
        return np.exp(sums[..., 0] / np.maximum(sums[..., 1], 1))

    def bits_per_byte(sums):
        return sums[..., 0] / np.log(2) / np.maximum(sums[..., 2], 1)

    return {
        "perplexity": bootstrap(statistics, perplexity, resamples, seed),
        "bits_per_byte": bootstrap(statistics, bits_per_byte, resamples, seed),
    }
