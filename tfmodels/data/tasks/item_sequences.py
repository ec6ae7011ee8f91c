"""Sequences of items, such as what somebody bought, for recommending the next (Kang & McAuley 2018)."""

from tfmodels.data.examples import Examples
from tfmodels.data.ragged import Ragged
from tfmodels.data.tokens import check_distinct, where


def item_sequences(sequences, length, items=None, score="all"):
    """Sequences of items for a decoder: each item predicts the next. Id 0 is padding, the first item 1.

    Args:
        sequences: list of lists of items, str or int, oldest first. Those of fewer than two items have
            nothing to predict and are left out.
        length: int, tokens a row; of a longer sequence the newest are kept.
        items: list of the items in the order of their ids, such as the training data's
            `examples.labels`; None: those of these sequences, sorted.
        score: "all": every item but the first is a target; "last": the last alone, for evaluation
            on what training has not seen.

    Returns:
        `Examples` of x, a dict of `token_ids`; y, int32 (length,), the next items; and sample_weight.
        `labels` are the items; a model needs `vocabulary_size=len(examples.labels) + 1`.

    Raises:
        ValueError: there are no sequences, or an item is none of items.
    """
    if score not in ("all", "last"):
        raise ValueError(f'score must be "all" or "last". Received: score={score!r}.')
    if length < 1 or not len(sequences):
        raise ValueError(
            "There must be sequences and a length of at least 1. "
            f"Received: {len(sequences)}, length={length}."
        )
    known = _sorted_items(sequences) if items is None else list(items)
    check_distinct(known, "items")
    ids = {item: i for i, item in enumerate(known, 1)}
    rows = []
    for i, sequence in enumerate(sequences):
        unknown = [item for item in sequence if item not in ids]
        if unknown:
            raise ValueError(
                f"{where(sequences, i)}: unknown item. Received: {unknown[0]!r}. Known: {len(known)} others."
            )
        if len(sequence) > 1:
            rows.append([ids[item] for item in sequence[-length - 1 :]])
    whole = Ragged.from_rows(rows)
    x = whole.first(whole.lengths - 1)
    y = Ragged.from_rows(row[1:] for row in rows)
    weight = x.filled(score == "all", bool)
    weight.values[weight.begins + weight.lengths - 1] = True
    examples = Examples.from_ragged(
        {"padding_mask": {"x/token_ids": x, "y": y, "sample_weight": weight}},
        left_out=len(sequences) - len(rows),
    )
    examples.labels = known
    return examples


def _sorted_items(sequences):
    """The distinct items, all strings or all numbers."""
    kinds = set()
    for i, sequence in enumerate(sequences):
        kinds.update(isinstance(item, str) for item in sequence)
        if len(kinds) > 1:
            raise ValueError(
                f"{where(sequences, i)}: items must be all strings or all ints. Received: {sequence!r:.200}."
            )
    return sorted({item for sequence in sequences for item in sequence})
