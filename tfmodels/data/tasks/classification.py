"""Texts, or pairs of texts, with one label each."""

import numbers

import numpy as np

from tfmodels.data.examples import Examples
from tfmodels.data.tokens import check_distinct, check_texts, encode, padding_id, where


def classification(texts, labels, tokenizer, pairs=None, label_names=None, max_length=512):
    """Texts, or pairs of texts, with a label or a number each.

    Args:
        texts: list of str.
        labels: list of as many str or int labels, or of numbers for regression, of which one at least is a
            float.
        tokenizer: has `encode` and its `pad_id`.
        pairs: list of str, the second texts; None: there are none.
        label_names: list of the labels in the order of their ids, such as the training data's
            `examples.labels`; None: those of these examples, sorted.
        max_length: int, tokens with special ones; longer rows are cut at their end, of a pair the longer
            text first.

    Returns:
        `Examples` of x, a dict of `token_ids` and, if the tokenizer has them, `segment_ids`; and y, ()
        int32, or float32 for numbers.

    Raises:
        ValueError: there are no texts or not as many labels, or a label is none of label_names,
            or these have one twice.
    """
    texts = check_texts(texts)
    pairs = None if pairs is None else check_texts(pairs)
    for name, column in (("labels", labels), ("pairs", pairs)):
        if column is not None and len(column) != len(texts):
            raise ValueError(
                f"There must be as many {name} as texts. Received: {len(column)} and {len(texts)}."
            )
    if _are_numbers(labels):
        names, y = None, _finite(labels)
    else:
        names, y = label_ids(labels, label_names)
    x = encode(tokenizer, texts, pairs, max_length)
    examples = Examples.from_ragged({"padding_mask": x}, pad={"x/token_ids": padding_id(tokenizer)}, y=y)
    examples.labels = names
    return examples


def label_ids(labels, names=None):
    """Labels to ids.

    Args:
        labels: list of str or int.
        names: list of the labels in the order of their ids; None: the distinct ones, sorted.

    Returns:
        A tuple of the list of names and an int32 array, (labels,).
    """
    for i, label in enumerate(labels):
        if not isinstance(label, str | numbers.Integral) or label == "":
            raise ValueError(f"{where(labels, i)}: a label must be a string or an int. Received: {label!r}.")
    if names is None:
        if len({isinstance(label, str) for label in labels}) > 1:
            raise ValueError("Labels must be all strings or all ints. Received: both.")
        names = sorted(set(labels))
    names = list(names)
    check_distinct(names, "label_names")
    ids = {name: i for i, name in enumerate(names)}
    for i, label in enumerate(labels):
        if label not in ids:
            known = ", ".join(map(str, names[:20]))
            raise ValueError(f"{where(labels, i)}: unknown label. Received: {label!r}. Known: {known}.")
    return names, np.array([ids[label] for label in labels], np.int32)


def _are_numbers(labels):
    """Whether labels are numbers for regression: some of them floats, and the others may be ints."""
    some = any(isinstance(label, float | np.floating) for label in labels)
    return some and all(isinstance(x, numbers.Real) and not isinstance(x, bool) for x in labels)


def _finite(labels):
    y = np.array(labels, np.float32)
    if not np.isfinite(y).all():
        i = int(np.isfinite(y).argmin())
        raise ValueError(f"{where(labels, i)}: a number must be finite. Received: {labels[i]!r}.")
    return y
