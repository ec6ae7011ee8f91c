"""Numbers of examples to one padded or packed batch."""

import numpy as np


def assemble(examples, numbers, row_of, rows, widths=None, epoch=0):
    """A batch of the given examples.

    Args:
        examples: an `Examples`.
        numbers: int array, (n,), which examples; those of a row stand together, in their order.
        row_of: int array, (n,), ascending, the row of each.
        rows: int, rows of the batch; those without an example are padding.
        widths: dict of axis to the length of its rows; None: that of the longest.
        epoch: int, for values that are drawn anew each epoch.

    Returns:
        Dict of name to array, (rows, width) along an axis, else (rows, ...), with padding masks, in
        which the k-th example of a row has the number k, and sample weights, 0 at padding.
    """
    fetched = examples.fetch(numbers, epoch)
    first = np.searchsorted(row_of, row_of)  # the place of the first example of each one's row
    rank = np.arange(len(row_of)) - first  # (n,) 0 for the first of its row
    batch, at = {}, {}
    for axis in examples.axes:
        lengths = examples.lengths[axis][numbers]
        before = np.cumsum(lengths) - lengths
        offset = before - before[first]
        width = widths[axis] if widths else int((offset + lengths).max(initial=0 if len(numbers) else 1))
        # Where each token stands in the flattened (rows, width).
        at[axis] = np.repeat(row_of * width + offset - before, lengths) + np.arange(lengths.sum())
        batch[f"x/{axis}"] = _placed(np.repeat(rank + 1, lengths), at[axis], (rows, width), 0, np.int32)
    for name, field in examples.fields.items():
        if field.axis is None:
            values = np.full((rows, *field.shape), field.pad, field.dtype)
            values[row_of] = fetched[name]
        else:
            shape = batch[f"x/{field.axis}"].shape
            values = _placed(fetched[name], at[field.axis], shape, field.pad, field.dtype)
        batch[name] = values
    for name in [name for name in batch if name.split("/")[0] == "y"]:
        weight = name.replace("y", "sample_weight", 1)
        axis = examples.fields[name].axis
        if weight in batch:
            continue
        if axis is None:
            batch[weight] = np.zeros(rows, np.float32)
            batch[weight][row_of] = 1
        else:
            batch[weight] = (batch[f"x/{axis}"] != 0).astype(np.float32)
    return batch


def _placed(values, at, shape, pad, dtype):
    flat = np.full(shape[0] * shape[1], pad, dtype)
    flat[at] = values
    return flat.reshape(shape)


def nested(batch, row=None):
    """Named parts to (x, y, sample_weight), each an array or a dict of arrays."""
    parts = {"x": {}, "y": {}, "sample_weight": {}}
    for name, values in batch.items():
        part, _, key = name.partition("/")
        values = values if row is None else values[row]
        if key:
            parts[part][key] = values
        else:
            parts[part] = values
    return tuple(parts.values())
