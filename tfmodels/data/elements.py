"""Elements of any iterable, such as a tf.data.Dataset's, to examples in memory."""

import numpy as np

from tfmodels.data.examples import Examples
from tfmodels.data.ragged import Ragged


def examples_from_elements(elements):
    """Reads (x, y, sample_weight) or (x, y) elements, one example each.

    Args:
        elements: iterable; x a dict of int parts, (length,), each "..._ids" with its "...padding_mask" or
            without one (all are real); y and sample_weight of a length of x's, or one value an example.

    Returns:
        An `Examples`.

    Raises:
        ValueError: an element is not of this form, or not like the first.
    """
    columns = {}
    for i, element in enumerate(elements):
        parts = _parts(element, i)
        if i and set(parts) != set(columns):
            raise ValueError(
                f"All elements must have the same parts. Received: {sorted(parts)} in number {i}, "
                f"{sorted(columns)} in the first."
            )
        for name, value in parts.items():
            columns.setdefault(name, []).append(value)
    if not columns:
        raise ValueError("There must be at least one example. Received: none.")
    masks = [name for name in columns if name.endswith("padding_mask")]
    axes = {}
    for name in masks:
        if not all(mask.all() for mask in columns[name]):
            raise ValueError(f"Examples must come without padding: Reader pads. Received: 0 in {name}.")
        axes[name.removeprefix("x/")] = {}
    dense = {}
    for name, rows in columns.items():
        if name in masks:
            continue
        if rows[0].ndim == 0:
            dense[name] = np.stack(rows)
        else:
            axis = _axis(name, axes)
            axes.setdefault(axis, {})[name] = Ragged.from_rows(rows, rows[0].dtype)
    return Examples.from_ragged(axes, **dense)


def _axis(name, axes):
    """The mask that a part runs along: an encoder's for what begins so, the decoder's for targets."""
    if name.startswith("x/encoder_"):
        return "encoder_padding_mask"
    if name.startswith("x/decoder_") or "decoder_padding_mask" in axes:
        return "decoder_padding_mask"
    return "padding_mask"


def _parts(element, i):
    if not isinstance(element, tuple) or len(element) not in (2, 3) or not isinstance(element[0], dict):
        raise ValueError(
            "An element must be (x, y) or (x, y, sample_weight) with x a dict of the model's inputs. "
            f"Received: {type(element).__name__} as number {i}."
        )
    parts = {f"x/{name}": np.asarray(value) for name, value in element[0].items()}
    parts["y"] = np.asarray(element[1])
    if len(element) == 3:
        parts["sample_weight"] = np.asarray(element[2])
    for name, value in parts.items():
        if value.dtype.kind not in "biuf":
            raise ValueError(
                f"{name} must be an array of numbers. Received: {value.tolist()!r:.200} in number {i}. "
                "Give the Examples of a task as they are, not as a list."
            )
    return {name: v.astype(np.float32 if v.dtype.kind == "f" else np.int32) for name, v in parts.items()}
