"""Examples to batches: shuffled, bucketed by length, padded, prefetched."""

import tensorflow as tf


def batches(examples, batch_size=None, tokens_per_batch=None, shuffle=0, seed=0, repeat=False):
    """Shuffles, batches and prefetches examples; by a token budget, examples of like length meet.

    Args:
        examples: tf.data.Dataset of (x, y, sample_weight), each part (length,).
        batch_size: int, examples a batch; or
        tokens_per_batch: int, the budget of positions in x's longest part and y, padding included: short
            examples come in larger batches. One of the two is needed.
        shuffle: int, examples to draw from, anew each epoch; 0 keeps the order.
        seed: int, of the shuffle.
        repeat: bool, whether to begin again for ever (for `steps_per_epoch`).

    Returns:
        tf.data.Dataset of batches, (batch, length), padded with 0.

    Raises:
        ValueError: both or neither of batch_size and tokens_per_batch are given.
    """
    if (batch_size is None) == (tokens_per_batch is None):
        raise ValueError(
            "Give one of batch_size and tokens_per_batch. "
            f"Received: batch_size={batch_size}, tokens_per_batch={tokens_per_batch}."
        )
    examples = examples.cache()
    if shuffle:
        examples = examples.shuffle(shuffle, seed=seed)
    if repeat:
        examples = examples.repeat()
    if batch_size is not None:
        examples = examples.padded_batch(batch_size)
    else:
        boundaries, sizes = _buckets(tokens_per_batch)
        examples = examples.bucket_by_sequence_length(lambda x, y, weight: _length(x, y), boundaries, sizes)
    return examples.prefetch(tf.data.AUTOTUNE)


def _buckets(tokens_per_batch):
    """Bucket boundaries that grow by about an eighth, and examples a batch in each bucket."""
    boundaries = [9]
    while boundaries[-1] < min(tokens_per_batch, 4096):
        boundaries.append(boundaries[-1] + max(4, boundaries[-1] // 8))
    # A bucket holds lengths below its boundary.
    sizes = [max(1, tokens_per_batch // (boundary - 1)) for boundary in boundaries]
    return boundaries, [*sizes, 1]


def _length(x, y):
    """The longest part of an example, in tokens."""
    sizes = [tf.size(part) for part in tf.nest.flatten((x, y))]
    return tf.reduce_max(tf.stack(sizes))
