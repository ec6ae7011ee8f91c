"""Cutting a replica's batch into parts whose gradients are summed before the one update."""

import tensorflow as tf


def row_count(batch):
    """How many examples a batch has: an int where it is known, else an int32 tensor."""
    first = tf.nest.flatten(batch)[0]
    return tf.shape(first)[0] if first.shape[0] is None else first.shape[0]


def pad_rows(batch, parts):
    """Adds rows of zeros, at least to one row a part and to equal parts.

    Weights are among what is padded, so the new rows count for nothing. The last batch of an epoch
    can be short, and then a replica may even have no row at all.

    Args:
        batch: nested structure of tensors, (rows, ...).
        parts: int, how many parts the rows shall make.

    Returns:
        A tuple of the structure with its rows, and the number of rows a part.
    """
    rows = row_count(batch)
    if isinstance(rows, int) and rows and rows % parts == 0:
        return batch, rows // parts
    part_rows = tf.maximum((rows + parts - 1) // parts, 1)
    missing = part_rows * parts - rows

    def pad(value):
        return tf.pad(value, [[0, missing]] + [[0, 0]] * (value.shape.rank - 1))

    return tf.nest.map_structure(pad, batch), part_rows


def sum_over_parts(function, batch, parts, variables, num_scores):
    """Sums gradients and scores over the parts of a batch, one part at a time in memory.

    Args:
        function: takes a part of `batch` and returns a tuple of the gradients of `variables` (a list,
            None where there is none) and a float32 tensor of scores, (num_scores,).
        batch: nested structure of tensors, (rows, ...).
        parts: int, 1 and more.
        variables: list of `keras.Variable`.
        num_scores: int.

    Returns:
        A tuple of the sums as `function` returns them, with dense gradients.
    """
    batch, part_rows = pad_rows(batch, parts)
    if parts == 1:
        gradients, scores = function(batch)
        return [None if g is None else tf.convert_to_tensor(g) for g in gradients], scores
    batch = tf.nest.map_structure(lambda value: _in_parts(value, parts, part_rows), batch)
    unused = []

    def body(i, gradients, scores):
        part = tf.nest.map_structure(lambda value: value[i], batch)
        more, more_scores = function(part)
        unused[:] = [gradient is None for gradient in more]
        gradients = [_add(total, gradient) for total, gradient in zip(gradients, more, strict=True)]
        return i + 1, gradients, scores + more_scores

    # Sums in float32, whatever the variables are.
    zeros = [tf.zeros(variable.shape) for variable in variables]
    # A loop and not parts side by side: TensorFlow would run those at once, and hold all of them.
    _, gradients, scores = tf.while_loop(
        lambda i, *_: i < parts,
        body,
        (tf.constant(0), zeros, tf.zeros(num_scores)),
        parallel_iterations=1,
    )
    return [None if no else gradient for gradient, no in zip(gradients, unused, strict=True)], scores


def _in_parts(value, parts, part_rows):
    """(rows, ...) as (parts, rows a part, ...): XLA can take a part of a known size only."""
    return tf.reshape(value, tf.concat([[parts, part_rows], tf.shape(value)[1:]], axis=0))


def _add(total, gradient):
    if gradient is None:
        return total
    if isinstance(gradient, tf.IndexedSlices):
        values = tf.cast(gradient.values, total.dtype)
        return tf.tensor_scatter_nd_add(total, gradient.indices[:, None], values)
    return total + tf.cast(gradient, total.dtype)
